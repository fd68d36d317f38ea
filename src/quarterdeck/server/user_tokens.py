"""What users granted at MCP servers (``auth: oauth``), sealed, for all gateways; and the flows that are under way.

Only gateways read it. A grant that is revoked goes, and a mark of that travels with the revocations to every gateway,
so that what one of them still remembers ends within a second.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from hashlib import sha256
from time import time
from typing import Any
from uuid import uuid4

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from msgspec import Struct
from sqlalchemy import ColumnElement, and_, delete, func, insert, or_, select, update
from sqlalchemy.exc import IntegrityError

from quarterdeck.errors import Conflict
from quarterdeck.snapshot.revocations import Revocation
from quarterdeck.snapshot.sign_in import Kind

from .database import Database
from .governance import Governance
from .user_tokens_tables import user_tokens

_MOST: dict[str, int] = {"grant": 1_000_000, "pending": 10_000, "flow": 10_000, "client": 10_000}
_NAMED = 100
"""Users that are named one by one when all at a server are revoked; of more, the mark is for everybody."""
_KEY, _NONCE = 32, 12
_MARKED = 7200.0
"""Seconds that gateways are told of a revoked grant: longer than any of them remembers one."""


class Stored(Struct, frozen=True):
    value: bytes
    version: int


class Sealer:
    """AES-256-GCM; ``secret``: keys of 32 bytes one after the other, of which the first seals and all open."""

    def __init__(self, secret: bytes) -> None:
        keys = [secret[at : at + _KEY] for at in range(0, len(secret), _KEY)]
        self._ciphers = [AESGCM(_derived(key)) for key in keys]

    def seal(self, data: bytes, place: bytes) -> bytes:
        nonce = os.urandom(_NONCE)
        return nonce + self._ciphers[0].encrypt(nonce, data, place)

    def open(self, data: bytes, place: bytes) -> bytes | None:
        """None for what was sealed by another key, elsewhere, or altered."""
        for cipher in self._ciphers:
            try:
                return cipher.decrypt(data[:_NONCE], data[_NONCE:], place)
            except (InvalidTag, ValueError):
                continue
        return None


class UserTokens:
    """Times are seconds since the epoch."""

    def __init__(
        self, database: Database, governance: Governance, sealer: Sealer, clock: Callable[[], float] = time
    ) -> None:
        self._database = database
        self._governance = governance
        self._sealer = sealer
        self._clock = clock

    # -- gateways
    async def get(self, kind: Kind, user: str, name: str) -> Stored | None:
        key = _key(kind, user, name)
        rows = await self._database.rows(select(user_tokens).where(user_tokens.c.key == key))
        return self._opened(rows[0]) if rows else None

    async def put(
        self,
        kind: Kind,
        user: str,
        name: str,
        value: bytes,
        *,
        after: int | None = None,
        until: float = 0.0,
        shown: dict[str, Any] | None = None,
    ) -> bool:
        """Write, if ``after`` is the version there (0: nothing is; None: whatever is). Raises Conflict when full."""
        key = _key(kind, user, name)
        fields: dict[str, Any] = {
            "value": self._sealer.seal(value, key.encode()), "until": until, "leased": 0.0,
            "user": user if kind == "grant" else "", "server": name if kind == "grant" else "",
            "shown": msgspec.json.encode(shown or {}).decode(),
        }  # fmt: skip
        there = user_tokens.c.key == key
        if after:
            there = and_(there, user_tokens.c.version == after)
        async with self._database.write() as connection:
            if after != 0:
                changed = {**fields, "version": user_tokens.c.version + 1}
                if (await connection.execute(update(user_tokens).where(there).values(**changed))).rowcount:
                    return True
                if after is not None:
                    return False
            expired = and_(user_tokens.c.until > 0.0, user_tokens.c.until <= self._clock())
            await connection.execute(delete(user_tokens).where(expired))
            count = select(func.count()).select_from(user_tokens).where(user_tokens.c.kind == kind)
            if int((await connection.execute(count)).scalar_one()) >= _MOST[kind]:
                raise Conflict(f"there are {_MOST[kind]} user tokens of kind {kind} already")
        try:
            async with self._database.write() as connection:
                await connection.execute(insert(user_tokens).values(key=key, kind=kind, version=1, **fields))
        except IntegrityError:
            return False if after == 0 else await self.put(kind, user, name, value, until=until, shown=shown)
        return True

    async def take(self, kind: Kind, user: str, name: str) -> Stored | None:
        """Read and remove: of several that try, one gets it."""
        key = _key(kind, user, name)
        rows = await self._database.rows(select(user_tokens).where(user_tokens.c.key == key))
        if not rows:
            return None
        same = and_(user_tokens.c.key == key, user_tokens.c.version == rows[0]["version"])
        async with self._database.write() as connection:
            gone = (await connection.execute(delete(user_tokens).where(same))).rowcount
        return self._opened(rows[0]) if gone else None

    async def lease(self, kind: Kind, user: str, name: str, version: int, seconds: float) -> bool:
        """Whether the entry is still of that version, and the caller the only one to work on it for so long."""
        now = self._clock()
        same = and_(user_tokens.c.key == _key(kind, user, name), user_tokens.c.version == version)
        free = and_(same, user_tokens.c.leased <= now)
        async with self._database.write() as connection:
            done = await connection.execute(update(user_tokens).where(free).values(leased=now + seconds))
        return bool(done.rowcount)

    # -- people
    async def shown(self, user: str = "", server: str = "") -> list[dict[str, Any]]:
        """Grants without what is secret about them."""
        where = _of(user, server)
        query = select(user_tokens.c.shown).where(where).order_by(user_tokens.c.user, user_tokens.c.server)
        return [msgspec.json.decode(row["shown"]) for row in await self._database.rows(query)]

    async def revoke(self, user: str, server: str, by: str) -> list[dict[str, Any]]:
        """Forget these grants, and have every gateway forget them; those that there were."""
        found = await self.shown(user, server)
        now = self._clock()
        for one in found:
            keys = [_key(kind, one["user"], one["server"]) for kind in ("grant", "pending")]
            async with self._database.write() as connection:
                await connection.execute(delete(user_tokens).where(user_tokens.c.key.in_(keys)))
        named = bool(user) or len(found) <= _NAMED
        for subject in sorted({f"{one['server']} {one['user'] if named else '*'}" for one in found}):
            await self._governance.revoke(
                Revocation(uuid4().hex[:12], "grant", subject, "", by, round(now, 3), round(now + _MARKED, 3))
            )
        return found

    def _opened(self, row: dict[str, Any]) -> Stored | None:
        if 0.0 < row["until"] <= self._clock():
            return None
        value = self._sealer.open(bytes(row["value"]), row["key"].encode())
        return Stored(value, row["version"]) if value is not None else None


def _key(kind: str, user: str, name: str) -> str:
    """Short, and the same for no two entries."""
    return sha256(msgspec.json.encode([kind, user, name])).hexdigest()


def _of(user: str, server: str) -> ColumnElement[bool]:
    """Grants of a user at a server, given as ``kind/namespace/name`` or without its kind; empty: any."""
    where: list[ColumnElement[bool]] = [user_tokens.c.kind == "grant"]
    if user:
        where.append(user_tokens.c.user == user)
    if server:
        ending = "/" + server.replace("%", "\\%").replace("_", "\\_")
        where.append(or_(user_tokens.c.server == server, user_tokens.c.server.like(f"%{ending}", escape="\\")))
    return and_(*where)


def _derived(key: bytes) -> bytes:
    return HKDF(algorithm=SHA256(), length=_KEY, salt=None, info=b"quarterdeck user tokens v1").derive(key)
