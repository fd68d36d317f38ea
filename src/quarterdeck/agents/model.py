"""Chat completions, as every OpenAI-compatible endpoint (the gateway's included) serves them."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from typing import Any
from uuid import uuid4

from quarterdeck.errors import Denied, TimedOut, UpstreamError
from quarterdeck.malformed import loads, whole
from quarterdeck.mcpclient import HeaderSource, split_url
from quarterdeck.wire.client import Pool, Response
from quarterdeck.wire.sse import SseParser

from .config import Model
from .credentials import FORWARDED_KEY, forwarded_key

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
    extra: dict[str, Any] = field(default_factory=dict[str, Any])
    """What the provider wants back with the call, such as Gemini's thought signature (``extra_content``)."""

    def message(self) -> dict[str, Any]:
        """The call as an assistant message holds it."""
        function = {"name": self.name, "arguments": json.dumps(self.arguments)}
        call: dict[str, Any] = {"id": self.id, "type": "function", "function": function}
        return call | ({"extra_content": self.extra} if self.extra else {})


@dataclass(slots=True)
class Reply:
    """The model's answer: text, calls, or both."""

    text: str
    """What it says; its refusal where it says nothing else."""
    calls: list[ToolCall] = field(default_factory=list[ToolCall])
    usage: dict[str, int] = field(default_factory=dict[str, int])
    """Counts as the provider reports them, with ``cached_tokens`` and ``reasoning_tokens`` where it does."""
    finish: str = ""
    """``stop``, ``length``, ``tool_calls``, ``content_filter``; empty when the provider does not say."""
    refusal: str = ""

    def message(self) -> Message:
        """The assistant message to keep in the conversation."""
        message: Message = {"role": "assistant", "content": self.text or None}
        if self.calls:
            message["tool_calls"] = [call.message() for call in self.calls]
        return message


class Unreachable(UpstreamError):
    """The connection could not be made, or broke: nobody answered. Asking again may help."""


