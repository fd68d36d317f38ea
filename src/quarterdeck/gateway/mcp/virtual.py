"""Virtual servers: other servers' tools under names, descriptions and with arguments of a configuration's choice.

A virtual server is a group of its own (:class:`VirtualGroup`), so calls go the way of several servers behind one path.
What is authorized is the virtual server and the exposed name; a server behind it that is revoked is gone here, too.
Pins are held to what the server itself lists, and calls are recorded by both names.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import Raw

from quarterdeck import __version__
from quarterdeck.mcptypes import jsonrpc, lists, protocol
from quarterdeck.snapshot.policies import Policies
from quarterdeck.snapshot.routing import McpTarget
from quarterdeck.snapshot.virtual import KIND, ChosenTool, Names, VirtualServer

from ..http.call import RouteRef
from ..policy.authorizer import Authorizer, Decision, Target
from ..policy.principal import Principal
from ..policy.refusal import Refusal
from . import naming
from .answers import JSON, sight
from .call import McpCall
from .groups import McpGroup, Member
from .merged import MergedStream
from .route import Lane, McpRoute
from .subscriptions import Subscription

if TYPE_CHECKING:
    from ..pins import Pins

_RESOURCES = frozenset({protocol.RESOURCES_READ, naming.SUBSCRIBE, naming.UNSUBSCRIBE})


class VirtualLane(Lane):
    """One principal on one server behind a virtual one: the grant is that on the virtual server."""

    __slots__ = ("_behind",)

    def __init__(self, route: VirtualRoute, principal: Principal, authorizer: Authorizer) -> None:
        super().__init__(route, principal, authorizer, route.virtual)
        self._behind = route.target

    def decide(self, method: str, name: str = "") -> Decision:
        """Whether the server may be used at all; which tools may be called, :class:`ViewChain` asks by exposed name."""
        revoked = self.authorizer.revocations
        if revoked is not None and revoked.active:
            denial = revoked.decide(self.principal, self._behind)
            if denial is not None:
                return denial
        return super().decide(protocol.TOOLS_LIST if method == protocol.TOOLS_CALL else method)

    def decide_exposed(self, method: str, name: str) -> Decision:
        return super().decide(method, name if method == protocol.TOOLS_CALL else "")


class VirtualRoute(McpRoute):
    """A server as a virtual one reaches it: all is the server's but who may."""

    def __init__(self, behind: McpRoute, virtual: Target, authorizer: Authorizer) -> None:
        vars(self).update(vars(behind))
        self.behind = behind
        self.virtual = virtual
        self._authorizer = authorizer
        self._lanes: dict[str, Lane] = {}

    @property
    def pins(self) -> Pins | None:  # pyright: ignore[reportIncompatibleVariableOverride]  # given after this was made
        return self.behind.pins

    def make_lane(self, principal: Principal) -> Lane:
        return VirtualLane(self, principal, self._authorizer)


class ViewChain:
    """The rules of a server behind a virtual one: what is exposed, to whom, with which arguments; then its route's.

    Has the methods of ``policy.chain.Chain`` that concern a target.
    """

    def __init__(self, view: View, server: str, route: VirtualRoute, inner: Any) -> None:
        self._view = view
        self._server = server
        self._route = route
        self._inner = inner
        self.by_head = inner is None or inner.by_head
        """Whether caller, head and names alone lead to its decisions."""

    def decide(self, call: McpCall, method: str, name: str, exposed: str = "") -> Decision:
        names = self._view.names
        if method == protocol.TOOLS_CALL:
            shown = names.exposes(self._server, name, exposed)
        elif method == protocol.PROMPTS_GET:
            shown = names.chooses(self._server, "prompts", name)
        else:
            shown = method not in _RESOURCES or names.chooses(self._server, "resources", name)
        if not shown:
            return self._view.unexposed
        lane = self._route.lane(call.principal)
        assert isinstance(lane, VirtualLane)
        decision = lane.decide_exposed(method, exposed or name)
        if self._inner is None or decision.verdict == "deny":
            return decision
        ruled: Decision = self._inner.decide(call, method, name, exposed)
        return decision if ruled.allow and not decision.allow else ruled

    def step_up(self, call: McpCall, name: str, exposed: str) -> Refusal | None:
        """After a call was allowed: refuse what may not be sent, fill in what is not sent by callers."""
        refusal = self._inner.step_up(call, name, exposed) if self._inner is not None else None
        if refusal is not None or call.method != protocol.TOOLS_CALL:
            return refusal
        found = self._view.names.given.get(exposed)
        if found is None or found.entry is None:
            return None
        return self._view.fill(call, exposed, found.entry)

    def prepare(self, call: McpCall) -> Refusal | Coroutine[Any, Any, Refusal | None] | None:
        return self._inner.prepare(call) if self._inner is not None else None

    def outgoing_lines(self, call: McpCall) -> bytes:
        return self._inner.outgoing_lines(call) if self._inner is not None else b""


