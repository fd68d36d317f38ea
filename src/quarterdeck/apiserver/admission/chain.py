"""The order in which admission steps run, as in kube-apiserver."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from quarterdeck.apiserver.security.escalation import check_escalation
from quarterdeck.apiserver.security.identity import ObjectReader
from quarterdeck.apiserver.security.rbac import Authorizer
from quarterdeck.kube.resource import Object, Resource

from .attributes import AdmissionAttributes
from .limits import apply_limit_defaults, check_limits
from .node_restriction import check_node_restriction
from .pod_security import check_pod_security
from .quota import QuotaAdmission
from .service_account import admit_service_account, validate_service_account


class StoreHooks(Protocol):
    """What admission needs of the store beyond reading."""

    def resource_of(self, group: str, plural: str) -> Resource | None:
        """The served resource of that name, in its storage version."""
        ...

    async def write_quota_status(self, quota: Object, status: Object) -> None:
        """Store ``status`` of a ResourceQuota; losing a race to a newer status is no error."""
        ...


class AdmissionChain:
    """Runs the built-in admission steps. Call ``admit``, then ``validate``, write, and always ``release``."""

    def __init__(self, reader: ObjectReader, hooks: StoreHooks, authorizer: Authorizer | None = None) -> None:
        self._reader = reader
        self._hooks = hooks
        self._authorizer = authorizer
        self.quota = QuotaAdmission(reader, hooks.resource_of)
        self._mutating: tuple[Callable[[ObjectReader, AdmissionAttributes], None], ...] = (
            apply_limit_defaults,
            admit_service_account,
            _default_priority,
        )
        self._validating: tuple[Callable[[ObjectReader, AdmissionAttributes], None], ...] = (
            check_limits,
            validate_service_account,
            check_node_restriction,
            check_pod_security,
        )

    async def admit(self, a: AdmissionAttributes) -> None:
        """Mutate ``a.obj`` in place. Raises Forbidden. Runs before schema validation."""
        for step in self._mutating:
            step(self._reader, a)

    async def validate(self, a: AdmissionAttributes) -> None:
        """Refuse what may not be. Raises Forbidden, NotFound. Runs after schema validation, just before the write."""
        for step in self._validating:
            step(self._reader, a)
        if self._authorizer is not None and a.operation in ("CREATE", "UPDATE") and not a.subresource:
            check_escalation(self._authorizer, a.user, a.resource, a.obj, a.old)
        changed = self.quota.check(a)
        if not a.dry_run:
            for quota, status in changed:
                if quota.get("status") != status:
                    await self._hooks.write_quota_status(quota, status)

    def release(self, a: AdmissionAttributes) -> None:
        """The write is over: give back what ``validate`` reserved."""
        self.quota.release(a)


def _default_priority(_: ObjectReader, a: AdmissionAttributes) -> None:
    """Priority admission without PriorityClasses: everything has priority 0 and preempts lower ones."""
    if a.creates_pod:
        spec = a.obj["spec"]
        built_in = {"system-cluster-critical": 2_000_000_000, "system-node-critical": 2_000_001_000}
        spec.setdefault("priority", built_in.get(spec.get("priorityClassName", ""), 0))
        spec.setdefault("preemptionPolicy", "PreemptLowerPriority")
