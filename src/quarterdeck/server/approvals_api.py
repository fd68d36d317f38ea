"""Approvals on the management API: gateways ask and use up, people decide. Agents never do.

``/v1/approvals`` needs the verb ``get``, ``list`` or ``approve`` on ``approvals`` of ``quarterdeck.dev`` in the
approval's namespace; what a gateway asks needs its own ServiceAccount's token. An identity of a workload, and a token
that acts for somebody (claim ``act``), is refused and recorded whatever RBAC says.
"""

from __future__ import annotations

import asyncio
from base64 import urlsafe_b64decode
from collections.abc import Awaitable, Callable
from html import escape
from time import time
from typing import Any, NamedTuple

import msgspec

from quarterdeck.controllers.gateway_config import GatewayConfig
from quarterdeck.errors import BadRequest, Forbidden, NotFound, QuarterdeckError, Unauthorized
from quarterdeck.malformed import MALFORMED
from quarterdeck.mcptypes.canonical import arguments_hash
from quarterdeck.snapshot.consent import Requester, Wanted

from .approvals import Approval, Decision, Person, Verdict, when
from .approvals_audit import ApprovalAudit
from .approvals_store import ApprovalStore
from .http import Answer, Call, Route, route
from .identity import Identity

_REASON = 2000
_ARGUMENTS = 256 * 1024
_WAIT = 30.0
_WORKLOADS = ("system:serviceaccount:", "system:node:")
_PAGE = """<!doctype html><title>Approval {namespace}/{name}</title>
<h1>A tool call waits for approval</h1>
<p>Look at it, and decide, with:</p>
<pre>qd approvals show {name} -n {namespace}
qd approvals approve {name} -n {namespace}
qd approvals deny {name} -n {namespace} --reason …</pre>
<p>Then let your client go on.</p>
"""
VERDICTS: dict[str, Verdict] = {"approve": "Approve", "deny": "Deny"}


class Said(msgspec.Struct, rename="camel"):
    """What a user answered in a conversation, as the gateway saw it. ``decisions`` and ``reasons``: by approval or by
    the call that was shown; ``verdict`` and ``reason``: of what waits; ``message``: id of the user's message."""

    person: Person
    agent: str
    task: str
    verdict: Verdict | None = None
    decisions: dict[str, Verdict] = {}
    reason: str = ""
    reasons: dict[str, str] = {}
    message: str = ""


class Place(NamedTuple):
    """Where a run waits: its A2A task, the step, the id that the model gave the call, and the approval that its user is
    shown; 0 and "" where it does not. ``user``: who had the control plane start it; empty for one of a conversation."""

    task: str = ""
    step: int = 0
    call: str = ""
    approval: str = ""
    user: str = ""


Places = Callable[[str], Awaitable[Place]]
"""By the id of a run. Raises NotFound."""


