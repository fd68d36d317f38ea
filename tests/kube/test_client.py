from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from quarterdeck import errors
from quarterdeck.kube.client import KubeClient
from quarterdeck.kube.config import ClientConfig, ExecPlugin, from_kubeconfig, in_cluster, load_config
from quarterdeck.kube.resource import CONFIG_MAP, Object

from .fake_api import FakeApi


def config_map(name: str, **data: str) -> Object:
    return {"metadata": {"name": name, "namespace": "default"}, "data": data}


async def test_objects_keep_unknown_fields(client: KubeClient) -> None:
    await client.create(CONFIG_MAP, config_map("a", k="v") | {"future": {"x": 1}})
    got = await client.get(CONFIG_MAP, "a", "default")
    assert got["future"] == {"x": 1}
    assert client.writes == 1


async def test_list_follows_pages_and_names_kinds(client: KubeClient, api: FakeApi) -> None:
    for i in range(7):
        await client.create(CONFIG_MAP, config_map(f"m{i}"))
    listed = await client.list(CONFIG_MAP, limit=3)
    assert [o["metadata"]["name"] for o in listed.items] == [f"m{i}" for i in range(7)]
    assert {o["kind"] for o in listed.items} == {"ConfigMap"}
    assert listed.resource_version == "7"


async def test_expired_page_lists_again_in_one_piece(client: KubeClient, api: FakeApi) -> None:
    for i in range(4):
        await client.create(CONFIG_MAP, config_map(f"m{i}"))
    seen = 0

    original = api.collection

    async def expire_second(request, res, namespace):  # type: ignore[no-untyped-def]
        nonlocal seen
        seen += 1
        return api.status(410, "Expired", "gone") if seen == 2 else await original(request, res, namespace)

    api.collection = expire_second  # type: ignore[method-assign]
    assert len((await client.list(CONFIG_MAP, limit=2)).items) == 4


async def test_typed_errors(client: KubeClient) -> None:
    with pytest.raises(errors.NotFound, match="not found"):
        await client.get(CONFIG_MAP, "none", "default")
    made = await client.create(CONFIG_MAP, config_map("a"))
    with pytest.raises(errors.AlreadyExists):
        await client.create(CONFIG_MAP, config_map("a"))
    await client.patch(CONFIG_MAP, "a", {"data": {"k": "2"}}, "default")
    with pytest.raises(errors.Conflict):
        await client.replace(CONFIG_MAP, made | {"data": {"k": "3"}})


async def test_retries_what_is_safe(client: KubeClient, api: FakeApi) -> None:
    api.fail = [("GET", "configmaps", 429, {"Retry-After": "0"}), ("GET", "configmaps", 503, {"Retry-After": "0"}),
                ("POST", "configmaps", 503, {"Retry-After": "0"})]  # fmt: skip
    assert (await client.list(CONFIG_MAP)).items == []
    with pytest.raises(errors.ApiError) as caught:
        await client.create(CONFIG_MAP, config_map("a"))
    assert caught.value.status_code == 503
    assert [m for m, _ in api.requests] == ["GET", "GET", "GET", "POST"]


async def test_unreachable_server_is_named() -> None:
    async with KubeClient(ClientConfig("http://127.0.0.1:1")) as client:
        with pytest.raises(errors.UpstreamError, match=r"127\.0\.0\.1:1"):
            await client.list(CONFIG_MAP)


async def test_token_file_is_read_again_after_a_refusal(api: FakeApi, tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("one\n")
    async with KubeClient(ClientConfig(api.config.base_url, token_file=str(token))) as client:
        await client.list(CONFIG_MAP)
        token.write_text("two")
        api.fail = [("GET", "configmaps", 401, {})]
        await client.list(CONFIG_MAP)
    assert api.authorizations == ["Bearer one", "Bearer one", "Bearer two"]


async def test_exec_plugin_gives_the_token(api: FakeApi, tmp_path: Path) -> None:
    plugin = tmp_path / "login"
    plugin.write_text(
        "#!/bin/sh\n"
        'echo "{\\"apiVersion\\":\\"client.authentication.k8s.io/v1\\",\\"kind\\":\\"ExecCredential\\",'
        '\\"status\\":{\\"token\\":\\"$WHO-$1\\"}}"\n'
    )
    plugin.chmod(stat.S_IRWXU)
    config = ClientConfig(api.config.base_url, exec_plugin=ExecPlugin(str(plugin), ("x",), (("WHO", "me"),)))
    async with KubeClient(config) as client:
        await client.list(CONFIG_MAP)
    assert api.authorizations == ["Bearer me-x"]


def test_kubeconfig_contexts_and_relative_paths(tmp_path: Path) -> None:
    path = tmp_path / "config"
    path.write_text("""
current-context: a
contexts: [{name: a, context: {cluster: c, user: u, namespace: team}}, {name: b, context: {cluster: c, user: v}}]
clusters: [{name: c, cluster: {server: "https://h:1/", certificate-authority: ca.pem}}]
users: [{name: u, user: {token: t}}, {name: v, user: {tokenFile: tok, client-certificate-data: UEVN}}]
""")
    first, second = from_kubeconfig(path), from_kubeconfig(path, context="b")
    assert (first.base_url, first.token, first.namespace) == ("https://h:1", "t", "team")
    assert first.ca_file == str(tmp_path / "ca.pem")
    assert (second.token_file, second.client_cert_data) == (str(tmp_path / "tok"), "PEM")
    with pytest.raises(errors.ConfigError, match=r"no entry 'z' in contexts \(has: a, b\)"):
        from_kubeconfig(path, context="z")


def test_a_kubeconfig_that_cannot_be_used_is_named_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    broken = tmp_path / "broken"
    broken.write_text("clusters: [\n")
    with pytest.raises(
        errors.ConfigError, match=r"broken, line 2 is not YAML: expected the node content.*found '<str"
    ) as error:
        from_kubeconfig(broken)
    assert "\n" not in str(error.value)
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "gone"))
    with pytest.raises(errors.ConfigError, match=r"KUBECONFIG: .*/gone is not there"):
        load_config()
    monkeypatch.setenv("KUBECONFIG", "")
    with pytest.raises(errors.ConfigError, match="no Kubernetes configuration found"):
        load_config()


def test_in_cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "fd00::1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "6443")
    (tmp_path / "namespace").write_text("ns")
    config = in_cluster(tmp_path)
    assert (config.base_url, config.namespace) == ("https://[fd00::1]:6443", "ns")
    assert config.token_file == os.path.join(tmp_path, "token")


async def test_warnings_reach_the_person(api: FakeApi) -> None:
    heard: list[str] = []
    original = api.collection

    async def warn(request, res, namespace):  # type: ignore[no-untyped-def]
        response = await original(request, res, namespace)
        response.headers.add("Warning", r'299 - "say \"old\"; use new"')
        response.headers.add("Warning", '299 - "two", 299 - "three"')
        response.headers.add("Warning", '110 - "stale"')
        return response

    api.collection = warn  # type: ignore[method-assign]
    async with KubeClient(api.config, on_warning=heard.append) as client:
        await client.list(CONFIG_MAP)
    assert heard == ['say "old"; use new', "two", "three"]
