"""A model's answer on its way to the caller: as it came, or translated."""

from __future__ import annotations

from typing import Any

import msgspec

from quarterdeck.errors import TimedOut, UpstreamError
from quarterdeck.malformed import MALFORMED
from quarterdeck.wire.http import Header

from ..call import Call
from ..observe import Observer
from ..upstream import Relay, Upstreams
from .access import Tokens
from .formats.answer import Chunks, Completion
from .formats.base import Format
from .formats.problem import Problem, problem
from .framing import Cutter, cutter
from .request import Prepared
from .route import ModelRoute
from .usage import TAIL, find_model, find_usage

JSON: list[Header] = [(b"content-type", b"application/json")]
_SSE: list[Header] = [(b"content-type", b"text/event-stream"), (b"cache-control", b"no-cache")]
_PASSED_BACK = frozenset({b"content-type", b"retry-after", b"x-request-id", b"cache-control", b"openai-processing-ms"})
_LONGEST = 32 * 1024 * 1024  # bytes of an answer that is held until it is complete
_LONGEST_ERROR = 64 * 1024
NO_ANSWER = (*MALFORMED, KeyError, TypeError, AttributeError, IndexError, ValueError, OverflowError)
"""What formats raise for a document that is not what they know."""


def answer_error(
    call: Call, status: int, message: str, kind: str, *, code: str = "", headers: list[Header] | None = None
) -> None:
    """An error in OpenAI's shape."""
    error = {"message": message, "type": kind, "param": None, "code": code or str(status)}
    call.exchange.respond(status, msgspec.json.encode({"error": error}), JSON + (headers or []))


class LlmRelay(Relay):
    """Streams a model's answer and keeps its first and last bytes to count tokens."""

    __slots__ = ("_head", "_observer", "_route", "_status", "_tail", "call", "tokens")

    def __init__(self, upstreams: Upstreams, call: Call, observer: Observer, route: ModelRoute) -> None:
        super().__init__(upstreams, call.exchange, route.model.timeout)
        self.call = call
        self._observer = observer
        self._route = route
        self._status = 0
        self._head = b""
        self._tail = b""
        self.tokens: Tokens | None = None
        """Where tokens come from that the provider may turn out to refuse."""

    @property
    def agent(self) -> str:
        return self.call.principal.agent

    def refused(self) -> None:
        """The provider does not know the key, or does not take the token any more."""
        if self._route.model.passthrough:
            message = f"model {self._route.label}: its provider refused your key (HTTP {self._status})"
            self.abandon()
            answer_error(self.call, 401, message, "authentication_error")
            self._observer.finish(self.call, "error", 401, message)
        else:
            self.give_up(UpstreamError(f"refused the configured key (HTTP {self._status}); check its apiKeySecret"))

    def on_head(self, status: int, headers: list[Header]) -> None:
        self.heard = True
        self._status = status
        access = self._route.model.access
        if status in (401, 403, 404) and self.tokens is not None and access is not None:
            self.tokens.forget(access)  # 404: the deployment that was found may be gone
        if status in (401, 403):
            self.refused()
        else:
            self.begin(status, headers)

    def begin(self, status: int, headers: list[Header]) -> None:
        """The provider answers, be it with an error."""
        kept = [header for header in headers if header[0] in _PASSED_BACK or header[0].startswith(b"x-ratelimit-")]
        length = [header for header in headers if header[0] == b"content-length"]
        self.exchange.start(status, kept + length[:1])
        self.stream_to_client()

    def on_body(self, data: bytes) -> None:
        if self.finished:
            return
        self.heard = True
        self.exchange.write(data)
        if len(self._head) < 512:
            self._head += data[:512]
        self._tail = data[-TAIL:] if len(data) >= TAIL else (self._tail + data)[-TAIL:]

    def complete(self) -> None:
        self.exchange.finish()
        model = self._route.model.model
        usage = find_usage(self._tail)
        if usage is not None:
            answered_by = find_model(self._head)
            self._observer.tokens(self.call, model, answered_by, usage.prompt_tokens, usage.completion_tokens)
        self._observer.finish(self.call, "ok" if self._status < 400 else "error", self._status)

    def failed(self, error: UpstreamError | TimedOut) -> None:
        status = 504 if isinstance(error, TimedOut) else 502
        message = f"model {self._route.label} failed: {error}"
        if self.exchange.started:
            self.exchange.abort()  # the only way to say that a streamed answer is incomplete
        else:
            answer_error(self.call, status, message, "upstream_error")
        self._observer.finish(self.call, "error", status, message)

    def cancelled(self) -> None:
        self._observer.finish(self.call, "error", 499, "the client closed the connection")


