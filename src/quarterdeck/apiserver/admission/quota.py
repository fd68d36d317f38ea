"""ResourceQuota: what a namespace uses, and whether one more object still fits.

Usage is computed from memory, not from a counter that can drift. A request that was let through but is not stored yet
is held as a reservation; check and reservation happen without an await between them, so two requests cannot both take
the last place.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from time import monotonic
from typing import Any

from quarterdeck.apiserver.security.identity import ObjectReader, forbidden_object
from quarterdeck.errors import Forbidden
from quarterdeck.kube.resource import (
    CONFIG_MAP,
    PERSISTENT_VOLUME_CLAIM,
    POD,
    RESOURCE_QUOTA,
    SECRET,
    SERVICE,
    Object,
    Resource,
)

from .attributes import AdmissionAttributes
from .limits import pod_resources
from .quantity import format_quantity, parse_quantity

_COUNTED = {
    "pods": POD, "services": SERVICE, "secrets": SECRET, "configmaps": CONFIG_MAP, "resourcequotas": RESOURCE_QUOTA,
    "persistentvolumeclaims": PERSISTENT_VOLUME_CLAIM,
}  # fmt: skip
_RESERVATION_SECONDS = 30.0
Usage = dict[str, Fraction]


@dataclass(slots=True)
class _Reservation:
    attributes: AdmissionAttributes
    until: float


class QuotaAdmission:
    """Checks creations (and Pod updates) against the ResourceQuotas of their namespace.

    ``resource_of(group, plural)`` finds the served resource of a ``count/<plural>.<group>`` entry, None when unknown.
    """

    def __init__(
        self,
        reader: ObjectReader,
        resource_of: Callable[[str, str], Resource | None],
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self._reader = reader
        self._resource_of = resource_of
        self._clock = clock
        self._held: list[_Reservation] = []

    def check(self, a: AdmissionAttributes) -> list[tuple[Object, Object]]:
        """Reserve place for ``a``; returns (quota, new status) of the quotas it counts in. Raises Forbidden.

        A reservation ends when the object is stored, by :meth:`release`, or by itself after 30 seconds.
        """
        if a.operation != "CREATE" or a.subresource or not a.namespace:
            return []
        quotas = self._reader.list(RESOURCE_QUOTA, a.namespace)
        if not quotas:
            return []
        changed: list[tuple[Object, Object]] = []
        for quota in quotas:
            hard: dict[str, Any] = quota["spec"].get("hard") or {}
            asked = {k: v for k, v in usage_of(a.resource, a.obj).items() if k in hard}
            if not in_scope(quota, a.resource, a.obj) or (not asked and not _must_specify(a, hard)):
                continue
            _check_specified(a, quota, hard)
            used = self._used(quota, hard)
            self._check_room(a, quota, hard, used, asked)
            total = {k: used[k] + asked.get(k, Fraction(0)) for k in hard}
            changed.append((quota, _status(hard, total)))
        if changed and not a.dry_run:
            self._held.append(_Reservation(a, self._clock() + _RESERVATION_SECONDS))
        return changed

    def release(self, a: AdmissionAttributes) -> None:
        """The write of ``a`` is over, whether it succeeded or not."""
        self._held = [r for r in self._held if r.attributes is not a]

    def status(self, quota: Object) -> Object:
        """``status`` of a quota from what is stored now."""
        hard = quota["spec"].get("hard") or {}
        return _status(hard, self._stored(quota, hard))

    def _used(self, quota: Object, hard: dict[str, Any]) -> Usage:
        used = self._stored(quota, hard)
        now = self._clock()
        namespace = quota["metadata"]["namespace"]
        self._held = [r for r in self._held if r.until > now and not self._is_stored(r.attributes)]
        for reservation in self._held:
            a = reservation.attributes
            if a.namespace == namespace and in_scope(quota, a.resource, a.obj):
                for key, amount in usage_of(a.resource, a.obj).items():
                    if key in used:
                        used[key] += amount
        return used

    def _stored(self, quota: Object, hard: dict[str, Any]) -> Usage:
        namespace = quota["metadata"]["namespace"]
        used: Usage = dict.fromkeys(hard, Fraction(0))
        resources = {r for r in (self._counted(key) for key in hard) if r is not None}
        for resource in resources:
            for obj in self._reader.list(resource, namespace):
                if in_scope(quota, resource, obj):
                    for key, amount in usage_of(resource, obj).items():
                        if key in used:
                            used[key] += amount
        return used

    def _counted(self, key: str) -> Resource | None:
        if key.startswith("count/"):
            plural, _, group = key.removeprefix("count/").partition(".")
            return self._resource_of(group, plural)
        return _COUNTED.get(key, SERVICE if key.startswith("services.") else POD if _is_compute(key) else None)

    def _is_stored(self, a: AdmissionAttributes) -> bool:
        name = a.obj["metadata"].get("name", "")
        return bool(name) and self._reader.get(a.resource, a.namespace, name) is not None

    def _check_room(
        self, a: AdmissionAttributes, quota: Object, hard: dict[str, Any], used: Usage, asked: Usage
    ) -> None:
        full = sorted(k for k, amount in asked.items() if used[k] + amount > parse_quantity(hard[k]))
        if not full:
            return

        def line(values: Usage) -> str:
            return ",".join(f"{k}={format_quantity(values[k], hard[k])}" for k in full)

        limited = ",".join(f"{k}={hard[k]}" for k in full)
        name = quota["metadata"]["name"]
        why = f"exceeded quota: {name}, requested: {line(asked)}, used: {line(used)}, limited: {limited}"
        raise _refused(a, why)


def usage_of(resource: Resource, obj: Object) -> Usage:
    """What one object counts for, by quota resource name. Pods that have ended count for ``count/pods`` only."""
    qualified = f"{resource.plural}.{resource.group}" if resource.group else resource.plural
    usage: Usage = {f"count/{qualified}": Fraction(1)}
    if resource == POD:
        if (obj.get("status") or {}).get("phase") not in ("Succeeded", "Failed"):
            usage["pods"] = Fraction(1)
            usage.update(_compute(obj["spec"]))
    elif resource.group == "" and resource.plural in _COUNTED:
        usage[resource.plural] = Fraction(1)
        if resource == SERVICE and obj["spec"].get("type") == "LoadBalancer":
            usage["services.loadbalancers"] = Fraction(1)
        if resource == SERVICE and obj["spec"].get("type") in ("NodePort", "LoadBalancer"):
            usage["services.nodeports"] = Fraction(len(obj["spec"].get("ports") or ()))
    return usage


def in_scope(quota: Object, resource: Resource, obj: Object) -> bool:
    """Whether the quota's scopes (Terminating, BestEffort and their opposites) take ``obj`` in."""
    spec = quota["spec"]
    scopes = list(spec.get("scopes") or ())
    scopes += [e["scopeName"] for e in (spec.get("scopeSelector") or {}).get("matchExpressions") or ()]
    if not scopes:
        return True
    if resource != POD:
        return False
    resources = pod_resources(obj["spec"])
    facts = {
        "Terminating": obj["spec"].get("activeDeadlineSeconds") is not None,
        "BestEffort": not any(resources.values()),
    }
    facts["NotTerminating"], facts["NotBestEffort"] = not facts["Terminating"], not facts["BestEffort"]
    return all(facts.get(scope, False) for scope in scopes)


