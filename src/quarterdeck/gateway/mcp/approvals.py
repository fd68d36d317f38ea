"""The stage at which calls wait for people's approval: asked for, or used up, at the control plane.

Nothing is held here. A call that needs approval is answered at once with error 4001, and the caller repeats it when it
was approved; what is then sent on are the very arguments that were approved. Whether an approval is good is the
control plane's word alone: without it the call is refused.
"""

from __future__ import annotations

import os
import re
from collections.abc import Awaitable, Callable, Coroutine
from hashlib import sha256
from typing import Any
from urllib.parse import urlsplit

import msgspec
from msgspec import UNSET, Raw

from quarterdeck.errors import Denied, QuarterdeckError
from quarterdeck.malformed import MALFORMED
from quarterdeck.mcptypes import jsonrpc, lists, protocol
from quarterdeck.mcptypes.canonical import arguments_hash, canonical
from quarterdeck.snapshot.consent import REQUIRED, Requester, Ticket, Wanted
from quarterdeck.snapshot.permits import META_APPROVAL, META_PERMIT, META_RUN, META_STEP, META_TASK

from ..acting import Acting, requester_of
from ..policy.authorizer import Decision
from .answers import Answers
from .call import McpCall, Problem
from .marks import Marks
from .relay import answer_error
from .session import SessionSealer

Later = Coroutine[Any, Any, None]
Ask = Callable[[str, bytes], Awaitable[bytes]]
"""``POST /v1/{path}`` at the control plane. Raises Denied for its 403, other QuarterdeckErrors for all else but 2xx."""

_NAME = re.compile(r"[a-z0-9.-]{1,63}/[a-z0-9.-]{1,253}")
_TEXT = 255


