"""Pushing to a real registry: Debian's docker-registry on a loopback port."""

from __future__ import annotations

import base64
import gzip
import hashlib
import io
import json
import shutil
import socket
import subprocess
import tarfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from quarterdeck.errors import ConfigError, Denied, UsageError
from quarterdeck.oci.layout import CONFIG, LAYER, MANIFEST, Layout
from quarterdeck.oci.push import push
from quarterdeck.oci.reference import parse
from quarterdeck.oci.registry import Credentials, Registry, stored_credentials

REGISTRY = shutil.which("docker-registry")
USER, PASSWORD = "someone", "secret"
# bcrypt of PASSWORD, made with htpasswd -nB
HTPASSWD = "someone:$2b$05$gSqp1481L/Gio1kgIYJ6SeFEQE3TurcMwr.HsiTx6NEJRv2Q5pro2"

pytestmark = pytest.mark.skipif(REGISTRY is None, reason="no docker-registry: apt-get install docker-registry")


def start(folder: Path, auth: str = "") -> tuple[subprocess.Popen[bytes], str]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    config = folder / "config.yml"
    config.write_text(
        f"version: 0.1\nstorage: {{filesystem: {{rootdirectory: {folder}/data}}}}\n"
        f"http: {{addr: '127.0.0.1:{port}'}}\n{auth}"
    )
    process = subprocess.Popen([str(REGISTRY), "serve", str(config)], stderr=(folder / "log").open("wb"))
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return process, f"127.0.0.1:{port}"
        time.sleep(0.05)
    process.kill()
    raise AssertionError((folder / "log").read_text())


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[str]:
    process, host = start(tmp_path)
    yield host
    process.kill()
    process.wait()


def layer(name: str, text: str) -> tuple[bytes, str]:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        info = tarfile.TarInfo(name)
        info.size = len(text)
        archive.addfile(info, io.BytesIO(text.encode()))
    return gzip.compress(out.getvalue(), mtime=0), "sha256:" + hashlib.sha256(out.getvalue()).hexdigest()


def store_image(root: Path, name: str, settings: dict[str, Any], text: str) -> Layout:
    store = Layout(root)
    data, diff = layer(f"{text}.txt", text)
    rootfs = {"type": "layers", "diff_ids": [diff]}
    history = [{"created_by": text}]
    config = {"os": "linux", "architecture": "amd64", "config": settings, "rootfs": rootfs, "history": history}
    store.put_image(parse(name), config, [store.put_bytes(data, LAYER)])
    return store


OURS = {"Env": ["PATH=/app/bin:/usr/bin", "A=ours"], "Cmd": ["python", "x.py"], "WorkingDir": "/app",
        "Labels": {"dev.quarterdeck.python": "3.11"}}  # fmt: skip
BASE = {"Env": ["PATH=/usr/local/bin", "PYTHON_VERSION=3.11.9", "A=base"], "Entrypoint": ["/entry"]}


async def put_base(
    host: str, repository: str, store: Layout, name: str, credentials: Credentials | None = None
) -> None:
    """A base image in the registry, put there blob by blob."""
    image = store.find(parse(name))
    assert image is not None
    async with aiohttp.ClientSession() as session:
        target = Registry(session, host, credentials)
        for blob in [image.manifest["config"], *image.layers]:
            data = store.blob_path(blob["digest"]).read_bytes()
            await target.upload(repository, blob["digest"], data, len(data))
        await target.put_manifest(repository, "1", json.dumps(image.manifest).encode())


def fetch(url: str, **headers: str) -> Any:
    request = urllib.request.Request(url, headers={"Accept": MANIFEST, **headers})
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.loads(answer.read())


