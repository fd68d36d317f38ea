from __future__ import annotations

import base64
from typing import Any

import pytest

from quarterdeck import snapshot
from quarterdeck.errors import ConfigError
from quarterdeck.snapshot import Endpoint, HeaderValue
from quarterdeck.snapshot.sign_in import SignIn
from quarterdeck.translate.objects import duration
from quarterdeck.translate.options import Options
from quarterdeck.translate.resolve import Services, resolve
from quarterdeck.translate.snapshot import Values, World, compile_snapshot


def obj(
    kind: str, name: str, spec: dict[str, Any] | None = None, namespace: str = "kagent", **rest: Any
) -> dict[str, Any]:
    meta = {"name": name, "namespace": namespace, "uid": f"{kind}-{namespace}-{name}"} | rest.pop("meta", {})
    return {"kind": kind, "metadata": meta, "spec": spec or {}} | rest


def owned(kind: str, name: str, owner: dict[str, Any]) -> dict[str, Any]:
    reference = {
        "kind": owner["kind"],
        "name": owner["metadata"]["name"],
        "uid": owner["metadata"]["uid"],
        "controller": True,
    }
    return obj(kind, name, meta={"ownerReferences": [reference]})


def service(name: str, port: int, namespace: str = "kagent", **meta: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    item = obj("Service", name, {"ports": [{"name": "http", "port": port}]}, namespace, meta=meta)
    piece = obj("EndpointSlice", name, namespace=namespace, meta={"labels": {"kubernetes.io/service-name": name}})
    piece |= {"ports": [{"name": "http", "port": port + 1}]}
    piece |= {"endpoints": [{"addresses": ["10.0.0.2"]}, {"addresses": ["10.0.0.3"], "conditions": {"ready": False}}]}
    return item, piece


SERVICE, SLICE = service("tools", 8084)
INDEX = Services.of([SERVICE], [SLICE])


def test_a_remote_server_whose_users_sign_in() -> None:
    spec = {
        "description": "d", "url": "https://notes.example/mcp?x=1", "auth": "oauth",
        "oauth": {"clientId": "qd", "clientSecretRef": "c", "method": "clientSecretPost", "scopes": ["read"]},
    }  # fmt: skip
    secret = obj("Secret", "c") | {"data": {"clientSecret": base64.b64encode(b"s3cret").decode()}}
    world = World(remote_mcp_servers=[obj("RemoteMCPServer", "notes", spec)], values=Values.of([secret], []))
    [server] = compile_snapshot(world, Options()).mcp
    assert server.sign_in == SignIn(
        "https://notes.example/mcp", "qd", "s3cret", "", "client_secret_post", "", ("read",), (), "notes"
    )
    assert "s3cret" not in str(snapshot.redacted(server))
    both = spec | {"headersFrom": [{"name": "authorization", "value": "Bearer x"}]}
    world = World(remote_mcp_servers=[obj("RemoteMCPServer", "notes", both)], values=Values.of([secret], []))
    assert compile_snapshot(world, Options()).mcp == ()


@pytest.mark.parametrize(
    ("url", "path", "endpoints"),
    [
        ("http://tools.kagent:8084/mcp", "/mcp", (Endpoint("10.0.0.2", 8085),)),
        ("http://tools.kagent.svc:8084", "/", (Endpoint("10.0.0.2", 8085),)),
        ("http://tools.kagent.svc.cluster.local:8084/a?b=1", "/a?b=1", (Endpoint("10.0.0.2", 8085),)),
        ("http://tools:8084", "/", (Endpoint("10.0.0.2", 8085),)),
        ("http://tools.kagent:9/mcp", "/mcp", ()),
        ("http://gone.kagent.svc.cluster.local:3000", "/", ()),
        ("https://mcp.example.com/x", "/x", (Endpoint("mcp.example.com", 443),)),
    ],
)
def test_resolve(url: str, path: str, endpoints: tuple[Endpoint, ...]) -> None:
    found = resolve(url, INDEX, "kagent")
    assert (found.path, found.endpoints) == (path, endpoints)


@pytest.mark.parametrize("url", ["", "ftp://x", "http://", "http://x:99999/"])
def test_unusable_urls(url: str) -> None:
    with pytest.raises(ConfigError):
        resolve(url, INDEX, "kagent")


@pytest.mark.parametrize(("text", "seconds"), [("30s", 30), ("5m0s", 300), ("1h30m", 5400), ("500ms", 0.5), ("", 30)])
def test_duration(text: str, seconds: float) -> None:
    assert duration(text) == seconds


def test_a_world_compiles_to_one_deterministic_snapshot() -> None:
    secret = obj("Secret", "keys") | {"data": {"KEY": base64.b64encode(b"s3cr3t\n").decode()}}
    agent = obj("Agent", "a", {"type": "Declarative", "declarative": {"tools": [
        {"type": "McpServer", "mcpServer": {
            "kind": "RemoteMCPServer", "name": "r", "toolNames": ["x"], "requireApproval": ["x"]}},
        {"type": "McpServer", "mcpServer": {"kind": "RemoteMCPServer", "name": "r", "namespace": "other"}},
        {"type": "Agent", "agent": {"name": "b"}},
    ]}})  # fmt: skip
    remote = {
        "description": "d",
        "url": "http://tools.kagent:8084/mcp",
        "headersFrom": [{"name": "X-Key", "valueFrom": {"type": "Secret", "name": "keys", "key": "KEY"}}],
    }
    model = {
        "model": "gpt", "apiKeySecret": "keys", "apiKeySecretKey": "KEY",
        "openAI": {"temperature": "0.7", "maxTokens": 9},
    }  # fmt: skip
    deployment = owned("Deployment", "a", agent)
    replica_set = owned("ReplicaSet", "a-1", deployment)
    stranger = obj("Deployment", "fake")
    elsewhere = owned("Pod", "r", replica_set)  # written down by somebody of another namespace
    elsewhere["metadata"]["namespace"] = "theirs"
    world = World(
        agents=[agent, obj("Agent", "b", {"type": "Declarative", "declarative": {}})],
        model_configs=[
            obj("ModelConfig", "default-model-config", model),
            obj("ModelConfig", "v", {"model": "m", "provider": "Bedrock"}),
        ],
        remote_mcp_servers=[
            obj("RemoteMCPServer", "r", remote),
            obj("RemoteMCPServer", "r", remote | {"headersFrom": []}, "other"),
        ],
        services=[SERVICE],
        endpoint_slices=[SLICE],
        values=Values.of([secret], []),
        deployments=[deployment, stranger],
        replica_sets=[replica_set, owned("ReplicaSet", "f-1", stranger)],
        pods=[owned("Pod", "p", replica_set), owned("Pod", "q", owned("ReplicaSet", "f-1", stranger)), elsewhere],
    )
    result = compile_snapshot(world, Options())
    assert result.mcp[0].headers == (HeaderValue("X-Key", "s3cr3t", secret=True),)
    assert result.models[0].headers == (HeaderValue("Authorization", "Bearer s3cr3t", secret=True),)
    assert result.models[0].defaults == {"temperature": 0.7, "max_tokens": 9}
    assert "Bedrock" in result.models[1].error
    policy = result.policies[0]
    assert [grant.namespace for grant in policy.tools] == ["kagent"], "other/r does not allow kagent"
    assert (policy.tools[0].tools, policy.tools[0].approval) == (("x",), ("x",))
    assert policy.agents == ("kagent/b",)
    assert policy.models == ("kagent/default-model-config",)
    assert result.identities.pods == {"Pod-kagent-p": "kagent/a"}
    assert "s3cr3t" not in str(snapshot.redacted(result))
    assert snapshot.encode(compile_snapshot(world, Options())) == snapshot.encode(result)


@pytest.mark.parametrize(("spec", "wanted"), [({"replicas": 3}, 3), ({}, 1), ({"replicas": 0}, 1)])
def test_the_replicas_of_the_gateway_share_its_limits(spec: dict[str, Any], wanted: int) -> None:
    namespace, _, name = Options().gateway.partition("/")
    deployments = [obj("Deployment", name, {"replicas": 9}), obj("Deployment", name, spec, namespace)]
    assert compile_snapshot(World(deployments=deployments), Options()).replicas == wanted
    assert compile_snapshot(World(), Options()).replicas == 1