class View:
    """What clients of a virtual server see of the servers behind it."""

    def __init__(self, virtual: VirtualServer) -> None:
        self.virtual = virtual
        self.names = Names(virtual)
        self.label = f"{virtual.namespace}/{virtual.name}"
        self.rule = f"virtualserver/{self.label}"
        self.unexposed = Decision("deny", self.rule, f"not exposed by {KIND} {self.label}")
        self._fills: dict[str, _Fill] = {}
        self._kinds = {
            kind
            for server in virtual.servers
            for kind, choice in (("prompts", server.prompts), ("resources", server.resources))
            if choice.include is None or choice.include
        }

    def offers(self, server: str, key: str) -> bool:
        """Whether a list of a server's can have anything to show."""
        kind = {"resourceTemplates": "resources"}.get(key, key)
        chosen = self.names.servers[server]
        choice = {"prompts": chosen.prompts, "resources": chosen.resources}.get(kind)
        return choice is None or choice.include is None or bool(choice.include)

    def listed(self, call: McpCall, member: Member, key: str, found: Sequence[Raw]) -> list[Raw]:
        """A server's items as the caller may see them. Raises msgspec.DecodeError for what is no object."""
        if key == "tasks":
            return [naming.item_out(member, key, item) for item in found]
        if key != "tools":
            return [naming.item_out(member, key, item) for item in filter(sight(call, member, key), found)]
        pins = member.route.pins
        bounds = member.limits.bounds if member.limits is not None else None
        shown: list[Raw] = []
        for item in found:
            if bounds is not None:
                bounds.learn(item)
            if pins is not None and not pins.shows(item):
                continue
            own = lists.name_of(item)
            for each in self.names.of(member.name, own):
                if call.judge(member, protocol.TOOLS_CALL, own, each.name).verdict != "deny":
                    shown.append(_tool_out(member, item, each.name, each.entry))
        return shown

    def fill(self, call: McpCall, exposed: str, entry: ChosenTool) -> Refusal | None:
        """Make a call's arguments those that the server gets."""
        known = self._fills.get(exposed)
        if known is None:
            known = self._fills[exposed] = _Fill(entry)
        if known.idle:
            return None
        given = call.asked if call.asked is not None else call.arguments  # a second attempt begins anew
        try:
            filled = known.apply(lists.members(given) if given is not None and bytes(given) != b"null" else {})
        except msgspec.DecodeError as error:
            text = f"invalid arguments of {exposed}: {error}"
            body = jsonrpc.error_response(call.raw_id or b"null", protocol.INVALID_PARAMS, text)
            return Refusal(400 if call.modern else 200, text, (JSON,), f"{self.rule}/{exposed}", body)
        call.asked = given if given is not None else b"{}"
        _resend(call, Raw(filled))
        return None

    def introduced(self, result: dict[str, Any]) -> dict[str, Any]:
        """A result of ``initialize`` or ``server/discover``: a virtual server speaks for itself."""
        info = {"name": self.virtual.name, "version": __version__}
        info |= {"title": self.virtual.title} if self.virtual.title else {}
        result = {k: v for k, v in result.items() if k != "instructions"}
        if self.virtual.instructions:
            result["instructions"] = self.virtual.instructions
        if "serverInfo" in result:
            result["serverInfo"] = info
        else:
            result["_meta"] = {**result.get("_meta", {}), protocol.META_SERVER_INFO: info}
        capabilities: dict[str, Any] = result.get("capabilities") or {}
        absent = {"prompts", "resources"} - self._kinds
        told = {"tools": {**(capabilities.get("tools") or {}), "listChanged": True}}
        result["capabilities"] = {k: v for k, v in capabilities.items() if k not in absent} | told
        return result