class ApprovalsApi:
    """Routes for gateways and people (``routes``), and for agents that wait (``agent_routes``)."""

    def __init__(
        self,
        store: ApprovalStore,
        identity: Identity,
        configuration: GatewayConfig,
        audit: ApprovalAudit,
        places: Places | None = None,
        clock: Callable[[], float] = time,
    ) -> None:
        """``places``: where runs wait; None where there are none."""
        self._store = store
        self._places = places
        self._identity = identity
        self._configuration = configuration
        self._audit = audit
        self._clock = clock
        self._waiting: dict[str, set[asyncio.Future[None]]] = {}
        store.changed.append(self._changed)

    def routes(self) -> list[Route]:
        one = "/v1/approvals/{namespace}/{name}"
        return [
            route("POST", "/v1/approvals", self.request),
            route("POST", "/v1/approvals/said", self.said),
            route("POST", one + "/consume", self.consume),
            route("GET", "/v1/approvals", self.list),
            route("GET", one, self.show),
            route("POST", one + "/{verdict}", self.decide),
            route("GET", "/approvals/{namespace}/{name}", self.page),
        ]

    def agent_routes(self) -> list[Route]:
        return [route("GET", "/api/approvals/{namespace}/{name}", self.wait)]

    # -- gateways
    async def request(self, call: Call) -> Answer:
        """A call needs approval: the open one, or a new one."""
        gateway = await self._gateway(call)
        wanted = self._wanted(call)
        if arguments_hash(wanted.arguments) != wanted.arguments_hash:
            raise BadRequest("argumentsHash is not that of the arguments")
        wanted = await self._complete(wanted)
        return Answer(msgspec.to_builtins((await self._store.request(gateway, wanted)).ticket()))

    async def consume(self, call: Call) -> Answer:
        """The call is to be sent now. Good only if the answer's state is ``Consumed``."""
        gateway = await self._gateway(call)
        wanted = await self._complete(self._wanted(call))
        namespace, name = call.parameters["namespace"], call.parameters["name"]
        try:
            approval = await self._store.consume(gateway, namespace, name, wanted)
        except NotFound as error:  # a caller may name anything: to a gateway that is no fault of its own
            raise Forbidden(str(error)) from error
        return Answer(msgspec.to_builtins(approval.ticket()))

    async def said(self, call: Call) -> Answer:
        """The requester answered in the conversation; whom the gateway let in by no agent's credential."""
        gateway = await self._gateway(call)
        said = self._read(call, Said)
        person = msgspec.structs.replace(said.person, via="conversation")
        asked = await self._asked(gateway, said, person)
        if asked and said.message and await self._store.said(said.message, person.name):
            return Answer({"approvals": []})  # sent again, perhaps by the network: it decides about nothing else
        if said.verdict is not None and len(asked) > 1:
            raise BadRequest(f"{len(asked)} calls wait in task {said.task}; decide about each by its id")
        done: list[Approval] = []
        for one, shown in asked:
            names = (one.id, shown)
            verdict = next((said.decisions[name] for name in names if name in said.decisions), said.verdict)
            if verdict is not None:
                reason = next((said.reasons[name] for name in names if name in said.reasons), said.reason)[:_REASON]
                decision = Decision(person, verdict, self._now(), reason, said.message)
                done.append(await self._take(one, decision))
        return Answer({"approvals": [msgspec.to_builtins(one.ticket()) for one in done]})

    async def _asked(self, gateway: str, said: Said, person: Person) -> list[tuple[Approval, str]]:
        """What the task shows the requester now, with the id of the call: not what else may wait behind it."""
        found: list[tuple[Approval, str]] = []
        for one in await self._store.find(states=("Pending",), requester=person.name):
            if one.gateway != gateway:
                continue
            place = await self._place(one.wanted.run)
            if place.step != one.wanted.step:
                continue
            first, _, ident = one.wanted.task.rpartition("#")
            own = one.wanted.agent == said.agent and place.task == said.task
            if own or (first == said.agent and await self._leads(ident, said.task, one)):
                found.append((one, place.call))
        return found

    async def _leads(self, ident: str, task: str, approval: Approval) -> bool:
        """Whether the task that the user talks in shows an approval for another agent; ``ident``: task or run."""
        if ident == task:
            return True
        place = await self._place(ident)
        return place.task == task and place.approval == approval.id

    async def _place(self, run: str) -> Place:
        if not run or self._places is None:
            return Place()
        try:
            return await self._places(run)
        except NotFound:
            return Place()

    # -- people
    async def list(self, call: Call) -> Answer:
        namespace = call.query.get("namespace", "")
        await self._identity.person(call.header(b"authorization"), "list", "approvals", namespace)
        states = [state.capitalize() for state in call.query.get("state", "").split(",") if state]
        found = await self._store.find(namespace=namespace, states=states)
        return Answer({"approvals": [_shown(one) for one in found]})

    async def show(self, call: Call) -> Answer:
        namespace = call.parameters["namespace"]
        await self._identity.person(call.header(b"authorization"), "get", "approvals", namespace)
        return Answer(_shown(await self._store.get(namespace, call.parameters["name"]), arguments=True))

    async def page(self, call: Call) -> None:
        """For a browser that was sent here: how to decide. It needs no token, so it tells nothing of the call."""
        namespace, name = (escape(call.parameters[key]) for key in ("namespace", "name"))
        body = _PAGE.format(namespace=namespace, name=name).encode()
        policy = (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'")
        call.exchange.respond(200, body, [(b"content-type", b"text/html; charset=utf-8"), policy])

    async def decide(self, call: Call) -> Answer:
        """``{reason}``; ``argumentsHash``, when given, must be that of the call."""
        verdict = VERDICTS.get(call.parameters["verdict"])
        if verdict is None:
            raise NotFound(f"{call.exchange.path} is not here; POST …/approve or …/deny")
        namespace, name = call.parameters["namespace"], call.parameters["name"]
        person = await self._person(call, namespace, name)
        body = call.body()
        reason, seen = call.text(body, "reason") or "", call.text(body, "argumentsHash")
        approval = await self._store.get(namespace, name)
        if seen is not None and seen != approval.wanted.arguments_hash:
            raise BadRequest(f"argumentsHash is not that of approval {approval.id}: look again")
        return Answer(_shown(await self._take(approval, Decision(person, verdict, self._now(), reason[:_REASON]))))

    # -- agents
    async def wait(self, call: Call) -> Answer:
        """The agent's own approval; ``?wait=SECONDS`` answers when it changes."""
        agent = await self._identity.agent(call.header(b"authorization"))
        try:
            wait = min(max(float(call.query.get("wait", "0")), 0.0), _WAIT)
        except ValueError:
            raise BadRequest("wait: must be a number of seconds") from None
        approval = await self._own(agent, call)
        if wait and approval.state == "Pending":
            await self._until_changed(approval.id, wait)
            approval = await self._own(agent, call)
        return Answer({"error": False, "data": msgspec.to_builtins(approval.ticket()), "message": ""})

    async def _own(self, agent: str, call: Call) -> Approval:
        namespace, name = call.parameters["namespace"], call.parameters["name"]
        approval = await self._store.get(namespace, name)
        if approval.wanted.agent != agent:
            raise NotFound(f"approval {namespace}/{name} is not one of agent {agent}")
        return approval

    async def _until_changed(self, ident: str, seconds: float) -> None:
        """Another replica may change it: then the time is waited for."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        waiting = self._waiting.setdefault(ident, set())
        waiting.add(future)
        try:
            await asyncio.wait((future,), timeout=seconds)
        finally:
            waiting.discard(future)
            if not waiting:
                self._waiting.pop(ident, None)

    async def _changed(self, approval: Approval) -> None:
        for future in self._waiting.get(approval.id, ()):
            if not future.done():
                future.set_result(None)

    # -- inside
    async def _take(self, approval: Approval, decision: Decision) -> Approval:
        """Have a decision count, or refused; recorded either way."""
        try:
            after = await self._store.decide(approval, decision)
        except QuarterdeckError as error:
            self._audit.refused(approval, decision.person.name, decision.verdict, str(error))
            raise
        self._audit.decided(after, decision)
        return after

    async def _gateway(self, call: Call) -> str:
        """``namespace/name`` of a gateway that we configure, by its ServiceAccount. Raises Forbidden."""
        caller = await self._identity.workload(call.header(b"authorization"))
        account = caller.name.removeprefix("system:serviceaccount:").replace(":", "/")
        if caller.agent is not None or account.count("/") != 1 or self._configuration.current(account) is None:
            self._audit.intruder(caller.agent or caller.name, call.exchange.path, agent=caller.agent or "")
            raise Forbidden(f"{caller.agent or caller.name} is no gateway of this control plane")
        return account

    async def _person(self, call: Call, namespace: str, name: str) -> Person:
        """Who decides. Raises Forbidden for all that is no person, and records it."""
        authorization = call.header(b"authorization")
        target = f"{namespace}/{name}"
        if _acts(authorization):
            self._audit.intruder("a token with act", call.exchange.path, approval=target)
            raise Forbidden("a token that acts for somebody (claim act) cannot approve or deny; a person must")
        try:
            caller = await self._identity.person(authorization, "approve", "approvals", namespace)
        except Unauthorized:
            workload = await self._workload(authorization)
            if workload is None:
                raise
            self._audit.intruder(workload, call.exchange.path, approval=target, agent=workload)
            raise Forbidden(f"{workload} is a workload: agents cannot approve or deny, a person must") from None
        except Forbidden as error:
            self._audit.intruder("somebody without the verb approve", call.exchange.path, str(error), approval=target)
            raise
        if caller.name.startswith(_WORKLOADS):
            self._audit.intruder(caller.name, call.exchange.path, approval=target)
            raise Forbidden(f"{caller.name} is a workload: it cannot approve or deny, a person must")
        return Person(caller.name, groups=caller.groups)

    async def _workload(self, authorization: str) -> str | None:
        try:
            caller = await self._identity.workload(authorization)
        except QuarterdeckError:
            return None
        return caller.agent or caller.name

    async def _complete(self, wanted: Wanted) -> Wanted:
        """With the requester of a run that was started here: no user's message went through the gateway."""
        if wanted.requester.id or not wanted.run:
            return wanted
        user = (await self._place(wanted.run)).user
        return msgspec.structs.replace(wanted, requester=Requester(user)) if user else wanted

    def _wanted(self, call: Call) -> Wanted:
        if len(call.exchange.body) > _ARGUMENTS:
            raise BadRequest(f"arguments of more than {_ARGUMENTS} bytes cannot be looked through by anybody")
        return self._read(call, Wanted)

    def _read(self, call: Call, kind: type[Any]) -> Any:
        try:
            return msgspec.json.decode(call.exchange.body, type=kind)
        except MALFORMED as error:
            raise BadRequest(f"the body is not understood: {error}") from error

    def _now(self) -> float:
        return round(self._clock(), 3)


def _shown(approval: Approval, *, arguments: bool = False) -> dict[str, Any]:
    """For people. Arguments are in no list: they may hold secrets."""
    wanted: dict[str, Any] = msgspec.to_builtins(approval.wanted)
    wanted.pop("arguments", None)
    if arguments:
        wanted["arguments"] = approval.wanted.arguments or {}
    return {
        **wanted,
        "name": approval.name,
        "state": approval.state,
        "message": approval.message,
        "gateway": approval.gateway,
        "createdAt": when(approval.created),
        "expiresAt": when(approval.expires),
        "decisions": [
            {"by": d.person.name, "verdict": d.verdict, "reason": d.reason, "at": when(d.at), "via": d.person.via}
            for d in approval.decisions
        ],
    }


def _acts(authorization: str) -> bool:
    """Whether a bearer token says that somebody acts for somebody (RFC 8693 §4.1)."""
    parts = authorization.partition(" ")[2].split(".")
    if len(parts) != 3:
        return False
    try:
        claims = msgspec.json.decode(urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)), type=dict[str, Any])
    except (ValueError, *MALFORMED):
        return False
    return "act" in claims or "may_act" in claims
