"""Memory for agents, on their port: kagent's ``/api/memories…`` and what our own host asks, ``/v1/memories…``.

Paths, members and bare answers of the first are kagent's (its ``handlers/memory.go``; reference/kagent.md §6), but
vectors may have any length. An agent is known by its Pod's token, whatever ``agent_name`` it sends, and it reaches the
memories of a user only while that user has a session with it, or a run of it that goes on.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Iterable, Mapping
from datetime import UTC, datetime
from typing import Any, TypeVar

import msgspec
from msgspec import Struct

from quarterdeck.errors import BadRequest, Forbidden
from quarterdeck.malformed import MALFORMED

from .database import Row
from .http import Answer, Call, Route, route
from .memory_store import TTL, MemoryStore, New, Owner, Question

Who = Callable[[Call, str, Iterable[object]], Awaitable[tuple[str, str]]]
"""``KagentApi.who``: the verified agent and the user it works for, given the session and the user that it names."""
T = TypeVar("T")
NOBODY = "anonymous"
"""The user of all whom the gateway does not know."""
_ITEMS = 50
_CONTENT = 32 * 1024
_DETAILS = 8 * 1024
_DIMENSIONS = 4096
_TEXT = 8 * 1024
_RESULTS = 50
_STALE = 16
_DAY = 86400.0
_LONGEST = 36_500
"""Bounds: memories in one request, characters of one, of its metadata as JSON, numbers of a vector, characters of a
question that count, results, memories given back to be embedded anew; a day in seconds, days of a time to live."""


class _Item(Struct):
    """kagent's AddSessionMemoryRequest."""

    agent_name: str = ""
    user_id: str = ""
    content: str = ""
    vector: list[float] = []
    metadata: Any = None
    ttl_days: int = 0


class _Batch(Struct):
    items: list[_Item] = []


class _Search(Struct):
    agent_name: str = ""
    user_id: str = ""
    vector: list[float] = []
    limit: int = 0
    min_score: float = 0.0


class _Fact(Struct):
    content: str
    vector: list[float] = []
    metadata: Any = None


class _Save(Struct, rename="camel"):
    """``session`` and ``turns``: facts of a conversation up to that user message, saved once."""

    user: str
    items: list[_Fact]
    model: str = ""
    ttl_days: int = 0
    source: str = "tool"
    session: str = ""
    turns: int = 0


class _Find(Struct, rename="camel"):
    user: str
    text: str = ""
    vector: list[float] = []
    model: str = ""
    limit: int = 5
    min_score: float = 0.0


class _Vectors(Struct):
    user: str
    model: str
    vectors: dict[str, list[float]]


