"""The REST APIs of the control plane and the database behind them; the same in both modes."""

from __future__ import annotations

import asyncio
import logging
import os

from quarterdeck.controllers import GatewayConfig
from quarterdeck.errors import QuarterdeckError
from quarterdeck.kube.supervise import Supervisor
from quarterdeck.telemetry.metrics import Registry
from quarterdeck.wire.http import Exchange, Server

from .a2a_api import A2aApi
from .a2a_delivery import Client, Guard, Pusher
from .a2a_queue import record
from .approvals_service import ApprovalOptions, ApprovalService
from .database import Database
from .governance import Governance
from .governing import GovernanceApi
from .identity import Identity
from .kagent import KagentApi
from .kagent_open import ConversationsApi
from .kagent_sessions import Conversations
from .management import ManagementApi
from .mcp import Listed, McpApi
from .memory_api import MemoryApi
from .memory_people import Expiry, MemoryPeople
from .memory_store import MemoryStore
from .reviews import Reviews
from .runs_access import RunsAccess
from .runs_again import Again
from .runs_api import RunsApi
from .runs_metrics import MetricsApi, RunMetrics
from .runs_mirror import RunMirror
from .runs_retention import DEFAULT, VARIABLE, Retention, seconds_of
from .runs_store import RunStore
from .signing import SigningKey
from .triggers_service import TriggerService
from .usage import DEFAULT as USAGE_DEFAULT
from .usage import VARIABLE as USAGE_VARIABLE
from .usage import Usage
from .usage_api import UsageApi
from .user_tokens import Sealer, UserTokens
from .user_tokens_api import UserTokensApi

log = logging.getLogger(__name__)
_GRACE = 1.0
"""Seconds for requests in flight; the configuration streams never end by themselves."""


