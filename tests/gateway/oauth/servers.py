"""An authorization server and an MCP server that it protects, in this process; and somebody with a browser."""

from __future__ import annotations

import re
from base64 import urlsafe_b64encode
from hashlib import sha256
from html import unescape
from itertools import count
from typing import Any
from urllib.parse import parse_qs, parse_qsl, urlencode, urlsplit

import msgspec

from quarterdeck.wire.client import Pool, Response
from quarterdeck.wire.http import Exchange, Server

JSON = [(b"content-type", b"application/json")]


class Web:
    """A server that answers by :meth:`answer`; ``url`` once it runs."""

    def __init__(self) -> None:
        self.url = ""
        self._server = Server(self._handle)

    def _handle(self, exchange: Exchange) -> None:
        status, headers, body = self.answer(exchange)
        exchange.respond(status, body if isinstance(body, bytes) else msgspec.json.encode(body), [*JSON, *headers])

    def answer(self, exchange: Exchange) -> tuple[int, list[tuple[bytes, bytes]], Any]:
        raise NotImplementedError

    async def __aenter__(self) -> Any:
        host, port = await self._server.listen("127.0.0.1", 0)
        self.url = f"http://{host}:{port}"
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._server.stop(0.0)


class Issuer(Web):
    """Grants whatever the header ``x-user`` of the browser asks for. Tokens are ``USER-N``; refresh ones rotate."""

    def __init__(self) -> None:
        super().__init__()
        self.lasts = 3600
        self.iss: str | None = ""
        """What an authorization response says; empty: the truth, None: nothing."""
        self.refuses = ""
        """The error of the token endpoint when something is refreshed."""
        self.more: dict[str, Any] = {}
        self.asked: list[tuple[str, dict[str, str]]] = []
        self.tokens: dict[str, tuple[str, str]] = {}
        """Access token → user and scope."""
        self.revoked: list[str] = []
        self.refused = 0
        self._codes: dict[str, dict[str, str]] = {}
        self._refresh: dict[str, tuple[str, str]] = {}
        self._numbers = count(1)

    def count(self, what: str) -> int:
        return sum(path == what for path, _ in self.asked)

    def answer(self, exchange: Exchange) -> tuple[int, list[tuple[bytes, bytes]], Any]:
        path, _, query = exchange.target.decode().partition("?")
        given = dict(parse_qsl(query or exchange.body.decode()))
        self.asked.append((path, given))
        if path == "/.well-known/oauth-authorization-server":
            return 200, [], self.metadata()
        if path == "/register":
            return 201, [], {"client_id": f"c{next(self._numbers)}", "token_endpoint_auth_method": "none"}
        if path == "/authorize":
            return self._authorize(exchange, given)
        if path == "/token":
            return self._token(given)
        if path == "/revocation":
            self.revoked.append(given["token"])
            return 200, [], {}
        return 404, [], {}

    def metadata(self) -> dict[str, Any]:
        found = {
            "issuer": self.url,
            **{f"{name}_endpoint": f"{self.url}/{name}" for name in ("token", "revocation")},
            "authorization_endpoint": f"{self.url}/authorize",
            "registration_endpoint": f"{self.url}/register",
            "code_challenge_methods_supported": ["S256"],
            "token_endpoint_auth_methods_supported": ["none"],
            "authorization_response_iss_parameter_supported": True,
        }
        return found | self.more

    def _authorize(self, exchange: Exchange, given: dict[str, str]) -> tuple[int, list[tuple[bytes, bytes]], Any]:
        code = f"code-{next(self._numbers)}"
        user = next((v.decode() for k, v in exchange.headers if k == b"x-user"), "somebody")
        self._codes[code] = {**given, "user": user}
        iss = self.url if self.iss == "" else self.iss
        query = {"code": code, "state": given["state"], **({"iss": iss} if iss is not None else {})}
        return 302, [(b"location", f"{given['redirect_uri']}?{urlencode(query)}".encode())], {}

    def _token(self, given: dict[str, str]) -> tuple[int, list[tuple[bytes, bytes]], Any]:
        if given["grant_type"] == "refresh_token":
            found = self._refresh.pop(given["refresh_token"], None)
            if self.refuses or found is None:
                self.refused += 1
                return 400, [], {"error": self.refuses or "invalid_grant"}
            user, scope = found
        else:
            begun = self._codes.pop(given["code"], None)
            digest = urlsafe_b64encode(sha256(given["code_verifier"].encode()).digest()).rstrip(b"=").decode()
            if begun is None or begun["code_challenge"] != digest or begun["resource"] != given["resource"]:
                return 400, [], {"error": "invalid_grant"}
            user, scope = begun["user"], begun.get("scope", "")
        number = next(self._numbers)
        token = {"access_token": f"{user}-{number}", "refresh_token": f"r-{user}-{number}", "scope": scope}
        self.tokens[token["access_token"]] = (user, scope)
        self._refresh[token["refresh_token"]] = (user, scope)
        return 200, [], {**token, "token_type": "Bearer", "expires_in": self.lasts}


