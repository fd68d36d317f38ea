"""Routes to listeners: parentRefs, allowedRoutes and hostnames (httproute_types.go, shared_types.go)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from quarterdeck.resources.gateway_api.references import ParentRef

from .listeners import ListenerState
from .status import Problem
from .world import GatewayWorld


@dataclass(frozen=True, slots=True)
class Attached:
    """A listener that takes the route for these names (empty: all the listener's)."""

    listener: ListenerState
    hostnames: tuple[str, ...]


def attach(
    kind: str,
    namespace: str,
    hostnames: Sequence[str],
    ref: ParentRef,
    home: str,
    states: Sequence[ListenerState],
    world: GatewayWorld,
) -> list[Attached] | Problem:
    """The listeners of the Gateway (in namespace ``home``) that take the route, or why none does."""
    meant = [
        state
        for state in states
        if ref.section_name in (None, "", state.spec.name) and ref.port in (None, state.spec.port)
    ]
    if not meant:
        part = " and ".join(
            text for text in (ref.section_name and f"name {ref.section_name}", ref.port and f"port {ref.port}") if text
        )
        return Problem("NoMatchingParent", f"Gateway {home}/{ref.name} has no listener with {part or 'a name'}")
    allowing = [state for state in meant if kind in state.kinds and _admits(state, namespace, home, world)]
    if not allowing:
        return Problem(
            "NotAllowedByListeners",
            f"allowedRoutes of Gateway {home}/{ref.name} lets no {kind} of namespace {namespace} attach",
        )
    found = [
        Attached(state, names)
        for state in allowing
        if (names := intersection(state.spec.hostname or "", hostnames)) is not None
    ]
    if not found:
        return Problem(
            "NoMatchingListenerHostname",
            f"no listener of Gateway {home}/{ref.name} serves any of {', '.join(hostnames)}",
        )
    return found


def _admits(state: ListenerState, namespace: str, home: str, world: GatewayWorld) -> bool:
    allowed = state.spec.allowed_routes.namespaces
    match allowed.from_:
        case "All":
            return True
        case "Same":
            return namespace == home
        case "Selector":
            return allowed.selector is not None and world.selected(allowed.selector, namespace)
        case _:
            return False


def intersection(listener: str, route: Sequence[str]) -> tuple[str, ...] | None:
    """The names that both take; an empty tuple: whatever the listener takes. None: there are none."""
    if not route:
        return ()
    found: list[str] = []
    for name in (name.lower() for name in route):
        common = name if not listener else _common(listener.lower(), name)
        if common and common not in found:
            found.append(common)
    return tuple(found) or None


def _common(one: str, other: str) -> str:
    """The more specific of two names, where it is covered by the other."""
    if one == other or covers(one, other):
        return other
    return one if covers(other, one) else ""


def covers(wildcard: str, name: str) -> bool:
    """Whether ``*.example.org`` covers ``a.example.org``, ``a.b.example.org`` or ``*.b.example.org``."""
    return wildcard.startswith("*.") and name.removeprefix("*").endswith(wildcard[1:])
