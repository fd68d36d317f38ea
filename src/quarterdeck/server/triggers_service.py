"""Triggers in one control-plane process: the engine, its API, and what it needs of others."""

from __future__ import annotations

from quarterdeck.controllers.gateway_config import GatewayConfig
from quarterdeck.controllers.triggers import Access
from quarterdeck.kube.client import KubeClient
from quarterdeck.telemetry.metrics import Registry

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

        store = TriggerStore(database, runs, triggers.clock.time)
        self._engine = Engine(triggers, store, Access(client, triggers.clock), registry, wake)
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
