# ruff: noqa: E501 - messages and files as they are
"""Where October 2025 and today differ: each test is a row of docs/migrate-agentgateway.md."""

from __future__ import annotations

import pytest

from quarterdeck.snapshot import policies as s

from .conftest import Reader, in_a_route

DENY_ONLY = in_a_route(
    "policies: {mcpAuthorization: {rules: [deny: 'mcp.tool.name == \"x\"']}}\nbackends: [{host: 'b:80'}]"
)
OCT_ONLY = """
binds:
- port: 1
  listeners:
  - gatewayName: gw
    routes: [{policies: {authorization: {rules: [deny: 'request.method == "PUT"']}}, backends: [{host: 'b:80'}]}]
"""
NOW_ONLY = """
gateways: {default: {port: 1}}
routes: [{policies: {authorization: {rules: [deny: 'request.method == "PUT"']}}, backends: [{host: 'b:80'}]}]
"""


@pytest.mark.parametrize(
    ("text", "title"),
    [
        (OCT_ONLY, "agentgateway, October 2025"),
        (NOW_ONLY, "agentgateway, today"),
        (in_a_route("policies: {mcpAuthentication: {issuer: i, audience: a, jwksUrl: 'http://k'}}\nbackends: [{host: b}]"),
         "agentgateway, October 2025"),
        (in_a_route("policies: {mcpAuthentication: {issuer: 'https://i', audiences: [a]}}\nbackends: [{host: 'b:80'}]"),
         "agentgateway, today"),
        (in_a_route("policies: {apiKey: {keys: []}}\nbackends: [{host: 'b:80'}]"), "agentgateway, today"),
        ("config: {listener: {maxBufferSize: 1}}\nbinds: [{port: 1, listeners: [{routes: []}]}]",
         "agentgateway, October 2025"),
        (DENY_ONLY, "agentgateway, of either generation"),
    ],
)  # fmt: skip
def test_fields_that_exist_in_one_generation_tell_it(reader: Reader, text: str, title: str) -> None:
    assert reader.load(text, "").title == title


def test_refused_fields_tell_the_generation_too(reader: Reader) -> None:
    """What is wrong with a file is told in the words of its generation."""
    found = reader.errors("gateways: {default: {port: 1, oidc: {}}}\nroutes: []", "")
    assert "gateways.default.oidc" in found and "binds" not in found


@pytest.mark.parametrize(("compat", "strict"), [("oct", True), ("now", False), ("", True)])
def test_deny_only_sets(reader: Reader, compat: str, strict: bool) -> None:
    loaded = reader.load(DENY_ONLY, compat)  # type: ignore[arg-type]
    (found,) = loaded.snapshot.listeners[0].routes[0].policies.mcp_authorization
    assert found.strict is strict
    meaning = "everything is denied" if strict else "everything else is allowed"
    assert any(f"only denials: {meaning}" in warning for warning in loaded.warnings)
    untold = any("the generation cannot be told" in warning for warning in loaded.warnings)
    assert untold is (compat == "")


def test_a_told_generation_is_no_warning(reader: Reader) -> None:
    assert not any("cannot be told" in warning for warning in reader.load(OCT_ONLY, "").warnings)
    assert reader.load(OCT_ONLY, "").snapshot.listeners[0].routes[0].policies.authorization[0].strict
    assert not reader.load(NOW_ONLY, "").snapshot.listeners[0].routes[0].policies.authorization[0].strict


def test_mcp_authentication_of_october(reader: Reader) -> None:
    found = reader.policies(
        """
        mcpAuthentication:
          issuer: http://localhost:7080/realms/mcp
          audience: mcp_proxy
          jwksUrl: http://localhost:7080/realms/mcp/protocol/openid-connect/certs
          provider: {keycloak: {}}
          resourceMetadata: {resource: "http://localhost:3000/mcp", scopesSupported: [profile]}
        """,
        "oct",
    ).mcp_authentication
    assert found is not None
    assert found.provider == "keycloak" and found.resource_metadata["scopes_supported"] == ["profile"]
    assert found.jwt.mode == "strict"
    assert found.jwt.providers == (
        s.JwtProvider(
            "http://localhost:7080/realms/mcp",
            ("mcp_proxy",),
            jwks_url="http://localhost:7080/realms/mcp/protocol/openid-connect/certs",
        ),
    )


def test_fields_of_one_generation_are_unknown_in_the_other(reader: Reader) -> None:
    old = "mcpAuthentication: {issuer: i, audience: a, jwksUrl: u}"
    assert "audience: unknown field; did you mean audiences?" in reader.refusal(old, "now")
    assert "; agentgateway, October 2025, has it (--compat oct)" in reader.refusal(old, "now")
    assert "apiKey: unknown field" in reader.refusal("apiKey: {keys: []}", "oct")
    assert "gateways: unknown field" in reader.errors("gateways: {}", "oct")
    assert "require: unknown field" not in reader.refusal("authorization: {rules: [require: 'x ==']}", "oct")


