"""Controllers of the kagent.dev kinds and the publisher of the gateway's configuration."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from quarterdeck.kube import resource as k
from quarterdeck.kube.client import KubeClient
from quarterdeck.kube.clock import Clock
from quarterdeck.kube.controller import ControllerSet
from quarterdeck.kube.resource import Key, Object
from quarterdeck.kube.template import foreign_template_fields
from quarterdeck.translate.gateway_api.workload import GatewayPods
from quarterdeck.translate.options import Options
from quarterdeck.translate.resolve import is_workload

from . import (
    agent,
    approval_policy,
    environment,
    gateway_api_gateways,
    gateway_api_status,
    mcp_server,
    model_config,
    model_provider_config,
    pinning,
    remote_mcp_server,
    service,
    trigger,
    virtual_server,
)
from .activity import Activity, Target
from .canary import Contents
from .context import Context
from .discovery import Discovery
from .gateway_api import GatewayApi
from .gateway_config import GatewayConfig
from .idle import Idle
from .rivals import Gate
from .triggers import Triggers

_KNOWN = ("name", "namespace", "uid", "resourceVersion", "labels", "ownerReferences", "deletionTimestamp")
__all__ = ["ControllerOptions", "GatewayConfig", "build", "controllers"]


@dataclass(frozen=True, slots=True)
class ControllerOptions(Options):
    """Addresses written into workloads, and how the controllers behave."""

    discovery_interval: float = 60.0
    """Seconds between two questions for a server's tools."""
    local_token_hashes: tuple[str, ...] = ()
    anonymous_local: bool = False
    watch_namespaces: tuple[str, ...] = ()
    """The only namespaces looked at; all when empty."""
    gateways: GatewayPods | None = None
    """How Gateways of Gateway API are run; None: they are not looked at."""


def build(
    client: KubeClient, options: ControllerOptions, *, clock: Clock | None = None
) -> tuple[ControllerSet, GatewayConfig]:
    """All controllers, ready to run, and the gateway configuration they feed."""
    controllers = ControllerSet(client, clock=clock, namespaces=options.watch_namespaces)
    controllers.informer(k.DEPLOYMENT).keep_managed_fields = foreign_template_fields
    for res in (k.SECRET, k.CONFIG_MAP):
        controllers.informer(res).lean = True
    controllers.informer(k.POD).trim = _of_pod
    controllers.informer(k.REPLICA_SET).trim = _known_by_name
    context = Context(controllers, options)
    discovery = Discovery(
        controllers.clock.monotonic,
        options.discovery_interval,
        lambda server: controllers.enqueue(server.kind.lower(), Key(server.namespace, server.name)),
        context.refuse,
    )
    controllers.add_loop("discovery", discovery.run)
    contents = Contents(client)
    idle = Idle(context, Activity(controllers.clock.monotonic, partial(_look_again, controllers)))
    gate = Gate(controllers)
    controllers.add(gate.guard(agent.controller(context, contents, idle)))
    controllers.add(gate.guard(mcp_server.controller(context, discovery, idle)))
    controllers.add(gate.guard(model_config.controller(context)))
    controllers.add(gate.guard(model_provider_config.controller(context)))
    controllers.add(gate.guard(remote_mcp_server.controller(context, discovery)))
    controllers.add(service.controller(context, discovery))
    controllers.add(virtual_server.controller(context, discovery))
    controllers.add(approval_policy.controller(context))
    triggers = Triggers(context)
    controllers.add(trigger.controller(context, triggers))
    if options.network_policies is not None and not options.watch_namespaces:
        controllers.add(environment.controller(context, options.network_policies))
    api: GatewayApi | None = None
    if options.gateways is not None:
        api = GatewayApi(controllers, options.gateways, options.gateway)
        for each in (*gateway_api_gateways.controllers(context, api), *gateway_api_status.controllers(context, api)):
            controllers.add(each)
    config = GatewayConfig(
        controllers,
        options,
        contents,
        idle,
        local_token_hashes=options.local_token_hashes,
        anonymous_local=options.anonymous_local,
        gateways=api,
        pinned=pinning.follower(context, controllers.enqueue),
    )
    config.triggers = triggers
    return controllers, config


def _look_again(controllers: ControllerSet, target: Target) -> None:
    """There are new numbers of what is on trial."""
    kind, namespace, name = target
    if kind == "Agent":
        controllers.enqueue("agent", Key(namespace, name))


def _known_by_name(obj: Object) -> Object:
    """Name, labels and owners; a pod template is most of a ReplicaSet, and nobody here reads it."""
    return {"metadata": {name: obj["metadata"][name] for name in _KNOWN if name in obj["metadata"]}}


def _of_pod(pod: Object) -> Object:
    """The state of our workloads' Pods; those of others are known by name only."""
    return _known_by_name(pod) | ({"status": pod.get("status") or {}} if is_workload(pod) else {})


def controllers(client: KubeClient, options: ControllerOptions) -> ControllerSet:
    """The set alone, for processes that serve no gateway."""
    return build(client, options)[0]
