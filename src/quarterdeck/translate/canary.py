"""The second track of an Agent whose new spec is on trial: its objects, its part of the gateway's route, its grants."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from quarterdeck.cel.regex import compile_match
from quarterdeck.errors import ConfigError, QuarterdeckError
from quarterdeck.kube.resource import Object
from quarterdeck.resources.base import parse
from quarterdeck.resources.rollout import Rollout, ValueMatch
from quarterdeck.snapshot import AgentPolicy, Backend, Endpoint, Split, ToolGrant
from quarterdeck.snapshot import ValueMatch as Match
from quarterdeck.snapshot.conversation import VARIABLE, track_tag

from .agent import translate_agent
from .agent_config import AgentInputs
from .names import check_name
from .network import CANARY_SUFFIX
from .options import Options
from .revision import revision_name

SUFFIX = CANARY_SUFFIX
_SHARED = ("ServiceAccount", "NetworkPolicy")
"""Kinds that both tracks use: the canary is the same agent. The policy selects both tracks' Pods."""


def canary_objects(inputs: AgentInputs, options: Options, tag: int, replicas: int) -> list[Object]:
    """The canary's own objects. Raises ConfigError as :func:`translate_agent`, and for a name that is too long."""
    check_name(inputs.obj, SUFFIX)
    out: list[Object] = []
    for obj in translate_agent(inputs, options):
        renamed = obj if obj["kind"] in _SHARED else _renamed(obj, inputs.name)
        if obj["kind"] == "Deployment":
            renamed["spec"]["replicas"] = replicas
            _mark(renamed, tag)
        out.append(renamed)
    return out


def both_tracks(stable: Iterable[Object], canary: Iterable[Object]) -> list[Object]:
    """All objects; what both tracks make is as the stable one wants it."""
    found = {(obj["kind"], obj["metadata"]["name"]): obj for obj in canary}
    found.update({(obj["kind"], obj["metadata"]["name"]): obj for obj in stable})
    # what Pods mount comes before the Deployments
    return sorted(found.values(), key=lambda obj: obj["kind"] in ("Deployment", "Service"))


def _renamed(obj: Object, agent: str) -> Object:
    metadata = obj["metadata"]
    out = obj | {"metadata": metadata | {"name": metadata["name"] + SUFFIX, "labels": _labels(metadata, agent)}}
    spec = obj.get("spec")
    return out | {"spec": _selecting(spec, agent)} if isinstance(spec, dict) else out


def _labels(metadata: Object, agent: str) -> dict[str, str]:
    labels = dict(metadata.get("labels") or {})
    return labels | ({"kagent": agent + SUFFIX} if labels.get("kagent") == agent else {})


def _selecting(spec: Object, agent: str) -> Object:
    """A Deployment's or Service's spec with the canary's Pods in place of the stable ones."""
    out = dict(spec)
    selector = spec.get("selector")
    if isinstance(selector, dict):
        matched = selector.get("matchLabels")
        out["selector"] = (
            selector | {"matchLabels": _labels({"labels": matched}, agent)}
            if isinstance(matched, dict)
            else _labels({"labels": selector}, agent)
        )
    template = spec.get("template")
    if isinstance(template, dict):
        metadata = template["metadata"] | {"labels": _labels(template["metadata"], agent)}
        out["template"] = template | {"metadata": metadata, "spec": _pod(template["spec"], agent)}
    return out


def _pod(pod: Object, agent: str) -> Object:
    volumes = [
        volume | {"secret": volume["secret"] | {"secretName": agent + SUFFIX}}
        if (volume.get("secret") or {}).get("secretName") == agent
        else volume
        for volume in pod.get("volumes") or ()
    ]
    return pod | {"volumes": volumes}


def _mark(deployment: Object, tag: int) -> None:
    """Tell the agent's container its track: the ids of its conversations say it."""
    pod = deployment["spec"]["template"]["spec"]
    first, *others = pod["containers"]
    env = [*first.get("env", ()), {"name": VARIABLE, "value": str(tag)}]
    pod["containers"] = [first | {"env": env}, *others]


# -- the gateway's part