class MemoryApi:
    """``hosted`` says of which agents our own host is; of others ``who`` knows who has a session."""

    def __init__(self, store: MemoryStore, who: Who, hosted: Callable[[str], bool] = lambda agent: True) -> None:
        self._store = store
        self._who = who
        self._hosted = hosted

    def routes(self) -> list[Route]:
        return [
            route("POST", "/api/memories/sessions", self.add),
            route("POST", "/api/memories/sessions/batch", self.add_batch),
            route("POST", "/api/memories/search", self.search),
            route("GET", "/api/memories", self.list),
            route("DELETE", "/api/memories", self.forget),
            route("POST", "/v1/memories", self.save),
            route("POST", "/v1/memories/search", self.find),
            route("POST", "/v1/memories/vectors", self.embed),
            route("GET", "/v1/memories/progress", self.progress),
        ]

    # -- kagent's
    async def add(self, call: Call) -> Answer:
        item = _read(call, _Item)
        owner = await self._owner(call, item.user_id)
        ids = await self._store.save(owner, [_of_kagent(item, "")])
        return Answer({"id": ids[0]}, 201)

    async def add_batch(self, call: Call) -> Answer:
        items = _read(call, _Batch).items
        _count(items)
        users = {item.user_id for item in items}
        if len(users) != 1:
            raise BadRequest("items: must all be of one user_id")
        owner = await self._owner(call, users.pop())
        await self._store.save(owner, [_of_kagent(item, f"items[{n}].") for n, item in enumerate(items)])
        return Answer({"count": len(items)}, 201)

    async def search(self, call: Call) -> Answer:
        asked = _read(call, _Search)
        owner = await self._owner(call, asked.user_id)
        if not asked.vector:
            raise BadRequest("vector: is missing; it is what memories are compared with")
        question = Question(
            "", _vector(asked.vector, ""), limit=_limit(asked.limit), least=_score(asked.min_score, "min_score")
        )
        rows = await self._store.search(owner, question)
        return Answer([
            {
                "id": row["id"], "content": row["content"], "score": round(row["score"], 6),
                "metadata": json.loads(row["details"]), "created_at": moment(row["created_at"]),
            } for row in rows
        ])  # fmt: skip

    async def list(self, call: Call) -> Answer:
        owner = await self._owner(call, "")
        rows = await self._store.list(owner.agent, owner.user)
        return Answer([
            {
                "id": row["id"], "content": row["content"], "access_count": row["uses"],
                "created_at": moment(row["created_at"]), "expires_at": moment(row["expires_at"]),
            } for row in rows
        ])  # fmt: skip

    async def forget(self, call: Call) -> Answer:
        owner = await self._owner(call, "")
        await self._store.forget(owner.agent, owner.user)
        return Answer({"status": "deleted"})

    # -- our host's
    async def save(self, call: Call) -> Answer:
        """``{user, items: [{content, vector?, metadata?}], model?, ttlDays?, source?, session?, turns?}`` → ids."""
        asked = _read(call, _Save)
        owner = await self._owner(call, asked.user)
        if not asked.session:
            _count(asked.items)
        elif len(asked.items) > _ITEMS or not 0 < asked.turns < 1 << 31 or len(asked.session) > 255:
            raise BadRequest(f"at most {_ITEMS} items, turns from 1, a session of at most 255 characters")
        items = [
            New(
                _content(item.content, f"items[{n}]."),
                _vector(item.vector, f"items[{n}].") if item.vector else None,
                _name(asked.model, "model"),
                _ttl(asked.ttl_days),
                "auto" if asked.source == "auto" else "tool",
                _details(item.metadata, f"items[{n}]."),
            )
            for n, item in enumerate(asked.items)
        ]
        ids = await self._store.save(owner, items, session=asked.session, turns=asked.turns)
        return Answer({"ids": ids}, 201)

    async def find(self, call: Call) -> Answer:
        """``{user, text?, vector?, model?, limit?, minScore?}`` → ``{memories, stale}``.

        ``stale``: memories that have no vector of that model and length, to be embedded anew.
        """
        asked = _read(call, _Find)
        owner = await self._owner(call, asked.user)
        model, vector = _name(asked.model, "model"), _vector(asked.vector, "") if asked.vector else None
        text = _clean(asked.text[:_TEXT])
        least = _score(asked.min_score, "minScore")
        rows = await self._store.search(owner, Question(text, vector, model, _limit(asked.limit), least))
        stale = await self._store.stale(owner, model, len(vector), _STALE) if vector else []
        return Answer({"memories": [shown(row) for row in rows], "stale": stale})

    async def embed(self, call: Call) -> Answer:
        """``{user, model, vectors: {id: vector}}`` → how many of them are the user's."""
        asked = _read(call, _Vectors)
        owner = await self._owner(call, asked.user)
        _count(asked.vectors)
        vectors = {ident: _vector(vector, f"vectors.{ident[:40]}.") for ident, vector in asked.vectors.items()}
        return Answer({"embedded": await self._store.embed(owner, _name(asked.model, "model"), vectors)})

    async def progress(self, call: Call) -> Answer:
        """``?user=&session=`` → up to which user message its facts were saved."""
        owner = await self._owner(call, call.query.get("user", ""))
        return Answer({"turns": await self._store.progress(owner, call.query.get("session", ""))})

    async def _owner(self, call: Call, said: str) -> Owner:
        """Whose memories a request is about. Raises Forbidden when the user has no session with the agent."""
        named = {name for name in (said, call.header(b"x-user-id"), call.query.get("user_id", "")) if name}
        agent, user = await self._who(call, "", (said,))
        if NOBODY in (user, *named):
            raise Forbidden("callers without a credential have no memories: nobody knows who they are")
        if not self._hosted(agent):
            return Owner(agent, user)
        if not named:
            raise BadRequest("user_id: is missing; a memory is of an agent and a user")
        if len(named) > 1:
            raise Forbidden(f"agent {agent} names several users in one request: {', '.join(sorted(named))[:300]}")
        owner = Owner(agent, named.pop())
        if len(owner.user) > 255:
            raise BadRequest("user_id: is longer than 255 characters")
        if not await self._store.may(owner):
            raise Forbidden(
                f"agent {agent} has no session of user {owner.user!r}; it reaches a user's memories only while it "
                "works for that user"
            )
        return owner


