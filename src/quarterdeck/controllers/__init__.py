"""Controllers of the kagent.dev kinds and the publisher of the gateway's configuration."""

from __future__ import annotations

from dataclasses import dataclass

from quarterdeck.kube import resource as k
from quarterdeck.kube.client import KubeClient
from quarterdeck.kube.controller import ControllerSet
from quarterdeck.kube.template import foreign_template_fields
from quarterdeck.translate.options import Options

from . import agent, mcp_server, model_config, model_provider_config, remote_mcp_server, service
from .context import Context
from .discovery import Discovery
from .gateway_config import GatewayConfig

__all__ = ["ControllerOptions", "GatewayConfig", "build", "controllers"]


@dataclass(frozen=True, slots=True)
class ControllerOptions(Options):
    """Addresses written into workloads, and how the controllers behave."""

    discovery_interval: float = 60.0
    """Seconds between two questions for a server's tools."""
    local_token_hashes: tuple[str, ...] = ()
    anonymous_local: bool = False


def build(client: KubeClient, options: ControllerOptions) -> tuple[ControllerSet, GatewayConfig]:
    """All controllers, ready to run, and the gateway configuration they feed."""
    controllers = ControllerSet(client)
    controllers.informer(k.DEPLOYMENT).keep_managed_fields = foreign_template_fields
    context = Context(controllers, options)
    discovery = Discovery(controllers.clock.monotonic, options.discovery_interval)
    controllers.add(agent.controller(context))
    controllers.add(mcp_server.controller(context, discovery))
    controllers.add(model_config.controller(context))
    controllers.add(model_provider_config.controller(context))
    controllers.add(remote_mcp_server.controller(context, discovery))
    controllers.add(service.controller(context, discovery))
    config = GatewayConfig(
        controllers,
        options,
        local_token_hashes=options.local_token_hashes,
        anonymous_local=options.anonymous_local,
    )
    return controllers, config


def controllers(client: KubeClient, options: ControllerOptions) -> ControllerSet:
    """The set alone, for processes that serve no gateway."""
    return build(client, options)[0]
