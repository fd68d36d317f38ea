"""Metadata of MCP authorization, challenges, and how each product's authorization server is adapted.

The golden files say, for each product, where its documents are and what clients get from the gateway. None was compared
with the real service; they follow the vendors' documentation. ``GOLDEN=1 pytest …`` writes them anew.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import msgspec
import pytest

from quarterdeck.errors import ConfigError
from quarterdeck.gateway.policy.chain import Chain
from quarterdeck.gateway.policy.providers import ProviderError, provider_of
from quarterdeck.gateway.policy.refusal import Refusal
from quarterdeck.gateway.policy.wellknown import parse
from quarterdeck.snapshot.policies import Jwt, McpAuthentication, Policies

from .rig import ISSUER, Peer, admit_now, chain, header, json_answer, provider, request, services, token

GOLDEN = Path(__file__).with_name("golden")
ISSUERS = {
    "": "https://issuer.example.org/tenant",
    "keycloak": "https://kc.example.org/realms/demo",
    "auth0": "https://demo.eu.auth0.com/",
    "okta": "https://demo.okta.com/oauth2/default",
    "entra": "https://sts.windows.net/11111111-2222-3333-4444-555555555555/",
    "descope": "https://api.descope.com/v1/apps/agentic/P123/MS456",
    "authentik": "https://ak.example.org/application/o/mcp/",
}
PUBLISHED = {  # the issuer's own document, as far as clients read it
    "authorization_endpoint": "https://idp.example/authorize",
    "token_endpoint": "https://idp.example/token",
    "registration_endpoint": "https://idp.example/register",
    "jwks_uri": "https://idp.example/jwks",
    "response_types_supported": ["code"],
    "authorization_response_iss_parameter_supported": True,
    "x_unknown": {"kept": True},
}


def url(found: Any, name: str) -> str:
    try:
        return str(getattr(found, name))
    except ProviderError as error:
        return f"none: {error}"


@pytest.mark.parametrize("name", ISSUERS)
def test_each_product_is_adapted_as_its_golden_file_says(name: str) -> None:
    found = provider_of(name, ISSUERS[name])
    published = {"issuer": ISSUERS[name], **PUBLISHED}
    if name in ("authentik", "entra"):
        del published["registration_endpoint"]
    public = "https://gw.example.org/mcp"
    document = {
        "issuer": ISSUERS[name],
        "urls": {
            n: url(found, n) for n in ("metadata_url", "jwks_url", "registration_url", "authorize_url", "token_url")
        },
        "metadata": found.adapt(
            published, public, "https://gw.example.org/.well-known/oauth-authorization-server/mcp", "api://mcp"
        ),
    }
    path = GOLDEN / f"{name or 'other'}.json"
    if os.environ.get("GOLDEN"):
        path.write_bytes(msgspec.json.format(msgspec.json.encode(document), indent=2) + b"\n")
    assert document == msgspec.json.decode(path.read_bytes())


@pytest.mark.parametrize(
    "path,expected",
    [
        ("/.well-known/oauth-protected-resource", ("resource", "/")),
        ("/.well-known/oauth-protected-resource/mcp/a", ("resource", "/mcp/a")),
        ("/mcp/.well-known/oauth-protected-resource", ("resource", "/mcp")),
        ("/.well-known/oauth-authorization-server", ("server", "/")),
        ("/.well-known/oauth-authorization-server/mcp", ("server", "/mcp")),
        ("/mcp/.well-known/oauth-authorization-server", ("server", "/mcp")),
        ("/.well-known/openid-configuration/mcp", ("server", "/mcp")),
        ("/mcp/.well-known/openid-configuration", ("server", "/mcp")),
        ("/.well-known/oauth-authorization-server/mcp/client-registration", ("registration", "/mcp")),
        ("/.well-known/oauth-authorization-server/client-registration", ("registration", "/")),
        ("/mcp/.well-known/oauth-authorization-server/client-registration", ("registration", "/mcp")),
        ("/.well-known/oauth-authorization-server/mcp/token", ("token", "/mcp")),
        ("/.well-known/oauth-authorization-server/mcp/authorize", ("authorize", "/mcp")),
        ("/.well-known/oauth-protected-resources", None),
        ("/.well-known/oauth-protected-resource-x/mcp", None),
        ("/mcp/.well-known/oauth-authorization-server/else", None),
        ("/mcp", None),
    ],
)
def test_which_paths_are_well_known(path: str, expected: Any) -> None:
    assert parse(path) == expected


def mcp(product: Any = "", issuer: str = ISSUER, **changes: Any) -> Policies:
    fields = {"jwt": Jwt((provider(),)), "issuer": issuer, "provider": product, **changes}
    return Policies(mcp_authentication=McpAuthentication(**fields))


async def ask(rules: Chain, path: str, method: str = "GET", **options: Any) -> Refusal:
    parsed = parse(path)
    assert parsed is not None and rules.well_known is not None
    call = request(method, path, peer=("192.0.2.1", 1), **options)
    answer = rules.well_known(call, *parsed)
    return answer if isinstance(answer, Refusal) else await answer


async def test_the_resource_says_what_it_is_and_who_gives_tokens() -> None:
    rules = chain(
        mcp(scopes=("mcp:read", "offline_access"), resource_metadata={"resourceName": "Demo", "mcpX": {"a": 1}})
    )
    answer = await ask(rules, "/.well-known/oauth-protected-resource/mcp/demo")
    assert answer.status == 200 and answer.outcome == "ok" and header(answer, b"access-control-allow-origin") == "*"
    assert msgspec.json.decode(answer.body or b"") == {
        "resource": "http://gw.example.org/mcp/demo",
        "authorization_servers": [ISSUER],
        "bearer_methods_supported": ["header"],
        "scopes_supported": ["mcp:read"],
        "resource_name": "Demo",
        "mcp_x": {"a": 1},
    }
    adapted = chain(mcp("auth0"))
    answer = await ask(adapted, "/.well-known/oauth-protected-resource")
    assert msgspec.json.decode(answer.body or b"")["authorization_servers"] == ["http://gw.example.org"]
    configured = chain(mcp(resource_metadata={"resource": "https://public.example/x"}))
    answer = await ask(configured, "/.well-known/oauth-protected-resource/mcp")
    assert msgspec.json.decode(answer.body or b"")["resource"] == "https://public.example/x"
    assert (await ask(rules, "/.well-known/oauth-protected-resource", "POST")).status == 405
    assert (await ask(rules, "/.well-known/oauth-protected-resource", "OPTIONS")).status == 204


@pytest.mark.parametrize(
    "options,headers,expected",
    [
        ({}, {}, "http://gw.example.org/.well-known/oauth-protected-resource/mcp"),
        ({"public_url": "https://pub.example"}, {}, "https://pub.example/.well-known/oauth-protected-resource/mcp"),
        ({"public_url": "https://pub.example/base/"}, {}, "https://pub.example/.well-known/oauth-protected-resource/base/mcp"),
        ({}, {"x_forwarded_host": "evil.example", "x_forwarded_proto": "https"}, "http://gw.example.org/.well-known/oauth-protected-resource/mcp"),
        (
            {"trusted_hops": ("127.0.0.1/32",)},
            {"x_forwarded_host": "pub.example", "x_forwarded_proto": "https"},
            "https://pub.example/.well-known/oauth-protected-resource/mcp",
        ),
        (
            {"trusted_hops": ("10.0.0.0/8",)},
            {"x_forwarded_host": "evil.example"},
            "http://gw.example.org/.well-known/oauth-protected-resource/mcp",
        ),
    ],
)  # fmt: skip
def test_urls_come_from_the_public_url_or_trusted_hops(options: Any, headers: Any, expected: str) -> None:
    refusal = admit_now(chain(mcp(), given=services(**options)), request("POST", "/mcp", **headers))
    assert refusal is not None and refusal.status == 401
    assert header(refusal, b"www-authenticate") == f'Bearer resource_metadata="{expected}"'


def test_challenges_say_what_is_wrong_and_which_scopes_are_wanted() -> None:
    rules = chain(mcp(scopes=("mcp:read",), tool_scopes={"delete": ("mcp:write",), "*": ("mcp:read",)}))
    missing = admit_now(rules, request("POST"))
    assert missing is not None and header(missing, b"www-authenticate").endswith('scope="mcp:read"')
    wrong = admit_now(rules, request("POST", bearer=token(iss="https://x.example")))
    assert wrong is not None and 'error="invalid_token"' in header(wrong, b"www-authenticate")
    step = admit_now(rules, request("POST", bearer=token(scope="other")))
    assert step is not None and step.status == 403
    challenge = header(step, b"www-authenticate")
    assert 'error="insufficient_scope"' in challenge and 'scope="mcp:read"' in challenge
    assert "resource_metadata=" in challenge
    call = request("POST", bearer=token(scope="mcp:read"))
    assert admit_now(rules, call) is None
    assert rules.step_up(call, "list") is None
    refusal = rules.step_up(call, "delete")
    assert refusal is not None and refusal.status == 403 and 'scope="mcp:write"' in header(refusal, b"www-authenticate")
    assert rules.step_up(call, "rm", "delete") is not None


async def test_the_servers_metadata_is_fetched_once_and_adapted() -> None:
    async with Peer(lambda e: json_answer({"issuer": issuer, **PUBLISHED})) as idp:
        issuer = f"{idp.url}/realms/demo"
        given = services()
        rules = chain(mcp("keycloak", issuer), given=given)
        for path in ("/.well-known/oauth-authorization-server/mcp", "/mcp/.well-known/openid-configuration"):
            answer = await ask(rules, path)
            found = msgspec.json.decode(answer.body or b"")
            assert answer.status == 200 and found["issuer"] == "http://gw.example.org/mcp"
            base = "http://gw.example.org/.well-known/oauth-authorization-server/mcp"
            assert found["registration_endpoint"] == f"{base}/client-registration" and found["x_unknown"] == {
                "kept": True
            }
        given.upstreams.close()
    assert [e.target for e in idp.asked] == [b"/realms/demo/.well-known/openid-configuration"]


@pytest.mark.parametrize("names_itself", [True, False])
async def test_an_issuer_that_names_itself_in_responses_is_not_stood_in_for_without_need(names_itself: bool) -> None:
    published = {**PUBLISHED, "authorization_response_iss_parameter_supported": names_itself}
    async with Peer(lambda e: json_answer({"issuer": issuer, **published})) as idp:
        issuer = f"{idp.url}/realms/demo"
        given = services()
        for product, changes, direct in (
            ("keycloak", {}, True),
            ("keycloak", {"client_id": "x"}, False),
            ("okta", {}, False),
        ):
            rules = chain(mcp(product, issuer, **changes), given=given)
            answer = await ask(rules, "/.well-known/oauth-protected-resource/mcp")
            expected = issuer if direct and names_itself else "http://gw.example.org/mcp"
            assert msgspec.json.decode(answer.body or b"")["authorization_servers"] == [expected]
        given.upstreams.close()
    down = chain(mcp("keycloak", "http://127.0.0.1:1/realms/x"))
    answer = await ask(down, "/.well-known/oauth-protected-resource/mcp")
    assert msgspec.json.decode(answer.body or b"")["authorization_servers"] == ["http://gw.example.org/mcp"]


async def test_metadata_of_another_issuer_or_none_at_all_is_not_passed_on() -> None:
    for document, status in (({"issuer": "https://evil.example"}, 200), ({}, 404), ([1], 200)):
        async with Peer(lambda e, d=document, s=status: json_answer(d, s)) as idp:
            given = services()
            answer = await ask(chain(mcp("", idp.url), given=given), "/.well-known/oauth-authorization-server")
            assert answer.status == 502 and answer.outcome == "error"
            given.upstreams.close()


async def test_clients_register_at_the_issuer_or_get_the_configured_client() -> None:
    asked = msgspec.json.encode({"redirect_uris": ["http://localhost/cb"], "client_name": "x", "evil": 1})
    path = "/.well-known/oauth-authorization-server/mcp/client-registration"
    async with Peer(lambda e: json_answer({"client_id": "new"}, 201)) as idp:
        given = services()
        answer = await ask(chain(mcp("keycloak", f"{idp.url}/realms/r"), given=given), path, "POST", body=asked)
        assert (answer.status, msgspec.json.decode(answer.body or b"")) == (201, {"client_id": "new"})
        assert header(answer, b"access-control-allow-origin") == "*"
        given.upstreams.close()
    assert idp.asked[0].target == b"/realms/r/clients-registrations/openid-connect" and idp.asked[0].body == asked
    fixed = chain(mcp("entra", ISSUERS["entra"], client_id="app"))
    answer = await ask(fixed, path, "POST", body=asked)
    assert answer.status == 201 and msgspec.json.decode(answer.body or b"") == {
        "redirect_uris": ["http://localhost/cb"],
        "client_name": "x",
        "client_id": "app",
        "token_endpoint_auth_method": "none",
    }
    for product in ("authentik", "entra"):
        answer = await ask(chain(mcp(product, ISSUERS[product])), path, "POST", body=asked)
        assert answer.status == 502 and "clientId" in answer.message
    assert (await ask(fixed, path, "POST", body=b"[]")).status == 400
    assert (await ask(fixed, path, "POST", body=b"x" * 70_000)).status == 413
    assert (await ask(fixed, path)).status == 405


async def test_entra_gets_no_resource_parameter_and_the_secret_for_its_own_client_only() -> None:
    rules = chain(mcp("entra", ISSUERS["entra"], client_id="app", client_secret="s3"))
    path = "/.well-known/oauth-authorization-server/mcp/authorize"
    call = request("GET", f"{path}?client_id=app&resource=https%3A%2F%2Fgw&state=1")
    assert rules.well_known is not None
    answer = rules.well_known(call, "authorize", "/mcp")
    assert isinstance(answer, Refusal) and answer.status == 302
    tenant = "https://login.microsoftonline.com/11111111-2222-3333-4444-555555555555"
    assert header(answer, b"location") == f"{tenant}/oauth2/v2.0/authorize?client_id=app&state=1"
    entra = provider_of("entra", ISSUERS["entra"])
    for given, expected in (
        (
            b"grant_type=authorization_code&client_id=app&resource=x",
            b"grant_type=authorization_code&client_id=app&client_secret=s3",
        ),
        (b"grant_type=refresh_token&client_id=other", b"grant_type=refresh_token&client_id=other"),
        (b"grant_type=client_credentials&client_id=app", b"grant_type=client_credentials&client_id=app"),
        (
            b"grant_type=refresh_token&client_id=app&client_secret=z",
            b"grant_type=refresh_token&client_id=app&client_secret=z",
        ),
    ):
        assert entra.token_request(given, "app", "s3") == expected
    answer = await ask(chain(mcp()), "/.well-known/oauth-authorization-server/mcp/token", "POST")
    assert answer.status == 404


def test_an_issuer_that_the_product_cannot_have_is_a_configuration_error() -> None:
    for product, issuer in (("", "issuer"), ("entra", "https://login.microsoftonline.com/"), ("okta", "ftp://x")):
        with pytest.raises(ConfigError, match="mcpAuthentication"):
            chain(mcp(product, issuer))
