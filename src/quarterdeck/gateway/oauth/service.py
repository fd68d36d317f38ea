"""Sign-ins as part of a gateway process: where they are kept, what is recorded, what operators may do."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from time import time
from typing import TYPE_CHECKING

import msgspec

from quarterdeck.errors import BadRequest, QuarterdeckError
from quarterdeck.snapshot.revocations import Revocation
from quarterdeck.telemetry.audit import Record
from quarterdeck.wire.http import Exchange

from ..observe import Observer
from ..policy.authorizer import Decision
from ..upstream import Open, Upstreams
from .pages import Pages
from .plane import PlaneStore
from .sign_ins import EVERYBODY, SignIns
from .store import FileStore, Seals

if TYPE_CHECKING:
    from ..http.frontend import Frontend
    from ..router import Router

_JSON = [(b"content-type", b"application/json")]


class SignInService:
    """Users' sign-ins at MCP servers of this gateway."""

    def __init__(
        self, upstreams: Upstreams, observer: Observer, sealer: Seals, file: Path, base: Callable[[], str]
    ) -> None:
        self._upstreams = upstreams
        self._observer = observer
        self._sealer = sealer
        self._file = file
        self.sign_ins = upstreams.sign_ins = SignIns(sealer, upstreams.refuse, base, self.recorded)
        self._kept: FileStore | None = None
        self._since = self.sign_ins.clock()

    def attend(self, router: Router, frontend: Frontend) -> None:
        """Serve the pages on all ports that browsers reach."""
        router.pages = frontend.pages = Pages(self.sign_ins)

    def use(self, ask: Callable[[str, bytes], Awaitable[bytes]] | None, gateway: str) -> None:
        """Keep grants at the control plane; without one in a file of our own."""
        if ask is None:
            self.sign_ins.store = self._kept = FileStore(self._file, self._sealer, lambda: self.sign_ins.clock())
        else:
            self.sign_ins.store = PlaneStore(partial(ask, f"gateways/{gateway}/user-tokens"))

    def recorded(self, user: str, server: str, what: str, outcome: str, detail: str) -> None:
        """One audit record: a grant, a refresh that failed, a revocation."""
        refused = outcome == "denied"
        self._observer.audit.append(
            Record(
                time(), self._observer.ids.hex(16), user, "", "", "mcp", server, "", f"oauth/{what}", "",
                "deny" if refused else "allow", "sign-in", "denied" if refused else "error" if outcome == "error"
                else "ok", 403 if refused else 502 if outcome == "error" else 200, 0.0, "", detail[:500],
            )
        )  # fmt: skip

    def revoked(self, revocation: Revocation) -> None:
        """A user's grant is over: nothing uses it from now on, and what is open ends."""
        server, _, user = revocation.subject.partition(" ")
        self.sign_ins.revoked(user, server, revocation.created)
        self._end(user, server)
        if revocation.created >= self._since:  # not again after a restart
            self.recorded(user, server.partition("/")[2], "revoke", "ok", f"by {revocation.by}")

    def _end(self, user: str, server: str) -> None:
        target = ("mcp", "/".join(server.split("/")[-2:]))
        denied = Decision("deny", f"revoked/grant/{server}", f"the sign-in of {user} was revoked")

        def picks(opened: Open) -> Decision | None:
            principal = opened.principal
            named = user in (EVERYBODY, principal.on_behalf_of or principal.id)
            same = named and opened.target == target
            return denied if same else None

        self._upstreams.end(picks)

    # -- operators
    def admin(self, exchange: Exchange) -> None:
        """``GET /user-tokens[?user=][&server=]`` and ``DELETE`` of those on the admin port."""
        try:
            document = self._answer(exchange)
            status = 200
        except QuarterdeckError as error:
            status, document = error.http_status, {"error": {"reason": error.reason, "message": str(error)}}
        exchange.respond(status, msgspec.json.encode(document), _JSON)

    def _answer(self, exchange: Exchange) -> object:
        if self._kept is None:
            raise BadRequest("the control plane keeps users' tokens; see: qd gateway tokens list")
        query = dict(exchange.query)
        user, server = query.get("user", ""), query.get("server", "")
        found = [
            one
            for one in self._kept.shown()
            if user in ("", one.user) and server in ("", one.server, one.server.partition("/")[2])
        ]
        if exchange.method == "GET":
            return {"tokens": found}
        if exchange.method != "DELETE" or not (user or server):
            raise BadRequest("GET /user-tokens, or DELETE /user-tokens?user=USER&server=KIND/NAMESPACE/NAME")
        if user and server:
            self._end(user, server)  # another worker may have removed it already
        for one in found:
            self._end(one.user, one.server)
            door = self.sign_ins.found(one.server)
            if door is not None:
                door.forget(one.user)
            if self._kept.remove(one.user, one.server):  # by this worker, and not by another that was asked, too
                self.recorded(one.user, one.server.partition("/")[2], "revoke", "ok", "admin port")
        return {"revoked": found}