def shown(row: Row) -> dict[str, Any]:
    """A memory as ``/v1/memories`` has it; ``score`` where it was searched for."""
    found = {
        "id": row["id"], "agent": row["agent"], "user": row["user_id"], "content": row["content"],
        "source": row["source"], "model": row["model"], "dimensions": row["dimensions"], "uses": row["uses"],
        "metadata": json.loads(row["details"]), "createdAt": moment(row["created_at"]),
        "expiresAt": moment(row["expires_at"]),
    }  # fmt: skip
    return found | ({"score": round(row["score"], 6)} if "score" in row else {})


def moment(seconds: float) -> str:
    """RFC 3339, UTC, whole seconds."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def _read(call: Call, kind: type[T]) -> T:
    try:
        return msgspec.convert(call.body(), kind)
    except MALFORMED as error:
        raise BadRequest(f"the body is not as it must be: {error}") from error


def _of_kagent(item: _Item, where: str) -> New:
    if not item.vector:
        raise BadRequest(f"{where}vector: is missing; agents embed what they remember themselves")
    content, vector = _content(item.content, where), _vector(item.vector, where)
    return New(content, vector, ttl=_ttl(item.ttl_days), details=_details(item.metadata, where))


def _content(text: str, where: str) -> str:
    clean = _clean(text).strip()
    if not clean or len(clean) > _CONTENT:
        raise BadRequest(f"{where}content: must have 1 to {_CONTENT} characters, it has {len(clean)}")
    return clean


def _clean(text: str) -> str:
    """Without what databases refuse: NUL, halves of surrogate pairs."""
    return text.replace("\0", " ").encode("utf-8", "replace").decode()


def _name(text: str, field: str) -> str:
    if len(text) > 255:
        raise BadRequest(f"{field}: is longer than 255 characters")
    return _clean(text)


def _vector(numbers: list[float], where: str) -> list[float]:
    if not 0 < len(numbers) <= _DIMENSIONS:
        raise BadRequest(f"{where}vector: must have 1 to {_DIMENSIONS} numbers, it has {len(numbers)}")
    return numbers


def _details(metadata: Any, where: str) -> Mapping[str, Any]:
    given = {} if metadata is None else metadata
    if not isinstance(given, dict):
        raise BadRequest(f"{where}metadata: must be an object")
    if len(json.dumps(given)) > _DETAILS:
        raise BadRequest(f"{where}metadata: is longer than {_DETAILS} characters of JSON")
    return given


def _count(items: list[Any] | dict[str, Any]) -> None:
    if not 0 < len(items) <= _ITEMS:
        raise BadRequest(f"must have 1 to {_ITEMS} entries, there are {len(items)}")


def _limit(asked: int) -> int:
    return min(asked, _RESULTS) if asked > 0 else 5


def _score(asked: float, field: str) -> float:
    if not 0.0 <= asked <= 1.0:
        raise BadRequest(f"{field}: must be from 0 to 1")
    return asked


def _ttl(days: int) -> float:
    """Seconds; kagent's 15 days for 0 and less."""
    return min(days, _LONGEST) * _DAY if days > 0 else TTL
