"""ApprovalPolicy: say whether it means what it says. The gateway's configuration takes it up by itself."""

from __future__ import annotations

from dataclasses import dataclass

from quarterdeck.kube import resource as k
from quarterdeck.kube.controller import Controller, Result
from quarterdeck.kube.resource import Key
from quarterdeck.translate.approvals import problem

from .context import Context, Verdict

_INVALID = "InvalidPolicy"


def controller(context: Context) -> Controller:
    return Controller("approvalpolicy", k.APPROVAL_POLICY, ApprovalPolicyReconciler(context).reconcile)


@dataclass(slots=True)
class ApprovalPolicyReconciler:
    context: Context

    async def reconcile(self, key: Key) -> Result | None:
        obj = self.context.primary(k.APPROVAL_POLICY, key)
        if obj is None:
            return None
        error = problem(obj)
        if error is None:
            verdicts = [
                Verdict("Accepted", True, "Accepted", "The policy is accepted"),
                Verdict("Ready", True, "Ready", "Gateways hold calls to the policy"),
            ]
        else:
            verdicts = [*self.context.rejected(error, _INVALID), Verdict("Ready", False, _INVALID, str(error))]
        await self.context.set_status(k.APPROVAL_POLICY, obj, verdicts)
        return None
