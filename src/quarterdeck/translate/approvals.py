"""ApprovalPolicy → what the gateway holds calls to. Pure."""

from __future__ import annotations

from quarterdeck import cel
from quarterdeck.cel.agentgateway import LIBRARY
from quarterdeck.errors import ConfigError, RefNotPermitted
from quarterdeck.kube.resource import Object
from quarterdeck.resources.approval_policy import EVERYWHERE, ApprovalPolicySpec, GovernedServer
from quarterdeck.resources.base import parse
from quarterdeck.snapshot.consent import MATCHING, VARIABLES, ApprovalRule, ServerPattern

from .objects import duration


def approval_rule(obj: Object) -> ApprovalRule:
    """The rule of a policy. What is wrong with it (:func:`problem`) makes it demand more, never less."""
    namespace, name = obj["metadata"]["namespace"], obj["metadata"]["name"]
    label = f"{MATCHING}/{namespace}/{name}"
    try:
        spec = parse(ApprovalPolicySpec, obj.get("spec") or {}, label)
        expires = duration(spec.expires_after, 3600.0)
    except ConfigError:
        return ApprovalRule(label, (ServerPattern(namespace="" if namespace == EVERYWHERE else namespace),))
    approvers = spec.approvers
    return ApprovalRule(
        label,
        _servers(namespace, spec),
        tuple(spec.tools or ()),
        "" if _when(spec) else spec.when or "",
        tuple((approvers.users if approvers is not None else None) or ()),
        tuple((approvers.groups if approvers is not None else None) or ()),
        spec.required,
        spec.requester_may_approve,
        expires,
        spec.description or "",
    )


def problem(obj: Object) -> ConfigError | None:
    """Why a policy does not mean what it says; None when all is well."""
    namespace, name = obj["metadata"]["namespace"], obj["metadata"]["name"]
    try:
        spec = parse(ApprovalPolicySpec, obj.get("spec") or {}, f"{MATCHING}/{namespace}/{name}")
        duration(spec.expires_after, 3600.0)
    except ConfigError as error:
        return error
    elsewhere = [s for s in spec.servers or () if _foreign(namespace, s)]
    if elsewhere:
        return RefNotPermitted(
            f"servers: {elsewhere[0].namespace}/{elsewhere[0].name} is in another namespace; only policies of "
            f"{EVERYWHERE} hold for all namespaces"
        )
    wrong = _when(spec)
    return ConfigError(f"when: {wrong}; every call needs approval until this is put right") if wrong else None


def _servers(namespace: str, spec: ApprovalPolicySpec) -> tuple[ServerPattern, ...]:
    everywhere = namespace == EVERYWHERE
    if not spec.servers:
        return (ServerPattern(namespace="" if everywhere else namespace),)
    return tuple(
        ServerPattern(one.name, (one.namespace or "") if everywhere else namespace, one.kind or "")
        for one in spec.servers
        if not _foreign(namespace, one)
    )


def _foreign(namespace: str, server: GovernedServer) -> bool:
    return namespace != EVERYWHERE and server.namespace not in (None, namespace)


def _when(spec: ApprovalPolicySpec) -> str:
    """What is wrong with the expression; empty when nothing is."""
    if not spec.when:
        return ""
    try:
        program = cel.compile(spec.when, library=LIBRARY)
    except cel.CompileError as error:
        return f"{error} (character {error.position} of {spec.when!r})"
    unknown = sorted({path[0] for path in program.references if path} - VARIABLES)
    if unknown:
        return f"there is no variable {unknown[0]!r}; there are {', '.join(sorted(VARIABLES))}"
    return ""
