"""The client of chat completions: what an answer means, and what is sent."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from quarterdeck.agents.config import Model
from quarterdeck.agents.credentials import forwarded_key
from quarterdeck.agents.journal.steps import reply_of, result_of
from quarterdeck.agents.model import ChatModel, Filtered, Malformed, Overloaded, Reply, Unreachable
from quarterdeck.errors import Denied, UpstreamError
from quarterdeck.wire.client import Pool
from quarterdeck.wire.http import Exchange, Header, Server

SIGNED = {"google": {"thought_signature": "c2ln"}}


@dataclass
class Endpoint:
    """A double of the gateway: one answer, and the requests it got."""

    status: int = 200
    body: Any = None
    headers: list[Header] = field(default_factory=list[Header])
    seen: list[Exchange] = field(default_factory=list[Exchange])
    told: list[str] = field(default_factory=list[str])
    port: int = 0

    def __call__(self, exchange: Exchange) -> None:
        self.seen.append(exchange)
        data = self.body if isinstance(self.body, bytes) else json.dumps(self.body).encode()
        exchange.respond(self.status, data, self.headers)

    async def ask(self, *, stream: bool = False, **more: Any) -> Reply:
        async def headers() -> list[Header]:
            return [(b"authorization", b"Bearer pod")]

        async def on_text(text: str) -> None:
            self.told.append(text)

        pool = Pool()
        model = ChatModel(pool, Model(model="m", base_url=f"http://127.0.0.1:{self.port}/v1"), headers)
        try:
            return await model.reply([{"role": "user", "content": "hi"}], [], on_text if stream else None, **more)
        finally:
            pool.close()


@pytest.fixture
async def endpoint() -> AsyncIterator[Endpoint]:
    found = Endpoint()
    server = Server(found)
    _, found.port = await server.listen("127.0.0.1", 0)
    yield found
    await server.stop(0.1)


def completion(message: dict[str, Any], finish: str = "stop", **more: Any) -> dict[str, Any]:
    return {"choices": [{"message": message, "finish_reason": finish}]} | more


def chunks(*documents: Any) -> bytes:
    return b"".join(b"data: " + json.dumps(document).encode() + b"\n\n" for document in documents) + b"data: [DONE]\n\n"


def call(ident: str = "c1", **more: Any) -> dict[str, Any]:
    return {"id": ident, "type": "function", "function": {"name": "add", "arguments": "{}"}} | more


async def test_an_answer_and_what_it_cost(endpoint: Endpoint) -> None:
    usage = {"prompt_tokens": 10, "completion_tokens": 5, "prompt_tokens_details": {"cached_tokens": 8},
             "completion_tokens_details": {"reasoning_tokens": 2}}  # fmt: skip
    endpoint.body = completion({"content": "Hello."}, "length", usage=usage)
    reply = await endpoint.ask()
    assert (reply.text, reply.finish) == ("Hello.", "length")
    assert reply.usage == {"prompt_tokens": 10, "completion_tokens": 5, "cached_tokens": 8, "reasoning_tokens": 2}
    last = {"choices": [], "usage": usage}
    endpoint.body = chunks({"choices": [{"delta": {"content": "Hel"}}]}, {"choices": [{"delta": {"content": "lo."}}]},
                           {"choices": [{"delta": {}, "finish_reason": "length"}]}, last)  # fmt: skip
    assert await endpoint.ask(stream=True) == reply
    assert endpoint.told == ["Hel", "lo."]
    assert json.loads(endpoint.seen[-1].body)["stream_options"] == {"include_usage": True}


async def test_a_refusal_is_an_answer(endpoint: Endpoint) -> None:
    endpoint.body = completion({"content": None, "refusal": "No."}, "content_filter")
    reply = await endpoint.ask()
    assert (reply.text, reply.refusal, reply.finish) == ("No.", "No.", "content_filter")
    endpoint.body = chunks({"choices": [{"delta": {"refusal": "No."}, "finish_reason": "content_filter"}]})
    assert await endpoint.ask(stream=True) == reply


@pytest.mark.parametrize("stream", [False, True])
async def test_what_a_provider_wants_back_stays_with_its_call(endpoint: Endpoint, stream: bool) -> None:
    """Through the message, and through the journal."""
    message = {"tool_calls": [call(extra_content=SIGNED), call("c2")]}
    streamed = [part | {"index": i} for i, part in enumerate(message["tool_calls"])]
    endpoint.body = chunks({"choices": [{"delta": {"tool_calls": streamed}}]}) if stream else completion(message)
    reply = await endpoint.ask(stream=stream)
    for found in (reply, reply_of(json.loads(json.dumps(result_of(reply))))):
        first, second = found.message()["tool_calls"]
        assert first["extra_content"] == SIGNED
        assert "extra_content" not in second


async def test_calls_of_one_id_are_told_apart(endpoint: Endpoint) -> None:
    endpoint.body = completion({"tool_calls": [call(), call(), call("")]})
    assert len({c.id for c in (await endpoint.ask()).calls}) == 3


@pytest.mark.parametrize(
    ("status", "error", "headers", "kind", "after"),
    [
        (429, {"type": "rate_limit_error"}, [(b"retry-after", b"7")], Overloaded, 7.0),
        (429, {"type": "rate_limit_error"}, [], Overloaded, None),
        (429, {"code": "insufficient_quota"}, [], UpstreamError, None),
        (503, {"type": "overloaded_error"}, [], Overloaded, None),
        (503, {"type": "service_unavailable"}, [], UpstreamError, None),
        (400, {"code": "content_filter"}, [], Filtered, None),
        (400, {"type": "invalid_request_error"}, [], UpstreamError, None),
        (401, {}, [], Denied, None),
    ],
)
async def test_errors_say_what_may_help(
    endpoint: Endpoint, status: int, error: Any, headers: list[Header], kind: type[Exception], after: float | None
) -> None:
    endpoint.status, endpoint.headers = status, headers
    endpoint.body = {"error": {"message": "told"} | error}
    with pytest.raises(kind, match=r"model m: .*told") as found:
        await endpoint.ask()
    assert type(found.value) is kind
    assert getattr(found.value, "retry_after", None) == after


async def test_an_error_in_a_stream(endpoint: Endpoint) -> None:
    """Asking again may help until something was said."""
    broken = {"error": {"type": "overloaded_error", "message": "busy"}}
    endpoint.body = chunks(broken)
    with pytest.raises(Overloaded, match="busy"):
        await endpoint.ask(stream=True)
    endpoint.body = chunks({"choices": [{"delta": {"content": "Hel"}}]}, broken)
    with pytest.raises(UpstreamError, match="busy") as found:
        await endpoint.ask(stream=True)
    assert not isinstance(found.value, Unreachable)


@pytest.mark.parametrize("body", [b"{", {}, {"choices": []}, completion({"tool_calls": [{"id": "c"}]})])
async def test_what_is_no_completion_is_malformed(endpoint: Endpoint, body: Any) -> None:
    endpoint.body = body
    with pytest.raises(Malformed):
        await endpoint.ask()


async def test_a_users_own_key_goes_along(endpoint: Endpoint) -> None:
    endpoint.body = completion({"content": "Hello."})
    given = forwarded_key.set("Bearer mine")
    try:
        await endpoint.ask(response_format={"type": "json_object"})
    finally:
        forwarded_key.reset(given)
    assert endpoint.seen[-1].header(b"x-quarterdeck-forward-authorization") == b"Bearer mine"
    assert endpoint.seen[-1].header(b"authorization") == b"Bearer pod"
    assert json.loads(endpoint.seen[-1].body)["response_format"] == {"type": "json_object"}
    await endpoint.ask()
    assert endpoint.seen[-1].header(b"x-quarterdeck-forward-authorization") is None