class Approvals:
    """``keep(call)`` is the stage; ``go_on`` takes a call through the stages after it."""

    def __init__(self, answers: Answers, sealer: SessionSealer, go_on: Callable[[McpCall], Later | None]) -> None:
        self._answers = answers
        self._marks = Marks(b"x-quarterdeck-approved", sealer)
        self._go_on = go_on
        self.acting = Acting(sealer)
        self.ask: Ask | None = None
        """None where there is no control plane: what needs approval is refused."""
        self.page = ""
        """Where people look at approvals with a browser; empty where that is not known."""

    def keep(self, call: McpCall) -> bool:
        """False when the call was answered, or goes on later."""
        decision = call.decision
        if call.route.consent is None and (decision is None or decision.verdict == "allow"):
            return True
        needed = self.needed(call)
        if not needed:
            return True
        call.later = self._admit_first(call, needed)
        return False

    async def _admit_first(self, call: McpCall, needed: tuple[str, ...]) -> None:
        call.later = None
        if await self.admit(call, needed):
            rest = self._go_on(call)
            if rest is not None:
                await rest

    def needed(self, call: McpCall) -> tuple[str, ...]:
        """Names of the rules by which the call needs approval and has none yet."""
        if call.method != protocol.TOOLS_CALL or call.approved is not None or self._admitted_elsewhere(call):
            return ()
        decision, consent = call.decision, call.route.consent
        names: tuple[str, ...] = ()
        if decision is not None and decision.verdict == "approval":
            names = (f"{REQUIRED}/{decision.rule}",)
        if consent is not None:
            user = self._requester(call).id
            names += consent.demanded(call.tool, _arguments(call) or {}, call.principal.agent, user)
        return names

    async def admit(self, call: McpCall, needed: tuple[str, ...]) -> bool:
        """Use up the call's approval, or ask for one; False when it was answered."""
        arguments = _arguments(call)
        try:
            if arguments is None:
                raise ValueError("they are no JSON object")
            final = canonical(arguments)
            wanted = self._wanted(call, needed, arguments)
            given = _meta(call).get(META_APPROVAL)
        except (ValueError, *MALFORMED) as error:
            text = f"the arguments of a call that needs approval must be plain JSON: {error}"
            self._answers.invalid(call, Problem(text, protocol.INVALID_PARAMS))
            return False
        if not call.raw_id:
            return self._refused(call, needed, "a call that needs approval must be a request, not a notification")
        if call.principal.anonymous:
            return self._refused(call, needed, f'tool "{call.tool}" of {call.server} needs approval: use a token')
        try:
            ticket = await self._ticket(wanted, given)
        except Denied as error:
            return self._refused(call, needed, str(error))
        except (QuarterdeckError, msgspec.DecodeError) as error:
            text = f'tool "{call.tool}" of {call.server} needs approval and none can be had now: {error}'
            return self._refused(call, needed, text)
        if ticket.state != "Consumed":
            return self._not_yet(call, needed, ticket)
        self._approve(call, ticket, arguments, final)
        return True

    # -- the control plane
    async def _ticket(self, wanted: Wanted, given: object) -> Ticket:
        ask = self.ask
        if ask is None:
            raise QuarterdeckError("approvals are kept by a control plane, and this gateway is configured by a file")
        if given is None:
            ticket = _ticket(await ask("approvals", msgspec.json.encode(wanted)))
            if ticket.state != "Approved":
                return ticket
            given = ticket.approval
        if not isinstance(given, str) or _NAME.fullmatch(given) is None:
            raise Denied(f"{META_APPROVAL} must be NAMESPACE/NAME of an approval")
        bare = msgspec.structs.replace(wanted, arguments=None)
        return _ticket(await ask(f"approvals/{given}/consume", msgspec.json.encode(bare)))

    def _wanted(self, call: McpCall, needed: tuple[str, ...], arguments: dict[str, Any]) -> Wanted:
        kind, namespace, server = call.route.target
        meta = _meta(call)
        run, step = _text(meta.get(META_RUN)), meta.get(META_STEP)
        session = call.headers.get(protocol.H_SESSION)
        if self.acting.of(call.principal, call.headers) is not None:
            session = None  # a BYO agent has a new one for each message; its user is what an approval is bound to
        agent = call.principal.agent
        return Wanted(
            kind,
            namespace,
            server,
            call.tool,
            arguments_hash(arguments),
            call.principal.id,
            needed,
            agent,
            self._requester(call),
            run,
            step if isinstance(step, int) and run else 0,
            sha256(session).hexdigest()[:32] if session is not None and not run else "",
            self._task(call, _text(meta.get(META_TASK))),
            arguments,
        )

    def _requester(self, call: McpCall) -> Requester:
        if not call.principal.agent:
            return requester_of(call.principal)
        told = self.acting.of(call.principal, call.headers)
        return told.requester if told is not None else Requester()

    def _task(self, call: McpCall, own: str) -> str:
        told = self.acting.of(call.principal, call.headers)
        if told is None:
            return ""
        return told.task or (f"{call.principal.agent}#{own}" if own else "")

    # -- answers
    def _not_yet(self, call: McpCall, needed: tuple[str, ...], ticket: Ticket) -> bool:
        if ticket.state != "Pending":
            return self._refused(call, needed, ticket.reason or f"approval {ticket.approval} is {ticket.state}", ticket)
        namespace, _, name = ticket.approval.partition("/")
        text = (
            f'tool "{call.tool}" of {call.server} needs approval ({", ".join(needed)}): {ticket.approval} waits for '
            f"people until {ticket.expires_at}; see: qd approvals show {name} -n {namespace}"
        )
        data = {
            "reason": "approval_required",
            "approval": ticket.approval,
            "argumentsHash": ticket.arguments_hash,
            "expiresAt": ticket.expires_at,
            "rule": needed[0],
        }
        call.decision = Decision("approval", needed[0], text)
        if self.page and _elicits(call):
            asked = {"mode": "url", "message": text, "url": f"{self.page}/approvals/{ticket.approval}"}
            requests = {META_APPROVAL: {"method": "elicitation/create", "params": asked}}
            self._answers.result(call, {"resultType": "input_required", "inputRequests": requests}, outcome="denied")
            return False
        answer_error(call, protocol.APPROVAL_REQUIRED, text, data=data)
        self._answers.observer.finish(call, "denied", 200, text)
        return False

    def _refused(self, call: McpCall, needed: tuple[str, ...], text: str, ticket: Ticket | None = None) -> bool:
        call.decision = Decision("deny", f"approval/{ticket.approval}" if ticket is not None else needed[0], text)
        self._answers.refused(call, call.decision)
        return False

    def _approve(self, call: McpCall, ticket: Ticket, arguments: dict[str, Any], final: bytes) -> None:
        """Let the call go on with exactly what was approved."""
        said = f"approved by {', '.join(ticket.by)}"
        call.approved = call.decision = Decision("allow", f"approval/{ticket.approval}", said)
        top = lists.members(call.body)
        params = lists.members(top["params"])
        if arguments or call.arguments is not None:
            params["arguments"] = call.arguments = Raw(final)
        meta = lists.members(params["_meta"]) if "_meta" in params else {}
        if meta.pop(META_APPROVAL, None) is not None or meta.pop(META_PERMIT, None) is not None:
            meta.pop(META_PERMIT, None)
            params["_meta"] = Raw(msgspec.json.encode(meta))
        if "inputResponses" in params:  # the answer to our own question
            answers = lists.members(params["inputResponses"])
            answers.pop(META_APPROVAL, None)
            params["inputResponses"] = Raw(msgspec.json.encode(answers))
            if not answers:
                del params["inputResponses"]
        top["params"] = Raw(msgspec.json.encode(params))
        call.body = msgspec.json.encode(top)
        call.message = jsonrpc.parse(call.body)
        self._marks.put(call, _mark_of(call), ticket.arguments_hash)

    def _admitted_elsewhere(self, call: McpCall) -> bool:
        """Whether the process that passed the call to this one has used up its approval."""
        digest = self._marks.said(call, _mark_of(call))
        if digest is None or digest != arguments_hash(_arguments(call)):
            return False
        call.approved = call.decision = Decision("allow", "approval/passed")
        return True


