"""What a Pod's relay adds to requests of programs that know no tokens, and where that cannot be promised."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from quarterdeck.controllers.workload import pod_trouble
from quarterdeck.errors import Denied
from quarterdeck.node.egress import EgressProxy
from quarterdeck.node.environment import SandboxUnavailable
from quarterdeck.node.images.spec import ImageSpec
from quarterdeck.node.runtime import Runtime
from quarterdeck.node.sandbox.isolation import Sandbox
from quarterdeck.node.services import takes_token
from quarterdeck.node.starter import Starter
from quarterdeck.node.workload_token import read_token, token_reader, with_token
from quarterdeck.wire.http import Exchange, Server

CONTROL_PLANE = "kagent-controller.quarterdeck-system"


def pod(wants: bool = True, audience: str = "quarterdeck") -> dict[str, Any]:
    source = {"serviceAccountToken": {"audience": audience, "path": "quarterdeck-token"}}
    annotations = {"quarterdeck.dev/workload-token": "true"} if wants else {}
    return {
        "metadata": {"name": "p", "namespace": "n", "uid": "u", "annotations": annotations},
        "spec": {"volumes": [{"name": "data", "emptyDir": {}}, {"name": "tokens", "projected": {"sources": [source]}}]},
    }


@pytest.fixture
def volumes(tmp_path: Path) -> Path:
    """As the node writes them: names are symlinks to what is current."""
    tokens = tmp_path / "volumes" / "tokens"
    (tokens / "..1").mkdir(parents=True)
    (tokens / "..1" / "quarterdeck-token").write_text("aaa.bbb.ccc\n")
    (tokens / "..data").symlink_to("..1")
    (tokens / "quarterdeck-token").symlink_to("..data/quarterdeck-token")
    return tmp_path / "volumes"


def test_the_token_is_that_of_the_pods_volume_as_it_is_now(volumes: Path) -> None:
    read = token_reader(pod(), volumes)
    assert read is not None and read() == "aaa.bbb.ccc"
    (volumes / "tokens" / "..1" / "quarterdeck-token").write_text("ddd.eee.fff")
    assert read() == "ddd.eee.fff"
    assert token_reader(pod(wants=False), volumes) is None
    assert token_reader(pod(audience="vault"), volumes) is None


@pytest.mark.parametrize("text", ["", "a\r\nX-Admin: yes", "two words", "ü"])
def test_what_is_no_token_is_not_sent(volumes: Path, text: str) -> None:
    (volumes / "tokens" / "..1" / "quarterdeck-token").write_text(text)
    assert read_token(volumes / "tokens", "quarterdeck-token") == ""


def test_a_container_cannot_have_other_files_read(volumes: Path, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("not-for-you")
    link = volumes / "tokens" / "quarterdeck-token"
    link.unlink()
    link.symlink_to(tmp_path / "secret")
    assert read_token(volumes / "tokens", "quarterdeck-token") == ""
    link.unlink()
    link.symlink_to(link)
    assert read_token(volumes / "tokens", "quarterdeck-token") == ""


def test_another_credential_makes_way() -> None:
    head = b"POST /x HTTP/1.1\r\nHost: h\r\nauthorization: Bearer sk-1\r\nAUTHORIZATION: Basic x\r\nX: y\r\n\r\n"
    assert with_token(head, "t") == b"POST /x HTTP/1.1\r\nHost: h\r\nX: y\r\nAuthorization: Bearer t\r\n\r\n"


def test_who_gets_the_token() -> None:
    system = "quarterdeck-system"
    assert all(takes_token(f"{name}.{system}{end}") for name in ("quarterdeck-gateway", "kagent-controller")
               for end in ("", ".svc", ".svc.cluster.local"))  # fmt: skip
    others = ("kubernetes.default", f"other.{system}", "quarterdeck-gateway.team", "github.com", "127.0.0.1", "")
    assert not any(takes_token(host) for host in others)


class Peer:
    def __init__(self) -> None:
        self.seen: list[Exchange] = []
        self.port = 0

    def handle(self, exchange: Exchange) -> None:
        self.seen.append(exchange)
        exchange.respond(200, b"ok")


@pytest.fixture
async def peer() -> AsyncIterator[Peer]:
    peer = Peer()
    server = Server(peer.handle)
    _, peer.port = await server.listen("127.0.0.1", 0)
    yield peer
    await server.stop(0)


async def ask(door: Path, host: str) -> bytes:
    reader, writer = await asyncio.open_unix_connection(str(door))
    writer.write(f"GET http://{host}/api/me HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer own\r\n\r\n".encode())
    answer = await asyncio.wait_for(reader.read(), 60)
    writer.close()
    return answer


async def test_the_relay_puts_it_on_what_goes_to_us(tmp_path: Path, volumes: Path, peer: Peer) -> None:
    async def resolve(host: str, port: int) -> list[tuple[str, int]]:
        if host == "denied.default":
            raise Denied("no", "service-not-gateway")
        return [("127.0.0.1", peer.port)]

    proxy = EgressProxy(resolve)
    await proxy.open(tmp_path / "a", "n/a", "", token_reader(pod(), volumes))
    await proxy.open(tmp_path / "b", "n/b", "")
    for door, host, expected in (
        ("a", f"{CONTROL_PLANE}:8083", b"Bearer aaa.bbb.ccc"),
        ("a", "somewhere.else:80", b"Bearer own"),
        ("b", f"{CONTROL_PLANE}:8083", b"Bearer own"),
    ):
        assert (await ask(tmp_path / door, host)).startswith(b"HTTP/1.1 200"), host
        assert [v for k, v in peer.seen[-1].headers if k == b"authorization"] == [expected], (door, host)
    assert (await ask(tmp_path / "a", "denied.default:80")).startswith(b"HTTP/1.1 403")
    assert len(peer.seen) == 3
    for door in ("a", "b"):
        await proxy.close(tmp_path / door)


@pytest.mark.parametrize(
    ("level", "network", "image", "wants", "runs"),
    [
        ("bwrap", True, ImageSpec(), True, True),
        ("bwrap", False, ImageSpec(), True, False),
        ("landlock", False, ImageSpec(), True, False),
        ("rlimits", False, ImageSpec(), True, False),
        ("landlock", False, ImageSpec(), False, True),
        ("landlock", False, ImageSpec(own=True), True, True),
    ],
)
def test_without_namespaces_such_an_image_is_not_started(
    level: Any, network: bool, image: ImageSpec, wants: bool, runs: bool
) -> None:
    runtime = cast(Runtime, SimpleNamespace(sandbox=Sandbox(level, None, network=network)))
    starter = Starter(runtime, cast(Any, None), cast(Any, None))
    if runs:
        starter.check_sandbox(pod(wants), image)
        return
    with pytest.raises(SandboxUnavailable, match="/config and /var/run/secrets/tokens") as found:
        starter.check_sandbox(pod(wants), image)
    assert found.value.reason == "SandboxUnavailable" and "install" in str(found.value)


def test_the_agent_says_why() -> None:
    waiting = {"reason": "SandboxUnavailable", "message": "install bubblewrap"}
    found = pod_trouble(pod() | {"status": {"containerStatuses": [{"name": "kagent", "state": {"waiting": waiting}}]}})
    assert found == ("SandboxUnavailable", "container kagent: install bubblewrap")