def _compute(spec: Object) -> Usage:
    usage: Usage = {}
    resources = pod_resources(spec)
    for side, values in resources.items():
        for name, text in values.items():
            amount = parse_quantity(text)
            usage[f"{side}.{name}"] = amount
            if side == "requests" and name in ("cpu", "memory", "ephemeral-storage"):
                usage[name] = amount
    return usage


def _is_compute(key: str) -> bool:
    return key in ("cpu", "memory", "ephemeral-storage") or key.startswith(("requests.", "limits."))


def _must_specify(a: AdmissionAttributes, hard: dict[str, Any]) -> bool:
    return a.resource == POD and any(_is_compute(k) for k in hard)


def _check_specified(a: AdmissionAttributes, quota: Object, hard: dict[str, Any]) -> None:
    """A quota on cpu or memory obliges every container to state them."""
    if a.resource != POD:
        return
    parts: list[str] = []
    for key in sorted(k for k in hard if _is_compute(k)):
        side, _, name = key.partition(".") if "." in key else ("requests", "", key)
        if name not in ("cpu", "memory"):
            continue
        missing = sorted(
            str(c["name"])
            for c in (*(a.obj["spec"].get("initContainers") or ()), *(a.obj["spec"].get("containers") or ()))
            if name not in ((c.get("resources") or {}).get(side) or {})
        )
        if missing:
            parts.append(f"{key} for: {','.join(missing)}")
    if parts:
        raise _refused(a, f"failed quota: {quota['metadata']['name']}: must specify {'; '.join(parts)}")


def _status(hard: dict[str, Any], used: Usage) -> Object:
    return {"hard": dict(hard), "used": {k: format_quantity(used[k], hard[k]) for k in hard}}


def _refused(a: AdmissionAttributes, why: str) -> Forbidden:
    name = a.name or str(a.obj["metadata"].get("name") or "")
    return forbidden_object(a.resource.group, a.resource.plural, name, why)
