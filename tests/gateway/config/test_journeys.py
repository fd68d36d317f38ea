"""Files of both generations as their users have them: checked by the command, served, and asked on every route."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import pytest
from joserfc import jwt
from joserfc.jwk import ECKey

from quarterdeck.gateway.app import Gateway
from quarterdeck.gateway.options import parse
from quarterdeck.wire.client import Pool, Response
from quarterdeck.wire.http import Exchange, Server

KEY = ECKey.generate_key("P-256", {"kid": "k1", "use": "sig", "alg": "ES256"})
ISSUER = "https://issuer.example"
COMPARED = ("oct", "now")
ROUTES = """
    - name: rewrite
      matches: [{path: {pathPrefix: /api}}]
      policies:
        urlRewrite: {path: {prefix: /v2}, authority: {full: inner.example}}
        requestHeaderModifier: {set: {x-set: "1"}, add: {x-add: "2"}, remove: [x-gone]}
        responseHeaderModifier: {set: {x-answer: "3"}}
      backends: [{host: "SERVICE"}]
    - name: redirect
      matches: [{path: {exact: /old}}]
      policies: {requestRedirect: {scheme: https, authority: {host: new.example}, path: {full: /new}, status: 308}}
    - name: header
      matches: [{path: {pathPrefix: /match}, headers: [{name: X-Kind, value: {exact: a}}]}]
      policies: {directResponse: {status: 201, body: header}}
    - name: pattern
      matches: [{path: {pathPrefix: /match}, headers: [{name: x-kind, value: {regex: "b[0-9]+"}}]}]
      policies: {directResponse: {status: 202, body: pattern}}
    - name: query
      matches: [{path: {pathPrefix: /match}, query: [{name: q, value: {exact: "1"}}]}]
      policies: {directResponse: {status: 203, body: query}}
    - name: method
      matches: [{path: {pathPrefix: /match}, method: DELETE}]
      policies: {directResponse: {status: 410, body: method}}
    - name: expression
      matches: [{path: {regex: "/v[0-9]+/items"}}]
      policies: {directResponse: {status: 206, body: regex}}
    - name: host
      hostnames: ["*.team.example"]
      policies: {directResponse: {status: 207, body: host}}
    - name: weights
      matches: [{path: {pathPrefix: /weights}}]
      backends: [{host: "SERVICE", weight: 3}, {host: "OTHER", weight: 1}]
    - name: computed
      matches: [{path: {pathPrefix: /computed}}]
      policies:
        transformations:
          request: {set: {x-path: "request.path"}}
          response: {set: {x-code: "string(response.code)"}}
        cors: {allowOrigins: ["https://app.example"], allowMethods: [GET], allowHeaders: [x-a], maxAge: 1m}
        csrf: {additionalOrigins: ["https://app.example"]}
      backends: [{host: "SERVICE"}]
    - name: slow
      matches: [{path: {pathPrefix: /slow}}]
      policies: {timeout: {requestTimeout: 100ms}}
      backends: [{host: "SERVICE"}]
    - name: flaky
      matches: [{path: {pathPrefix: /flaky}}]
      policies: {retry: {attempts: 2, backoff: 1ms, codes: [503]}}
      backends: [{host: "SERVICE"}]
    - name: limited
      matches: [{path: {pathPrefix: /limited}}]
      policies: {localRateLimit: [{maxTokens: 1, tokensPerFill: 1, fillInterval: 1h}]}
      backends: [{host: "SERVICE"}]
    - name: mirrored
      matches: [{path: {pathPrefix: /mirrored}}]
      policies: {requestMirror: {backend: {host: "OTHER"}, percentage: 100}}
      backends: [{host: "SERVICE"}]
    - name: named
      matches: [{path: {pathPrefix: /named}}]
      backends: [{host: "SERVICE"}]
    - name: tokens
      matches: [{path: {pathPrefix: /tokens}}]
      policies:
        jwtAuth: {mode: strict, issuer: "https://issuer.example", audiences: [me], jwks: {file: ./key.json}}
        authorization: {rules: ['jwt.sub == "alice"']}
        backendAuth: {passthrough: {}}
      backends: [{host: "SERVICE"}]
    - name: both
      matches: [{path: {exact: /both/mcp}}]
      policies: {mcpAuthorization: {rules: ['mcp.tool.name == "echo"', 'mcp.tool.target == "two"']}}
      backends:
      - mcp:
          targets:
          - {name: one, mcp: {host: "http://MCP/mcp"}}
          - {name: two, openapi: {schema: {file: ./api.yaml}, host: "SERVICE"}}
    - name: listed
      matches:
      - path: {exact: /listed/mcp}
      - path: {exact: /.well-known/oauth-protected-resource/listed/mcp}
      policies: &signin
        mcpAuthentication:
          issuer: https://issuer.example
          AUTHENTICATION
          resourceMetadata: {resource: "http://gateway.example/listed/mcp", scopesSupported: [read]}
      backends: &server [{mcp: {targets: [{name: one, mcp: {host: "http://MCP/mcp"}}]}}]
    - name: unlisted
      matches: [{path: {exact: /unlisted/mcp}}]
      policies: *signin
      backends: *server
