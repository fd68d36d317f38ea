"""What an approval is and how it comes to count: decisions as functions without I/O.

An approval is good for one call: this caller, this tool, these arguments (by hash), this run and step. It is approved
when every rule that demands it has enough different people behind it, each of whom that rule names now, and nobody
said no.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from hashlib import sha256
from typing import Literal

import msgspec
from msgspec import Struct

from quarterdeck.mcptypes.canonical import canonical
from quarterdeck.snapshot.consent import REQUIRED, ApprovalRule, Requester, State, Ticket, Wanted

OPEN: frozenset[State] = frozenset({"Pending", "Approved"})
_DEFAULT = 3600.0
"""Seconds for which a request by kagent's ``requireApproval`` is open."""

Verdict = Literal["Approve", "Deny"]


class Person(Struct, frozen=True, omit_defaults=True):
    """Somebody who decides. ``names``: other names of the same person; ``via``: how they were known."""

    name: str
    names: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    via: Literal["api", "conversation"] = "api"

    def known_as(self) -> frozenset[str]:
        return frozenset((self.name, *self.names))


class Decision(Struct, frozen=True, omit_defaults=True):
    """What one person said. ``at`` is in seconds since the epoch."""

    person: Person
    verdict: Verdict
    at: float
    reason: str = ""
    message: str = ""
    """Id of the message in a conversation that said it."""


class Approval(Struct, frozen=True):
    """One row."""

    namespace: str
    name: str
    gateway: str
    wanted: Wanted
    state: State
    created: float
    expires: float
    changed: float
    decisions: tuple[Decision, ...] = ()
    message: str = ""
    version: int = 1

    @property
    def id(self) -> str:
        return f"{self.namespace}/{self.name}"

    def ticket(self) -> Ticket:
        """What the gateway is told."""
        by = tuple(d.person.name for d in self.decisions)
        return Ticket(self.id, self.state, self.wanted.arguments_hash, when(self.expires), self.message, by)


Rules = Callable[[str], ApprovalRule | None]
"""The rule of that name as it is now; None when there is none any more."""
Same = Callable[[Requester, Person], bool]
"""Whether requester and approver are one person."""


def rules_of(policies: Sequence[ApprovalRule]) -> Rules:
    """By name; kagent's ``requireApproval`` needs one person, who may be the requester."""
    known: Mapping[str, ApprovalRule] = {rule.name: rule for rule in policies}

    def find(name: str) -> ApprovalRule | None:
        if name.startswith(f"{REQUIRED}/"):
            return ApprovalRule(name, (), requester=True, expires=_DEFAULT)
        return known.get(name)

    return find


def same_person(local: frozenset[str]) -> Same:
    """By any common name. ``local``: names of the one person at this machine, whatever they came in by."""

    def same(requester: Requester, person: Person) -> bool:
        one, other = _plain(requester.known_as()), _plain(person.known_as())
        return bool(one & other) or bool(one & local and other & local)

    return same


def _plain(names: frozenset[str]) -> frozenset[str]:
    """Names as they are and without the prefix that the API server puts before those of an issuer (``oidc:alice``)."""
    return names | {name.rpartition(":")[2] or name for name in names if not name.startswith("system:")}


def slot_of(gateway: str, wanted: Wanted) -> str:
    """What makes two requests one. With a run: run, step, tool and hash; else principal, session, tool and hash."""
    place = [wanted.run, wanted.step] if wanted.run else ["", wanted.session]
    call = [wanted.kind, wanted.namespace, wanted.server, wanted.tool, wanted.arguments_hash]
    requester = wanted.requester.id
    return sha256(canonical([gateway, wanted.principal, wanted.agent, requester, *place, *call])).hexdigest()


def lifetime(wanted: Wanted, rules: Rules) -> float:
    """Seconds: the shortest that a rule allows."""
    found = [rule.expires for name in wanted.rules if (rule := rules(name)) is not None]
    return min(found, default=_DEFAULT)


def objection(approval: Approval, person: Person, rules: Rules, same: Same) -> str:
    """Why somebody may not decide; empty when they may. At least one rule must take their word."""
    requester = approval.wanted.requester
    own = same(requester, person)
    reasons: list[str] = []
    for name in approval.wanted.rules:
        rule = rules(name)
        if rule is None:
            reasons.append(f"{name} is not there any more")
        elif own and not rule.requester:
            reasons.append(f"{name}: who asked for the call may not decide about it")
        elif not _counts(rule, person, requester, own):
            reasons.append(f"{name} does not name {person.name} as an approver")
        else:
            return ""
    return "; ".join(reasons)


def decided(approval: Approval, decision: Decision, rules: Rules, same: Same) -> Approval:
    """The approval with one more decision; a person's later word takes the place of the earlier."""
    others = tuple(d for d in approval.decisions if not d.person.known_as() & decision.person.known_as())
    decisions = (*others, decision)
    changed = msgspec.structs.replace(approval, decisions=decisions, changed=decision.at, version=approval.version + 1)
    if decision.verdict == "Deny":
        reason = f": {decision.reason}" if decision.reason else ""
        return msgspec.structs.replace(changed, state="Denied", message=f"denied by {decision.person.name}{reason}")
    missing = lacking(changed, rules, same)
    if missing:
        return msgspec.structs.replace(changed, state="Pending", message=missing)
    names = ", ".join(d.person.name for d in decisions)
    return msgspec.structs.replace(changed, state="Approved", message=f"approved by {names}")


def lacking(approval: Approval, rules: Rules, same: Same) -> str:
    """What is still missing, by the rules as they are now; empty when nothing is."""
    requester = approval.wanted.requester
    missing: list[str] = []
    for name in approval.wanted.rules:
        rule = rules(name)
        if rule is None:
            missing.append(f"{name} is not there any more")
            continue
        people: set[str] = set()  # the requester is one person, by whatever name they came in
        for said in approval.decisions:
            own = same(requester, said.person)
            if said.verdict == "Approve" and _counts(rule, said.person, requester, own):
                people.add("" if own else min(_plain(frozenset((said.person.name,))), key=len))
        if len(people) < rule.required:
            missing.append(f"{name}: {len(people)} of {rule.required} approved")
    return "; ".join(missing)


def _counts(rule: ApprovalRule, person: Person, requester: Requester, own: bool) -> bool:
    """Whether a rule takes somebody's word. In conversations only the requester speaks, known by the very same name."""
    if person.via == "conversation":
        return rule.requester and person.name == requester.id
    if own:
        return rule.requester
    if not rule.users and not rule.groups:
        return True  # whom RBAC lets: the API has looked
    return bool(person.known_as() & set(rule.users)) or bool(set(person.groups) & set(rule.groups))


def differs(kept: Wanted, shown: Wanted) -> str:
    """In what the call that is to be sent is not the one that was approved; empty when it is."""
    names = ("kind", "namespace", "server", "tool", "arguments_hash", "principal", "agent", "run", "step")
    found = [name for name in names if getattr(kept, name) != getattr(shown, name)]
    if kept.requester.id != shown.requester.id:
        found.append("requester")
    if set(shown.rules) - set(kept.rules):
        found.append("rules")
    return ", ".join(found)


def when(seconds: float) -> str:
    """RFC 3339, in UTC."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
