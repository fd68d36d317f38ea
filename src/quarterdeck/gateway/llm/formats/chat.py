"""A request for a chat completion, as OpenAI's API has it, read once for the formats it is translated to.

https://platform.openai.com/docs/api-reference/chat/create
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Literal

import msgspec
from msgspec import Struct

from quarterdeck.errors import QuarterdeckError
from quarterdeck.malformed import MALFORMED


class Unfit(QuarterdeckError):
    """The request asks for what the provider cannot do, or is none."""

    reason = "BadRequest"
    http_status = 400


class Function(Struct):
    """Of a tool: ``parameters`` is JSON Schema. Of a call: ``arguments`` is JSON as text."""

    name: str
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None
    arguments: str | dict[str, Any] | None = None


class Call(Struct):
    function: Function
    id: str = ""
    extra_content: dict[str, Any] | None = None

    def arguments(self) -> dict[str, Any]:
        """Raises Unfit when they are no JSON object."""
        given = self.function.arguments
        if isinstance(given, dict):
            return given
        try:
            return msgspec.json.decode(given or "{}", type=dict[str, Any])
        except MALFORMED as error:
            raise Unfit(
                f"the arguments of call {self.id} to {self.function.name} are no JSON object: {error}"
            ) from None

    def written(self) -> str:
        """The arguments as JSON, as they came: who takes text need not be able to read it."""
        given = self.function.arguments
        return msgspec.json.encode(given).decode() if isinstance(given, dict) else given or "{}"


class Tool(Struct):
    function: Function
    type: str = "function"
    cache_control: dict[str, Any] | None = None


class Text(Struct):
    text: str
    cache: dict[str, Any] | None = None
    """``cache_control`` that the caller put there, as Anthropic has it."""


class Image(Struct):
    """One of both: ``data`` (base64) of ``media_type``, or ``url``."""

    media_type: str = ""
    data: str = ""
    url: str = ""
    cache: dict[str, Any] | None = None


class Message(Struct):
    role: str
    content: str | list[dict[str, Any]] | None = None
    tool_calls: list[Call] | None = None
    tool_call_id: str | None = None
    name: str | None = None
    refusal: str | None = None

    def parts(self) -> Iterator[Text | Image]:
        """The content. Raises Unfit for parts that are neither text nor image."""
        if isinstance(self.content, str):
            if self.content:
                yield Text(self.content)
            return
        for part in self.content or ():
            kind, cache = part.get("type"), part.get("cache_control")
            if kind == "text":
                yield Text(str(part.get("text") or ""), cache)
            elif kind == "image_url":
                yield _image(part.get("image_url"), cache)
            elif kind == "refusal":
                yield Text(str(part.get("refusal") or ""), cache)
            else:
                raise Unfit(f"a content part of type {kind!r} cannot be translated; send text or image_url")

    def text(self) -> str:
        """The texts of the content, one after the other."""
        return "".join(part.text for part in self.parts() if isinstance(part, Text))

    def shown(self) -> list[Text | Image]:
        """The content without blank texts, which providers that have blocks refuse."""
        return [part for part in self.parts() if isinstance(part, Image) or part.text.strip()]


class StreamOptions(Struct):
    include_usage: bool | None = None


class Chat(Struct):
    """What is not listed is not translated: fields without which the answer is another wording of the same."""

    messages: list[Message]
    model: str = ""
    tools: list[Tool] | None = None
    tool_choice: Any = None
    parallel_tool_calls: bool | None = None
    temperature: float | None = None
    top_p: float | None = None
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    stop: str | list[str] | None = None
    seed: int | None = None
    n: int | None = None
    frequency_penalty: float | None = None
    presence_penalty: float | None = None
    reasoning_effort: str | None = None
    response_format: dict[str, Any] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None

    def longest(self) -> int | None:
        """Tokens of the longest answer wanted."""
        return self.max_completion_tokens or self.max_tokens

    def stops(self) -> list[str]:
        return [self.stop] if isinstance(self.stop, str) else self.stop or []

    def choice(self) -> tuple[Literal["auto", "none", "required", "one", ""], str]:
        """``tool_choice``, and the tool's name for ``one``. Raises Unfit."""
        given = self.tool_choice
        if given is None:
            return "", ""
        if given in ("auto", "none", "required"):
            return given, ""
        if isinstance(given, dict) and isinstance(given.get("function"), dict):
            return "one", str(given["function"].get("name") or "")
        raise Unfit(f"tool_choice {given!r} is not one of auto, none, required or a function")

    def called(self) -> list[Tool]:
        """Tools of the calls in the conversation, by name alone: some providers refuse those of which nothing is said,
        which is so when a tool is not there any more."""
        names = dict.fromkeys(call.function.name for message in self.messages for call in message.tool_calls or ())
        return [Tool(Function(name)) for name in names]

    def schema(self) -> dict[str, Any] | None:
        """JSON Schema of the answer, where one is wanted. Raises Unfit."""
        wanted = self.response_format or {}
        if wanted.get("type") != "json_schema":
            return None
        described = wanted.get("json_schema")
        if not isinstance(described, dict):
            raise Unfit("response_format.json_schema: must be an object with a name and a schema")
        return described.get("schema")

    def single(self, provider: str) -> None:
        """Raises Unfit where several answers are wanted."""
        if self.n is not None and self.n > 1:
            raise Unfit(f"n: {provider} gives one answer for a request")


_chat = msgspec.json.Decoder(Chat)
_SYSTEM = ("system", "developer")


def split(messages: list[Message]) -> tuple[list[Text | Image], list[Message]]:
    """Instructions at the beginning, and the rest, in which later ones are the user's words."""
    at = next((i for i, message in enumerate(messages) if message.role not in _SYSTEM), len(messages))
    return [part for message in messages[:at] for part in message.shown()], messages[at:]


def turns(
    messages: list[Message],
    blocks: Callable[[Message], list[dict[str, Any]]],
    provider: str,
    *,
    assistant: str = "assistant",
    content: str = "content",
) -> list[dict[str, Any]]:
    """Turns of user and assistant, as most providers want them: what follows in one role is one. Raises Unfit."""
    found: list[dict[str, Any]] = []
    for message in messages:
        role = assistant if message.role == "assistant" else "user"
        made = blocks(message)
        if found and found[-1]["role"] == role:
            found[-1][content] += made
        elif made:
            found.append({"role": role, content: made})
    if not found:
        raise Unfit(f"messages: {provider} wants at least one message of the user's")
    return found


def read(body: bytes) -> Chat:
    """Raises Unfit naming the field."""
    try:
        return _chat.decode(body)
    except MALFORMED as error:
        raise Unfit(f"the body is no chat completion request: {error}") from None


def _image(given: Any, cache: dict[str, Any] | None) -> Image:
    url = str(given.get("url") or "") if isinstance(given, dict) else str(given or "")
    if not url.startswith("data:"):
        if not url.startswith(("https://", "http://")):
            raise Unfit("image_url must be a data: or an http(s) URL")
        return Image(url=url, cache=cache)
    head, _, data = url[5:].partition(",")
    media, _, encoding = head.partition(";")
    if encoding != "base64" or not media.startswith("image/"):
        raise Unfit("image_url: a data: URL must be data:image/…;base64,…")
    return Image(media, data, cache=cache)
