"""Statuses of routes, backends and policies, as the newest compilation has them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from quarterdeck.kube import resource as k
from quarterdeck.kube.clock import timestamp
from quarterdeck.kube.controller import Controller, Result
from quarterdeck.kube.resource import Key, Object, Resource
from quarterdeck.resources.gateway_api import CONTROLLER
from quarterdeck.translate.gateway_api.status import ParentStatus, conditions_of, merge_entries

from .context import Context
from .gateway_api import GatewayApi
from .gateway_api_gateways import write_status

Said = Callable[[str, Key, Object, int, str], Object | None]
_ROUTES = (k.HTTP_ROUTE, k.GRPC_ROUTE)
_BACKENDS = (k.BACKEND, k.AGENTGATEWAY_BACKEND)
_POLICIES = (k.TRAFFIC_POLICY, k.AGENTGATEWAY_POLICY)


def controllers(context: Context, api: GatewayApi) -> list[Controller]:
    """One for each kind."""

    def of(res: Resource, said: Said) -> Controller:
        return Controller(res.kind.lower(), res, StatusReconciler(context, res, said).reconcile, workers=2)

    def parents(
        field: str, inner: str, ours: Callable[[str, Key], list[ParentStatus] | None]
    ) -> Callable[..., Object | None]:
        def status(kind: str, key: Key, before: Object, generation: int, now: str) -> Object | None:
            entries: list[Object] = before.get(field) or []
            found = ours(kind, key)
            if not found and not any(entry.get("controllerName") == CONTROLLER for entry in entries):
                return None
            return before | {field: merge_entries(entries, found or [], generation, now, CONTROLLER, inner)}

        return status

    def backend(kind: str, key: Key, before: Object, generation: int, now: str) -> Object | None:
        verdicts = api.result.statuses.backends.get((kind, key.namespace, key.name))
        if verdicts is None:
            return None
        return before | {"conditions": conditions_of(before.get("conditions") or [], verdicts, generation, now)}

    routes = parents(
        "parents", "parentRef", lambda kind, key: api.result.statuses.routes.get((kind, key.namespace, key.name))
    )
    policies = parents(
        "ancestors", "ancestorRef", lambda kind, key: api.result.statuses.policies.get((kind, key.namespace, key.name))
    )
    return [
        *(of(res, routes) for res in _ROUTES),
        *(of(res, backend) for res in _BACKENDS),
        *(of(res, policies) for res in _POLICIES),
    ]


@dataclass(slots=True)
class StatusReconciler:
    """Writes what ``said`` gives of (kind, key, status before, generation, now); None: nothing of ours."""

    context: Context
    res: Resource
    said: Said

    async def reconcile(self, key: Key) -> Result | None:
        obj = self.context.primary(self.res, key)
        if obj is None:
            return None
        generation = int(obj["metadata"].get("generation") or 1)
        now = timestamp(self.context.set.clock.time())
        status = self.said(self.res.kind, key, obj.get("status") or {}, generation, now)
        if status is not None:
            await write_status(self.context, self.res, obj, status)
        return None