async def test_push_on_a_base(registry: str, tmp_path: Path) -> None:
    base = store_image(tmp_path / "base", "base:1", BASE, "base")
    await put_base(registry, "library/base", base, "base:1")
    reference = f"{registry}/team/server:v1"
    store = store_image(tmp_path / "ours", reference, OURS, "ours")
    said: list[str] = []
    digest = await push(store, parse(reference), parse(f"{registry}/library/base:1"), None, said.append)
    manifest = fetch(f"http://{registry}/v2/team/server/manifests/v1")
    assert digest.startswith("sha256:")
    assert len(manifest["layers"]) == 2
    config = fetch(f"http://{registry}/v2/team/server/blobs/{manifest['config']['digest']}")
    assert manifest["config"]["mediaType"] == CONFIG
    assert config["config"]["Cmd"] == ["python", "x.py"]
    assert "Entrypoint" not in config["config"]
    assert set(config["config"]["Env"]) == {"PATH=/app/bin:/usr/local/bin", "A=ours", "PYTHON_VERSION=3.11.9"}
    assert len(config["rootfs"]["diff_ids"]) == len(config["history"]) == 2
    assert not any("copying" in line for line in said), "a base of the same registry is mounted, not copied"
    said.clear()
    await push(store, parse(reference), parse(f"{registry}/library/base:1"), None, said.append)
    assert not any("pushing" in line for line in said), "what is there already is not sent again"


async def test_base_of_another_registry_is_copied(registry: str, tmp_path: Path) -> None:
    other_folder = tmp_path / "other"
    other_folder.mkdir()
    process, other = start(other_folder)
    try:
        await put_base(other, "base", store_image(tmp_path / "base", "base:1", BASE, "base"), "base:1")
        reference = f"{registry}/server:v1"
        store = store_image(tmp_path / "ours", reference, OURS, "ours")
        said: list[str] = []
        await push(store, parse(reference), parse(f"{other}/base:1"), None, said.append)
        assert any("copying" in line for line in said)
        assert len(fetch(f"http://{registry}/v2/server/manifests/v1")["layers"]) == 2
    finally:
        process.kill()
        process.wait()


async def test_another_python_is_refused(registry: str, tmp_path: Path) -> None:
    base = store_image(tmp_path / "base", "base:1", {"Env": ["PYTHON_VERSION=3.13.1"]}, "base")
    await put_base(registry, "base", base, "base:1")
    reference = f"{registry}/server:v1"
    store = store_image(tmp_path / "ours", reference, OURS, "ours")
    with pytest.raises(ConfigError, match=r"has Python 3\.13, the image was built with 3\.11"):
        await push(store, parse(reference), parse(f"{registry}/base:1"), None, lambda _: None)


async def test_missing_base_names_it(registry: str, tmp_path: Path) -> None:
    reference = f"{registry}/server:v1"
    store = store_image(tmp_path / "ours", reference, OURS, "ours")
    with pytest.raises(Exception, match="no-such-base"):
        await push(store, parse(reference), parse(f"{registry}/no-such-base:1"), None, lambda _: None)


async def test_a_local_name_cannot_be_pushed(tmp_path: Path) -> None:
    store = store_image(tmp_path / "ours", "server:v1", OURS, "ours")
    with pytest.raises(UsageError, match="names no registry"):
        await push(store, parse("server:v1"), parse("base:1"), None, lambda _: None)


async def test_login(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    htpasswd = tmp_path / "htpasswd"
    htpasswd.write_text(HTPASSWD + "\n")
    process, host = start(tmp_path, f"auth: {{htpasswd: {{realm: test, path: {htpasswd}}}}}\n")
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    reference = f"{host}/server:v1"
    store = store_image(tmp_path / "ours", reference, OURS, "ours")
    try:
        with pytest.raises(Denied, match="docker login"):
            await push(store, parse(reference), parse(f"{host}/base:1"), None, lambda _: None)
        login = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
        (tmp_path / "config.json").write_text(json.dumps({"auths": {host: {"auth": login}}}))
        assert stored_credentials(host) == Credentials(USER, PASSWORD)
        async with aiohttp.ClientSession() as session:
            # a body is sent only on an authenticated connection: the first call is one without
            assert not await Registry(session, host).has_blob("base", "sha256:" + "0" * 64)
        await put_base(host, "base", store_image(tmp_path / "base", "base:1", BASE, "base"), "base:1")
        await push(store, parse(reference), parse(f"{host}/base:1"), None, lambda _: None)
        assert len(fetch(f"http://{host}/v2/server/manifests/v1", Authorization=f"Basic {login}")["layers"]) == 2
    finally:
        process.kill()
        process.wait()
