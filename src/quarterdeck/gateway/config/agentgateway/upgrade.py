"""A file of October 2025 as one of today. What differs: reference/agentgateway_and_peers.md §1.4."""

from __future__ import annotations

from typing import Any, TypeVar

from ..fields import Model
from . import now, oct, policies
from .shared import KeySource

M = TypeVar("M", bound=Model)


def upgrade(old: oct.Root) -> now.Root:
    """Refused fields are not set any more: the decoder has said what to do about them."""
    listener = old.config.listener if old.config is not None else None
    http = None if listener is None else _as(now.HttpFrontend, listener)
    return now.Root(
        config=None if old.config is None else _as(now.Config, old.config),
        binds=[now.Bind(port=bind.port, listeners=[_listener(one) for one in bind.listeners]) for bind in old.binds],
        frontend_policies=None if http is None else now.FrontendPolicies(http=http),
        audit=old.audit,
    )


def targeted(old: oct.TargetedPolicy | oct.GatewayPolicy) -> tuple[now.TargetedPolicy, str, str]:
    """The policy, and kind and name of its target; an empty kind when not exactly one is given."""
    if isinstance(old, oct.GatewayPolicy):
        model = policies.RoutePolicies(
            jwt_auth=old.policy.jwt_auth, transformations=_maybe(policies.Transformations, old.policy.transformations)
        )
    else:
        model = _policies(old.policy)
    given = [(written, getattr(old.target, name)) for name, written in _names(old.target)]
    named = [(written, value) for written, value in given if value is not None]
    kind, name = named[0] if len(named) == 1 else ("", "")
    entry = now.TargetedPolicy(
        name=old.name,
        target=now.PolicyTarget(),
        policy=model,
        phase="gateway" if isinstance(old, oct.GatewayPolicy) else "route",
    )
    return entry, kind, name


def _names(model: Model) -> zip[tuple[str, str]]:
    return zip(model.__struct_fields__, model.__struct_encode_fields__, strict=True)


def _as(model: type[M], old: Model) -> M:
    """Fields of the same name, as they are."""
    return model(**{name: getattr(old, name) for name in old.__struct_fields__ if name in model.__struct_fields__})


def _maybe(model: type[M], old: Model | None) -> M | None:
    return None if old is None else _as(model, old)


def _listener(old: oct.Listener) -> now.Listener:
    routes = None if old.routes is None else [_route(route) for route in old.routes]
    return now.Listener(
        name=old.name,
        hostname=old.hostname,
        protocol=old.protocol,
        tls=_maybe(now.ServerTls, old.tls),
        routes=routes,
    )


def _route(old: oct.Route) -> now.Route:
    return now.Route(
        name=old.name,
        rule_name=old.rule_name,
        hostnames=old.hostnames,
        matches=old.matches,
        policies=None if old.policies is None else _policies(old.policies),
        backends=[_backend(backend) for backend in old.backends],
    )


def _backend(old: oct.RouteBackend) -> now.RouteBackend:
    mcp = None
    if old.mcp is not None:
        mcp = now.McpBackend(
            targets=[_as(now.McpTarget, target) for target in old.mcp.targets],
            stateful_mode=old.mcp.stateful_mode,
            prefix_mode=old.mcp.prefix_mode,
        )
    return now.RouteBackend(weight=old.weight, host=old.host, mcp=mcp)


def _policies(old: oct.RoutePolicies) -> policies.RoutePolicies:
    changed = {"mcp_authentication", "direct_response", "transformations", "retry", "ai", "ext_authz", "ext_proc"}
    same: dict[str, Any] = {name: getattr(old, name) for name in old.__struct_fields__ if name not in changed}
    return policies.RoutePolicies(
        **same,
        mcp_authentication=_mcp_authentication(old.mcp_authentication),
        direct_response=_maybe(policies.DirectResponse, old.direct_response),
        transformations=_maybe(policies.Transformations, old.transformations),
        retry=_maybe(policies.Retry, old.retry),
    )


def _mcp_authentication(old: oct.McpAuthentication | None) -> policies.McpAuthentication | None:
    if old is None:
        return None
    return policies.McpAuthentication(
        issuer=old.issuer,
        audiences=[old.audience],
        provider=old.provider,
        resource_metadata=old.resource_metadata,
        jwks=KeySource(url=old.jwks_url),
        mode="strict",
    )
