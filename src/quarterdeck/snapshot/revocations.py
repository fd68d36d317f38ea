"""The kill switch: agents, users and servers that may not take part any more, until somebody undoes it."""

from __future__ import annotations

from typing import Any, Literal
from uuid import uuid4

from msgspec import Struct

from quarterdeck.errors import BadRequest

Kind = Literal["agent", "user", "server", "grant"]
"""``grant``: what a user had granted at a server before ``created``; subject ``kind/namespace/name USER`` or ``*``."""
KINDS: tuple[Kind, ...] = ("agent", "user", "server")
_TEXT = 512


class Revocation(Struct, frozen=True, omit_defaults=True):
    """Times are seconds since the epoch."""

    id: str
    kind: Kind
    subject: str
    """``namespace/name`` of an agent or MCP server; of a user the ``sub`` or other name that audit records show."""
    reason: str = ""
    by: str = ""
    """Who revoked."""
    created: float = 0.0
    expires: float = 0.0
    """0: when it is undone."""

    @property
    def rule(self) -> str:
        """What denied calls carry."""
        return f"revoked/{self.kind}/{self.subject}"

    def message(self) -> str:
        """What denied callers are told."""
        reason = f": {self.reason}" if self.reason else ""
        return f"{self.kind} {self.subject} is revoked{reason} (rule {self.rule})"


def wanted(body: dict[str, Any], *, by: str, now: float, ident: str = "") -> Revocation:
    """Of a request ``{agent|user|server: SUBJECT, for: seconds, reason: text}``, under a new id unless one is given.

    Raises BadRequest.
    """
    named: list[Kind] = [kind for kind in KINDS if body.get(kind)]
    if len(named) != 1:
        raise BadRequest("name exactly one of agent, user and server")
    kind = named[0]
    subject, reason, seconds = body[kind], body.get("reason") or "", body.get("for") or 0
    if not isinstance(subject, str) or len(subject) > _TEXT:
        raise BadRequest(f"{kind}: must be text of at most {_TEXT} characters")
    if kind != "user" and (subject.count("/") != 1 or not all(subject.split("/"))):
        raise BadRequest(f"{kind}: must be NAMESPACE/NAME, not {subject!r}")
    if not isinstance(reason, str) or len(reason) > _TEXT:
        raise BadRequest(f"reason: must be text of at most {_TEXT} characters")
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 <= seconds < 1e10:
        raise BadRequest("for: must be a number of seconds")
    expires = round(now + seconds, 3) if seconds else 0.0
    return Revocation(ident or uuid4().hex[:12], kind, subject, reason, by, round(now, 3), expires)