"""
FILES = {
    "oct": """
binds:
- port: 0
  listeners:
  - name: web
    gatewayName: edge
    routes:ROUTES
policies:
- name: closed
  target: {route: named}
  policy: {directResponse: {status: 451, body: "by name"}}
""",
    "now": """
gateways: {default: {port: 0}}
routes:ROUTES
policies:
- name: {name: closed}
  target: {route: {name: named}}
  policy: {directResponse: {status: 451, body: "by name"}}
""",
}
AUTHENTICATION = {
    "oct": 'audience: me\n          jwksUrl: "http://SERVICE/keys"',
    "now": 'audiences: [me]\n          mode: strict\n          jwks: {url: "http://SERVICE/keys"}',
}
API = """
openapi: 3.0.3
info: {title: t, version: "1"}
paths:
  /items/{id}:
    get:
      operationId: item
      parameters: [{name: id, in: path, required: true, schema: {type: string}}]
      responses: {"200": {description: ok}}
"""
TOOLS = [{"name": name, "inputSchema": {"type": "object"}} for name in ("add", "echo")]


@dataclass
class Behind:
    """A service: says what it got, breaks where it is told to, and is an MCP server at /mcp."""

    port: int = 0
    seen: list[str] = field(default_factory=list[str])
    server: Server = field(init=False)

    async def start(self) -> None:
        self.server = Server(self.handle)
        self.port = (await self.server.listen("127.0.0.1", 0))[1]

    async def handle(self, exchange: Exchange) -> None:
        path = exchange.target.decode().partition("?")[0]
        self.seen.append(path)
        if path == "/mcp":
            self._mcp(exchange)
        elif path == "/keys":
            self._json(exchange, {"keys": [KEY.as_dict(private=False)]})
        elif path == "/slow":
            await asyncio.Event().wait()
        elif path == "/flaky" and self.seen.count(path) == 1:
            exchange.respond(503)
        else:
            headers = {name.decode(): value.decode() for name, value in exchange.headers}
            self._json(exchange, {"target": exchange.target.decode(), "headers": headers})

    def _mcp(self, exchange: Exchange) -> None:
        message = msgspec.json.decode(exchange.body or b"{}")
        if exchange.method != "POST" or "id" not in message:
            exchange.respond(202 if exchange.method == "POST" else 405)
            return
        results: dict[str, Any] = {
            "initialize": {"protocolVersion": "2025-11-25", "capabilities": {"tools": {}},
                           "serverInfo": {"name": "b", "version": "1"}},
            "tools/list": {"tools": TOOLS},
            "tools/call": {"content": [{"type": "text", "text": "done"}]},
        }  # fmt: skip
        self._json(exchange, {"jsonrpc": "2.0", "id": message["id"], "result": results.get(message["method"], {})})

    def _json(self, exchange: Exchange, body: Any) -> None:
        exchange.respond(200, msgspec.json.encode(body), [(b"content-type", b"application/json")])


class Journey:
    """A user in front of one gateway."""

    def __init__(self, gateway: Gateway, service: Behind, other: Behind) -> None:
        self.gateway = gateway
        self.service = service
        self.other = other
        self.pool = Pool()

    async def ask(self, path: str, method: str = "GET", body: Any = None, **headers: str) -> Response:
        listener = next(url for name, url in self.gateway.endpoints.items() if "/" in name)
        lines = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
        data = b"" if body is None else msgspec.json.encode(body)
        lines += [(b"content-type", b"application/json")] if data else []
        origin = ("127.0.0.1", int(listener.rpartition(":")[2]), False)
        return await self.pool.request(method, origin, path, lines, data, timeout=60)

    async def got(self, path: str, **headers: str) -> tuple[int, Any, dict[str, str]]:
        """Status, what the backend got (or the text that came), and the answer's headers."""
        response = await self.ask(path, **headers)
        text = await response.read()
        try:
            body = msgspec.json.decode(text)
        except msgspec.DecodeError:
            body = text.decode()
        return response.status, body, {name.decode().lower(): value.decode() for name, value in response.headers}

    async def rpc(self, path: str, method: str, params: Any = None, **headers: str) -> Any:
        body = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params or {}}
        accept = {"accept": "application/json, text/event-stream", **headers}
        response = await self.ask(path, "POST", body, **accept)
        data = await response.read()
        if (response.header(b"content-type") or b"").startswith(b"text/event-stream"):
            data = next(line[5:] for line in data.splitlines() if line.startswith(b"data:") and len(line) > 6)
        session = response.header(b"mcp-session-id")
        return response.status, session.decode() if session else "", msgspec.json.decode(data)

    async def session(self, path: str, **headers: str) -> dict[str, str]:
        start = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}}
        _, session, _ = await self.rpc(path, "initialize", start, **headers)
        return {**headers, "mcp_session_id": session} if session else headers


