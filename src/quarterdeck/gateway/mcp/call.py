"""One MCP call, and what is wrong with it before anything is decided: method, headers, JSON-RPC framing."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
from msgspec import UNSET, Raw

from quarterdeck.malformed import MALFORMED
from quarterdeck.mcptypes import MODERN_VERSIONS, SUPPORTED_VERSIONS, jsonrpc, lists, protocol
from quarterdeck.mcptypes.headers import decode_value
from quarterdeck.wire.client import Origin
from quarterdeck.wire.http import Exchange

from ..call import Call
from ..policy.authorizer import Decision
from ..policy.principal import Principal
from .groups import McpGroup, Member
from .route import Lane, McpRoute
from .session import Session

if TYPE_CHECKING:
    from ..acting import ActingFor
    from ..way import Way
    from .sessions import ClientSession

Transform = Callable[[bytes], bytes]
"""Rewrites one JSON-RPC message. Raises msgspec.DecodeError when it is not JSON."""

NAMED = {protocol.TOOLS_CALL: "name", protocol.PROMPTS_GET: "name", protocol.RESOURCES_READ: "uri"}
"""Methods of which 2026-07-28 mirrors a member of the params into ``Mcp-Name``."""
_ABOUT = {**NAMED, "resources/subscribe": "uri", "resources/unsubscribe": "uri"}
"""Methods that are decided on by what they name."""
_MODERN = frozenset(v.encode() for v in MODERN_VERSIONS)
SSE_VERSION = "2024-11-05"
_VERSIONS = frozenset(v.encode() for v in SUPPORTED_VERSIONS) | {SSE_VERSION.encode()}


class Problem(NamedTuple):
    """Why a request is refused."""

    text: str
    code: int = protocol.INVALID_REQUEST
    status: int = 400
    data: object = None
    headers: tuple[tuple[bytes, bytes], ...] = ()


class McpCall(Call):
    """A call to a group. ``member``, ``route`` and ``lane`` are set once it is known which server it is for."""

    __slots__ = (
        "approved",
        "asked",
        "asked_as",
        "body",
        "client",
        "group",
        "lane",
        "later",
        "member",
        "message",
        "modern",
        "origin",
        "own",
        "route",
        "session",
        "target",
        "transform",
        "version",
        "way",
    )  # fmt: skip

    route: McpRoute
    lane: Lane
    member: Member

    def __init__(self, exchange: Exchange, group: McpGroup, principal: Principal) -> None:
        super().__init__(exchange, "mcp", "")
        self.principal = principal
        self.group = group
        self.body = exchange.body
        self.message: jsonrpc.Message | None = None
        self.version = self.headers.get(protocol.H_VERSION)
        """Revision that the request is made in, towards the server."""
        self.modern = self.version in _MODERN
        self.session: Session | None = None
        """The upstream's session."""
        self.client: ClientSession | None = None
        """The client's own, where several upstream sessions are behind one."""
        self.asked: bytes | Raw | None = None
        """The client's arguments, where those that the server gets are others."""
        self.asked_as = ""
        """The method that the call is decided on as; empty: its own."""
        self.own = ""
        """What its server calls the prompt or resource; a tool's is :attr:`tool`."""
        self.target = ""
        """Name of the member."""
        self.approved: Decision | None = None
        """By what approval of people it is sent, where it needs one."""
        self.transform: Transform | None = None
        """Makes names of the server's answer the client's."""
        self.origin: Origin | None = None
        self.later: Coroutine[Any, Any, None] | None = None
        """What goes on with the call when a stage has to wait."""
        self.way: Way | None = None
        """What others with the same head have found out."""
        if group.single is not None:
            self.choose(group.single)

    def choose(self, member: Member) -> None:
        """The call is for this server."""
        self.member = member
        self.target = member.name
        route = self.route = member.route
        self.server = route.label
        self.lane = route.lane(self.principal)

    def act_for(self, told: ActingFor | None) -> None:
        """The call of an agent is on behalf of a user, whose own sign-ins it uses; without one it uses nobody's."""
        principal = self.principal
        if told is not None and not principal.on_behalf_of:
            ident = f"{principal.id} for {told.user}"
            self.principal = replace(principal, id=ident, on_behalf_of=told.user)
            if self.group.single is not None:
                self.choose(self.group.single)

    @property
    def params(self) -> dict[str, Raw]:
        """The members of ``params``, undecoded. Raises msgspec.DecodeError when it is no object."""
        message = self.message
        return lists.members(message.params) if message is not None and isinstance(message.params, Raw) else {}

    def judge(self, member: Member, method: str, name: str = "", exposed: str = "") -> Decision:
        """What the caller may do on a server: grants first, then the rules of the target."""
        way, chain = self.way, member.chain
        if way is None or (chain is not None and not chain.by_head):
            return self._judge(member, method, name, exposed)
        if method != protocol.TOOLS_CALL:
            return self._judge(member, method, name, exposed) if name else self._judge_method(way, member, method)
        decision = way.decided(member, name, exposed)
        if decision is None:
            decision = self._judge(member, method, name, exposed)
            way.remember(member, name, exposed, decision)
        self.target = member.name
        return decision

    def _judge_method(self, way: Way, member: Member, method: str) -> Decision:
        decision = way.decided_on(member, method)
        if decision is None:
            decision = self._judge(member, method, "", "")
            way.remember_on(member, method, decision)
        self.target = member.name
        return decision

    def _judge(self, member: Member, method: str, name: str, exposed: str) -> Decision:
        decision = member.route.lane(self.principal).decide(method, name if method == protocol.TOOLS_CALL else "")
        if member.chain is None or decision.verdict == "deny":
            return decision
        self.target = member.name
        chained = member.chain.decide(self, method, name, exposed or name)
        return decision if chained.allow and not decision.allow else chained

    def added(self, member: Member) -> bytes:
        """Header lines that the rules of a target add to requests: credentials, computed headers."""
        return member.chain.outgoing_lines(self) if member.chain is not None else b""

    def shows(self, member: Member, method: str, name: str) -> bool:
        """Whether a list shows an item: those that need approval are shown, denied ones are not."""
        return self.judge(member, method, name, member.name_out(name)).verdict != "deny"


