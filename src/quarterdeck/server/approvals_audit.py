"""The audit record of approvals: who decided what, who was refused, what expired. A chain of its own."""

from __future__ import annotations

from collections.abc import Callable
from time import time
from uuid import uuid4

from quarterdeck.telemetry.audit import AuditLog, Record

from .approvals import Approval, Decision


class ApprovalAudit:
    """Writes to the control plane's audit log before anybody is answered."""

    def __init__(self, log: AuditLog, clock: Callable[[], float] = time) -> None:
        self.log = log
        self._clock = clock

    def decided(self, approval: Approval, decision: Decision) -> None:
        verdict = decision.verdict.lower()
        detail = f"{approval.message} ({decision.person.via})"
        self._write(approval, decision.person.name, verdict, "allow" if verdict == "approve" else "deny", detail)

    def refused(self, approval: Approval, who: str, verdict: str, why: str) -> None:
        self._write(approval, who, verdict.lower(), "deny", why, status=403)

    def ended(self, approval: Approval) -> None:
        """It was used, has expired, or does not count any more."""
        used = approval.state == "Consumed"
        who = approval.wanted.principal if used else ""
        self._write(approval, who, approval.state.lower(), "allow" if used else "deny", approval.message)

    def intruder(self, who: str, path: str, why: str = "", *, approval: str = "", agent: str = "") -> None:
        """Somebody who may not at all, with what they asked for."""
        detail = why or f"{path} is for people only"
        record = self._record(who, agent, "", "", path, "", "deny", f"approval/{approval}", 403, detail)
        self.log.append(record)
        self.log.flush()

    def _write(self, approval: Approval, who: str, verdict: str, decision: str, detail: str, status: int = 200) -> None:
        wanted = approval.wanted
        server = f"{wanted.namespace}/{wanted.server}"
        digest = wanted.arguments_hash.removeprefix("sha256:")
        record = self._record(
            who, wanted.agent, server, wanted.tool, f"approvals/{verdict}", digest, decision,
            f"approval/{approval.id}", status, detail, wanted.requester.id,
        )  # fmt: skip
        self.log.append(record)
        self.log.flush()

    def _record(
        self, who: str, agent: str, server: str, tool: str, method: str, digest: str, decision: str, rule: str,
        status: int, detail: str, requester: str = "",
    ) -> Record:  # fmt: skip
        denied = status == 403
        return Record(
            round(self._clock(), 3), uuid4().hex, who, requester, agent, "audit", server, tool, method, digest,
            "allow" if decision == "allow" else "deny", rule, "denied" if denied else "ok", status, 0.0, "",
            detail,
        )  # fmt: skip
