"""Chat completions, as every OpenAI-compatible endpoint (the gateway's included) serves them."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

from quarterdeck.errors import Denied, TimedOut, UpstreamError
from quarterdeck.mcpclient import HeaderSource, split_url
from quarterdeck.wire.client import Pool, Response
from quarterdeck.wire.sse import SseParser

from .config import Model

Message = dict[str, Any]
"""An OpenAI chat message."""
OnText = Callable[[str], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A call the model asks for. ``problem`` says why it cannot be carried out as written."""

    id: str
    name: str
    arguments: dict[str, Any]
    problem: str = ""


@dataclass(slots=True)
class Reply:
    """The model's answer: text, calls, or both. ``usage`` as the provider reports it."""

    text: str
    calls: list[ToolCall] = field(default_factory=list[ToolCall])
    usage: dict[str, int] = field(default_factory=dict[str, int])

    def message(self) -> Message:
        """The assistant message to keep in the conversation."""
        message: Message = {"role": "assistant", "content": self.text or None}
        if self.calls:
            message["tool_calls"] = [
                {"id": c.id, "type": "function", "function": {"name": c.name, "arguments": json.dumps(c.arguments)}}
                for c in self.calls
            ]
        return message


class Unreachable(UpstreamError):
    """The connection could not be made, or broke: nobody answered. Asking again may help."""


class _Answered(UpstreamError):
    """The endpoint answered, with something that is no use."""


class ChatModel:
    """One model behind one endpoint."""

    def __init__(self, pool: Pool, model: Model, headers: HeaderSource, *, timeout: float = 300.0) -> None:
        self._pool = pool
        self._model = model
        self._headers = headers
        self._timeout = timeout
        base = (model.base_url or "https://api.openai.com/v1").rstrip("/")
        self._origin, self._target = split_url(f"{base}/chat/completions")

    async def reply(self, messages: list[Message], tools: list[dict[str, Any]], on_text: OnText | None = None) -> Reply:
        """Ask once. ``on_text`` gets the text as it comes (streaming).

        Raises Denied, TimedOut, UpstreamError, and of these Unreachable when the connection broke.
        """
        body: dict[str, Any] = {"model": self._model.model, "messages": messages, "stream": on_text is not None}
        for name in ("temperature", "max_tokens"):
            value = getattr(self._model, name)
            if value is not None:
                body[name] = value
        if tools:
            body["tools"] = tools
        try:
            async with asyncio.timeout(self._timeout):
                response = await self._post(body)
                try:
                    if on_text is None:
                        return _parse(await response.read())
                    return await _collect(response, on_text)
                finally:
                    response.close()
        except UpstreamError as error:
            kind = UpstreamError if isinstance(error, _Answered) else Unreachable
            raise kind(f"model {self._model.model}: {error}") from error
        except TimeoutError:
            raise TimedOut(f"model {self._model.model} gave no complete answer within {self._timeout:g} s") from None

    async def _post(self, body: dict[str, Any]) -> Response:
        headers = [
            (b"content-type", b"application/json"),
            *((k.lower().encode(), v.encode()) for k, v in self._model.headers.items()),
            *await self._headers(),
        ]
        response = await self._pool.request(
            "POST", self._origin, self._target, headers, json.dumps(body).encode(), timeout=None
        )
        if response.status == 200:
            return response
        text = (await response.read())[:4000].decode("utf-8", "replace")
        with contextlib.suppress(ValueError, KeyError, TypeError):
            text = json.loads(text)["error"]["message"]
        if response.status in (401, 403):
            raise Denied(f"model {self._model.model}: HTTP {response.status}: {text}")
        raise _Answered(f"HTTP {response.status}: {text}")


def _parse(body: bytes) -> Reply:
    try:
        document = json.loads(body)
        message = document["choices"][0]["message"]
        calls = [
            _call(c["id"], c["function"]["name"], c["function"]["arguments"]) for c in message.get("tool_calls") or []
        ]
        return Reply(message.get("content") or "", calls, _usage(document))
    except (ValueError, KeyError, TypeError, IndexError, RecursionError) as error:
        raise _Answered(f"the answer is not a chat completion: {type(error).__name__}: {error}") from error


async def _collect(response: Response, on_text: OnText) -> Reply:
    """Put a stream of chunks together (chat.completion.chunk)."""
    parser, text, usage = SseParser(), list[str](), dict[str, int]()
    calls: dict[int, dict[str, str]] = {}
    async for chunk in response:
        for event in parser.feed(chunk):
            if event.data in (b"", b"[DONE]"):
                continue
            try:
                document = json.loads(event.data)
                usage = _usage(document) or usage
                delta: dict[str, Any] = (document.get("choices") or [{}])[0].get("delta") or {}
                for part in delta.get("tool_calls") or []:
                    call = calls.setdefault(int(part.get("index", 0)), {"id": "", "name": "", "arguments": ""})
                    call["id"] = part.get("id") or call["id"]
                    function = part.get("function") or {}
                    call["name"] += function.get("name") or ""
                    call["arguments"] += function.get("arguments") or ""
                piece = delta.get("content") or ""
            except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
                raise _Answered(f"the stream holds what is no chunk: {error}") from error
            if piece:
                text.append(piece)
                await on_text(piece)
    return Reply("".join(text), [_call(c["id"], c["name"], c["arguments"]) for _, c in sorted(calls.items())], usage)


def _call(call_id: str | None, name: str, arguments: str | dict[str, Any] | None) -> ToolCall:
    """A tool call with its arguments parsed; malformed ones are kept as a problem the model is told about."""
    call_id = call_id or f"call_{uuid4().hex[:12]}"
    if isinstance(arguments, dict):
        return ToolCall(call_id, name, arguments)
    try:
        parsed = json.loads(arguments or "{}")
    except (ValueError, RecursionError) as error:
        return ToolCall(call_id, name, {}, f"the arguments are not valid JSON ({error})")
    if not isinstance(parsed, dict):
        return ToolCall(call_id, name, {}, "the arguments must be a JSON object")
    return ToolCall(call_id, name, parsed)


def _usage(document: dict[str, Any]) -> dict[str, int]:
    usage = document.get("usage") or {}
    return {k: int(v) for k, v in usage.items() if isinstance(v, int)}