class TranslatingRelay(LlmRelay):
    """Makes a chat completion, or a stream of chunks, of what a provider answers in its own format."""

    __slots__ = ("_body", "_chunks", "_cutter", "_form", "_prepared", "_retry_after", "_size", "_translator")

    def __init__(
        self, upstreams: Upstreams, call: Call, observer: Observer, route: ModelRoute, form: Format, prepared: Prepared
    ) -> None:
        super().__init__(upstreams, call, observer, route)
        self._form = form
        self._prepared = prepared
        self._retry_after: list[Header] = []
        self._body: list[bytes] = []
        self._size = 0
        self._cutter: Cutter | None = None
        chat = prepared.chat
        options = chat.stream_options if chat is not None else None
        self._chunks = Chunks(usage=bool(options is not None and options.include_usage))
        self._translator = form.translator(self._chunks)

    def begin(self, status: int, headers: list[Header]) -> None:
        self._retry_after = [header for header in headers if header[0] == b"retry-after"][:1]
        chat = self._prepared.chat
        if status == 200 and chat is not None and chat.stream:
            self._cutter = cutter(self._form.framing)
            self.stream_to_client()

    def on_body(self, data: bytes) -> None:
        if self.finished:
            return
        self.heard = True
        if self._cutter is None:
            self._collect(data)
            return
        try:
            for name, document in self._cutter.feed(data):
                self._translator.event(name, document)
                if self._chunks.failed:
                    break
        except UpstreamError as error:
            self.give_up(error)
            return
        except NO_ANSWER as error:
            self.give_up(_no_answer(error))
            return
        if self._chunks.failed:
            self._broken()
        else:
            self._pass()
            self.hold(self._cutter.waiting)

    def _collect(self, data: bytes) -> None:
        self._size += len(data)
        if self._status != 200:
            if self._size <= _LONGEST_ERROR:
                self._body.append(data)
        elif self._size > _LONGEST:
            self.give_up(UpstreamError(f"answered with more than {_LONGEST} bytes"))
        else:
            self._body.append(data)
            self.hold(self._size)

    def _pass(self) -> None:
        """Send what is ready. The head waits for it: until then an error can still be told by its status."""
        ready = self._chunks.take()
        if ready:
            if not self.exchange.started:
                self.exchange.start(200, _SSE)
            self.exchange.write(ready)

    def _broken(self) -> None:
        """The provider ended its stream with an error."""
        error = self._chunks.error
        assert error is not None
        self.abandon()
        if self.exchange.started:
            self.exchange.write(self._chunks.take())
            self.exchange.finish()
            self._observer.finish(self.call, "error", 200, error.message)
        else:
            self._tell(error)

    def _tell(self, error: Problem) -> None:
        headers = self._retry_after
        if not headers and error.retry_after is not None:
            headers = [(b"retry-after", b"%d" % error.retry_after)]
        answer_error(self.call, error.status, error.message, error.kind, code=error.code, headers=headers)
        self._observer.finish(self.call, "error", error.status, error.message)

    def complete(self) -> None:
        try:
            if self._cutter is not None:
                self._chunks.end()
                self._pass()
                self.exchange.finish()
                self._count(self._chunks.model, self._chunks.tokens.prompt, self._chunks.tokens.completion)
            elif self._status != 200:
                self._tell(problem(self._status, b"".join(self._body)))
                return
            else:
                self._answer(msgspec.json.decode(b"".join(self._body)))
        except UpstreamError as error:
            self.failed(error)
        except NO_ANSWER as error:
            self.failed(_no_answer(error))
        else:
            self._observer.finish(self.call, "ok", 200)

    def _answer(self, document: Any) -> None:
        if self._prepared.chat is not None:
            completion: Completion = self._form.answer(document)
            self.exchange.respond(200, completion.encode(), JSON)
            self._count(completion.model, completion.tokens.prompt, completion.tokens.completion)
            return
        assert self._form.embeddings is not None
        found = self._form.embeddings.answer(self._route.model, document)
        self.exchange.respond(200, msgspec.json.encode(found), JSON)
        self._count(str(found.get("model") or ""), (found.get("usage") or {}).get("prompt_tokens") or 0, 0)

    def _count(self, answered_by: str, prompt: int, completion: int) -> None:
        model = self._route.model.model
        self._observer.tokens(self.call, model, (answered_by or model)[:200], prompt, completion)

    def failed(self, error: UpstreamError | TimedOut) -> None:
        if not self.exchange.started:
            super().failed(error)
            return
        message = f"model {self._route.label} failed: {error}"
        self._chunks.fail(Problem(502, message, "upstream_error"))
        self.exchange.write(self._chunks.take())
        self.exchange.finish()
        self._observer.finish(self.call, "error", 504 if isinstance(error, TimedOut) else 502, message)


def _no_answer(error: Exception) -> UpstreamError:
    return UpstreamError(f"sent what is no answer in its format ({type(error).__name__}: {error})")
