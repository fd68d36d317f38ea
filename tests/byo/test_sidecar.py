"""What a BYO Agent becomes: its image's files and environment, and in a cluster the relay beside it."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Coroutine
from pathlib import Path
from typing import Any

import pytest

from quarterdeck.agents.relay import listeners, start
from quarterdeck.errors import ConfigError
from quarterdeck.resources.conversion import agent_spec
from quarterdeck.server.operator_options import parse
from quarterdeck.translate.agent import RELAY, translate_agent
from quarterdeck.translate.agent_config import ACTING_FOR, AgentInputs, ResolvedModel, ToolTarget
from quarterdeck.translate.options import Options
from quarterdeck.wire.client import Pool
from quarterdeck.wire.http import Exchange, Header, Server

MODEL = ResolvedModel("kagent", "default-model-config", "gpt-x")
INSIDE = Options(pod_gateway_url="http://gw.inside:8702", pod_kagent_url="http://kagent.inside:8083")


def made(options: Options, spec: dict[str, Any], model: ResolvedModel | None = MODEL) -> dict[str, Any]:
    """The container, the Pod, config.json and what else of the Deployment counts."""
    deployment = {"image": "me/agent:1"} | spec.pop("deployment", {})
    meta = {"name": "graph", "namespace": "team", "uid": "u"}
    full = {"type": "BYO", "byo": {"deployment": deployment}, **spec}
    obj = {"apiVersion": "kagent.dev/v1alpha2", "kind": "Agent", "metadata": meta, "spec": full}
    parsed = agent_spec(obj)
    tools = (parsed.declarative.tools if parsed.declarative else None) or ()
    targets = [ToolTarget(tool, "MCPServer", "team", tool.mcp_server.name) for tool in tools if tool.mcp_server]
    objects = translate_agent(AgentInputs(obj, parsed, model, targets=targets), options)
    by = {each["kind"]: each for each in objects}
    template = by["Deployment"]["spec"]["template"]
    containers = {each["name"]: each for each in template["spec"]["containers"]}
    config = json.loads(base64.b64decode(by["Secret"]["data"]["config.json"]))
    env = {each["name"]: each.get("value") for each in containers["kagent"]["env"]}
    return {"containers": containers, "config": config, "env": env, "template": template}


def test_an_image_finds_control_plane_and_model_in_its_environment() -> None:
    found = made(INSIDE, {})
    assert found["env"]["KAGENT_URL"] == "http://kagent.inside:8083" and found["env"]["KAGENT_NAME"] == "graph"
    url = "http://gw.inside:8702/llm/kagent/default-model-config/v1"
    assert found["env"]["OPENAI_BASE_URL"] == found["env"]["OPENAI_API_BASE"] == url
    assert found["env"]["OPENAI_API_KEY"] and found["env"]["QUARTERDECK_MODEL"] == "gpt-x"
    assert found["config"]["model"] == {"type": "openai", "model": "gpt-x", "base_url": url}
    assert found["template"]["metadata"]["annotations"]["quarterdeck.dev/workload-token"] == "true"
    mounts = {mount["mountPath"] for mount in found["containers"]["kagent"]["volumeMounts"]}
    assert {"/config", "/var/run/secrets/tokens"} <= mounts
    assert list(found["containers"]) == ["kagent"], "a node of ours has the relay"


def test_a_model_that_its_user_set_up_is_left_alone() -> None:
    own = {"deployment": {"env": [{"name": "OPENAI_API_KEY", "value": "sk"}]}}
    assert "OPENAI_BASE_URL" not in made(INSIDE, own)["env"]
    assert "OPENAI_BASE_URL" not in made(INSIDE, {"deployment": {"envFrom": [{"secretRef": {"name": "s"}}]}})["env"]
    without = made(INSIDE, {}, None)
    assert "OPENAI_BASE_URL" not in without["env"] and "model" not in without["config"]


def test_what_declarative_grants_is_in_the_configuration_of_kagents_image() -> None:
    server = {"name": "clock", "toolNames": ["now"], "requireApproval": ["now"], "allowedHeaders": ["x-team"]}
    tools = [{"type": "McpServer", "mcpServer": server}]
    config = made(INSIDE, {"declarative": {"systemMessage": "hi", "tools": tools}})["config"]
    (tool,) = config["http_tools"]
    assert tool["params"]["url"] == "http://gw.inside:8702/mcp/team/clock" and tool["tools"] == ["now"]
    assert tool["require_approval"] == [], "there is one approval, the gateway's"
    assert tool["allowed_headers"] == ["x-team", ACTING_FOR]


def test_in_a_cluster_the_relay_is_beside_the_image() -> None:
    env = {"POD_NAMESPACE": "qs", "QUARTERDECK_DATABASE_URL": "x.db"}
    found = made(parse([], env).controllers, {})
    relay = found["containers"][RELAY]
    assert relay["args"] == [
        "--token-file", "/var/run/secrets/tokens/quarterdeck-token",
        "127.0.0.1:18702=http://quarterdeck-gateway.qs:8702", "127.0.0.1:18083=http://kagent-controller.qs:8083",
    ]  # fmt: skip
    assert found["env"]["KAGENT_URL"] == "http://127.0.0.1:18083"
    assert found["env"]["QUARTERDECK_GATEWAY_URL"] == "http://127.0.0.1:18702"
    assert relay["securityContext"]["readOnlyRootFilesystem"] is True
    own = made(parse(["--byo-relay=node"], env).controllers, {})
    assert list(own["containers"]) == ["kagent"] and own["env"]["KAGENT_URL"] == "http://kagent-controller.qs:8083"


class Peer:
    def __init__(self) -> None:
        self.seen: list[Exchange] = []
        self.more = asyncio.Event()
        self.port = 0

    def handle(self, exchange: Exchange) -> Coroutine[Any, Any, None] | None:
        self.seen.append(exchange)
        if exchange.path == "/stream":
            return self._stream(exchange)
        exchange.respond(201, b'{"a":1}', [(b"content-type", b"application/json"), (b"mcp-session-id", b"s")])
        return None

    async def _stream(self, exchange: Exchange) -> None:
        exchange.start(200, [(b"content-type", b"text/event-stream")])
        await exchange.send(b"data: 1\n\n")
        await self.more.wait()
        await exchange.send(b"data: 2\n\n")
        exchange.finish()


@pytest.fixture
async def peer() -> AsyncIterator[Peer]:
    peer = Peer()
    server = Server(peer.handle)
    _, peer.port = await server.listen("127.0.0.1", 0)
    yield peer
    await server.stop(0)


async def test_the_relay_passes_on_with_the_token_of_now(peer: Peer, tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("one\n")
    pool = Pool()
    ((server, port),) = await start(pool, listeners([f"127.0.0.1:0=http://127.0.0.1:{peer.port}"]), file)

    async def ask(path: str, body: bytes = b"") -> Any:
        headers: list[Header] = [(b"authorization", b"Bearer sk"), (b"x-user-id", b"alice")]
        return await pool.request("POST", ("127.0.0.1", port, False), path, headers, body)

    try:
        answer = await ask("/api/tasks?user_id=a", b"{}")
        assert (answer.status, await answer.read(), answer.header(b"mcp-session-id")) == (201, b'{"a":1}', b"s")
        seen = peer.seen[-1]
        assert (seen.target, seen.body, seen.header(b"x-user-id")) == (b"/api/tasks?user_id=a", b"{}", b"alice")
        assert [v for k, v in seen.headers if k == b"authorization"] == [b"Bearer one"]
        file.write_text("two")
        stream = await ask("/stream")
        chunks = aiter(stream)
        assert await anext(chunks) == b"data: 1\n\n", "as it comes"
        peer.more.set()
        assert b"".join([chunk async for chunk in chunks]) == b"data: 2\n\n"
        assert peer.seen[-1].header(b"authorization") == b"Bearer two"
        file.unlink()
        assert (await ask("/x")).status == 502
    finally:
        await server.stop(0)
        pool.close()


@pytest.mark.parametrize("given", ["x", "127.0.0.1=http://a", "127.0.0.1:x=http://a", "127.0.0.1:1="])
def test_what_is_no_listener_is_named(given: str) -> None:
    with pytest.raises(ConfigError, match="HOST:PORT=URL"):
        listeners([given])
