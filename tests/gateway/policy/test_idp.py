"""A real OpenID provider (npm ``oidc-provider``) behind MCP authorization, in the URL layout of each product."""

from __future__ import annotations

import asyncio
import subprocess
from base64 import urlsafe_b64encode
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import httpx
import msgspec
import pytest

from quarterdeck.gateway.policy.providers import provider_of
from quarterdeck.snapshot.policies import Authorization, CelRule, Jwt, JwtProvider, McpAuthentication, Policies

from ..conftest import Rig
from .test_gateway import mcp_route, serve

MODULES = Path(__file__).parents[3] / ".cache/node/node_modules"
NODE = MODULES / "node/bin/node"
OPENID = "/.well-known/openid-configuration"
SERVER = "/.well-known/oauth-authorization-server"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not (MODULES / "oidc-provider").is_dir(), reason="npm packages are missing: make setup"),
]


def layout(prefix: str, discovery: str, **routes: str) -> dict[str, Any]:
    return {"prefix": prefix, "discovery": discovery, "routes": routes, "modules": str(MODULES.parent)}


LAYOUTS: dict[str, dict[str, Any]] = {
    "": layout("/tenant", f"{SERVER}/tenant", jwks="/.well-known/jwks.json"),
    "keycloak": layout(
        "/realms/demo", f"/realms/demo{OPENID}", authorization="/protocol/openid-connect/auth",
        token="/protocol/openid-connect/token", jwks="/protocol/openid-connect/certs",
        registration="/clients-registrations/openid-connect",
    ),
    "auth0": layout(
        "", SERVER, authorization="/authorize", token="/oauth/token", jwks="/.well-known/jwks.json",
        registration="/oidc/register",
    ),
    "okta": layout(
        "/oauth2/default", f"/oauth2/default{OPENID}", authorization="/v1/authorize", token="/v1/token", jwks="/v1/keys"
    ),
    "descope": layout("/v1/apps/agentic/P1/S1", f"/v1/apps/agentic/P1/S1{OPENID}", authorization="/authorize"),
    "entra": layout("/tenant/v2.0", f"/tenant/v2.0{OPENID}", authorization="/authorize"),
}  # fmt: skip


