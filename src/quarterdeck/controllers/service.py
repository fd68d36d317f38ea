"""Services labelled ``kagent.dev/mcp-service: "true"``: their tools, kept in memory for the agents that name them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from quarterdeck.errors import ConfigError
from quarterdeck.kube import resource as k
from quarterdeck.kube.controller import Controller, Result
from quarterdeck.kube.resource import Key, Object
from quarterdeck.snapshot import McpServer
from quarterdeck.translate.resolve import service_name
from quarterdeck.translate.service import is_mcp_service, service_endpoint

from . import virtual_server
from .context import Context
from .discovery import DISABLED, Discovery


def controller(context: Context, discovery: Discovery) -> Controller:
    def of_slice(obj: Object) -> Iterable[Key]:
        name = service_name(obj)
        return [Key(obj["metadata"]["namespace"], name)] if name else []

    return Controller(
        "service",
        k.SERVICE,
        ServiceReconciler(context, discovery).reconcile,
        maps=((k.ENDPOINT_SLICE, of_slice),),
        workers=4,
    )


@dataclass(slots=True)
class ServiceReconciler:
    context: Context
    discovery: Discovery

    async def reconcile(self, key: Key) -> Result | None:
        obj = self.context.primary(k.SERVICE, key)
        slot = ("Service", key.namespace, key.name)
        disabled = obj is not None and (obj["metadata"].get("labels") or {}).get(DISABLED) == "disabled"
        if obj is None or not is_mcp_service(obj) or disabled:
            self.discovery.forget("Service", key)
            self.context.tools.pop(slot, None)
            return None
        try:
            endpoint = service_endpoint(obj)
        except ConfigError as error:
            self.context.event(obj, "Warning", "InvalidMCPService", str(error))
            return None
        services = self.context.services()
        found = self.discovery.tools(
            McpServer(
                key.namespace,
                key.name,
                "Service",
                endpoint.path,
                "SSE" if endpoint.protocol == "SSE" else "STREAMABLE_HTTP",
                endpoints=services.endpoints(key.namespace, key.name, endpoint.port),
            )
        )
        if found is None:
            return None
        names = found.names
        if not found.error and self.context.tools.get(slot) != names:
            self.context.tools[slot] = names
            reference = "/".join(slot)
            for agent in self.context.set.informer(k.AGENT).by_index("references", reference):
                self.context.set.enqueue("agent", k.key_of(agent))
            virtual_server.look_again(self.context, slot)
        return Result(found.again_in)
