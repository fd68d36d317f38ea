"""The kill switch at work: who may not call, or be called, any more.

Revocations come with the snapshot, and from ``POST :15000/revocations`` (kept in the data directory). Both are asked at
admission and by the authorizer; what is open already is ended at once.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from time import time
from types import MappingProxyType

import msgspec

from quarterdeck.errors import BadRequest, NotFound, QuarterdeckError, StorageError
from quarterdeck.malformed import MALFORMED
from quarterdeck.snapshot.revocations import Revocation, wanted
from quarterdeck.wire.http import Exchange

from .acting import Acting
from .policy.authorizer import Decision, Target
from .policy.principal import Principal
from .upstream import Open, Picks

_JSON = [(b"content-type", b"application/json")]
_PATH = "/revocations"
_MOST = 10_000
_NONE: Mapping[bytes, bytes] = MappingProxyType({})
_log = logging.getLogger("quarterdeck.gateway")
INTERVAL = 0.5
"""Seconds between looks at the file: a worker that was just starting is not told what the others are."""


class Revocations:
    """What is revoked now. ``end(picks)`` ends what is open and picked; it is called whenever there is more."""

    def __init__(self, path: Path, end: Callable[[Picks], None], clock: Callable[[], float] = time) -> None:
        """``path`` keeps what was revoked here. Raises StorageError when it cannot be read: that would forget."""
        self._path = path
        self._end = end
        self._clock = clock
        self._stamp = _stamp(path)
        self._here: tuple[Revocation, ...] = _load(path)
        self._given: tuple[Revocation, ...] = ()
        self._undone: dict[str, Revocation] = {}
        """What another worker has undone last."""
        self.acting: Acting | None = None
        """Reads for whom agents act."""
        self._by_kind: dict[str, dict[str, Revocation]] = {}
        self.grants: Callable[[Revocation], None] | None = None
        """Told of each grant of a user at a server that is revoked; once."""
        self._told: set[str] = set()
        self.active = False
        """Whether anything is revoked; False makes all questions needless."""
        self._compile()

    def use(self, given: tuple[Revocation, ...]) -> None:
        """Those of a snapshot."""
        if given != self._given:
            self._given = given
            self._changed()

    def all(self) -> list[Revocation]:
        """Of the snapshot and of this gateway, those that still hold, oldest first."""
        now = self._clock()
        found = (r for r in (*self._given, *self._here) if not 0.0 < r.expires <= now)
        return sorted(found, key=lambda r: r.created)

    def add(self, revocation: Revocation) -> None:
        """Revoke here. Raises StorageError when it cannot be kept; it holds nevertheless, until a restart."""
        now = self._clock()
        kept = (r for r in self._here if r.id != revocation.id and not 0.0 < r.expires <= now)
        self._here = (*kept, revocation)
        self._changed()
        self._keep()

    def undo(self, ident: str) -> Revocation:
        """Raises NotFound for one that is not of here, StorageError."""
        found = next((r for r in self._here if r.id == ident), None)
        undone = self._undone.pop(ident, None)
        if found is None and undone is not None:
            return undone  # by another worker, on behalf of the same request
        if found is None:
            raise NotFound(f"no revocation {ident} of this gateway; see GET {_PATH}", name=ident)
        self._here = tuple(r for r in self._here if r is not found)
        self._changed()
        self._keep()
        return found

    def _keep(self) -> None:
        _save(self._path, self._here)
        self._stamp = _stamp(self._path)

    async def follow(self) -> None:
        """Until cancelled: take over what other workers have kept."""
        while True:
            await asyncio.sleep(INTERVAL)
            self.look()

    def look(self) -> None:
        """What the file says now; one that is gone or damaged lets nobody in again."""
        stamp = _stamp(self._path)
        if stamp == self._stamp or not stamp:
            return
        self._stamp = stamp
        try:
            here = _load(self._path)
        except StorageError as error:
            _log.error("%s; what was revoked before stays so", error)
            return
        if here != self._here:
            kept = {r.id for r in here}
            self._undone = {r.id: r for r in self._here if r.id not in kept}
            self._here = here
            self._changed()

    def refusal(self, principal: Principal, headers: Mapping[bytes, bytes] = _NONE) -> Decision | None:
        """Why somebody may not call anything; None when they may. ``headers`` tell for whom an agent acts."""
        if not self.active:
            return None
        found = self._find("agent", principal.agent)
        for name in () if found is not None else (*_names(principal), *self._behind(principal, headers)):
            found = self._find("user", name)
            if found is not None:
                break
        return _denial(found)

    def _behind(self, principal: Principal, headers: Mapping[bytes, bytes]) -> tuple[str, ...]:
        """The names of the person an agent provably acts for."""
        told = self.acting.of(principal, headers) if self.acting is not None and principal.agent else None
        return (told.user, *told.names) if told is not None else ()

    def decide(self, principal: Principal, target: Target) -> Decision | None:
        """The same for one target."""
        kind, namespace, name = target
        if kind != "Model":
            found = self._find("agent" if kind == "Agent" else "server", f"{namespace}/{name}")
            if found is not None:
                return _denial(found)
        return self.refusal(principal)

    def of(self, opened: Open) -> Decision | None:
        """Why something open must end."""
        kind, label = opened.target
        found = self._find({"a2a": "agent", "mcp": "server"}.get(kind, ""), label)
        found = found or self._find("server", _through(opened))
        if found is not None:
            return _denial(found)
        call = getattr(opened, "call", None)
        return self.refusal(opened.principal, call.headers if call is not None else _NONE)

    def _find(self, kind: str, subject: str) -> Revocation | None:
        found = self._by_kind.get(kind, {}).get(subject) if subject else None
        return found if found is not None and not 0.0 < found.expires <= self._clock() else None

    def _changed(self) -> None:
        self._compile()
        if self.active:
            self._end(self.of)

    def _compile(self) -> None:
        self._by_kind = {}
        self._told &= {revocation.id for revocation in self.all()}
        for revocation in self.all():
            if revocation.kind == "grant":
                if self.grants is not None and revocation.id not in self._told:
                    self._told.add(revocation.id)
                    self.grants(revocation)
                continue
            known = self._by_kind.setdefault(revocation.kind, {})
            other = known.get(revocation.subject)
            # of two for one subject the one that lasts longer counts
            if other is None or (other.expires and (not revocation.expires or revocation.expires > other.expires)):
                known[revocation.subject] = revocation
        self.active = bool(self._by_kind)


def handler(revocations: Revocations, clock: Callable[[], float] = time) -> Callable[[Exchange], None]:
    """``GET`` and ``POST /revocations``, ``DELETE /revocations/{id}`` on the admin port."""

    def answer(exchange: Exchange) -> tuple[int, object]:
        ident = exchange.path.removeprefix(_PATH).strip("/")
        if exchange.method == "GET" and not ident:
            return 200, {"revocations": revocations.all()}
        if exchange.method == "POST" and not ident:
            if len(revocations.all()) >= _MOST:
                raise BadRequest(f"there are {_MOST} revocations already; undo some first")
            # all workers of a gateway get the same request, and must call what comes of it the same
            ident = hashlib.sha256(exchange.body).hexdigest()[:12]
            made = wanted(_body(exchange), by="admin port", now=clock(), ident=ident)
            revocations.add(made)
            return 201, made
        if exchange.method == "DELETE" and ident:
            return 200, revocations.undo(ident)
        raise BadRequest(f"GET or POST {_PATH}, or DELETE {_PATH}/ID")

    def handle(exchange: Exchange) -> None:
        try:
            status, document = answer(exchange)
        except QuarterdeckError as error:
            status, document = error.http_status, {"error": {"reason": error.reason, "message": str(error)}}
        exchange.respond(status, msgspec.json.encode(document), _JSON)

    return handle


def _body(exchange: Exchange) -> dict[str, object]:
    try:
        return msgspec.json.decode(exchange.body, type=dict[str, object])
    except MALFORMED as error:
        raise BadRequest(f"the body must be a JSON object: {error}") from error


def _names(principal: Principal) -> Iterable[str]:
    """What a person is called."""
    yield principal.id
    yield principal.on_behalf_of
    yield principal.username
    subject = principal.claims.get("sub")
    if isinstance(subject, str):
        yield subject


def _through(opened: Open) -> str:
    """The virtual server by which a call came; empty for all others."""
    view = getattr(getattr(getattr(opened, "call", None), "group", None), "view", None)
    return view.label if view is not None else ""


def _denial(revocation: Revocation | None) -> Decision | None:
    return Decision("deny", revocation.rule, revocation.message()) if revocation is not None else None


def _stamp(path: Path) -> tuple[int, ...]:
    """What tells that a file was written anew; empty where there is none."""
    try:
        found = os.stat(path)
    except OSError:
        return ()
    return found.st_mtime_ns, found.st_ino


def _load(path: Path) -> tuple[Revocation, ...]:
    try:
        return msgspec.json.decode(path.read_bytes(), type=tuple[Revocation, ...])
    except FileNotFoundError:
        return ()
    except OSError as error:
        raise StorageError(f"cannot read the revocations in {path}: {error.strerror}") from error
    except MALFORMED as error:
        raise StorageError(
            f"{path} is damaged ({error}): who is revoked is not known; repair it, or remove it to allow all again"
        ) from error


def _save(path: Path, revocations: tuple[Revocation, ...]) -> None:
    fresh = path.with_name(f"{path.name}.{os.getpid()}")
    try:
        descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(msgspec.json.encode(revocations))
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(path)
    except OSError as error:
        raise StorageError(f"cannot keep the revocations in {path}: {error.strerror}") from error