def page_of(control_plane: str) -> str:
    """Base URL of the pages about approvals: ``$QUARTERDECK_APPROVALS_URL``, or the control plane on this machine."""
    given = os.environ.get("QUARTERDECK_APPROVALS_URL", "").rstrip("/")
    here = urlsplit(control_plane).hostname in ("127.0.0.1", "localhost", "::1")
    return given or (control_plane.rstrip("/") if here else "")


def _elicits(call: McpCall) -> bool:
    """Whether a client of 2026-07-28 shows URLs to its user."""
    if not call.modern or call.principal.agent:
        return False
    capabilities = _meta(call).get(protocol.META_CLIENT_CAPABILITIES)
    elicitation = capabilities.get("elicitation") if isinstance(capabilities, dict) else None
    return isinstance(elicitation, dict) and "url" in elicitation


def _mark_of(call: McpCall) -> bytes:
    return f"approved|{call.principal.id}|{'/'.join(call.route.target)}|{call.tool}".encode()


def _arguments(call: McpCall) -> dict[str, Any] | None:
    """None when they are something else than an object."""
    if call.arguments is None:
        return {}
    try:
        return msgspec.json.decode(call.arguments, type=dict[str, Any])
    except MALFORMED:
        return None


def _meta(call: McpCall) -> dict[str, Any]:
    """Raises msgspec.DecodeError."""
    message = call.message
    if message is None or message.params is UNSET:
        return {}
    raw = lists.members(message.params).get("_meta")
    return msgspec.json.decode(raw, type=dict[str, Any]) if raw is not None else {}


def _text(value: object) -> str:
    return value if isinstance(value, str) and len(value) <= _TEXT else ""


def _ticket(data: bytes) -> Ticket:
    return msgspec.json.decode(data, type=Ticket)