@asynccontextmanager
async def idp(name: str) -> AsyncIterator[str]:
    """The issuer of a running provider."""
    node = str(NODE) if NODE.exists() else "node"
    config = msgspec.json.encode(LAYOUTS[name]).decode()
    process = await asyncio.create_subprocess_exec(
        node, str(Path(__file__).with_name("idp.mjs")), config, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    try:
        assert process.stdout is not None and process.stderr is not None
        line = (await asyncio.wait_for(process.stdout.readline(), 30)).decode().strip()
        assert line, (await process.stderr.read()).decode()
        yield f"{line}{LAYOUTS[name]['prefix']}"
    finally:
        process.kill()
        await process.wait()


def policies(name: str, issuer: str, jwks_url: str = "", **changes: Any) -> Policies:
    url = jwks_url or provider_of(name, issuer).jwks_url
    jwt = Jwt((JwtProvider(issuer, ("api://mcp",), jwks_url=url),))
    rule = Authorization((CelRule("allow", 'jwt.sub == "alice" && mcp.tool.name == "add"'),))
    mcp = McpAuthentication(jwt, issuer, name, **changes)  # type: ignore[arg-type]
    return Policies(mcp_authentication=mcp, mcp_authorization=(rule,))


async def sign_in(client: httpx.AsyncClient, url: str) -> dict[str, str]:
    """Follow the redirects of a browser up to the callback; its parameters."""
    for _ in range(10):
        response = await client.get(url)
        location = response.headers.get("location", "")
        assert response.status_code in (302, 303), response.text
        url = str(response.url.join(location))
        if url.startswith("http://localhost:3030/cb"):
            return {k: v[0] for k, v in parse_qs(urlsplit(url).query).items()}
    raise AssertionError("no callback")


@pytest.mark.parametrize("name", ["", "keycloak", "auth0", "okta"])
async def test_from_a_challenge_to_a_call(bare: Rig, peer: int, name: str) -> None:
    """What any client does: challenge, both kinds of metadata, registration, sign-in with PKCE, token, call."""
    async with idp(name) as issuer, httpx.AsyncClient() as client:
        given = policies(name, issuer)
        await serve(bare, mcp_route(given), port=peer)
        base = f"http://127.0.0.1:{bare.origin('web')[1]}"
        refused = await client.post(f"{base}/mcp", json={})
        where = refused.headers["www-authenticate"].partition('resource_metadata="')[2].partition('"')[0]
        resource = (await client.get(where)).json()
        server = resource["authorization_servers"][0]
        parts = urlsplit(server)
        document = f"{parts.scheme}://{parts.netloc}{SERVER}{parts.path.rstrip('/')}"
        if name == "keycloak":  # it names itself in its responses, so clients are sent to it
            assert server == issuer
            document = f"{issuer}{OPENID}"
        metadata = (await client.get(document)).json()
        assert metadata["issuer"] == server
        registration = metadata["registration_endpoint"]
        if name == "okta":  # Okta registers at the organisation, not at the authorization server
            registration = f"{issuer}/reg"
        registered = await client.post(
            registration,
            json={
                "redirect_uris": ["http://localhost:3030/cb"],
                "application_type": "native",
                "grant_types": ["authorization_code"],
            },
        )
        assert registered.status_code == 201, registered.text
        verifier = "v" * 50
        challenge = urlsafe_b64encode(sha256(verifier.encode()).digest()).decode().rstrip("=")
        query = {
            "client_id": registered.json()["client_id"], "response_type": "code", "scope": "openid mcp:read",
            "redirect_uri": "http://localhost:3030/cb", "code_challenge": challenge, "code_challenge_method": "S256",
            "state": "s", "resource": "api://mcp",
        }  # fmt: skip
        endpoint = metadata["authorization_endpoint"]
        answer = await sign_in(client, f"{endpoint}{'&' if '?' in endpoint else '?'}{urlencode(query)}")
        form = {
            "grant_type": "authorization_code", "code": answer["code"], "client_id": query["client_id"],
            "redirect_uri": query["redirect_uri"], "code_verifier": verifier, "resource": "api://mcp",
        }  # fmt: skip
        granted = await client.post(metadata["token_endpoint"], data=form)
        assert granted.status_code == 200, granted.text
        headers = {
            "authorization": f"Bearer {granted.json()['access_token']}",
            "accept": "application/json, text/event-stream",
        }
        session = await bare.initialize("/mcp", listener="web", headers=headers)
        params = {"name": "add", "arguments": {"a": 1, "b": 2}}
        called = await bare.rpc(
            "/mcp", "tools/call", params, listener="web", headers={**headers, "mcp-session-id": session}
        )
        assert called["result"]["content"][0]["text"] == "3"


@pytest.mark.parametrize("name", ["descope", "entra"])
async def test_documents_are_where_the_layout_has_them(bare: Rig, peer: int, name: str) -> None:
    """Products that register no clients here, or have their keys elsewhere: discovery and the fixed client.

    authentik's issuers end with a slash, which this provider cannot have.
    """
    async with idp(name) as issuer, httpx.AsyncClient() as client:
        given = policies(name, issuer, jwks_url=f"{issuer}/jwks", client_id="fixed")
        await serve(bare, mcp_route(given), port=peer)
        base = f"http://127.0.0.1:{bare.origin('web')[1]}"
        answer = await client.get(f"{base}{SERVER}/mcp")
        assert answer.status_code == 200, answer.text
        metadata = answer.json()
        assert metadata["issuer"] == f"{base}/mcp"
        assert metadata["registration_endpoint"] == f"{base}{SERVER}/mcp/client-registration"
        registered = await client.post(
            metadata["registration_endpoint"], json={"redirect_uris": ["http://localhost/cb"]}
        )
        assert registered.status_code == 201 and registered.json()["client_id"] == "fixed"
        if name == "entra":
            sent_on = await client.get(f"{metadata['authorization_endpoint']}?client_id=fixed&resource=x&state=1")
            tenant = issuer.removesuffix("/v2.0")
            assert sent_on.headers["location"] == f"{tenant}/oauth2/v2.0/authorize?client_id=fixed&state=1"


@pytest.mark.parametrize("name", ["", "keycloak"])
async def test_the_official_client_signs_in_by_itself(bare: Rig, peer: int, name: str) -> None:
    """The Python SDK's OAuth client, unmodified, issuer check and ``iss`` (RFC 9207) included."""
    import httpx2
    from mcp.client.auth import OAuthClientProvider
    from mcp.client.session import ClientSession
    from mcp.client.streamable_http import streamable_http_client
    from mcp.shared.auth import AuthorizationCodeResult, OAuthClientMetadata

    class Storage:
        tokens: Any = None
        client: Any = None

        async def get_tokens(self) -> Any:
            return self.tokens

        async def set_tokens(self, tokens: Any) -> None:
            self.tokens = tokens

        async def get_client_info(self) -> Any:
            return self.client

        async def set_client_info(self, client_info: Any) -> None:
            self.client = client_info

    found: dict[str, str] = {}

    async def redirect(url: str) -> None:
        async with httpx.AsyncClient() as browser:
            found.update(await sign_in(browser, url))

    async def callback() -> AuthorizationCodeResult:
        return AuthorizationCodeResult(code=found["code"], state=found["state"], iss=found.get("iss"))

    async with idp(name) as issuer:
        await serve(bare, mcp_route(policies(name, issuer)), port=peer)
        url = f"http://127.0.0.1:{bare.origin('web')[1]}/mcp"
        jwt = Jwt((JwtProvider(issuer, (url,), jwks_url=provider_of(name, issuer).jwks_url),))
        mcp = McpAuthentication(jwt, issuer, name, scopes=("mcp:read",))  # type: ignore[arg-type]
        await serve(bare, mcp_route(Policies(mcp_authentication=mcp)), port=peer)
        metadata = OAuthClientMetadata.model_validate(
            {
                "redirect_uris": ["http://localhost:3030/cb"],
                "application_type": "native",
                "token_endpoint_auth_method": "none",
            }
        )
        auth = OAuthClientProvider(url, metadata, Storage(), redirect, callback)
        async with (
            httpx2.AsyncClient(auth=auth, timeout=60) as http,
            streamable_http_client(url, http_client=http) as streams,
            ClientSession(streams[0], streams[1]) as session,
        ):
            await session.initialize()
            tools = await session.list_tools()
            assert "add" in [tool.name for tool in tools.tools]
    assert found["iss"] == issuer
