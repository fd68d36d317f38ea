"""What the server decides about a CustomResourceDefinition: defaults, accepted names, conditions, stored versions."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from quarterdeck.apiserver.crd.pruning import copy
from quarterdeck.kube.resource import Object

CLEANUP_FINALIZER = "customresourcecleanup.apiextensions.k8s.io"


def default_crd(crd: Object) -> None:
    """Fill in what upstream defaults, in place: names, conversion, and the defaults of a webhook's service."""
    spec = crd.get("spec")
    if not isinstance(spec, dict):
        return
    names = spec.setdefault("names", {})
    if isinstance(names, dict) and names.get("kind"):
        names.setdefault("singular", str(names["kind"]).lower())
        names.setdefault("listKind", f"{names['kind']}List")
    conversion = spec.setdefault("conversion", {"strategy": "None"})
    service = ((conversion.get("webhook") or {}).get("clientConfig") or {}).get("service")
    if isinstance(service, dict):
        service.setdefault("port", 443)


def prepare_create(crd: Object, now: str) -> None:
    """Status as the server starts it; objects of a definition are cleaned up by a finalizer."""
    metadata = crd.setdefault("metadata", {})
    metadata["generation"] = 1
    crd["status"] = {"conditions": [], "acceptedNames": {"plural": "", "kind": ""}, "storedVersions": _stored(crd, [])}
    finalizers = metadata.setdefault("finalizers", [])
    if CLEANUP_FINALIZER not in finalizers:
        finalizers.append(CLEANUP_FINALIZER)


def _stored(crd: Object, before: list[str]) -> list[str]:
    storage = [version["name"] for version in crd["spec"].get("versions") or [] if version.get("storage")]
    return [*before, *(name for name in storage if name not in before)]


def accept(crd: Object, others: Iterable[Object], now: str) -> dict[str, Any]:
    """The new ``status``: names that no other accepted definition of the group holds, and the two conditions.

    ``others`` are all definitions; ``now`` is an RFC 3339 timestamp. Pure: ``crd`` is left as it is.
    """
    status: dict[str, Any] = copy(crd.get("status") or {})
    wanted = crd["spec"]["names"]
    accepted: dict[str, Any] = {key: value for key, value in (status.get("acceptedNames") or {}).items() if value}
    taken_resources, taken_kinds = _taken(crd, others)
    problems: list[tuple[str, str]] = []
    for key, reason in (("plural", "PluralConflict"), ("singular", "SingularConflict")):
        _claim(accepted, wanted, key, taken_resources, reason, problems)
    short = [name for name in wanted.get("shortNames") or [] if name in taken_resources]
    if short:
        problems.append(("ShortNamesConflict", ", ".join(f'"{name}" is already in use' for name in short)))
    elif wanted.get("shortNames"):
        accepted["shortNames"] = list(wanted["shortNames"])
    else:
        accepted.pop("shortNames", None)
    for key, reason in (("kind", "KindConflict"), ("listKind", "ListKindConflict")):
        _claim(accepted, wanted, key, taken_kinds, reason, problems)
    accepted.pop("categories", None)
    if wanted.get("categories"):
        accepted["categories"] = list(wanted["categories"])
    status["acceptedNames"] = accepted
    status["storedVersions"] = _stored(crd, list(status.get("storedVersions") or []))
    status["conditions"] = _conditions(status.get("conditions") or [], problems, now)
    return status


def _taken(crd: Object, others: Iterable[Object]) -> tuple[set[str], set[str]]:
    resources: set[str] = set()
    kinds: set[str] = set()
    for other in others:
        if other["metadata"]["name"] == crd["metadata"]["name"] or other["spec"]["group"] != crd["spec"]["group"]:
            continue
        names = (other.get("status") or {}).get("acceptedNames") or {}
        resources |= {
            name for name in (names.get("plural"), names.get("singular"), *(names.get("shortNames") or ())) if name
        }
        kinds |= {name for name in (names.get("kind"), names.get("listKind")) if name}
    return resources, kinds


def _claim(
    accepted: dict[str, Any],
    wanted: dict[str, Any],
    key: str,
    taken: set[str],
    reason: str,
    problems: list[tuple[str, str]],
) -> None:
    name = wanted.get(key)
    if name and name in taken:
        problems.append((reason, f'"{name}" is already in use'))
    elif name:
        accepted[key] = name


def _conditions(before: list[dict[str, Any]], problems: list[tuple[str, str]], now: str) -> list[dict[str, Any]]:
    established = _find(before, "Established")
    named = ("False", *problems[-1]) if problems else ("True", "NoConflicts", "no conflicts found")
    if not problems:
        ready = ("True", "InitialNamesAccepted", "the initial names have been accepted")
    elif established is not None and established["status"] == "True":
        ready = (established["status"], established["reason"], established["message"])
    else:
        ready = ("False", "NotAccepted", "not all names are accepted")
    kept = [condition for condition in before if condition["type"] not in ("NamesAccepted", "Established")]
    return [
        _condition(_find(before, "NamesAccepted"), "NamesAccepted", named, now),
        _condition(established, "Established", ready, now),
        *kept,
    ]


def _find(conditions: list[dict[str, Any]], kind: str) -> dict[str, Any] | None:
    return next((condition for condition in conditions if condition["type"] == kind), None)


def _condition(before: dict[str, Any] | None, kind: str, state: tuple[str, str, str], now: str) -> dict[str, Any]:
    since = before["lastTransitionTime"] if before is not None and before["status"] == state[0] else now
    return {"type": kind, "status": state[0], "lastTransitionTime": since, "reason": state[1], "message": state[2]}


def is_established(crd: Object) -> bool:
    established = _find((crd.get("status") or {}).get("conditions") or [], "Established")
    return established is not None and established["status"] == "True"