def bearer(sub: str) -> str:
    claims = {"iss": ISSUER, "aud": "me", "sub": sub, "exp": int(time.time()) + 7200}
    return "Bearer " + jwt.encode({"alg": "ES256", "kid": "k1"}, claims, KEY)


def write(folder: Path, compat: str, service: int, other: int) -> Path:
    text = FILES[compat].replace("ROUTES", ROUTES.replace("AUTHENTICATION", AUTHENTICATION[compat]))
    text = text.replace("SERVICE", f"127.0.0.1:{service}").replace("OTHER", f"127.0.0.1:{other}")
    file = folder / f"{compat}.yaml"
    file.write_text(text.replace("MCP/", f"127.0.0.1:{service}/"))
    (folder / "key.json").write_bytes(msgspec.json.encode(KEY.as_dict(private=False)))
    (folder / "api.yaml").write_text(API)
    return file


@pytest.fixture(params=COMPARED)
async def user(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Journey]:
    monkeypatch.chdir(tmp_path)
    service, other = Behind(), Behind()
    await service.start()
    await other.start()
    file = write(tmp_path, request.param, service.port, other.port)
    off = [f"--{name}=off" for name in ("local", "workloads", "admin", "stats", "ready")]
    gateway = Gateway(parse([f"--file={file}", *off, f"--data-dir={tmp_path}/data"]))
    await gateway.start()
    journey = Journey(gateway, service, other)
    yield journey
    journey.pool.close()
    await gateway.stop(0.2)
    await service.server.stop(0.0)
    await other.server.stop(0.0)


@pytest.mark.parametrize("compat", COMPARED)
def test_the_command_finds_them_valid_and_tells_their_generation(tmp_path: Path, compat: str) -> None:
    file = write(tmp_path, compat, 1, 2)
    command = [Path(sys.executable).with_name("qd"), "gateway", "-f", file, "--validate-only"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=50, check=False)
    assert done.returncode == 0, done.stderr
    title = {"oct": "agentgateway, October 2025", "now": "agentgateway, today"}[compat]
    assert f"is valid ({title}): 1 listener(s), 19 route(s), 2 MCP server(s)" in done.stdout


async def test_plain_routes(user: Journey) -> None:
    status, got, headers = await user.got("/api/x?y=1", x_gone="1", x_set="0")
    assert (status, got["target"], got["headers"]["host"]) == (200, "/v2/x?y=1", "inner.example")
    assert (got["headers"]["x-set"], got["headers"]["x-add"], headers["x-answer"]) == ("1", "2", "3")
    assert "x-gone" not in got["headers"]
    status, _, headers = await user.got("/old")
    assert (status, headers["location"]) == (308, "https://new.example/new")
    assert (await user.got("/match", x_kind="a"))[:2] == (201, "header")
    assert (await user.got("/match", x_kind="b7"))[:2] == (202, "pattern")
    assert (await user.got("/match?q=1"))[:2] == (203, "query")
    assert (await user.ask("/match", "DELETE")).status == 410
    assert (await user.got("/v12/items"))[:2] == (206, "regex")
    assert (await user.got("/nothing/here"))[0] == 404 == (await user.got("/match"))[0]
    assert (await user.got("/x", host="a.team.example"))[:2] == (207, "host")
    assert (await user.got("/named"))[:2] == (451, "by name")


async def test_policies(user: Journey) -> None:
    for _ in range(4):
        assert (await user.got("/weights"))[0] == 200
    assert (user.service.seen.count("/weights"), user.other.seen.count("/weights")) == (3, 1)
    _, got, headers = await user.got("/computed/y", x_path="mine")
    assert (got["headers"]["x-path"], headers["x-code"]) == ("/computed/y", "200")
    asked = {"origin": "https://app.example", "access_control_request_method": "GET"}
    response = await user.ask("/computed", "OPTIONS", **asked)
    assert response.header(b"access-control-allow-origin") == b"https://app.example"
    assert (await user.ask("/computed", "POST", {}, origin="https://evil.example")).status == 403
    assert (await user.ask("/computed", "POST", {}, origin="https://app.example")).status == 200
    assert (await user.got("/slow"))[0] == 504
    assert (await user.got("/flaky"))[0] == 200 and user.service.seen.count("/flaky") == 2
    assert [(await user.got("/limited"))[0] for _ in range(2)] == [200, 429]
    assert (await user.got("/mirrored"))[0] == 200
    async with asyncio.timeout(30):
        while "/mirrored" not in user.other.seen:
            await asyncio.sleep(0.01)
    assert (await user.got("/tokens"))[0] == 401
    assert (await user.got("/tokens", authorization=bearer("bob")))[0] == 403
    status, got, _ = await user.got("/tokens", authorization=bearer("alice"))
    assert status == 200 and got["headers"]["authorization"].startswith("Bearer ey"), "passed on"


