"""The stage at which tool calls of hosted agents show their permit, and their step is marked as started.

The control plane wrote the intent of the call into the run's journal and signed a permit for it
(``snapshot.permits``). Before the call is sent on, the step is started there, once: a replica of the agent that lost
its run meanwhile, or a second call with the same permit, is refused.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from secrets import token_hex
from time import time
from typing import Any

import msgspec
from msgspec import UNSET, Raw

from quarterdeck.errors import Denied, QuarterdeckError
from quarterdeck.malformed import MALFORMED
from quarterdeck.mcptypes import jsonrpc, lists, protocol
from quarterdeck.mcptypes.canonical import arguments_hash
from quarterdeck.snapshot import Snapshot
from quarterdeck.snapshot.permits import META_PERMIT, META_RUN, META_STEP, InvalidPermit, Permit, Verifier

from ..policy.authorizer import Decision
from .answers import Answers
from .approvals import Approvals
from .call import McpCall
from .marks import Marks
from .session import SessionSealer

Later = Coroutine[Any, Any, None]
Ask = Callable[[str, bytes], Awaitable[bytes]]
"""``POST /v1/{path}`` at the control plane. Raises Denied for its 403, other QuarterdeckErrors for all else but 2xx."""

RULE = "gateway/permits"
_PAUSES = (0.1, 0.3, 1.0, 2.0, 4.0)
"""Seconds between attempts to reach the control plane."""


class Permits:
    """``keep(call)`` is the stage; ``go_on`` takes a call through the stages after it and that of approvals."""

    def __init__(
        self,
        answers: Answers,
        sealer: SessionSealer,
        approvals: Approvals,
        go_on: Callable[[McpCall], Later | None],
        clock: Callable[[], float] = time,
    ) -> None:
        self._answers = answers
        self._marks = Marks(b"x-quarterdeck-started", sealer, clock)
        self._approvals = approvals
        self._go_on = go_on
        self._clock = clock
        self._hosted: frozenset[str] = frozenset()
        self._verifier = Verifier(())
        self.gateway = ""
        self.ask: Ask | None = None

    def use(self, snapshot: Snapshot) -> None:
        """Hold these agents to permits of these keys."""
        self._hosted = frozenset(f"{p.namespace}/{p.name}" for p in snapshot.policies if p.hosted)
        self._verifier = Verifier(snapshot.permit_keys)
        self.gateway = snapshot.gateway

    def keep(self, call: McpCall) -> bool:
        """False when the call was answered, or goes on later."""
        if call.principal.agent not in self._hosted or call.method != protocol.TOOLS_CALL or self._started(call):
            return True
        try:
            permit = self._permit(call)
        except (InvalidPermit, ValueError, *MALFORMED) as error:
            return self._refused(call, f'tool "{call.tool}" of {call.server}: the call needs a permit: {error}')
        call.later = self._start(call, permit)
        return False

    def _permit(self, call: McpCall) -> Permit:
        """The permit of a call, which is for just this call. Raises InvalidPermit, msgspec.DecodeError, ValueError."""
        message = call.message
        if message is None or message.params is UNSET or not call.raw_id:
            raise InvalidPermit("it must be a request")
        params = lists.members(message.params)
        meta: dict[str, Any] = msgspec.json.decode(params.get("_meta", Raw(b"{}")), type=dict[str, Any])
        token = meta.get(META_PERMIT)
        if not isinstance(token, str):
            raise InvalidPermit("there is none; agents of Quarterdeck get one when they write down what they will do")
        permit = self._verifier.open(token, self._clock())
        name = msgspec.json.decode(params["name"], type=str)
        arguments = msgspec.json.decode(params.get("arguments", Raw(b"{}")), type=dict[str, Any])
        shown = (call.principal.agent, name, arguments_hash(arguments), meta.get(META_RUN), meta.get(META_STEP))
        if shown != (permit.agent, permit.tool, permit.arguments, permit.run, permit.step):
            raise InvalidPermit("it is for another call")
        return permit

    async def _start(self, call: McpCall, permit: Permit) -> None:
        call.later = None
        needed = self._approvals.needed(call)
        if needed and not await self._approvals.admit(call, needed):
            return
        try:
            await self._tell(permit)
        except Denied as error:
            self._refused(call, str(error))
            return
        except QuarterdeckError as error:
            text = f'tool "{call.tool}" of {call.server} is not called: the control plane does not answer: {error}'
            self._answers.error(call, protocol.UPSTREAM_FAILED, text)
            return
        self._clean(call)
        rest = self._go_on(call)
        if rest is not None:
            await rest

    async def _tell(self, permit: Permit) -> None:
        """Start the step. Raises Denied when it may not start, another QuarterdeckError when nobody can be asked."""
        if self.ask is None:
            raise QuarterdeckError("this gateway has no control plane")
        body = {"gateway": self.gateway, "fence": permit.fence, "attempt": permit.attempt, "key": token_hex(16)}
        path, data = f"runs/{permit.run}/steps/{permit.step}/start", msgspec.json.encode(body)
        for pause in (*_PAUSES, None):
            try:
                await self.ask(path, data)
                return
            except Denied:
                raise
            except QuarterdeckError:
                if pause is None or self._clock() + pause > permit.expires:
                    raise
            await asyncio.sleep(pause)

    def _clean(self, call: McpCall) -> None:
        """The permit is for nobody else to see."""
        top = lists.members(call.body)
        params = lists.members(top["params"])
        meta = lists.members(params["_meta"]) if "_meta" in params else {}
        if meta.pop(META_PERMIT, None) is not None:
            params["_meta"] = Raw(msgspec.json.encode(meta))
            top["params"] = Raw(msgspec.json.encode(params))
            call.body = msgspec.json.encode(top)
            call.message = jsonrpc.parse(call.body)
        self._marks.put(call, _binding(call))

    def _started(self, call: McpCall) -> bool:
        """Whether the process that passed the call to this one has started its step; takes the permit out then."""
        if self._marks.said(call, _binding(call)) is None:
            return False
        self._clean(call)
        return True

    def _refused(self, call: McpCall, text: str) -> bool:
        call.decision = Decision("deny", RULE, text)
        self._answers.refused(call, call.decision)
        return False


def _binding(call: McpCall) -> bytes:
    return b"started|%b|%b" % (call.principal.id.encode(), call.exchange.body)
