"""What is said of Gateways, routes, backends and policies: conditions, before anybody writes them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from quarterdeck.kube.resource import Object

Name = tuple[str, str, str]
"""kind, namespace, name"""


class Verdict(NamedTuple):
    """One condition without its times."""

    type: str
    status: Literal["True", "False", "Unknown"]
    reason: str
    message: str = ""


class Problem(NamedTuple):
    """Why something is refused: reason of the condition, and what to do."""

    reason: str
    message: str


def accepted(message: str = "") -> Verdict:
    return Verdict("Accepted", "True", "Accepted", message)


def refused(kind: str, problem: Problem) -> Verdict:
    return Verdict(kind, "False", problem.reason, problem.message)


def resolved(problems: list[Problem]) -> Verdict:
    """ResolvedRefs of an object with these problems; the first names the reason, all are in the message."""
    if not problems:
        return Verdict("ResolvedRefs", "True", "ResolvedRefs", "All references are resolved")
    texts = list(dict.fromkeys(problem.message for problem in problems))
    return Verdict("ResolvedRefs", "False", problems[0].reason, "; ".join(texts))


@dataclass(slots=True)
class ListenerStatus:
    name: str
    kinds: list[str]
    """Of routes it takes."""
    attached: int
    verdicts: list[Verdict]
    """Without Programmed, which is known when the gateway's replicas answered."""
    valid: bool
    """Whether it can be served."""
    port: int = 0
    """Where the gateway binds; 0: nowhere."""


@dataclass(slots=True)
class GatewayStatus:
    verdicts: list[Verdict]
    listeners: list[ListenerStatus] = field(default_factory=list[ListenerStatus])
    notes: str = ""
    """What people should know of a Gateway that works: mapped ports, open routes."""


@dataclass(slots=True)
class ParentStatus:
    """``ref`` as the route wrote it."""

    ref: Object
    verdicts: list[Verdict]


@dataclass(slots=True)
class Statuses:
    """By kind, namespace and name."""

    gateways: dict[tuple[str, str], GatewayStatus] = field(default_factory=dict[tuple[str, str], GatewayStatus])
    routes: dict[Name, list[ParentStatus]] = field(default_factory=dict[Name, list[ParentStatus]])
    backends: dict[Name, list[Verdict]] = field(default_factory=dict[Name, list[Verdict]])
    policies: dict[Name, list[ParentStatus]] = field(default_factory=dict[Name, list[ParentStatus]])


def merge_entries(
    before: list[Any], ours: list[ParentStatus], generation: int, now: str, controller: str, field_name: str
) -> list[Object]:
    """``parents`` or ``ancestors`` of a status: entries of other controllers as they are, ours anew.

    ``field_name`` is what names the entry's object: parentRef or ancestorRef. A transition time stays while the status
    does; two entries are the same when their references are equal.
    """
    kept = [entry for entry in before if entry.get("controllerName") != controller]
    known = {_identity(entry.get(field_name) or {}): entry for entry in before if entry not in kept}
    entries: list[Object] = []
    for status in ours:
        old = known.get(_identity(status.ref), {})
        conditions = conditions_of(old.get("conditions") or [], status.verdicts, generation, now)
        entries.append({field_name: status.ref, "controllerName": controller, "conditions": conditions})
    return kept + entries


def conditions_of(before: list[Any], verdicts: list[Verdict], generation: int, now: str) -> list[Object]:
    """Conditions of these verdicts, in their order; others of ``before`` are dropped."""
    times = {c.get("type"): (c.get("status"), c.get("lastTransitionTime")) for c in before}
    found: list[Object] = []
    for verdict in verdicts:
        status, since = times.get(verdict.type, (None, None))
        found.append(
            {
                "type": verdict.type,
                "status": verdict.status,
                "reason": verdict.reason,
                "message": verdict.message[:32768],
                "observedGeneration": generation,
                "lastTransitionTime": since if status == verdict.status and since else now,
            }
        )
    return found


def _identity(ref: Object) -> tuple[Any, ...]:
    return tuple(sorted((key, str(value)) for key, value in ref.items()))
