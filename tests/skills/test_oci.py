"""Skills from a real registry: Debian's docker-registry on a loopback port."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from cli.test_push import HTPASSWD, PASSWORD, REGISTRY, USER
from cli.test_push import start as start_registry
from quarterdeck.errors import ConfigError, Denied, UpstreamError
from quarterdeck.oci.layout import CONFIG, INDEX, LAYER, MANIFEST, Layout
from quarterdeck.oci.reference import parse
from quarterdeck.oci.registry import Credentials, Registry
from quarterdeck.skills import oci
from quarterdeck.skills.sources import OciSource
from quarterdeck.skills.unpack import Target

from .conftest import skill_text
from .test_unpack import tarred

needs_registry = pytest.mark.skipif(REGISTRY is None, reason="no docker-registry: apt-get install docker-registry")


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    process, host = start_registry(tmp_path_factory.mktemp("registry"))
    yield host
    process.kill()
    process.wait()


async def put(
    host: str, name: str, *layers: bytes, kind: str = LAYER, credentials: Credentials | None = None, store: Path
) -> str:
    """An image in the registry; returns the manifest's digest."""
    layout = Layout(store)
    described = [layout.put_bytes(data, kind) for data in layers]
    config = {"os": "linux", "architecture": "s390x", "rootfs": {"type": "layers", "diff_ids": []}}
    blob = layout.put_bytes(json.dumps(config).encode(), CONFIG)
    manifest = {"schemaVersion": 2, "mediaType": MANIFEST, "config": blob, "layers": described}
    async with aiohttp.ClientSession() as session:
        target = Registry(session, host, credentials)
        for one in [blob, *described]:
            data = layout.blob_path(one["digest"]).read_bytes()
            await target.upload(name, one["digest"], data, len(data))
        return await target.put_manifest(name, "1", json.dumps(manifest).encode())


def packed(**files: str) -> bytes:
    return tarred(
        *((name, text, "755" if name.endswith("sh") else "") for name, text in files.items()), packed=True
    ).read()


async def fetch(image: str, tmp_path: Path, *logins: Path) -> tuple[str, Path]:
    out = tmp_path / "out"
    return await oci.fetch(OciSource(image), Target(out, image), logins), out


@needs_registry
async def test_layers_of_an_image(registry: str, tmp_path: Path) -> None:
    below = packed(**{"SKILL.md": skill_text("pdf"), "scripts/run.sh": "echo one", "old": "x"})
    digest = await put(registry, "team/pdf", below, packed(**{"scripts/run.sh": "echo two", ".wh.old": ""}),
                       store=tmp_path / "store")  # fmt: skip
    for name in (f"{registry}/team/pdf:1", f"{registry}/team/pdf@{digest}"):
        found, out = await fetch(name, tmp_path / name.replace("/", "_"))
        assert found == digest
        assert (out / "scripts/run.sh").read_text() == "echo two"
        assert not (out / "old").exists()


@needs_registry
async def test_a_list_of_images(registry: str, tmp_path: Path) -> None:
    digest = await put(registry, "team/many", packed(**{"SKILL.md": "x"}), store=tmp_path / "store")
    entries = [
        {"mediaType": MANIFEST, "digest": digest, "size": 1, "platform": {"os": "unknown", "architecture": "unknown"}},
        {"mediaType": MANIFEST, "digest": digest, "size": 1, "platform": {"os": "linux", "architecture": "s390x"}},
    ]
    async with aiohttp.ClientSession() as session:
        url = f"http://{registry}/v2/team/many/manifests/all"
        body = json.dumps({"schemaVersion": 2, "mediaType": INDEX, "manifests": entries})
        async with session.put(url, data=body, headers={"content-type": INDEX}) as response:
            assert response.status == 201, await response.text()
    _, out = await fetch(f"{registry}/team/many:all", tmp_path)
    assert (out / "SKILL.md").read_text() == "x"


@needs_registry
async def test_what_is_wrong_with_an_image_is_said(registry: str, tmp_path: Path) -> None:
    with pytest.raises(UpstreamError, match="HTTP 404"):
        await fetch(f"{registry}/team/none:1", tmp_path)
    await put(registry, "team/odd", b"x", kind="application/wasm", store=tmp_path / "store")
    with pytest.raises(ConfigError, match="a layer is application/wasm; build it with layers of tar"):
        await fetch(f"{registry}/team/odd:1", tmp_path)
    await put(registry, "team/evil", tarred(("../evil", "x", ""), packed=True).read(), store=tmp_path / "store")
    with pytest.raises(ConfigError, match="leads out of the skill's folder"):
        await fetch(f"{registry}/team/evil:1", tmp_path)
    with pytest.raises(ConfigError, match=r"skills\.refs: 'A B' is not an image reference"):
        await fetch("A B", tmp_path)


