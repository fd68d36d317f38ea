"""Logs, volumes and environment: what a container reads, and what is kept of what it writes."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import pytest

from quarterdeck.errors import NotFound
from quarterdeck.kube.resource import Object, Resource
from quarterdeck.node.environment import ConfigurationError, NodeFacts, environment, expand, field_value, resource_value
from quarterdeck.node.logs import MAX_BYTES, LogFile, LogOptions, read_lines, stream
from quarterdeck.node.volumes import VolumeError, sub_path, volume_files, write_files

FACTS = NodeFacts("10.244.0.9", "127.0.0.1", 4.0, 1 << 30)
LABELS = {"b": 'x"y', "a": "1"}
POD: Object = {
    "metadata": {"name": "p", "namespace": "d", "uid": "u", "labels": LABELS, "annotations": {"k/z": "v"}},
    "spec": {"nodeName": "n", "serviceAccountName": "sa", "containers": []},
}  # fmt: skip
OBJECTS = {
    "c": {"kind": "ConfigMap", "data": {"one": "1", "two words": "2"}, "binaryData": {"bin": "/w=="}},
    "s": {"kind": "Secret", "type": "Opaque", "data": {"key": base64.b64encode(b"hidden").decode()}},
}  # fmt: skip


async def fetch(res: Resource, name: str) -> Object:
    del res
    if name not in OBJECTS:
        raise NotFound("no")
    return OBJECTS[name]


async def token(audience: str, seconds: int) -> str:
    return f"{audience}/{seconds}"


# -- logs
def grow(log: LogFile, text: str, at: float, known: int) -> int:
    log.path.parent.mkdir(exist_ok=True)
    with log.path.open("a") as file:
        file.write(text)
    return log.note(at, known)


def test_since_tail_and_timestamps(tmp_path: Path) -> None:
    log = LogFile(tmp_path / "1.log")
    known = grow(log, "a\nb\n", 1000.0, 0)
    grow(log, "c\n", 2000.25, known)
    assert read_lines(log, LogOptions(since=1500.0), 3000.0) == [b"c\n"]
    assert read_lines(log, LogOptions(tail=2), 3000.0) == [b"b\n", b"c\n"]
    assert read_lines(log, LogOptions(tail=0), 3000.0) == []
    assert read_lines(log, LogOptions(tail=1, timestamps=True), 3000.0) == [b"1970-01-01T00:33:20.250000000Z c\n"]


def test_rotation_keeps_the_last_part_and_its_times(tmp_path: Path) -> None:
    log = LogFile(tmp_path / "1.log")
    known = grow(log, "x" * MAX_BYTES + "\n", 1000.0, 0)
    assert known == 0
    grow(log, "new\n", 2000.0, known)
    assert [len(line) for line in read_lines(log, LogOptions(), 3000.0)] == [MAX_BYTES + 1, 4]
    assert read_lines(log, LogOptions(since=1500.0), 3000.0) == [b"new\n"]


async def test_follow_gives_each_line_once_also_across_rotation(tmp_path: Path) -> None:
    log = LogFile(tmp_path / "1.log")
    grow(log, "first\n", 1.0, 0)
    steps = iter(["second\n", "", "rotate", "third\n", ""])

    async def grown() -> bool:
        step = next(steps)
        if step == "rotate":
            log.path.write_text("")
        else:
            grow(log, step, 2.0, 0)
        return step != "third\n"

    pieces = [piece async for piece in stream(log, LogOptions(follow=True), lambda: 3.0, grown)]
    assert b"".join(pieces) == b"first\nsecond\nthird\n"


async def test_limit_bytes_ends_a_follow(tmp_path: Path) -> None:
    log = LogFile(tmp_path / "1.log")
    grow(log, "0123456789", 1.0, 0)

    async def grown() -> bool:
        raise AssertionError("the limit was reached before")

    options = LogOptions(follow=True, limit_bytes=4)
    assert [p async for p in stream(log, options, lambda: 1.0, grown)] == [b"0123"]


# -- volumes
async def files(**volume: Any) -> dict[str, tuple[bytes, int]]:
    return await volume_files(POD, {"name": "v", **volume}, FACTS, fetch, token)


async def test_items_modes_and_optional() -> None:
    item = {"key": "one", "path": "dir/1", "mode": 0o400}
    assert await files(configMap={"name": "c", "items": [item]}) == {"dir/1": (b"1", 0o400)}
    assert (await files(configMap={"name": "c", "defaultMode": 0o600}))["bin"] == (b"\xff", 0o600)
    assert await files(secret={"secretName": "s"}) == {"key": (b"hidden", 0o644)}
    assert await files(secret={"secretName": "none", "optional": True}) == {}
    with pytest.raises(VolumeError, match='configmap "none" not found'):
        await files(configMap={"name": "none"})
    with pytest.raises(VolumeError, match="references non-existent key: zz"):
        await files(configMap={"name": "c", "items": [{"key": "zz", "path": "z"}]})
    with pytest.raises(VolumeError, match="must stay inside"):
        await files(configMap={"name": "c", "items": [{"key": "one", "path": "../z"}]})


async def test_projected_sources_share_one_directory() -> None:
    sources = [
        {"serviceAccountToken": {"path": "token", "audience": "q", "expirationSeconds": 700}},
        {"configMap": {"name": "c", "items": [{"key": "one", "path": "one"}]}},
        {"downwardAPI": {"items": [{"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}}]}},
    ]
    found = await files(projected={"sources": sources})
    assert found == {"token": (b"q/700", 0o600), "one": (b"1", 0o644), "labels": (b'a="1"\nb="x\\"y"', 0o644)}


def test_update_is_atomic_and_keeps_paths(tmp_path: Path) -> None:
    root = tmp_path / "v"
    assert write_files(root, {"a": (b"1", 0o644), "d/b": (b"2", 0o600)})
    before = (root / "..data").readlink()
    assert not write_files(root, {"a": (b"1", 0o644), "d/b": (b"2", 0o600)}), "nothing changed, nothing written"
    assert write_files(root, {"a": (b"9", 0o644)})
    assert ((root / "a").read_bytes(), (root / "d").exists()) == (b"9", False)
    assert not (root / before).exists()


def test_sub_path_stays_inside(tmp_path: Path) -> None:
    assert sub_path(tmp_path, "new/dir").is_dir()
    (tmp_path / "out").symlink_to("/")
    for bad in ("../x", "/etc", "out/etc"):
        with pytest.raises(VolumeError):
            sub_path(tmp_path, bad)


# -- environment
@pytest.mark.parametrize(
    ("text", "result"),
    [
        ("$(A)-$(B)", "1-$(B)"), ("$$(A)", "$(A)"), ("$A", "$A"), ("$(A", "$(A"), ("$$$(A)", "$1"), ("", ""),
    ],
)  # fmt: skip
def test_expand(text: str, result: str) -> None:
    assert expand(text, {"A": "1"}) == result


async def test_environment_in_kubelets_order() -> None:
    container = {
        "name": "m",
        "envFrom": [{"configMapRef": {"name": "c"}, "prefix": "P_"}, {"secretRef": {"name": "none", "optional": True}}],
        "env": [
            {"name": "A", "value": "$(P_one)$(BASE)"},
            {"name": "B", "value": "$(A)!"},
            {"name": "S", "valueFrom": {"secretKeyRef": {"name": "s", "key": "key"}}},
            {"name": "O", "valueFrom": {"configMapKeyRef": {"name": "c", "key": "zz", "optional": True}}},
            {"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
        ],
    }
    env = await environment(POD, container, FACTS, fetch, {"BASE": "b"})
    expected = {"BASE": "b", "P_one": "1", "A": "1b", "B": "1b!", "S": "hidden", "IP": "10.244.0.9"}
    assert env == expected, "a key that is no variable name is left out"


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ({"secretKeyRef": {"name": "none", "key": "k"}}, 'secret "none" not found'),
        ({"configMapKeyRef": {"name": "c", "key": "zz"}}, "couldn't find key zz in ConfigMap d/c"),
        ({"fieldRef": {"fieldPath": "spec.hope"}}, "not a field of the downward API"),
    ],
)
async def test_missing_configuration_is_named(source: Object, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        await environment(POD, {"name": "m", "env": [{"name": "X", "valueFrom": source}]}, FACTS, fetch, {})


def test_downward_values() -> None:
    assert field_value(POD, "metadata.annotations['k/z']", FACTS) == "v"
    limited = {"name": "m", "resources": {"limits": {"memory": "1Gi"}, "requests": {"cpu": "250m"}}}
    assert resource_value(POD, limited, {"resource": "limits.memory", "divisor": "1Mi"}, FACTS) == "1024"
    assert resource_value(POD, limited, {"resource": "requests.cpu", "divisor": "1m"}, FACTS) == "250"
    assert resource_value(POD, limited, {"resource": "requests.cpu"}, FACTS) == "1", "rounded up"
    assert resource_value(POD, limited, {"resource": "limits.cpu"}, FACTS) == "4", "no limit is the node's capacity"
