"""Command lines for container engines, and how an engine is found (scripts stand in for engines here)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from quarterdeck.node.cgroups import Limits
from quarterdeck.node.environment import ConfigurationError
from quarterdeck.node.foreign import EGRESS, Foreign, engine_of, exec_line, foreign
from quarterdeck.node.images.engine import Engines, ensure, names_of, policy_of
from quarterdeck.node.images.spec import Engine, ImageNotRunnable, ImageSpec
from quarterdeck.node.images.store import ImageStore
from quarterdeck.node.sandbox.isolation import Mount
from quarterdeck.node.security import security_of

PODMAN = Engine("podman", "/usr/bin/podman")
IMAGE = ImageSpec(digest="sha256:1", engine=PODMAN, reference="docker.io/library/app:1")


def made(container: dict[str, Any] | None = None, **more: Any) -> Foreign:
    meta = {"name": "p", "namespace": "team", "uid": "u", "annotations": more.pop("annotations", {})}
    pod = {"metadata": meta, "spec": more.pop("spec", {})}
    given: dict[str, Any] = {
        "command": [], "args": [], "env": {"TOKEN": "secret"}, "mounts": [], "limits": Limits(0, 0.0, 10), "ports": [],
        "pod_ip": "127.9.0.1",
    }  # fmt: skip
    main, image = {"name": "main"} | (container or {}), more.pop("image", IMAGE)
    return foreign(pod, main, image, security=security_of(pod, main, image), **(given | more))


def line(*args: Any, **more: Any) -> str:
    return " ".join(made(*args, **more).line("qd-u-main-1", Path("/d/env")))


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ({"command": ["/app", "a"], "args": ["b"]}, "--entrypoint /app docker.io/library/app:1 a b"),
        ({"args": ["b"]}, "no-new-privileges docker.io/library/app:1 b"),
        ({"limits": Limits(1 << 20, 0.5, 10)}, "--memory 1048576 --cpus 0.5"),
        ({"spec": {"securityContext": {"runAsUser": 7}}}, "--user 7 "),
        ({"spec": {"securityContext": {"runAsUser": 7, "runAsGroup": 8}}}, "--user 7:8"),
        ({"spec": {"securityContext": {"fsGroup": 9, "supplementalGroups": [10]}}}, "--group-add 9 --group-add 10"),
        ({"volumes_gid": 12}, "--group-add 12"),
        ({"container": {"securityContext": {"seccompProfile": {"type": "Unconfined"}}}}, "seccomp=unconfined"),
        ({"container": {"securityContext": {"capabilities": {"add": ["CAP_NET_RAW"]}}}}, "=ALL --cap-add=NET_RAW"),
        ({"container": {"securityContext": {"readOnlyRootFilesystem": True}}}, "--read-only"),
        ({"container": {"workingDir": "/w"}}, "--workdir /w"),
        ({"mounts": [Mount("/h", "/in", True), Mount("/x", "/y")]}, "-v /h:/in:ro -v /x:/y"),
        ({"ports": [80, 81]}, "-p 127.9.0.1:80:80 -p 127.9.0.1:81:81"),
        ({}, "--network none"),
        ({"ports": [80], "spec": {"hostNetwork": True}}, "--network host"),
        ({}, "run --rm -i --name qd-u-main-1 --label quarterdeck.dev/run=qd-u-main-1 --env-file /d/env"),
        ({}, "--cap-drop=ALL --security-opt no-new-privileges"),
        ({}, "--label quarterdeck.dev/pod-uid=u"),
    ],
)
def test_options(more: dict[str, Any], expected: str) -> None:
    shown = line(**more)
    assert expected in shown
    assert "secret" not in shown


def test_values_and_names_of_a_pod_stay_out_of_the_clients_environment(tmp_path: Path) -> None:
    run = made(env={"TOKEN": "secret", "LD_PRELOAD": "/evil.so"})
    argv = run.write(tmp_path, "r")
    assert (tmp_path / "engine.env").read_text() == "TOKEN=secret\nLD_PRELOAD=/evil.so\n"
    assert (tmp_path / "engine.env").stat().st_mode & 0o777 == 0o600
    assert not {"TOKEN", "LD_PRELOAD"} & set(run.instructions(argv, [])["env"])


def test_what_cannot_be_told_to_an_engine_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="PEM has several lines"):
        made(env={"PEM": "a\nb"})
    with pytest.raises(ConfigurationError, match="colon"):
        made(mounts=[Mount("/a:b", "/c")])
    with pytest.raises(ConfigurationError, match="cannot be kept"):
        made(ports=[80], annotations={EGRESS: "none"})


def test_a_bridge_starts_a_container_for_each_session(tmp_path: Path) -> None:
    config = {"listen": {"port": 3000}, "command": "serve", "args": ["x"]}
    run = made(bridge=config, command=["/adapterbin/quarterdeck-bridge"], ports=[3000])
    argv = run.write(tmp_path, "r")
    assert argv[1:4] == ["-m", "quarterdeck.bridge", "--config"]
    told = Path(argv[4]).read_text()
    assert '"command": "/usr/bin/podman"' in told
    assert '"--entrypoint", "serve", "docker.io/library/app:1", "x"' in told
    assert "--name" not in told
    assert "-p" not in run.options
    with pytest.raises(OSError, match="one container for each session"):
        exec_line(run.confinement("r"), ["ls"], tty=False)
    assert "none" in made(bridge=config, ports=[3000], annotations={EGRESS: "none"}).options


def test_exec_and_records() -> None:
    confinement = made().confinement("r")
    assert exec_line(confinement, ["ls"], tty=True) == ["/usr/bin/podman", "exec", "-it", "r", "ls"]
    assert exec_line({"cwd": "/"}, ["ls"], tty=False) is None
    found = engine_of(confinement)
    assert found is not None
    assert (found.engine, found.run, found.bridge) == (PODMAN, "r", False)
    assert confinement["network"] == "podman container, no network"


@pytest.mark.parametrize(
    ("image", "names"),
    [
        ("app:1", ["docker.io/library/app:1", "localhost/app:1"]),
        ("team/app", ["docker.io/team/app", "localhost/team/app"]),
        ("ghcr.io/team/app", ["ghcr.io/team/app"]),
        ("localhost/app", ["localhost/app"]),
        ("reg:5000/app", ["reg:5000/app"]),
    ],
)
def test_names(image: str, names: list[str]) -> None:
    assert names_of(image) == names


@pytest.mark.parametrize(
    ("image", "policy"),
    [
        ("a", "Always"),
        ("a:latest", "Always"),
        ("a:1", "IfNotPresent"),
        ("r:5/a", "Always"),
        ("a@sha256:1", "IfNotPresent"),
    ],
)
def test_default_pull_policy(image: str, policy: str) -> None:
    assert policy_of(image, "") == policy
    assert policy_of(image, "Never") == "Never"


def script(path: Path, text: str) -> str:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return str(path)


async def test_an_engine_must_work_and_is_looked_for_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    script(tmp_path / "docker", "echo no daemon; exit 1")
    now = [0.0]
    engines = Engines(clock=lambda: now[0])
    assert await engines.find() is None
    podman = script(tmp_path / "podman", "exit 0")
    assert await engines.find() is None
    now[0] = 200.0
    assert await engines.find() == Engine("podman", podman)
    assert await Engines(()).find() is None


async def test_errors_of_a_pull_name_the_engines_last_lines(tmp_path: Path) -> None:
    failing = script(tmp_path / "e", "echo trying; echo manifest unknown >&2; exit 125")
    engine = Engine("podman", failing)
    for policy, waiting, text in (
        ("", "ErrImagePull", "podman pull docker.io/library/a:1: trying | manifest unknown"),
        ("Never", "ErrImageNeverPull", "not in podman's store"),
    ):
        with pytest.raises(ImageNotRunnable, match=text.replace("|", r"\|")) as raised:
            await ensure(engine, "a:1", policy)
        assert raised.value.waiting == waiting
    with pytest.raises(ImageNotRunnable) as raised:
        await ensure(engine, "--privileged", "Never")
    assert raised.value.waiting == "InvalidImageName"


async def test_without_engine_the_remedy_is_named(tmp_path: Path) -> None:
    with pytest.raises(ImageNotRunnable, match="install podman or docker") as raised:
        await ImageStore(tmp_path / "i").resolve("a:1", ["x"])
    assert raised.value.waiting == "ImageNotRunnable"