def canary_status(obj: Object) -> Object | None:
    """``status.rollout`` of an Agent that rolls out by canaries."""
    if ((obj.get("spec") or {}).get("rollout") or {}).get("strategy") != "Canary":
        return None
    return (obj.get("status") or {}).get("rollout") or None


def split(obj: Object, stable: tuple[Endpoint, ...], canary: tuple[Endpoint, ...]) -> Split | None:
    """The route of an Agent over its tracks; None while there is only one."""
    status = canary_status(obj)
    if status is None or status.get("phase") not in ("Progressing", "Paused", "Promoting"):
        return None
    if not status.get("stepStartedAt"):
        return None  # its Pods are not ready: nothing goes there, not even what matches
    tag = track_tag(str(status.get("canaryRevision")), str(status.get("startedAt") or ""))
    weight = int(status.get("weight") or 0)
    trial = Backend("canary", canary, weight, _matches(obj), tag, f"{tag}.{status.get('step') or 0}")
    return Split((Backend("stable", stable, 100 - weight), trial), sticky=True)


def check_rollout(rollout: Rollout) -> None:
    """Raises ConfigError for a regular expression that is none."""
    for match in rollout.match or ():
        for value in (*(match.headers or ()), *(match.claims or ())):
            if value.regex is not None:
                try:
                    compile_match(value.regex)
                except QuarterdeckError as error:
                    raise ConfigError(f"rollout.match: {value.name}: {error}") from error


def _matches(obj: Object) -> tuple[tuple[Match, ...], ...]:
    """None of them when one cannot be used: the Agent's condition says so."""
    try:
        rollout = parse(Rollout, obj["spec"]["rollout"], "rollout")
        check_rollout(rollout)
    except ConfigError:
        return ()
    found: list[tuple[Match, ...]] = []
    for match in rollout.match or ():
        headers = [_match("header", value) for value in match.headers or ()]
        found.append((*headers, *(_match("claim", value) for value in match.claims or ())))
    return tuple(found)


def _match(source: Any, value: ValueMatch) -> Match:
    name = value.name.lower() if source == "header" else value.name
    return Match(source, name, value.exact, value.regex or "")


def wanted_revision(obj: Object) -> str:
    """The revision whose content is needed to say what an Agent's Pods run; empty when its spec says it."""
    status = canary_status(obj)
    stable = str((status or {}).get("stableRevision") or "")
    return "" if not stable or stable == revision_name(obj) else stable


def served(obj: Object, revisions: Mapping[str, Object]) -> list[Object]:
    """The Agent once with each spec that Pods of it may run, the stable one first.

    ``revisions``: contents of ControllerRevisions by name. One that is not there yet is left out: what only it grants
    is denied for that moment.
    """
    stable = wanted_revision(obj)
    if not stable:
        return [obj]
    content = revisions.get(stable)
    kept = [obj | {"spec": content}] if content is not None else []
    given_up = (canary_status(obj) or {}).get("phase") == "Aborted"
    same = (canary_status(obj) or {}).get("canaryRevision") == revision_name(obj)
    return kept if given_up and same and kept else [*kept, obj]


def union(policies: list[AgentPolicy]) -> AgentPolicy:
    """What Pods of any of these may reach: they are one principal. A tool that one may call after approval only needs
    it on the other track, too. Headers are the last one's."""
    grants: dict[tuple[str, str, str], ToolGrant] = {}
    for policy in policies:
        for grant in policy.tools:
            key = (grant.kind, grant.namespace, grant.name)
            grants[key] = _both(grants[key], grant) if key in grants else grant
    last = policies[-1]
    return AgentPolicy(
        last.namespace,
        last.name,
        tuple(grants.values()),
        tuple(sorted({name for policy in policies for name in policy.models})),
        tuple(sorted({name for policy in policies for name in policy.agents})),
        any(policy.hosted for policy in policies),
    )


def _both(one: ToolGrant, other: ToolGrant) -> ToolGrant:
    everything = one.tools is None or other.tools is None
    return ToolGrant(
        other.namespace,
        other.name,
        other.kind,
        None if everything else tuple(dict.fromkeys((*(one.tools or ()), *(other.tools or ())))),
        tuple(dict.fromkeys((*one.approval, *other.approval))),
        other.headers,
        tuple(dict.fromkeys((*one.allowed_headers, *other.allowed_headers))),
    )
