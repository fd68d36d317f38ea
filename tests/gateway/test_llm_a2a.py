"""Models and agents behind the gateway, each played by our own HTTP server (the real ones need keys)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any, cast

import msgspec
import pytest

from quarterdeck import snapshot as s
from quarterdeck.gateway.a2a.endpoint import _user
from quarterdeck.gateway.call import Call
from quarterdeck.gateway.policy.principal import ANONYMOUS, ANYBODY, LOCAL_USER, Principal
from quarterdeck.wire.http import Exchange, Server

from .conftest import Rig, snapshot, token

CHAT = "/llm/kagent/gpt/v1/chat/completions"
ANSWER = {
    "id": "1",
    "model": "gpt-x-2026",
    "choices": [{"message": {"role": "assistant", "content": "hi"}}],
    "usage": {"prompt_tokens": 7, "completion_tokens": 3, "prompt_tokens_details": {"cached_tokens": 0}},
}
CARD = {
    "name": "b",
    "url": "http://b.kagent:8080/",
    "supportedInterfaces": [{"url": "http://b.kagent:8080/rpc", "protocolBinding": "JSONRPC"}],
    "signatures": [{"protected": "x"}],
}


class Backend:
    """Records requests; streams when asked to."""

    def __init__(self) -> None:
        self.seen: list[Exchange] = []
        self.release = asyncio.Event()
        self.port = 0

    def handle(self, exchange: Exchange) -> Any:
        self.seen.append(exchange)
        if b'"stream":true' in exchange.body:
            return self.stream(exchange)
        if exchange.path.endswith(".json"):
            body = msgspec.json.encode(CARD)
        elif exchange.path == "/v1/chat/completions":
            body = msgspec.json.encode(ANSWER)
        else:
            body = b'{"jsonrpc":"2.0","id":1,"result":{}}'
        exchange.respond(200, body, [(b"content-type", b"application/json")])
        return None

    async def stream(self, exchange: Exchange) -> None:
        exchange.start(200, [(b"content-type", b"text/event-stream")])
        await exchange.send(b'data: {"choices":[{"delta":{"content":"h"}}]}\n\n')
        await self.release.wait()
        await exchange.send(b'data: {"usage":{"prompt_tokens":5,"completion_tokens":2}}\n\ndata: [DONE]\n\n')
        exchange.finish()


@pytest.fixture
async def backend() -> AsyncIterator[Backend]:
    backend = Backend()
    server = Server(backend.handle)
    _, backend.port = await server.listen("127.0.0.1", 0)
    yield backend
    await server.stop(0.1)


@pytest.fixture
async def models(bare: Rig, backend: Backend) -> Rig:
    base = f"http://127.0.0.1:{backend.port}"
    key = s.HeaderValue("Authorization", "Bearer sk-secret\n", True)
    bare.gateway.use(
        snapshot(
            1,
            models=(
                s.Model("kagent", "gpt", "OpenAI", "gpt-x", f"{base}/v1", (key,), {"temperature": 0.5}),
                s.Model("kagent", "broken", "Bedrock", "m", "", error="provider Bedrock is not supported yet"),
            ),
            agents=(s.Agent("kagent", "b", (s.Endpoint("127.0.0.1", backend.port),)),),
            policies=(
                s.AgentPolicy("kagent", "a", models=("kagent/gpt", "kagent/broken"), agents=("kagent/b",)),
                s.AgentPolicy("kagent", "b"),
            ),
        )
    )
    return bare


async def test_the_key_is_the_gateways_and_the_model_is_filled_in(models: Rig, backend: Backend) -> None:
    response = await models.request(CHAT, {"messages": []}, bearer=token("pod-a"))
    assert response.status == 200
    assert msgspec.json.decode(await response.read()) == ANSWER
    seen = backend.seen[0]
    assert seen.path == "/v1/chat/completions"
    assert [v for k, v in seen.headers if k == b"authorization"] == [b"Bearer sk-secret"]
    assert msgspec.json.decode(seen.body) == {"messages": [], "temperature": 0.5, "model": "gpt-x"}
    record = models.records()[-1]
    assert (record["kind"], record["server"], record["agent"], record["outcome"]) == (
        "llm",
        "kagent/gpt",
        "kagent/a",
        "ok",
    )
    metrics = models.gateway.registry.render().decode()
    assert 'gen_ai_token_type="input",gen_ai_request_model="gpt-x",gen_ai_response_model="gpt-x-2026"' in metrics


async def test_bytes_that_need_no_change_are_passed_on(models: Rig, backend: Backend) -> None:
    body = b'{ "model":"gpt-x", "temperature": 0, "messages":[],"x_unknown":{"a":1} }'
    await (await models.request(CHAT, body, bearer=token("pod-a"))).read()
    assert backend.seen[0].body == body


async def test_streams_arrive_piece_by_piece(models: Rig, backend: Backend) -> None:
    body = {"stream": True, "messages": []}
    response = await models.request(CHAT, body, bearer=token("pod-a"))
    chunks = aiter(response)
    assert b'"content":"h"' in await anext(chunks)  # the model has not gone on yet
    backend.release.set()
    assert b"[DONE]" in b"".join([chunk async for chunk in chunks])
    assert 'gen_ai_token_type="output"' in models.gateway.registry.render().decode()


@pytest.mark.parametrize(
    ("path", "pod", "status", "says"),
    [
        (CHAT, "pod-b", 403, "Model kagent/gpt is not granted to agent kagent/b"),
        ("/llm/kagent/broken/v1/chat/completions", "pod-a", 503, "provider Bedrock is not supported yet"),
        ("/llm/kagent/none/v1/chat/completions", "pod-a", 404, "no model kagent/none"),
        ("/v1/chat/completions", "pod-a", 404, "no model is the default"),
    ],
)
async def test_refusals_have_openais_shape(models: Rig, path: str, pod: str, status: int, says: str) -> None:
    response = await models.request(path, {"messages": []}, bearer=token(pod))
    assert response.status == status
    assert says in msgspec.json.decode(await response.read())["error"]["message"]


async def test_models_lists_what_the_caller_may_use(models: Rig) -> None:
    for pod, expected in (("pod-a", ["kagent/gpt", "kagent/broken"]), ("pod-b", [])):
        response = await models.request("/v1/models", method="GET", bearer=token(pod))
        assert [m["id"] for m in msgspec.json.decode(await response.read())["data"]] == expected


async def test_cards_point_to_the_gateway(models: Rig) -> None:
    response = await models.request("/a2a/kagent/b/.well-known/agent-card.json", method="GET", bearer=token("pod-a"))
    card = msgspec.json.decode(await response.read())
    host = f"http://127.0.0.1:{models.origin()[1]}/a2a/kagent/b"
    assert (card["url"], card["supportedInterfaces"][0]["url"]) == (host, f"{host}/rpc")
    assert "signatures" not in card


async def test_agents_are_called_under_policy(models: Rig, backend: Backend) -> None:
    allowed = await models.rpc("/a2a/kagent/b", "SendMessage", bearer=token("pod-a"))
    assert allowed["result"] == {}
    assert backend.seen[-1].header(b"authorization") is None
    denied = await models.rpc("/a2a/kagent/b", "SendMessage", bearer=token("pod-b"))
    assert denied["error"]["code"] == 4003
    rest = await models.request("/a2a/kagent/b/tasks?pageSize=1", method="GET", bearer=token("pod-a"))
    assert rest.status == 200
    assert backend.seen[-1].target == b"/tasks?pageSize=1"
    records = [(r["method"], r["decision"]) for r in models.records()]
    assert records == [("SendMessage", "allow"), ("SendMessage", "deny"), ("GET", "allow")]


async def test_a_callers_own_key_for_a_model_reaches_the_agent(models: Rig, backend: Backend) -> None:
    """``apiKeyPassthrough``: the token for the gateway stays here, the key goes on."""
    key = {"x-quarterdeck-forward-authorization": "Bearer mine"}
    await models.rpc("/a2a/kagent/b", "SendMessage", bearer=token("pod-a"), headers=key)
    assert backend.seen[-1].header(b"x-quarterdeck-forward-authorization") == b"Bearer mine"
    assert backend.seen[-1].header(b"authorization") is None


async def test_a_call_waits_a_moment_for_an_agent_that_is_just_becoming_ready(models: Rig, backend: Backend) -> None:
    whole = models.gateway.snapshot
    none = msgspec.structs.replace(whole.agents[0], endpoints=())
    models.gateway.use(msgspec.structs.replace(whole, agents=(none, *whole.agents[1:])))
    waiting = asyncio.create_task(models.rpc("/a2a/kagent/b", "SendMessage", bearer=token("pod-a")))
    await asyncio.sleep(0.05)
    assert not waiting.done() and not backend.seen
    models.gateway.use(whole)
    assert (await waiting)["result"] == {}


async def test_a_call_to_an_agent_that_stays_away_says_so(models: Rig) -> None:
    whole = models.gateway.snapshot
    models.gateway.use(msgspec.structs.replace(whole, agents=(msgspec.structs.replace(whole.agents[0], endpoints=()),)))
    answer = await models.rpc("/a2a/kagent/b", "SendMessage", bearer=token("pod-a"))
    assert "no ready endpoint; see: kubectl describe agent b -n kagent" in answer["error"]["message"]


def test_callers_whom_nobody_knows_are_no_one_of_this_machine() -> None:
    def told(principal: Principal) -> bytes:
        return _user(cast(Call, SimpleNamespace(principal=principal, headers={b"x-user-id": b"root"})), None)

    assert told(ANYBODY) == b"x-user-id: anonymous\r\n"
    assert told(ANONYMOUS) == told(LOCAL_USER) == b""
    assert told(Principal("https://idp.example alice", username="alice")) == b"x-user-id: alice\r\n"
