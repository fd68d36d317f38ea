"""LimitRanger: default requests and limits of containers, and the bounds of containers and Pods."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from fractions import Fraction
from typing import Any

from quarterdeck.apiserver.security.identity import ObjectReader, forbidden_object
from quarterdeck.kube.resource import LIMIT_RANGE, Object

from .attributes import AdmissionAttributes
from .quantity import format_quantity, parse_quantity


def apply_limit_defaults(reader: ObjectReader, a: AdmissionAttributes) -> None:
    """Fill in requests and limits that the namespace's LimitRanges give to containers."""
    if not a.creates_pod:
        return
    for limit_range in reader.list(LIMIT_RANGE, a.namespace):
        for item in limit_range["spec"].get("limits") or ():
            if item.get("type") == "Container":
                for _, container in containers(a.obj["spec"]):
                    _default(container, item)


def check_limits(reader: ObjectReader, a: AdmissionAttributes) -> None:
    """Raises Forbidden listing every bound a Pod breaks."""
    if not a.creates_pod:
        return
    problems: list[str] = []
    for limit_range in reader.list(LIMIT_RANGE, a.namespace):
        for item in limit_range["spec"].get("limits") or ():
            if item.get("type") == "Container":
                for _, container in containers(a.obj["spec"]):
                    problems += _problems(container.get("resources") or {}, item, "Container")
            elif item.get("type") == "Pod":
                problems += _problems(pod_resources(a.obj["spec"]), item, "Pod")
    if problems:
        name = a.name or str(a.obj["metadata"].get("name") or "")
        unique = list(dict.fromkeys(problems))
        raise forbidden_object("", "pods", name, unique[0] if len(unique) == 1 else f"[{', '.join(unique)}]")


def containers(spec: Object) -> Iterator[tuple[str, dict[str, Any]]]:
    """(list field, container) of the init and main containers."""
    for key in ("initContainers", "containers"):
        for container in spec.get(key) or ():
            yield key, container


def pod_resources(spec: Object) -> dict[str, dict[str, str]]:
    """Requests and limits of a whole Pod: main containers summed, or the largest init container where that is more."""
    result: dict[str, dict[str, str]] = {}
    for side in ("requests", "limits"):
        sums: dict[str, tuple[Fraction, str]] = {}
        for container in spec.get("containers") or ():
            for name, text in ((container.get("resources") or {}).get(side) or {}).items():
                have, like = sums.get(name, (Fraction(0), text))
                sums[name] = have + parse_quantity(text), like
        for container in spec.get("initContainers") or ():
            for name, text in ((container.get("resources") or {}).get(side) or {}).items():
                have, like = sums.get(name, (Fraction(0), text))
                amount = parse_quantity(text)
                sums[name] = (have + amount if container.get("restartPolicy") == "Always" else max(have, amount), like)
        result[side] = {name: format_quantity(value, like) for name, (value, like) in sums.items()}
    return result


def _default(container: dict[str, Any], item: dict[str, Any]) -> None:
    limits, requests = dict(item.get("default") or {}), dict(item.get("defaultRequest") or {})
    if not limits and not requests:
        return
    resources: dict[str, Any] = container.get("resources") or {}
    own_limits = resources.get("limits") or {}
    merged_limits = {**limits, **own_limits}
    # a container's own limit is also its request where it states none (the defaulting of core/v1 comes first)
    merged_requests = {**requests, **own_limits, **(resources.get("requests") or {})}
    if merged_limits:
        resources["limits"] = merged_limits
    if merged_requests:
        resources["requests"] = merged_requests
    container["resources"] = resources


def _problems(resources: dict[str, Any], item: dict[str, Any], kind: str) -> Iterable[str]:
    requests, limits = resources.get("requests") or {}, resources.get("limits") or {}
    for name, bound in (item.get("min") or {}).items():
        yield from _min_problems(name, bound, requests.get(name), limits.get(name), kind)
    for name, bound in (item.get("max") or {}).items():
        yield from _max_problems(name, bound, requests.get(name), limits.get(name), kind)
    for name, ratio in (item.get("maxLimitRequestRatio") or {}).items():
        yield from _ratio_problems(name, ratio, requests.get(name), limits.get(name), kind)


def _min_problems(name: str, bound: Any, request: Any, limit: Any, kind: str) -> Iterable[str]:
    least = parse_quantity(bound)
    if request is None:
        yield f"minimum {name} usage per {kind} is {bound}.  No request is specified"
    elif parse_quantity(request) < least:
        yield f"minimum {name} usage per {kind} is {bound}, but request is {request}"
    if limit is not None and parse_quantity(limit) < least:
        yield f"minimum {name} usage per {kind} is {bound}, but limit is {limit}"


def _max_problems(name: str, bound: Any, request: Any, limit: Any, kind: str) -> Iterable[str]:
    most = parse_quantity(bound)
    if limit is None:
        yield f"maximum {name} usage per {kind} is {bound}.  No limit is specified"
    elif parse_quantity(limit) > most:
        yield f"maximum {name} usage per {kind} is {bound}, but limit is {limit}"
    if request is not None and parse_quantity(request) > most:
        yield f"maximum {name} usage per {kind} is {bound}, but request is {request}"


def _ratio_problems(name: str, ratio: Any, request: Any, limit: Any, kind: str) -> Iterable[str]:
    if request is None or limit is None or not parse_quantity(request) or not parse_quantity(limit):
        yield f"{name} max limit to request ratio per {kind} is {ratio}, but no request or limit is specified or is 0"
    elif parse_quantity(limit) / parse_quantity(request) > parse_quantity(ratio):
        actual = float(parse_quantity(limit) / parse_quantity(request))
        yield f"{name} max limit to request ratio per {kind} is {ratio}, but provided ratio is {actual:f}"
