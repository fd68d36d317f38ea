"""Users' grants on the management API: gateways keep them here, people see which there are and revoke them."""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import Struct

from quarterdeck.controllers.gateway_config import GatewayConfig
from quarterdeck.errors import BadRequest, Forbidden, NotFound
from quarterdeck.malformed import MALFORMED
from quarterdeck.snapshot.sign_in import TokenRequest

from .governance import Governance
from .http import Answer, Call, Route, route
from .identity import Identity
from .user_tokens import Stored, UserTokens

RESOURCE = "usertokens"
_MOST = 256 * 1024


class _Server(Struct):
    kind: str = ""
    namespace: str = ""
    name: str = ""
    sign_in: Any = None


class _Servers(Struct):
    mcp: list[_Server] = []


class UserTokensApi:
    """People need the verb ``list`` or ``delete`` on ``usertokens`` of ``quarterdeck.dev``, or see their own only."""

    def __init__(
        self, tokens: UserTokens, identity: Identity, configuration: GatewayConfig, governance: Governance
    ) -> None:
        self._tokens = tokens
        self._identity = identity
        self._configuration = configuration
        self._governance = governance
        self._servers: dict[str, tuple[bytes, frozenset[str]]] = {}

    def routes(self) -> list[Route]:
        return [
            route("POST", "/v1/gateways/{namespace}/{name}/user-tokens", self.keep),
            route("GET", "/v1/user-tokens", self.list),
            route("DELETE", "/v1/user-tokens", self.revoke),
        ]

    async def keep(self, call: Call) -> Answer:
        """A gateway reads or writes what belongs to a server that it serves."""
        parameters = call.parameters
        gateway, _ = await self._identity.gateway(
            call.header(b"authorization"), parameters["namespace"], parameters["name"]
        )
        if len(call.exchange.body) > _MOST:
            raise BadRequest(f"the body is larger than {_MOST} bytes")
        try:
            wanted = msgspec.json.decode(call.exchange.body, type=TokenRequest)
        except MALFORMED as error:
            raise BadRequest(f"the body is no request for user tokens: {error}") from error
        if wanted.kind in ("grant", "pending") and wanted.name not in self._of(gateway):
            raise Forbidden(f"gateway {gateway} serves no {wanted.name} at which users sign in")
        found = await self._do(wanted)
        reply = {"stored": found} if isinstance(found, Stored) else {"done": found is True}
        return Answer(msgspec.to_builtins(reply))

    async def _do(self, wanted: TokenRequest) -> Stored | bool | None:
        entry = (wanted.kind, wanted.user, wanted.name)
        if wanted.do == "get":
            return await self._tokens.get(*entry)
        if wanted.do == "take":
            return await self._tokens.take(*entry)
        if wanted.do == "lease":
            return await self._tokens.lease(*entry, wanted.after or 0, min(wanted.seconds, 60.0))
        if wanted.do == "put":
            return await self._tokens.put(
                *entry,
                wanted.value,
                after=wanted.after,
                until=wanted.until,
                shown=msgspec.to_builtins(wanted.shown) if wanted.shown is not None else None,
            )
        raise BadRequest(f"do: must be get, put, take or lease, not {wanted.do[:32]!r}")

    async def list(self, call: Call) -> Answer:
        """``?user=`` and ``?server=`` narrow it down."""
        user = await self._whose(call, "list")
        return Answer({"tokens": await self._tokens.shown(user, call.query.get("server", ""))})

    async def revoke(self, call: Call) -> Answer:
        """Of a user at a server, of a user, or of a server; told to the gateways before this returns."""
        user, server = await self._whose(call, "delete"), call.query.get("server", "")
        if not user and not server:
            raise BadRequest("name a user, a server, or both: ?user=USER&server=NAMESPACE/NAME")
        gone = await self._tokens.revoke(user, server, await self._name(call))
        if not gone:
            raise NotFound("there is no such sign-in; see: qd gateway tokens list", name=user or server)
        await self._governance.publish(self._configuration)
        return Answer({"revoked": gone})

    async def _whose(self, call: Call, verb: str) -> str:
        """The user that a request is about: any for who may do that, else the caller. Raises Forbidden."""
        wanted = call.query.get("user", "")
        try:
            await self._identity.person(call.header(b"authorization"), verb, RESOURCE)
        except Forbidden:
            own = await self._name(call)
            if wanted not in ("", own):
                raise
            return own
        return wanted

    async def _name(self, call: Call) -> str:
        return (await self._identity.somebody(call.header(b"authorization"))).name

    def _of(self, gateway: str) -> frozenset[str]:
        """The servers of a gateway at which users sign in, as ``kind/namespace/name``."""
        line = self._configuration.current(gateway) or b"{}"
        known = self._servers.get(gateway)
        if known is None or known[0] is not line:
            servers = msgspec.json.decode(line, type=_Servers).mcp
            names = frozenset(f"{s.kind}/{s.namespace}/{s.name}" for s in servers if s.sign_in is not None)
            known = self._servers[gateway] = (line, names)
        return known[1]