class Overloaded(Unreachable):
    """The provider answered that it has no capacity now. ``retry_after``: seconds it asks for, where it does."""

    def __init__(self, message: str, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class Filtered(UpstreamError):
    """The provider's content filter refused the question."""


class Malformed(UpstreamError):
    """The answer is no chat completion, or its tool calls have no usable shape. Asking again may help."""


class _Answered(UpstreamError):
    """The endpoint answered that it will not do it."""


class ChatModel:
    """One model behind one endpoint."""

    def __init__(self, pool: Pool, model: Model, headers: HeaderSource, *, timeout: float = 0.0) -> None:
        """``timeout`` in seconds, 0: the model's own."""
        self._pool = pool
        self._model = model
        self._headers = headers
        self._timeout = timeout or model.timeout
        base = (model.base_url or "https://api.openai.com/v1").rstrip("/")
        self._origin, self._target = split_url(f"{base}/chat/completions")

    def other(self, model: Model) -> ChatModel:
        """Another model, reached in the same way."""
        return ChatModel(self._pool, model, self._headers)

    async def reply(
        self,
        messages: list[Message],
        tools: list[dict[str, Any]],
        on_text: OnText | None = None,
        *,
        response_format: dict[str, Any] | None = None,
    ) -> Reply:
        """Ask once. ``on_text`` gets the text as it comes (streaming); ``response_format`` as OpenAI has it.

        Raises Denied, TimedOut, UpstreamError, and of these Filtered, Malformed, Unreachable when the connection
        broke, and Overloaded when the provider asks to come back later.
        """
        body: dict[str, Any] = {"model": self._model.model, "messages": messages, "stream": on_text is not None}
        for name in ("temperature", "max_tokens"):
            value = getattr(self._model, name)
            if value is not None:
                body[name] = value
        if on_text is not None:
            body["stream_options"] = {"include_usage": True}
        if tools:
            body["tools"] = tools
        if response_format is not None:
            body["response_format"] = response_format
        try:
            async with asyncio.timeout(self._timeout):
                response = await self._post(body)
                try:
                    if on_text is None:
                        return _parse(await response.read())
                    return await _collect(response, on_text)
                finally:
                    response.close()
        except Overloaded as error:
            raise Overloaded(f"model {self._model.model}: {error}", error.retry_after) from error
        except UpstreamError as error:
            kind = _KINDS.get(type(error), Unreachable)
            raise kind(f"model {self._model.model}: {error}") from error
        except TimeoutError:
            raise TimedOut(f"model {self._model.model} gave no complete answer within {self._timeout:g} s") from None

    async def _post(self, body: dict[str, Any]) -> Response:
        headers = [
            (b"content-type", b"application/json"),
            *((k.lower().encode(), v.encode()) for k, v in self._model.headers.items()),
            *await self._headers(),
        ]
        if key := forwarded_key.get():
            headers.append((FORWARDED_KEY.encode(), key.encode("latin-1", "ignore")))
        response = await self._pool.request(
            "POST", self._origin, self._target, headers, json.dumps(body).encode(), timeout=None
        )
        if response.status == 200:
            return response
        text = (await response.read())[:4000].decode("utf-8", "replace")
        error: dict[str, Any] = {}
        with contextlib.suppress(ValueError, KeyError, TypeError):
            found = loads(text)["error"]
            text, error = found["message"], found
        if response.status in (401, 403):
            raise Denied(f"model {self._model.model}: HTTP {response.status}: {text}")
        raise _problem(f"HTTP {response.status}: {text}", error, response.status, response.header(b"retry-after"))


_KINDS: dict[type[UpstreamError], type[UpstreamError]] = {
    _Answered: UpstreamError, Filtered: Filtered, Malformed: Malformed,
}  # fmt: skip


def _problem(text: str, error: dict[str, Any], status: int, retry_after: bytes | None = None) -> UpstreamError:
    """What an error in OpenAI's shape means. 503 without Retry-After is the gateway's own word on a ModelConfig."""
    kind, code = str(error.get("type") or ""), str(error.get("code") or "")
    if code == "content_filter" or kind == "content_filter":
        return Filtered(text)
    busy = status in (429, 529) or kind in ("overloaded_error", "rate_limit_error") or retry_after is not None
    if busy and "insufficient_quota" not in (kind, code):
        seconds = (retry_after or b"").strip()
        return Overloaded(text, float(seconds) if seconds.isdigit() and len(seconds) < 7 else None)
    return _Answered(text)


def _parse(body: bytes) -> Reply:
    try:
        document = loads(body)
        choice = document["choices"][0]
        message = choice["message"]
        calls = [_call(c, c["function"]["name"], c["function"]["arguments"]) for c in message.get("tool_calls") or []]
        refusal = message.get("refusal") or ""
        text = message.get("content") or refusal
        return Reply(text, _distinct(calls), _usage(document), choice.get("finish_reason") or "", refusal)
    except (ValueError, KeyError, TypeError, IndexError, AttributeError, RecursionError) as error:
        raise Malformed(f"the answer is not a chat completion: {type(error).__name__}: {error}") from error


class _Pieces:
    """A stream of chunks put together (chat.completion.chunk)."""

    def __init__(self) -> None:
        self.text: list[str] = []
        self.refusal: list[str] = []
        self.usage: dict[str, int] = {}
        self.finish = ""
        self._half = ""
        """The first half of a character, whose second half comes with the next chunk."""
        self._calls: dict[int, dict[str, Any]] = {}

    def take(self, data: bytes) -> str:
        """The text in one chunk. Raises UpstreamError for an error, or what is no chunk."""
        try:
            document = json.loads(data)
            if isinstance(document.get("error"), dict):
                raise self._failed(document["error"])
            self.usage = _usage(document) or self.usage
            choice: dict[str, Any] = (document.get("choices") or [{}])[0]
            delta: dict[str, Any] = choice.get("delta") or {}
            self.finish = choice.get("finish_reason") or self.finish
            for part in delta.get("tool_calls") or []:
                self._part(part)
            if delta.get("refusal"):
                self.refusal.append(str(delta["refusal"]))
            return self._whole(str(delta.get("content") or ""))
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise Malformed(f"the stream holds what is no chunk: {error}") from error

    def _whole(self, text: str) -> str:
        text = self._half + text
        self._half = text[-1:] if "\ud800" <= text[-1:] <= "\udbff" else ""
        text = text[: len(text) - len(self._half)]
        return text if text.isascii() else whole(text)

    def rest(self) -> str:
        """What is still held back at the end."""
        return whole(self._half)

    def _failed(self, error: dict[str, Any]) -> UpstreamError:
        found = _problem(str(error.get("message") or "the stream ended with an error"), error, 0)
        return _Answered(str(found)) if self.text else found  # what was streamed cannot be taken back

    def _part(self, part: dict[str, Any]) -> None:
        call = self._calls.setdefault(int(part.get("index", 0)), {"id": "", "name": "", "arguments": ""})
        call["id"] = part.get("id") or call["id"]
        if part.get("extra_content"):
            call["extra_content"] = part["extra_content"]
        function = part.get("function") or {}
        call["name"] = whole(call["name"] + (function.get("name") or ""))
        call["arguments"] += function.get("arguments") or ""

    def reply(self) -> Reply:
        calls = [_call(c, c["name"], c["arguments"]) for _, c in sorted(self._calls.items())]
        refusal = whole("".join(self.refusal))
        return Reply("".join(self.text) or refusal, _distinct(calls), self.usage, self.finish, refusal)


async def _collect(response: Response, on_text: OnText) -> Reply:
    parser, pieces, done = SseParser(), _Pieces(), False

    async def said(piece: str) -> None:
        if piece:
            pieces.text.append(piece)
            await on_text(piece)

    async for chunk in response:
        for event in parser.feed(chunk):
            done = done or event.data == b"[DONE]"
            if event.data not in (b"", b"[DONE]"):
                await said(pieces.take(event.data))
    if not done and not pieces.finish:
        raise UpstreamError("the stream ended before the answer did")
    await said(pieces.rest())
    return pieces.reply()


def _call(part: dict[str, Any], name: str, arguments: str | dict[str, Any] | None) -> ToolCall:
    """A tool call with its arguments parsed; malformed ones are kept as a problem the model is told about."""
    call_id = part.get("id") or f"call_{uuid4().hex[:12]}"
    given = part.get("extra_content")
    extra: dict[str, Any] = given if isinstance(given, dict) else {}
    if isinstance(arguments, dict):
        return ToolCall(call_id, name, arguments, extra=extra)
    try:
        parsed = loads(arguments or "{}")
    except (ValueError, RecursionError) as error:
        return ToolCall(call_id, name, {}, f"the arguments are not valid JSON ({error})", extra)
    if not isinstance(parsed, dict):
        return ToolCall(call_id, name, {}, "the arguments must be a JSON object", extra)
    return ToolCall(call_id, name, parsed, extra=extra)


def _distinct(calls: list[ToolCall]) -> list[ToolCall]:
    """With a fresh id for a call whose id another call of the answer has."""
    seen: set[str] = set()
    for at, call in enumerate(calls):
        if call.id in seen:
            calls[at] = replace(call, id=f"call_{uuid4().hex[:12]}")
        seen.add(call.id)
    return calls


def _usage(document: dict[str, Any]) -> dict[str, int]:
    """The counts of a completion; those that OpenAI nests are lifted out."""
    usage = document.get("usage") or {}
    found = {k: v for k, v in usage.items() if isinstance(v, int)}
    for part, name in (("prompt_tokens_details", "cached_tokens"), ("completion_tokens_details", "reasoning_tokens")):
        value = (usage.get(part) or {}).get(name)
        if isinstance(value, int) and value:
            found[name] = value
    return found
