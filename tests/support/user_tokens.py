"""The control plane's API for users' tokens on a port, with everybody being who their token says."""

from __future__ import annotations

from typing import Any

import msgspec

from quarterdeck import snapshot as s
from quarterdeck.errors import TimedOut, Unauthorized, UpstreamError
from quarterdeck.server.database import Database
from quarterdeck.server.governance import Governance
from quarterdeck.server.http import Router
from quarterdeck.server.identity import Identity
from quarterdeck.server.management import failure
from quarterdeck.server.user_tokens import Sealer, UserTokens
from quarterdeck.server.user_tokens_api import UserTokensApi
from quarterdeck.snapshot.revocations import Revocation
from quarterdeck.wire.client import Pool
from quarterdeck.wire.http import Server


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


class Reviews:
    """``gw`` is the gateway, ``root`` may do everything, all others are people who may do nothing."""

    async def workload(self, token: str, audience: str) -> dict[str, Any]:
        if token != "gw":
            raise Unauthorized("no")
        return {"username": "system:serviceaccount:ns:gw", "groups": []}

    async def person(self, token: str, attributes: dict[str, str]) -> tuple[dict[str, Any], bool]:
        return {"username": token}, token == "root"


class Configuration:
    """What is streamed to gateways; ``told`` are the gateways of this process."""

    def __init__(self, *servers: s.McpServer) -> None:
        self.servers = servers
        self.revocations: tuple[Revocation, ...] = ()
        self.told: list[Any] = []

    async def govern(self, revocations: Any, pins: Any) -> None:
        self.revocations = revocations
        for gateway in self.told:
            gateway.use(msgspec.structs.replace(gateway.snapshot, revocations=revocations))

    def current(self, gateway: str) -> bytes | None:
        return s.encode(s.Snapshot(gateway=gateway, mcp=self.servers)) if gateway == "ns/gw" else None


class Plane:
    """The API; :meth:`ask` is how a gateway asks it."""

    def __init__(self, database: Database, *servers: s.McpServer, key: bytes = b"k" * 32, clock: Any = None) -> None:
        self.clock = clock or Clock()
        self.database = database
        self.configuration = Configuration(*servers)
        governance = Governance(database, self.clock)
        self.tokens = UserTokens(database, governance, Sealer(key), self.clock)
        identity = Identity(Reviews(), lambda _: None, lambda gateway: self.configuration.current(gateway) is not None)
        api = UserTokensApi(self.tokens, identity, self.configuration, governance)  # type: ignore[arg-type]
        self.server = Server(Router(api.routes(), failure).handle)
        self.pool = Pool()
        self.port = 0
        self.down = False

    async def __call__(self, method: str, path: str, body: bytes = b"", token: str = "root") -> tuple[int, Any]:
        headers = [(b"authorization", f"Bearer {token}".encode())]
        response = await self.pool.request(method, ("127.0.0.1", self.port, False), path, headers, body)
        return response.status, msgspec.json.decode(await response.read())

    async def ask(self, body: bytes) -> bytes:
        if self.down:
            raise TimedOut("no answer")
        status, answer = await self("POST", "/v1/gateways/ns/gw/user-tokens", body, "gw")
        if status != 200:
            raise UpstreamError(str(answer))
        return msgspec.json.encode(answer)

    async def __aenter__(self) -> Plane:
        _, self.port = await self.server.listen("127.0.0.1", 0)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.server.stop(0)
        self.pool.close()
        await self.database.close()