class VirtualGroup(McpGroup):
    """A virtual server as a group."""

    def __init__(
        self,
        key: str,
        virtual: VirtualServer,
        targets: Mapping[str, McpRoute],
        authorizer: Authorizer,
        chains: Callable[[Policies], Any] | None = None,
        ruled: Sequence[McpTarget] = (),
    ) -> None:
        """``ruled``: the rules of a route that leads here, for each server; what ``ruled`` does not name is left out.

        Without ``chains`` there are no rules. A server that is not there is left out, too: nothing of it can be called.
        """
        view = View(virtual)
        target = (KIND, virtual.namespace, virtual.name)
        rules = {each.name: each.policies for each in ruled}
        members: list[Member] = []
        for server in virtual.servers:
            behind = targets.get(server.server)
            if behind is None or (chains is not None and server.name not in rules):
                continue
            policies = rules.get(server.name)
            inner = chains(policies) if chains is not None and policies is not None else None
            route = VirtualRoute(behind, target, authorizer)
            members.append(Member(server.name, route, ViewChain(view, server.name, route, inner), policies))
        self._fill(key, view.label, members, "always" if virtual.prefixed else "never")
        self.view = view
        self.edition = f"{key}@{hashlib.sha256(msgspec.json.encode(virtual)).hexdigest()[:16]}"
        self.single = None
        self.fail_open = virtual.fail_open
        self.ref = RouteRef(route=view.rule) if chains is None else None
        for member in self.members:
            member.mark = member.name

    def tool_in(self, name: str) -> tuple[Member, str] | None:
        found = self._view.names.find(name)
        return self._member(found.server, found.tool) if found is not None else None

    def name_in(self, name: str) -> tuple[Member, str] | None:
        found = self._view.names.prompt(name)
        return self._member(*found) if found is not None else None

    def uri_in(self, uri: str) -> tuple[Member, str] | None:
        found = super().uri_in(uri)
        if found is None and not self.prefixed and len(self.members) == 1:
            found = self.members[0], uri
        if found is None or not self._view.names.chooses(found[0].name, "resources", found[1]):
            return None
        return found

    @property
    def _view(self) -> View:
        assert self.view is not None
        return self.view

    def _member(self, server: str, own: str) -> tuple[Member, str] | None:
        member = self.by_name.get(server)
        return (member, own) if member is not None else None


def tell_changes(before: Mapping[str, McpGroup], after: Mapping[str, McpGroup], held: Iterable[object]) -> None:
    """Clients that listen to a virtual server are told when another configuration shows other tools."""
    for stream in list(held):
        if isinstance(stream, MergedStream | Subscription) and stream.group.view is not None:
            old, new = before.get(stream.group.key), after.get(stream.group.key)
            if old is not None and new is not None and old.edition != new.edition:
                stream.changed()


class _Fill:
    """What an entry does to arguments, compiled."""

    def __init__(self, entry: ChosenTool) -> None:
        self._defaults = {name: Raw(msgspec.json.encode(value)) for name, value in entry.defaults.items()}
        self._fixed = {name: Raw(msgspec.json.encode(value)) for name, value in entry.fixed.items()}
        # there are servers that read names whatever the case of their letters
        self._closed = {name.casefold(): name for name in entry.closed}
        self.idle = not (self._defaults or self._closed)

    def apply(self, arguments: Mapping[str, Raw]) -> bytes:
        """Raises msgspec.ValidationError for an argument that callers may not send."""
        for name in arguments:
            if name.casefold() in self._closed:
                raise msgspec.ValidationError(f"there is no parameter {name[:128]}")
        return msgspec.json.encode({**self._defaults, **arguments, **self._fixed})


def _resend(call: McpCall, arguments: Raw) -> None:
    """Have the server get these arguments."""
    call.arguments = arguments
    message = jsonrpc.parse(call.body)
    params: dict[str, Any] = dict(lists.members(message.params)) if isinstance(message.params, Raw) else {}
    encoded = Raw(msgspec.json.encode({**params, "arguments": arguments}))
    call.body = jsonrpc.request(Raw(call.raw_id), call.method, encoded)
    if call.modern:
        call.message = jsonrpc.Message("2.0", Raw(call.raw_id), call.method, encoded)


def _tool_out(member: Member, item: Raw, name: str, entry: ChosenTool | None) -> Raw:
    """A tool as it is exposed. Raises msgspec.DecodeError."""
    if entry is None:
        return naming.item_out(member, "tools", item) if member.shown else item
    fields: dict[str, Any] = dict(lists.members(naming.item_out(member, "tools", item)))
    fields["name"] = name
    if entry.title:
        fields["title"] = entry.title
    if entry.description:
        fields["description"] = entry.description
    if entry.annotations:
        known: dict[str, Any] = msgspec.json.decode(fields.get("annotations", b"{}"), type=dict[str, Any] | None) or {}
        fields["annotations"] = {**known, **entry.annotations}
    if "inputSchema" in fields and (entry.defaults or entry.closed):
        fields["inputSchema"] = _schema_out(msgspec.json.decode(fields["inputSchema"], type=dict[str, Any]), entry)
    return Raw(msgspec.json.encode(fields))


def _schema_out(schema: dict[str, Any], entry: ChosenTool) -> dict[str, Any]:
    """An input schema without what callers do not send, and with the defaults."""
    closed = {*entry.closed}
    properties = schema.get("properties")
    if isinstance(properties, dict):
        shown: dict[str, Any] = {name: child for name, child in properties.items() if name not in closed}
        for name, value in entry.defaults.items():
            if isinstance(shown.get(name), dict):
                shown[name] = {**shown[name], "default": value}
        schema["properties"] = shown
    required = schema.get("required")
    if isinstance(required, list):
        left = closed | entry.defaults.keys()
        schema["required"] = [name for name in required if not isinstance(name, str) or name not in left]
        if not schema["required"]:
            del schema["required"]
    return schema