@needs_registry
async def test_a_login(tmp_path: Path) -> None:
    (tmp_path / "htpasswd").write_text(HTPASSWD + "\n")
    auth = f"auth: {{htpasswd: {{realm: r, path: {tmp_path}/htpasswd}}}}\n"
    process, host = start_registry(tmp_path, auth)
    try:
        await put(host, "team/pdf", packed(**{"SKILL.md": "x"}), store=tmp_path / "store",
                  credentials=Credentials(USER, PASSWORD))  # fmt: skip
        with pytest.raises(Denied):
            await fetch(f"{host}/team/pdf:1", tmp_path / "without")
        folder = login(tmp_path / "pull-0", host, {"auth": base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()})
        other = login(tmp_path / "pull-1", "elsewhere.example.com", {"username": "a", "password": "b"})
        _, out = await fetch(f"{host}/team/pdf:1", tmp_path, other, folder)
        assert (out / "SKILL.md").read_text() == "x"
    finally:
        process.kill()
        process.wait()


def login(folder: Path, host: str, entry: Any) -> Path:
    folder.mkdir()
    (folder / ".dockerconfigjson").write_text(json.dumps({"auths": {host: entry}}))
    return folder


def test_logins(tmp_path: Path) -> None:
    one = login(tmp_path / "a", "https://index.docker.io/v1/", {"username": "u", "password": "p"})
    assert oci.login([one], "") == Credentials("u", "p")
    assert oci.login([one], "example.com") is None
    (tmp_path / "b").mkdir()
    with pytest.raises(ConfigError, match=r"Secret b has no key \.dockerconfigjson"):
        oci.login([tmp_path / "b"], "example.com")
    (one / ".dockerconfigjson").write_text('{"auths": {"example.com": {"auth": "!!"}}}')
    with pytest.raises(ConfigError, match="is damaged"):
        oci.login([one], "example.com")


async def test_a_manifest_that_arrives_in_pieces(liar: str) -> None:
    """One of a megabyte is never read at once."""
    async with aiohttp.ClientSession() as session:
        found = Registry(session, liar)
        digest, manifest = await found.pinned("large", "1", ("linux", "amd64"))
        assert len(manifest["annotations"]["long"]) == 1 << 20
        assert (await found.pinned("large", digest, ("linux", "amd64")))[0] == digest
        for look in (found.pinned, found.manifest):
            with pytest.raises(UpstreamError, match="answered with more than 4194304 bytes"):
                await look("larger", "1", ("linux", "amd64"))


async def test_content_that_is_not_what_its_digest_says(tmp_path: Path, liar: str) -> None:
    pinned = f"{liar}/a@sha256:{'0' * 64}"
    with pytest.raises(UpstreamError, match="the registry answered with something else"):
        await fetch(pinned, tmp_path)
    with pytest.raises(UpstreamError, match="the registry sent a layer that is not sha256:1111"):
        await fetch(f"{liar}/a:1", tmp_path)
    for number in range(len(ODD)):
        with pytest.raises(UpstreamError, match="the registry's manifest is none"):
            await fetch(f"{liar}/odd:{number}", tmp_path)


ODD: list[Any] = [
    {"layers": ["x"]}, {"layers": [{"mediaType": LAYER, "size": "x"}]}, {"layers": [{"mediaType": LAYER}]},
    {"layers": 5}, {"manifests": [1]}, {"manifests": [{}]},
]  # fmt: skip


@pytest.fixture
async def liar() -> Any:
    """A registry that sends something else than it was asked for."""

    async def answer(request: web.Request) -> web.Response:
        if "/blobs/" in request.path:
            return web.Response(body=packed(**{"SKILL.md": "other"}))
        if "/odd/" in request.path:
            return web.json_response(ODD[int(request.path.rpartition("/")[2])])
        layer = {"mediaType": LAYER, "digest": f"sha256:{'1' * 64}", "size": 10}
        long = "x" * (8 << 20 if "/larger/" in request.path else 1 << 20 if "/large/" in request.path else 0)
        return web.json_response({"schemaVersion": 2, "layers": [layer], "annotations": {"long": long}})

    app = web.Application()
    app.router.add_get("/{path:.*}", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield f"127.0.0.1:{runner.addresses[0][1]}"
    await runner.cleanup()


async def test_docker_hub_is_never_spoken_to_without_tls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor shown a login so, when other registries need not prove who they are."""
    asked: list[bytes] = []

    async def proxy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(await reader.readline())
        writer.write(b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(proxy, "127.0.0.1", 0)
    for name in ("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
    async with server:
        with pytest.raises(UpstreamError):
            await oci.fetch(OciSource("team/pdf:1"), Target(tmp_path / "out", "x"), (), insecure=True)
    assert set(asked) == {b"CONNECT registry-1.docker.io:443 HTTP/1.1\r\n"}


def test_references_are_parsed() -> None:
    assert oci.reference(OciSource("ghcr.io/org/skill:v1")) == parse("ghcr.io/org/skill:v1")
