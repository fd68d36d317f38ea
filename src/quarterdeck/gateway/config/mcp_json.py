"""``mcp.json`` of common clients: Claude Desktop and Code, Cursor and Windsurf (``mcpServers``), VS Code (``servers``).

All servers are offered together at ``/mcp``, with their names before those of the tools, and each alone at
``/mcp/NAME``, on 127.0.0.1:8701.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import msgspec
from msgspec import field

from quarterdeck.errors import ConfigError
from quarterdeck.snapshot import Child, Endpoint, HeaderValue, McpServer, Snapshot
from quarterdeck.snapshot import routing as r
from quarterdeck.snapshot.policies import Policies

from .agentgateway.context import Context
from .agentgateway.servers import NAMESPACE, SILENCE, address
from .decode import decode
from .document import Document, Path_, Report
from .fields import Harmless, Model, Refused
from .standalone import FileOptions, Loaded

PORT = 8701
_VARIABLE = re.compile(r"\$\{(?:env:)?([A-Za-z_][A-Za-z0-9_]*)(?::-([^}]*))?\}")
_PLACES = re.compile(r"\$\{(workspaceFolder|userHome|cwd|/|pathSeparator)\}")
_INPUT = re.compile(r"\$\{input:([^}]*)\}")
_CLIENT = Harmless("it is between the client and its user")


class Server(Model):
    """``command`` or ``url``."""

    proof: ClassVar[str] = "test_mcp_json.py::test_servers"
    type: (
        Literal["stdio", "http", "sse", "streamable-http", "streamableHttp", "streamable_http", "streamable-http+sse"]
        | None
    ) = None
    transport: Literal["stdio", "http", "sse", "streamable-http", "streamableHttp"] | None = None
    transport_type: Literal["stdio", "http", "sse", "streamable-http"] | None = None
    command: str | None = None
    args: list[str] = []  # noqa: RUF012 - msgspec copies it
    env: dict[str, str | int | float | bool] = {}  # noqa: RUF012
    cwd: str | None = None
    url: str | None = None
    server_url: str | None = None
    http_url: str | None = None
    headers: dict[str, str] = {}  # noqa: RUF012
    disabled: bool = False
    enabled: bool = True
    env_file: Annotated[str | None, Refused("write the variables as env, or export them")] = None
    disabled_tools: Annotated[
        list[str] | None, Refused("write a gateway configuration with mcpAuthorization rules")
    ] = None
    exclude_tools: Annotated[list[str] | None, Refused("write a gateway configuration with mcpAuthorization rules")] = (
        None
    )
    include_tools: Annotated[list[str] | None, Refused("write a gateway configuration with mcpAuthorization rules")] = (
        None
    )
    tools: Annotated[list[str] | None, Refused("write a gateway configuration with mcpAuthorization rules")] = None
    oauth: Annotated[dict[str, Any] | None, Refused("give the token as a header")] = None
    auth: Annotated[dict[str, Any] | None, Refused("give the token as a header")] = None
    sandbox_enabled: Annotated[bool | None, Refused("children run as the gateway's user; run it in a container")] = None
    sandbox: Annotated[dict[str, Any] | None, Refused("children run as the gateway's user; run it in a container")] = (
        None
    )
    auto_approve: Annotated[list[str] | bool | None, _CLIENT] = None
    always_allow: Annotated[list[str] | None, _CLIENT] = None
    trust: Annotated[bool | None, _CLIENT] = None
    timeout: Annotated[float | None, Harmless("a server may be silent for five minutes")] = None
    description: Annotated[str | None, Harmless("it is for people")] = None
    name: Annotated[str | None, Harmless("the key is the name")] = None
    note: Annotated[str | None, Harmless("it is for people")] = None
    icon: Annotated[str | None, Harmless("it is for people")] = None
    gallery: Annotated[str | bool | None, Harmless("it is for people")] = None
    version: Annotated[str | None, Harmless("it is for people")] = None
    dev: Annotated[dict[str, Any] | None, Harmless("it is for people who debug the server")] = None


class McpJson(Model):
    """The part of the file that is about servers; clients keep their own settings in it, too."""

    proof: ClassVar[str] = "test_mcp_json.py::test_shapes"
    lenient: ClassVar[bool] = True
    mcp_servers: dict[str, Server] = field(name="mcpServers", default_factory=dict[str, Server])
    servers: dict[str, Server] = field(default_factory=dict[str, Server])
    inputs: Annotated[list[dict[str, Any]] | None, Harmless("nobody is asked; use ${env:NAME}")] = None


def is_mcp_json(path: Path | None, text: str) -> bool:
    """Whether it is a client's file and not agentgateway's."""
    head = text.lstrip()[:1] == "{" or (path is not None and path.suffix in (".json", ".jsonc"))
    if not head or not ('"mcpServers"' in text or '"servers"' in text):
        return False
    return '"binds"' not in text and '"gateways"' not in text


def load(text: str, options: FileOptions, environment: Mapping[str, str], base: Path) -> Loaded:
    """Raises ConfigError that names every problem with its line."""
    document = Document(_yaml(text), options.name, form="JSON")
    report = Report(options.name)
    root = decode(document, McpJson, report, base)
    report.check()
    assert root is not None
    context = Context(document, report, strict=True, open=options.allow_anonymous)
    translation = _Translation(context, environment, base)
    for key, servers in (("mcpServers", root.mcp_servers), ("servers", root.servers)):
        for name, server in servers.items():
            translation.add((key, name), name, server)
    if not translation.servers:
        context.error((), "no server to offer: mcpServers (or servers) is empty, or all are disabled")
    report.check()
    return Loaded(
        options.name,
        "a client's mcp.json",
        translation.snapshot(),
        warnings=tuple(problem.text(options.name) for problem in report.warnings),
        files=frozenset(report.files),
    )


class _Translation:
    def __init__(self, context: Context, environment: Mapping[str, str], base: Path) -> None:
        self._context = context
        self._environment = environment
        self._base = base
        self.servers: list[McpServer] = []
        self.children: list[Child] = []

    def add(self, path: Path_, name: str, model: Server) -> None:
        if model.disabled or not model.enabled:
            return
        if not name or any(c in "/+" or c.isspace() or not c.isprintable() for c in name):
            self._context.error(path, f"{name!r} must be a name without /, + and spaces")
            return
        if any(server.name == name for server in self.servers):
            self._context.error(path, "given in both mcpServers and servers")
            return
        url = model.url or model.server_url or model.http_url
        try:
            if self._context.one_of(path, {"command": model.command, "url": url}) == "command":
                self._child(path, name, model)
            elif url:
                self._remote(path, name, model, self._expand(url))
        except ConfigError as error:
            self._context.error(path, str(error))

    def _child(self, path: Path_, name: str, model: Server) -> None:
        self.servers.append(McpServer(NAMESPACE, name, "Target", "/mcp", timeout=SILENCE))
        env = {key: self._expand(_word(value)) for key, value in model.env.items()}
        self.children.append(
            Child(
                f"Target/{NAMESPACE}/{name}",
                self._expand(model.command or ""),
                tuple(self._expand(arg) for arg in model.args),
                tuple(sorted(env.items())),
                cwd=str(self._base / Path(self._expand(model.cwd)).expanduser()) if model.cwd else "",
            )
        )

    def _remote(self, path: Path_, name: str, model: Server, url: str) -> None:
        at = address(self._context, (*path, "url"), url)
        if at is None:
            return
        kind = model.type or model.transport or model.transport_type
        headers = tuple(HeaderValue(key, self._expand(value), True) for key, value in model.headers.items())
        self.servers.append(
            McpServer(
                NAMESPACE,
                name,
                "Target",
                at.path or "/",
                "SSE" if kind == "sse" else "STREAMABLE_HTTP",
                at.tls,
                endpoints=(Endpoint(at.host, at.port),),
                headers=headers,
                timeout=SILENCE,
            )
        )

    def _expand(self, text: str) -> str:
        """Raises ConfigError."""
        asked = _INPUT.search(text)
        if asked is not None:
            raise ConfigError(f"nobody can be asked for {asked[1]}; write ${{env:NAME}} and export the variable")
        places = {
            "workspaceFolder": str(self._base),
            "cwd": str(self._base),
            "userHome": self._environment.get("HOME", "~"),
            "/": "/",
            "pathSeparator": "/",
        }
        text = _PLACES.sub(lambda match: places[match[1]], text)

        def value(match: re.Match[str]) -> str:
            name, default = match.group(1), match.group(2)
            if name in self._environment:
                return self._environment[name]
            if match.end(2) < 0:
                raise ConfigError(f"variable {name} is not set")
            return default

        return _VARIABLE.sub(value, text)

    def snapshot(self) -> Snapshot:
        rules = Policies(open=self._context.open)
        targets = tuple(r.McpTarget(server.name, f"Target/{NAMESPACE}/{server.name}", rules) for server in self.servers)

        def route(name: str, path: str, members: tuple[r.McpTarget, ...], order: int) -> r.Route:
            matches = tuple(r.Match(r.PathMatch("exact", one)) for one in (path, "/sse") if one == path or order == 0)
            group = r.McpBackend(f"default/{name}", members, fail_open=True)
            backend = r.RouteBackend(mcp=group, policies=rules)
            return r.Route(f"default/{name}", matches=matches, policies=rules, backends=(backend,), order=order)

        routes = [route("mcp", "/mcp", targets, 0)]
        routes += [
            route(f"mcp-{target.name}", f"/mcp/{target.name}", (target,), index + 1)
            for index, target in enumerate(targets)
        ]
        host = "0.0.0.0" if self._context.open else "127.0.0.1"  # noqa: S104 - asked for by --allow-anonymous
        return Snapshot(
            gateway="file/default",
            default_namespace=NAMESPACE,
            mcp=tuple(self.servers),
            listeners=(r.Listener("mcp/default", PORT, host, routes=tuple(routes)),),
            children=tuple(self.children),
        )


def _word(value: str | int | float | bool) -> str:
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()


def _yaml(text: str) -> str:
    """JSON with comments as YAML, every value on its line: comments blanked, tabs (never inside strings) as spaces."""
    out: list[str] = []
    at, inside = 0, False
    while at < len(text):
        char = text[at]
        if inside:
            out.append(text[at : at + 2] if char == "\\" else char)
            at += 2 if char == "\\" else 1
            inside = char != '"'
            continue
        if text.startswith("//", at):
            end = text.find("\n", at)
            at = len(text) if end < 0 else end
            continue
        if text.startswith("/*", at):
            end = text.find("*/", at + 2)
            end = len(text) if end < 0 else end + 2
            out.append("\n" * text.count("\n", at, end))
            at = end
            continue
        inside = char == '"'
        out.append(" " if char == "\t" else char)
        at += 1
    return "".join(out)