class Protected(Web):
    """Tools: ``whoami``, and ``write`` for tokens with the scope ``write``. Nothing is told without a token."""

    def __init__(self, issuer: Issuer) -> None:
        super().__init__()
        self.issuer = issuer
        self.seen: list[bytes] = []
        """``Authorization`` of each request."""

    def answer(self, exchange: Exchange) -> tuple[int, list[tuple[bytes, bytes]], Any]:
        if exchange.path == "/.well-known/oauth-protected-resource/mcp":
            servers = {"resource": f"{self.url}/mcp", "authorization_servers": [self.issuer.url]}
            return 200, [], servers | {"scopes_supported": ["read"]}
        if exchange.path != "/mcp" or exchange.method != "POST":
            return 405, [], {}
        shown = exchange.header(b"authorization") or b""
        self.seen.append(shown)
        user, scope = self.issuer.tokens.get(shown.decode().removeprefix("Bearer "), ("", ""))
        metadata = f'resource_metadata="{self.url}/.well-known/oauth-protected-resource/mcp"'
        if not user:
            return 401, [(b"www-authenticate", f"Bearer {metadata}".encode())], {"error": "invalid_token"}
        message = msgspec.json.decode(exchange.body)
        method, ident = message.get("method"), message.get("id")
        if method == "initialize":
            result: dict[str, Any] = {
                "protocolVersion": "2025-11-25", "capabilities": {"tools": {}},
                "serverInfo": {"name": "protected", "version": "1"},
            }  # fmt: skip
        elif method == "tools/list":
            schema = {"type": "object"}
            result = {"tools": [{"name": name, "inputSchema": schema} for name in ("whoami", "write")]}
        elif method == "tools/call":
            if message["params"]["name"] == "write" and "write" not in scope.split():
                challenge = f'Bearer error="insufficient_scope", scope="write", {metadata}'
                return 403, [(b"www-authenticate", challenge.encode())], {}
            result = {"content": [{"type": "text", "text": user}]}
        elif ident is None:
            return 202, [], b""
        else:
            return 200, [], {"jsonrpc": "2.0", "id": ident, "error": {"code": -32601, "message": "Method not found"}}
        return 200, [], {"jsonrpc": "2.0", "id": ident, "result": result}


class Browser:
    """Somebody's browser; at the issuer it is known as ``user``."""

    def __init__(self, user: str) -> None:
        self.user = user
        self.cookie = ""
        self._pool = Pool()

    async def get(self, url: str) -> tuple[Response, str]:
        return await self._request("GET", url)

    async def open(self, url: str) -> str:
        """The URL that the question's button leads to."""
        response, page = await self.get(url)
        assert response.status == 200, page
        fields = {n: unescape(v) for n, v in re.findall(r'name="(\w)" value="([^"]*)"', page)}
        target = url.partition("?")[0]
        response, page = await self._request("POST", target, urlencode(fields).encode())
        assert response.status == 303, page
        return (response.header(b"location") or b"").decode()

    async def grant(self, url: str) -> str:
        """Where the authorization server sends the browser."""
        response, _ = await self.get(url)
        return (response.header(b"location") or b"").decode()

    async def sign_in(self, url: str) -> str:
        """All of it; the code at the end."""
        response, page = await self.get(await self.grant(await self.open(url)))
        assert response.status == 200, page
        return code_in(page)

    async def _request(self, method: str, url: str, body: bytes = b"") -> tuple[Response, str]:
        parts = urlsplit(url)
        headers = [(b"host", parts.netloc.encode()), (b"x-user", self.user.encode())]
        if self.cookie:
            headers.append((b"cookie", self.cookie.encode()))
        target = f"{parts.path}?{parts.query}" if parts.query else parts.path
        origin = (parts.hostname or "", parts.port or 80, False)
        response = await self._pool.request(method, origin, target, headers, body)
        given = (response.header(b"set-cookie") or b"").decode()
        if given:
            self.cookie = given.partition(";")[0]
        return response, (await response.read()).decode()


def code_in(page: str) -> str:
    found = re.search(r"<code>(\d{4}) (\d{4})</code>", page)
    assert found is not None, page
    return found[1] + found[2]


def query_of(url: str) -> dict[str, str]:
    return {name: values[0] for name, values in parse_qs(urlsplit(url).query).items()}