class RestApis:
    """``open``, then :meth:`listen` for each API; ``stop`` ends the servers, ``close`` the database."""

    def __init__(
        self,
        database: Database,
        reviews: Reviews,
        config: GatewayConfig,
        key: SigningKey,
        approvals: ApprovalOptions | None = None,
        tokens_key: bytes = b"",
        registry: Registry | None = None,
    ) -> None:
        """``tokens_key`` seals users' tokens: 32 bytes, or several such keys; without one they last as we do."""
        registry = registry or Registry()
        self.database = database
        database.record = record
        self._servers: list[Server] = []

        def agent_of(uid: str) -> str | None:
            return config.snapshot.identities.pods.get(uid) if config.snapshot is not None else None

        identity = Identity(reviews, agent_of, config.serves)
        self._governance = Governance(database)
        self._config = config
        self._following: asyncio.Task[None] | None = None
        guard = Guard(os.environ.get("QUARTERDECK_PUSH_ALLOW", "").split(","))
        a2a = A2aApi(database, identity, key, guard)
        self._webhooks = Client(guard)
        self._pusher = Pusher(database, key, self._webhooks.send)
        self._pushing: asyncio.Task[None] | None = None
        governing = GovernanceApi(self._governance, identity, config).routes()
        tokens = UserTokens(database, self._governance, Sealer(tokens_key or os.urandom(32)))
        governing += UserTokensApi(tokens, identity, config, self._governance).routes()
        self.runs = RunStore(database, config.hosted)
        self.runs.wrote = RunMetrics(registry).wrote
        self._usage = Usage(database)
        self._usage_kept = seconds_of(os.environ.get(USAGE_VARIABLE) or USAGE_DEFAULT, USAGE_VARIABLE)
        governing += UsageApi(self._usage, self.runs, RunsAccess(self.runs, identity)).routes()
        governing += MetricsApi(registry, identity).routes()
        again = Again(self.runs, database)
        runs = RunsApi(
            self.runs, again, identity, config.serves, agent=config.has_agent, hosted=config.hosted,
            shared=database.shared,
        ).routes()  # fmt: skip
        self._retention = Retention(again, seconds_of(os.environ.get(VARIABLE) or DEFAULT))
        objects = approvals or ApprovalOptions()
        self._mirror = RunMirror(objects.client, self.runs, objects.namespaces) if objects.client is not None else None
        self._caring: list[asyncio.Task[None]] = []
        self.approvals = ApprovalService(
            database, identity, config, approvals or ApprovalOptions(), self._webhooks.send, self.runs
        )
        self._triggers = TriggerService(database, self.runs, identity, config, objects.client, registry)
        governing += self._triggers.routes
        mcp = McpApi(self.runs, identity, lambda: _agents(config)).routes()
        conversations = Conversations(database, config.hosted)
        governing += ConversationsApi(conversations, identity, config).routes()
        kagent = KagentApi(database, identity, [*runs, *self.approvals.agent_routes], conversations)
        self._memory = MemoryStore(database)
        governing += MemoryPeople(self._memory, identity).routes()
        self._routers = {
            "api": ManagementApi(
                database, identity, config, [*governing, *runs, *self.approvals.routes, *a2a.management_routes(), *mcp]
            ).router(),
            "kagent": kagent.router(
                [*a2a.agent_routes(kagent.who), *MemoryApi(self._memory, kagent.who, config.hosted).routes()]
            ),
        }

    @classmethod
    async def open(
        cls,
        url: str,
        reviews: Reviews,
        config: GatewayConfig,
        approvals: ApprovalOptions | None = None,
        tokens_key: bytes = b"",
        registry: Registry | None = None,
    ) -> RestApis:
        """``url`` as for Database; ``reviews`` says how tokens are checked. Raises StorageError."""
        database = await Database.open(url)
        apis = cls(database, reviews, config, await SigningKey.open(database), approvals, tokens_key, registry)
        await apis.start()
        return apis

    async def start(self) -> None:
        """Before anybody listens: no gateway may be told for a moment that nobody is revoked."""
        await self._governance.publish(self._config)
        await self._config.trust((await self.runs.open(),))
        await self._memory.open()
        self.approvals.start()
        self._following = asyncio.create_task(
            Supervisor().keep("governance", lambda: self._governance.follow(self._config)), name="governance"
        )
        self._pushing = asyncio.create_task(
            Supervisor().keep("push notifications", self._pusher.run), name="push notifications"
        )
        keepers = {
            "run retention": self._retention.run,
            "memory": Expiry(self._memory).run,
            "triggers": self._triggers.run,
            "resources of triggers": self._triggers.follow,
            "usage retention": lambda: self._usage.keep(self._usage_kept),
        }
        if self._mirror is not None:
            keepers["run objects"] = self._mirror.run
        self._caring = [asyncio.create_task(Supervisor().keep(name, run), name=name) for name, run in keepers.items()]

    async def listen(self, name: str, host: str, port: int, flag: str) -> tuple[str, int]:
        """Serve ``api`` or ``kagent``. Returns the bound address; raises QuarterdeckError that names the flag."""
        server = Server(self._routers[name].handle, name=name, on_error=log_error)
        try:
            bound = await server.listen(host, port)
        except OSError as error:
            raise port_taken(port, flag, error.strerror or str(error), host=host) from error
        self._servers.append(server)
        return bound

    async def stop(self) -> None:
        for task in (self._following, self._pushing, *self._caring):
            if task is not None:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
        await self._webhooks.close()
        for server in self._servers:
            await server.stop(_GRACE)
        self._servers.clear()
        await self.approvals.stop()

    async def close(self) -> None:
        await self.database.close()


def _agents(config: GatewayConfig) -> list[Listed]:
    """Those of the present configuration that a run can be made by."""
    agents = config.snapshot.agents if config.snapshot is not None else ()
    found = (Listed(f"{agent.namespace}/{agent.name}", agent.description) for agent in agents)
    return [agent for agent in found if config.hosted(agent.name)]


def port_taken(
    port: int, flag: str, why: str = "Address already in use", *, host: str = "127.0.0.1"
) -> QuarterdeckError:
    return QuarterdeckError(
        f"port {port} on {host} cannot be used: {why}; choose another with {flag} (0 takes a free one)"
    )


def log_error(exchange: Exchange, error: Exception) -> None:
    log.error("%s %s failed", exchange.method, exchange.path, exc_info=error)
