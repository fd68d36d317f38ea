"""Triggers in one control-plane process: the engine, its API, and what it needs of others."""

from __future__ import annotations

from quarterdeck.controllers.gateway_config import GatewayConfig
from quarterdeck.controllers.triggers import Access
from quarterdeck.kube.client import KubeClient
from quarterdeck.telemetry.metrics import Registry
from quarterdeck.translate.triggers import Plan

from .database import Database
from .http import Route
from .identity import Identity
from .runs_store import RunStore
from .triggers import Engine
from .triggers_api import TriggersApi
from .triggers_store import TriggerStore
from .triggers_updates import Updates


class TriggerService:
    """:attr:`routes` are served, :meth:`run` and :meth:`follow` until cancelled; nothing where there is no client."""

    def __init__(
        self,
        database: Database,
        runs: RunStore,
        identity: Identity,
        config: GatewayConfig,
        client: KubeClient | None,
        registry: Registry,
    ) -> None:
        """``client`` asks what ServiceAccounts may do, also where another process leads."""
        self.routes: list[Route] = []
        self._engine: Engine | None = None
        self._updates: Updates | None = None
        triggers = config.triggers
        if triggers is None or client is None:
            return

        async def wake(agent: str) -> None:
            namespace, _, name = agent.partition("/")
            await config.wake(("Agent", namespace, name))

        def revoked(found: Plan) -> str:
            now = triggers.clock.time()
            known = config.snapshot.revocations if config.snapshot is not None else ()
            concerned = {("agent", found.agent), ("user", found.user)}
            named = (one for one in known if (one.kind, one.subject) in concerned)
            return next((one.message() for one in named if not 0 < one.expires <= now), "")

        store = TriggerStore(database, runs, triggers.clock.time)
        self._engine = Engine(triggers, store, Access(client, triggers.clock), registry, wake, revoked)
        self._updates = Updates(self._engine, runs.delegation)
        self.routes = TriggersApi(triggers, self._engine, identity, config.serves, registry).routes()

    async def run(self) -> None:
        """The clock and Events."""
        if self._engine is not None:
            await self._engine.run()

    async def follow(self) -> None:
        """Resources of MCP servers."""
        if self._updates is not None:
            await self._updates.run()