def read(call: McpCall) -> Problem | None:
    """Parse and check the framing; None when all is well."""
    way = call.way
    if way is not None and way.sound:
        return _read_body(call)
    method = call.exchange.method
    repeated = call.repeated_header()
    if repeated:
        return Problem(f"header {repeated} may be sent once only")
    version = call.version
    if version is not None and version not in _VERSIONS:
        requested = version.decode("latin-1")
        call.raw_id = jsonrpc.id_of(call.body)
        data = {"supported": list(MODERN_VERSIONS), "requested": requested}
        return Problem(f"unsupported protocol version {requested}", protocol.UNSUPPORTED_VERSION, data=data)
    if method == "POST":
        content = call.headers.get(b"content-type", b"").partition(b";")[0].strip().lower()
        if content != b"application/json":
            return Problem("the content type must be application/json", status=415)
        if way is not None:
            way.sound = True
        return _read_body(call)
    if method in ("GET", "DELETE") and not call.modern:
        call.method = method
        return None
    allow = (b"allow", b"POST" if call.modern else b"GET, POST, DELETE")
    return Problem(f"{method[:16]} is not served here", status=405, headers=(allow,))


def _read_body(call: McpCall) -> Problem | None:
    try:
        message = call.message = jsonrpc.parse(call.body)
        if message.id is not UNSET:
            call.raw_id = bytes(message.id)
        call.method = message.method
        if message.method == protocol.TOOLS_CALL:
            _read_tool_call(call, message)
        elif message.method in _ABOUT:
            call.own = mirrored(message)
            if not jsonrpc.unambiguous(call.body, b'"method"', b'"params"', b'"%b"' % _ABOUT[message.method].encode()):
                call.body = jsonrpc.canonical(call.body)
        elif message.method == "completion/complete":
            _read_reference(call, message)
        elif not jsonrpc.unambiguous(call.body, b'"method"'):
            # an answer too: a server that ignores letter case would read "Method" in it as a call
            call.body = jsonrpc.canonical(call.body)
        return _check_modern(call, message) if call.modern else None
    except jsonrpc.FramingError as error:
        return Problem(str(error), error.code)


def _read_reference(call: McpCall, message: jsonrpc.Message) -> None:
    """Arguments are completed for those who may use the prompt or resource; the server gets the name decided on."""
    try:
        params: dict[str, Any] = dict(call.params)
        given = lists.members(params.get("ref", Raw(b"{}")))
    except MALFORMED as error:
        raise jsonrpc.FramingError(f"invalid params of {message.method}: {error}", protocol.INVALID_PARAMS) from None
    by_uri = text_of(given.get("type")) == "ref/resource"
    call.own = text_of(given.get("uri" if by_uri else "name"))
    call.asked_as = protocol.RESOURCES_READ if by_uri else protocol.PROMPTS_GET
    if call.raw_id:
        known = ("type", "uri") if by_uri else ("type", "name", "title")
        params["ref"] = {key: value for key, value in given.items() if key in known}
        encoded = Raw(msgspec.json.encode(params))
        call.message = jsonrpc.Message("2.0", Raw(call.raw_id), message.method, encoded)
        call.body = jsonrpc.request(Raw(call.raw_id), message.method, encoded)


def _read_tool_call(call: McpCall, message: jsonrpc.Message) -> None:
    params = jsonrpc.call_params(message)
    call.tool = params.name
    if params.arguments is not UNSET:
        call.arguments = params.arguments
    if not jsonrpc.unambiguous_call(call.body, arguments=params.arguments is not UNSET):
        call.body = jsonrpc.canonical(call.body)


def _check_modern(call: McpCall, message: jsonrpc.Message) -> Problem | None:
    """2026-07-28: the mirrored headers must say what the body says."""
    if not message.method:
        return Problem("clients send no responses in this protocol version")
    if call.headers.get(protocol.H_METHOD) != message.method.encode():
        return Problem("header Mcp-Method does not match the body", protocol.HEADER_MISMATCH)
    if message.method in NAMED:
        given = call.headers.get(protocol.H_NAME)
        if given is None or decode_value(given) != mirrored(message):
            return Problem("header Mcp-Name does not match the body", protocol.HEADER_MISMATCH)
    return None


def mirrored(message: jsonrpc.Message) -> str:
    """What ``Mcp-Name`` says. Raises FramingError when it is no string."""
    params = jsonrpc.mirror_params(message)
    return params.uri if message.method.startswith("resources/") else params.name


def text_of(raw: Raw | None) -> str:
    """A string member; empty when it is absent or something else."""
    if raw is None:
        return ""
    try:
        value = msgspec.json.decode(raw)
    except msgspec.DecodeError:
        return ""
    return value if isinstance(value, str) else ""