async def test_several_targets(user: Journey) -> None:
    session = await user.session("/both/mcp")
    _, _, answer = await user.rpc("/both/mcp", "tools/list", **session)
    assert [tool["name"] for tool in answer["result"]["tools"]] == ["one_echo", "two_item"]
    call = {"name": "two_item", "arguments": {"path": {"id": "7"}}}
    _, _, answer = await user.rpc("/both/mcp", "tools/call", call, **session)
    assert "/items/7" in answer["result"]["content"][0]["text"] and "/items/7" in user.service.seen
    _, _, answer = await user.rpc("/both/mcp", "tools/call", {"name": "one_add", "arguments": {}}, **session)
    assert answer["error"] == {"code": -32602, "message": "Unknown tool: one_add"}


async def test_metadata_is_found_whether_its_paths_are_listed_or_not(user: Journey) -> None:
    for path in ("/listed/mcp", "/unlisted/mcp"):
        response = await user.ask(path, "POST", {"jsonrpc": "2.0", "id": 1, "method": "ping"})
        challenge = (response.header(b"www-authenticate") or b"").decode()
        assert response.status == 401 and "/.well-known/oauth-protected-resource" in challenge
        status, found, _ = await user.got(f"/.well-known/oauth-protected-resource{path}")
        assert status == 200 and found["authorization_servers"] == [ISSUER]
        assert found["resource"] == "http://gateway.example/listed/mcp" and found["scopes_supported"] == ["read"]
        session = await user.session(path, authorization=bearer("alice"))
        _, _, answer = await user.rpc(path, "tools/list", **session)
        assert [tool["name"] for tool in answer["result"]["tools"]] == ["add", "echo"]


GATEWAYS = """
gateways:
  edge:
    port: 0
    listeners:
    - {name: keys, hostname: keys.example, apiKey: {mode: strict, location: {header: {name: x-key}}, keys: [{key: k1}]}}
    - name: people
      hostname: "*.people.example"
      basicAuth: {mode: strict, htpasswd: 'ann:{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ='}
    - {name: rest}
backends:
- name: api
  host: "SERVICE"
  policies: {backendAuth: {key: s3cret}, requestHeaderModifier: {set: {x-backend: api}}}
routes:
- {name: keys, gateways: edge/keys, backends: [{backend: api}]}
- name: people
  gateways: edge/people
  backends: [{backend: api, policies: {requestHeaderModifier: {set: {x-route: people}}}}]
- {name: tool, gateways: [edge/rest], matches: [{path: {pathPrefix: /tool}}], backends: [{mcp: {targets: [
    {name: one, mcp: {backend: api, path: /mcp}, policies: {requestHeaderModifier: {set: {x-target: one}}}}]}}]}
mcp:
  gateways: edge/rest
  prefixMode: always
  targets: [{name: one, mcp: {backend: api, path: /mcp}}]
"""


async def test_gateways_with_listeners_and_named_backends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    service = Behind()
    await service.start()
    (tmp_path / "c.yaml").write_text(GATEWAYS.replace("SERVICE", f"127.0.0.1:{service.port}"))
    off = [f"--{name}=off" for name in ("local", "workloads", "admin", "stats", "ready")]
    gateway = Gateway(parse(["--file=c.yaml", *off, "--data-dir=d"]))
    await gateway.start()
    user = Journey(gateway, service, service)
    try:
        assert (await user.got("/", host="keys.example"))[0] == 401
        status, got, _ = await user.got("/", host="keys.example", x_key="k1")
        assert (status, got["headers"]["authorization"], got["headers"]["x-backend"]) == (200, "Bearer s3cret", "api")
        assert (await user.got("/", host="a.people.example", x_key="k1"))[0] == 401
        status, got, _ = await user.got("/", host="a.people.example", authorization="Basic YW5uOnNlY3JldA==")
        assert (status, got["headers"]["x-route"], got["headers"]["authorization"]) == (200, "people", "Bearer s3cret")
        assert (await user.got("/"))[0] == 404
        for path, name in (("/mcp", "one_add"), ("/tool", "add")):
            session = await user.session(path)
            _, _, answer = await user.rpc(path, "tools/list", **session)
            assert answer["result"]["tools"][0]["name"] == name
    finally:
        user.pool.close()
        await gateway.stop(0.2)
        await service.server.stop(0.0)