def test_fields_of_both_generations_in_one_file_are_told_apart(reader: Reader) -> None:
    both = "binds:\n- port: 1\n  listeners:\n  - gatewayName: gw\n    routes: [{policies: {basicAuth: {htpasswd: 'a:b'}, x: 1}}]"
    found = reader.errors(both, "")
    assert (
        "basicAuth: unknown field; did you mean backendAuth?; agentgateway, today, has it (--compat now)" in found
        or ("gatewayName: unknown field" in found and "October 2025, has it (--compat oct)" in found)
    )
    assert "policies.x: unknown field" in found and "has it" not in found.split("policies.x", 1)[1].splitlines()[0]


def test_ext_authz_of_october_is_grpc(reader: Reader) -> None:
    assert "gRPC authorizers cannot be asked; use protocol.http" in reader.refusal("extAuthz: {host: 'a:1'}", "oct")


def test_prompt_guards_of_both_shapes_are_read_and_refused(reader: Reader) -> None:
    old = "ai: {promptGuard: {request: {regex: {rules: [{builtin: ssn}]}, openaiModeration: {model: m}}}}"
    new = "ai: {promptGuard: {request: [{regex: {rules: [{builtin: ssn}]}}, {openAIModeration: {model: m}}]}}"
    for text, compat in ((old, "oct"), (new, "now")):
        found = reader.refusal(text, compat)  # type: ignore[arg-type]
        assert found.endswith(
            "policies.ai: not served: models are not served from a file yet; serve them with ModelConfig resources "
            "(/llm/{namespace}/{name})"
        )
    assert "did you mean openAIModeration?" in reader.refusal(
        "ai: {promptGuard: {request: [{openaiModeration: {model: m}}]}}", "now"
    )


def test_routes_without_authentication_are_closed_in_both(reader: Reader) -> None:
    for text, compat in ((OCT_ONLY, "oct"), (NOW_ONLY, "now")):
        route = reader.load(text, compat).snapshot.listeners[0].routes[0]  # type: ignore[arg-type]
        assert not route.policies.open and not route.backends[0].policies.open
        route = reader.load(text, compat, allow_anonymous=True).snapshot.listeners[0].routes[0]  # type: ignore[arg-type]
        assert route.policies.open and route.backends[0].policies.open


def test_layouts_of_both_generations(reader: Reader) -> None:
    old = in_a_route("backends: [{host: 'b:80'}]")
    new = "gateways: {default: {port: 2}}\nroutes: [{backends: [{host: 'c:80'}]}]\n"
    assert [one.name for one in reader.snapshot(old, "oct").listeners] == ["bind/3000/listener0"]
    assert [one.name for one in reader.snapshot(old + new).listeners] == ["bind/3000/listener0", "default/default"]
    assert "routes: unknown field" in reader.errors(old + new, "oct")


def test_require_is_understood_in_both(reader: Reader) -> None:
    text = in_a_route("policies: {authorization: {rules: [require: 'request.path == \"/\"']}}\nbackends: [{host: b}]")
    for compat in ("oct", "now"):
        (found,) = reader.snapshot(text, compat).listeners[0].routes[0].policies.authorization  # type: ignore[arg-type]
        assert [rule.effect for rule in found.rules] == ["require"]


def test_modes_of_multiplexing(reader: Reader) -> None:
    body = "backends: [{mcp: {targets: [{name: a, stdio: {cmd: x}}], %s}}]"
    for field in ("prefixMode: never", "failureMode: failOpen"):
        assert reader.load(in_a_route(body % field), "").title == "agentgateway, today"
    assert "expected one of conditional, always" in reader.errors(in_a_route(body % "prefixMode: never"), "oct")
    assert "failureMode: unknown field" in reader.errors(in_a_route(body % "failureMode: failOpen"), "oct")
    old = reader.route(body % "prefixMode: always", "oct").backends[0].mcp
    assert old is not None and not old.fail_open


def test_fields_of_providers_are_read_where_each_generation_has_them(reader: Reader) -> None:
    old = "{name: a, provider: {openAI: {}}, backendTLS: {}, routes: {/v1: completions}}"
    new = "{name: a, provider: {openAI: {}}, policies: {backendTLS: {}, ai: {routes: {/v1: completions}}}}"
    for ai, compat in ((old, "oct"), (new, "now")):
        found = reader.errors(in_a_route(f"backends: [{{ai: {ai}}}]"), compat)  # type: ignore[arg-type]
        assert "ai: not served: models are not served from a file yet" in found and "unknown field" not in found
    assert "unknown field" in reader.errors(in_a_route(f"backends: [{{ai: {old}}}]"))
