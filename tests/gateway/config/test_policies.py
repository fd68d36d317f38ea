"""Policies of files are the snapshot's, field by field. What they do then is proved in tests/gateway/policy."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest

from quarterdeck.gateway.config.agentgateway import oct, policies
from quarterdeck.gateway.config.agentgateway.rules import HANDLED
from quarterdeck.gateway.config.fields import Enforced, fields_of
from quarterdeck.snapshot import policies as s

from .conftest import Reader, in_a_route


def test_header_modifiers(reader: Reader) -> None:
    found = reader.policies(
        """
        requestHeaderModifier: {add: {x-a: "1"}, set: {x-b: 2}, remove: [x-c]}
        responseHeaderModifier: {set: {x-d: "3"}}
        """
    )
    assert found.request_headers == s.HeaderModifier((("x-a", "1"),), (("x-b", "2"),), ("x-c",))
    assert found.response_headers == s.HeaderModifier(set=(("x-d", "3"),))


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("{scheme: https, status: 308}", s.Redirect(scheme="https", status=308)),
        ("{authority: {full: 'h:81'}}", s.Redirect(host="h", port=81)),
        ("{authority: {host: h}}", s.Redirect(host="h")),
        ("{authority: {port: 81}}", s.Redirect(port=81)),
        ("{authority: none, path: {full: /x}}", s.Redirect(path="/x")),
        ("{path: {prefix: /x}, status: 301}", s.Redirect(prefix="/x", status=301)),
    ],
)
def test_redirect(reader: Reader, text: str, wanted: s.Redirect) -> None:
    assert reader.policies(f"requestRedirect: {text}").redirect == wanted


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("{authority: auto}", s.Rewrite(auto_host=True)),
        ("{authority: {full: 'h:81'}}", s.Rewrite(host="h:81")),
        ("{authority: {host: h}, path: {prefix: /y}}", s.Rewrite(host="h", prefix="/y")),
        ("{path: {full: /y}}", s.Rewrite(path="/y")),
    ],
)
def test_rewrite(reader: Reader, text: str, wanted: s.Rewrite) -> None:
    assert reader.policies(f"urlRewrite: {text}").rewrite == wanted


def test_redirects_and_rewrites_that_mean_nothing(reader: Reader) -> None:
    assert "200 is no redirect" in reader.refusal("requestRedirect: {status: 200}")
    assert "a port alone" in reader.refusal("urlRewrite: {authority: {port: 1}}")
    assert "give exactly one of full, prefix, not full, prefix" in reader.refusal(
        "urlRewrite: {path: {full: /, prefix: /}}"
    )


def test_mirror(reader: Reader) -> None:
    route = reader.route(
        """
        policies: {requestMirror: {backend: {host: 'm:9000'}, percentage: 12.5}}
        backends: [{host: 'b:80'}]
        """
    )
    assert [(m.backend.addresses[0].host, m.backend.addresses[0].port, m.percent) for m in route.mirrors] == [
        ("m", 9000, 12.5)
    ]
    assert "percentage: must be between 0 and 100" in reader.refusal(
        "requestMirror: {backend: {host: 'm:1'}, percentage: 101}"
    )


def test_direct_response(reader: Reader) -> None:
    assert reader.policies("directResponse: {body: hello, status: 418}").direct_response == s.DirectResponse(
        418, "hello"
    )
    found = reader.policies("directResponse: {body: [104, 105], status: 200}", "oct").direct_response
    assert found == s.DirectResponse(200, "hi")
    assert "status: is required" in reader.refusal("directResponse: {body: x}")


def test_cors(reader: Reader) -> None:
    text = """
    cors: {allowOrigins: ["https://a", "https://*.b"], allowMethods: [GET], allowHeaders: ["*"], exposeHeaders: [x],
           allowCredentials: true, maxAge: 1m30s}
    """
    wanted = s.Cors(("https://a", "https://*.b"), ("GET",), ("*",), ("x",), True, 90)
    assert reader.policies(text).cors == wanted == reader.policies(text, "oct").cors


def test_credentials_for_every_page_are_refused(reader: Reader) -> None:
    assert "list the origins" in reader.refusal("cors: {allowOrigins: ['*'], allowCredentials: true}")


def test_authorization(reader: Reader) -> None:
    text = """
    mcpAuthorization:
      rules:
      - 'mcp.tool.name == "a"'
      - allow: 'jwt.sub == "b"'
      - deny: 'mcp.tool.name == "c"'
    authorization: {rules: [require: 'request.method == "GET"']}
    """
    found = reader.policies(text)
    assert found.mcp_authorization == (
        s.Authorization(
            (
                s.CelRule("allow", 'mcp.tool.name == "a"'),
                s.CelRule("allow", 'jwt.sub == "b"'),
                s.CelRule("deny", 'mcp.tool.name == "c"'),
            ),
            strict=False,
            where="route/default/route0",
        ),
    )
    assert found.authorization[0].rules == (s.CelRule("require", 'request.method == "GET"'),)
    assert "give exactly one of allow, deny, require" in reader.refusal("authorization: {rules: [{}]}")
    assert reader.policies("authorization: {rules: []}").authorization == ()


JWKS = '{"keys":[{"kty":"OKP","crv":"Ed25519","kid":"1","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}'
PARSED = {"keys": [{"kty": "OKP", "crv": "Ed25519", "kid": "1", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}


def test_jwt(reader: Reader) -> None:
    reader.file("jwks.json", JWKS)
    one = reader.policies("jwtAuth: {issuer: me, audiences: [a, b], jwks: {file: jwks.json}}").jwt
    assert one == s.Jwt((s.JwtProvider("me", ("a", "b"), PARSED),), mode="optional")
    elsewhere = reader.policies("jwtAuth: {issuer: me, jwks: {file: jwks.json}, location: {cookie: {name: t}}}").jwt
    assert elsewhere is not None and elsewhere.location == s.Location("cookie", "t", "")
    several = reader.policies(
        f"""
        jwtAuth:
          mode: strict
          providers:
          - {{issuer: x, jwks: {{url: "https://x/keys"}}, jwtValidationOptions: {{requiredClaims: [exp, sub]}}}}
          - {{issuer: y, jwks: '{JWKS}'}}
        """
    ).jwt
    assert several == s.Jwt(
        (
            s.JwtProvider("x", (), jwks_url="https://x/keys", required_claims=("exp", "sub")),
            s.JwtProvider("y", (), PARSED),
        ),
        mode="strict",
    )


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("{issuer: x}", "jwks: is required"),
        ("{issuer: x, jwks: nonsense}", "is not a JSON Web Key Set"),
        ("{issuer: x, jwks: '[]'}", "is not a JSON Web Key Set"),
        ("{issuer: x, jwks: {}}", "give exactly one of file, url"),
        ("{issuer: x, jwks: {url: 'ftp://x'}}", "must begin with https:// or http://"),
        ("{jwks: '{}'}", "give exactly one of providers, issuer"),
        ("{issuer: x, providers: []}", "give exactly one of providers, issuer"),
    ],
)
def test_keys_that_cannot_verify(reader: Reader, text: str, problem: str) -> None:
    assert problem in reader.refusal(f"jwtAuth: {text}")


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("header: {name: X-Token, prefix: 'Token '}", s.Location("header", "x-token", "Token ")),
        ("header: {name: X-Token}", s.Location("header", "x-token", "")),
        ("queryParameter: {name: token}", s.Location("query", "token", "")),
        ("cookie: {name: session}", s.Location("cookie", "session", "")),
        ("expression: 'request.headers[\"x\"]'", s.Location("expression", 'request.headers["x"]', "")),
        ("expression: {expression: 'request.headers[\"x\"]'}", s.Location("expression", 'request.headers["x"]', "")),
    ],
)
def test_locations(reader: Reader, text: str, wanted: s.Location) -> None:
    found = reader.policies(f"apiKey: {{keys: [{{key: k}}], location: {{{text}}}}}").api_keys
    assert found is not None and found.location == wanted


PROVIDERS = [
    ("auth0", "https://t.auth0.com/", "https://t.auth0.com/.well-known/jwks.json"),
    ("okta", "https://t.okta.com/oauth2/d", "https://t.okta.com/oauth2/d/v1/keys"),
    ("descope", "https://api.descope.com/v1/apps/agentic/P/S", "https://api.descope.com/P/.well-known/jwks.json"),
    ("authentik", "https://a/application/o/s/", "https://a/application/o/s/jwks/"),
    ("entra", "https://login.microsoftonline.com/T/v2.0", "https://login.microsoftonline.com/T/discovery/v2.0/keys"),
]


def test_mcp_authentication(reader: Reader) -> None:
    found = reader.policies(
        """
        mcpAuthentication:
          issuer: https://kc/realms/mcp
          audiences: [mcp_proxy]
          provider: {keycloak: {}}
          clientId: me
          clientSecret: s3cret
          scopes: [read]
          toolScopes: {delete: [write]}
          resourceMetadata: {resource: "http://gw/mcp", scopesSupported: [read], bearerMethodsSupported: [header]}
        """
    ).mcp_authentication
    assert found == s.McpAuthentication(
        s.Jwt(
            (
                s.JwtProvider(
                    "https://kc/realms/mcp",
                    ("mcp_proxy",),
                    jwks_url="https://kc/realms/mcp/protocol/openid-connect/certs",
                ),
            ),
            "strict",
        ),
        "https://kc/realms/mcp",
        "keycloak",
        {"resource": "http://gw/mcp", "scopes_supported": ["read"], "bearer_methods_supported": ["header"]},
        ("read",),
        {"delete": ("write",)},
        client_id="me",
        client_secret="s3cret",
    )
    derived = reader.policies("mcpAuthentication: {issuer: 'https://i/', audiences: [a], mode: optional}")
    assert derived.mcp_authentication is not None
    assert derived.mcp_authentication.jwt.providers[0].jwks_url == "https://i/.well-known/jwks.json"
    assert derived.mcp_authentication.jwt.mode == "optional"
    strict = "jwtValidationOptions: {requiredClaims: [exp, sub]}, authorizationLocation: {header: {name: X-T}}"
    found = reader.policies(f"mcpAuthentication: {{issuer: 'https://i/', audiences: [a], {strict}}}").mcp_authentication
    assert found is not None and found.jwt.location == s.Location("header", "x-t", "")
    assert found.jwt.providers[0].required_claims == ("exp", "sub")
    for provider, issuer, keys in PROVIDERS:
        text = f"mcpAuthentication: {{issuer: '{issuer}', audiences: [a], clientId: c, provider: {{{provider}: {{}}}}}}"
        found = reader.policies(text).mcp_authentication
        assert found is not None and found.provider == provider and found.jwt.providers[0].jwks_url == keys


def test_providers_must_be_one_and_fit_their_issuer(reader: Reader) -> None:
    assert "issuer: " in reader.refusal("mcpAuthentication: {issuer: i, audiences: [a], provider: {entra: {}}}")
    both = "mcpAuthentication: {issuer: 'https://i', audiences: [a], provider: {okta: {}, auth0: {}}}"
    assert "give one provider" in reader.refusal(both)


def test_api_keys(reader: Reader) -> None:
    digest = hashlib.sha256(b"k2").hexdigest()
    found = reader.policies(
        f"apiKey: {{mode: strict, keys: [{{key: k1, metadata: {{user: ann}}}}, {{keyHash: 'sha256:{digest}'}}]}}"
    ).api_keys
    assert found == s.ApiKeys(
        (s.ApiKey(hashlib.sha256(b"k1").hexdigest(), {"user": "ann"}), s.ApiKey(digest)), mode="strict"
    )
    named = reader.policies("apiKey: {keys: [{key: k}], location: {header: {name: X-Key}}}").api_keys
    assert named is not None and named.location == s.Location("header", "x-key", "") and named.mode == "optional"
    assert "sha256: and 64 hexadecimal digits" in reader.refusal("apiKey: {keys: [{keyHash: 'md5:00'}]}")
    assert "give exactly one of key, keyHash" in reader.refusal("apiKey: {keys: [{}]}")


def test_basic_auth(reader: Reader) -> None:
    reader.file(".htpasswd", "ann:$apr1$lZL6V/ci$eIMz/iKDkbtys/uU7LEK00\n")
    found = reader.policies("basicAuth: {htpasswd: {file: .htpasswd}, realm: here, mode: strict}").basic
    assert found == s.BasicUsers("ann:$apr1$lZL6V/ci$eIMz/iKDkbtys/uU7LEK00", "here", "strict")
    assert reader.policies("basicAuth: {htpasswd: 'a:{SHA}x'}").basic == s.BasicUsers("a:{SHA}x", mode="optional")


def test_rate_limit(reader: Reader) -> None:
    text = "localRateLimit: [{maxTokens: 10, tokensPerFill: 5, fillInterval: 1m}]"
    wanted = (s.RateLimit(10, 5, 60.0),)
    assert reader.policies(text).rate_limits == wanted == reader.policies(text, "oct").rate_limits
    keyed = "localRateLimit: [{maxTokens: 10, tokensPerFill: 5, fillInterval: 1m, key: jwt.sub}]"
    assert reader.policies(keyed).rate_limits == (s.RateLimit(10, 5, 60.0, key="jwt.sub"),)
    assert "tokens of models" in reader.refusal("localRateLimit: [{fillInterval: 1s, type: tokens}]")
    assert "must be longer than nothing" in reader.refusal("localRateLimit: [{fillInterval: 0s}]")
    assert "one route per condition" in reader.refusal("localRateLimit: {conditional: [{fillInterval: 1s}]}")


def test_ext_authz(reader: Reader) -> None:
    found = reader.policies(
        """
        extAuthz:
          host: auth:4180
          failureMode: {denyWithStatus: 401}
          includeRequestHeaders: [Authorization, X-User]
          includeRequestBody: {maxRequestBytes: 100, allowPartialMessage: true}
          protocol:
            http:
              path: '"/check"'
              redirect: '"/login"'
              includeResponseHeaders: [X-Role]
              addRequestHeaders: {x-path: request.path}
              metadata: {role: 'response.headers["x-role"]'}
        """
    ).ext_auth
    assert found == s.ExtAuth(
        "http://auth:4180",
        path='"/check"',
        redirect='"/login"',
        forward_headers=("authorization", "x-user"),
        add_headers=(("x-path", "request.path"),),
        copy_headers=("x-role",),
        body=100,
        partial=True,
        metadata=(("role", 'response.headers["x-role"]'),),
        deny_status=401,
    )
    open_ = reader.policies("extAuthz: {host: 'a:1', failureMode: allow, protocol: {http: {}}}").ext_auth
    assert open_ is not None and open_.fail_open and open_.forward_headers == ("authorization",)
    assert "gRPC authorizers (the default)" in reader.refusal("extAuthz: {host: 'a:1'}")
    assert "host: is required" in reader.refusal("extAuthz: {protocol: {http: {}}}")


def test_transformations(reader: Reader) -> None:
    text = """
    transformations:
      request: {set: {x-sub: jwt.sub}, add: {x-a: '"1"'}, remove: [x-b], body: request.body}
      response: {set: {x-code: string(response.code)}}
    """
    wanted = s.Transformation(
        s.Transform((("x-a", '"1"'),), (("x-sub", "jwt.sub"),), ("x-b",), "request.body"),
        s.Transform(set=(("x-code", "string(response.code)"),)),
    )
    assert reader.policies(text).transformation == wanted == reader.policies(text, "oct").transformation


def test_csrf(reader: Reader) -> None:
    assert reader.policies("csrf: {additionalOrigins: ['https://a']}").csrf == s.Csrf(("https://a",))


def test_timeout_and_retry(reader: Reader) -> None:
    text = (
        "timeout: {requestTimeout: 10s, backendRequestTimeout: 2s}\nretry: {attempts: 3, backoff: 100ms, codes: [503]}"
    )
    for compat in ("oct", "now"):
        found = reader.policies(text, compat)  # type: ignore[arg-type]
        assert (found.timeout, found.backend_timeout) == (10.0, 2.0)
        assert found.retry == s.Retry(3, (503,), 0.1)
    conditions = "retry: {codes: [500], precondition: 'request.method == \"GET\"', condition: 'response.code == 500'}"
    found = reader.policies(conditions)
    assert found.retry is not None and found.retry.precondition and found.retry.condition


def test_buffer(reader: Reader) -> None:
    found = reader.policies("buffer: {request: {maxBytes: 1000}, response: {maxBytes: 2000, failureMode: failClosed}}")
    assert (found.max_body, found.max_response) == (1000, 2000)
    assert "expected one of failClosed" in reader.refusal("buffer: {request: {maxBytes: 1, failureMode: failOpen}}")


def test_concurrency(reader: Reader) -> None:
    for compat in ("oct", "now"):
        assert reader.policies("concurrency: 5", compat).concurrency == 5  # type: ignore[arg-type]
    assert "must be at least 1" in reader.refusal("concurrency: 0")


def test_backend_auth(reader: Reader) -> None:
    assert reader.policies("backendAuth: {passthrough: {}}", "oct").credential == s.BackendCredential("passthrough")
    assert reader.policies("backendAuth: {key: abc}", "oct").credential == s.BackendCredential("key", "abc")
    found = reader.policies("backendAuth: {key: {value: abc, location: {header: {name: X-Key}}}}").credential
    assert found == s.BackendCredential("key", "abc", location=s.Location("header", "x-key", ""))
    assert "give exactly one of key, passthrough, oauthTokenExchange, crossAppAccess" in reader.refusal(
        "backendAuth: {}"
    )
    assert "give exactly one of value, file" in reader.refusal("backendAuth: {key: {}}")


def test_token_exchange(reader: Reader) -> None:
    found = reader.policies(
        """
        backendAuth:
          oauthTokenExchange: {host: 'sts:443', path: /token, audiences: [api], scopes: [read], resources: [r],
                               requestedTokenType: t, clientAuth: {clientId: me, clientSecret: s},
                               authorizationLocation: {header: {name: X-Backend}}}
        """
    ).credential
    assert found is not None and found.kind == "token_exchange"
    assert found.location == s.Location("header", "x-backend", "")
    assert found.oauth == s.OAuthClient("https://sts:443/token", "me", "s", ("read",), ("api",), ("r",), "t")


def test_clients_of_token_endpoints(reader: Reader) -> None:
    reader.file("key.pem", "KEY")
    client = "clientAuth: {clientId: me, %s}"
    text = f"backendAuth: {{oauthTokenExchange: {{host: 'https://idp', path: /t, grantType: jwtBearer, {client}}}}}"
    for given, wanted in (
        ("clientSecret: s, method: clientSecretPost", {"client_secret": "s", "auth_method": "client_secret_post"}),
        ("clientSecret: s, method: clientSecretBasic", {"client_secret": "s", "auth_method": "client_secret_basic"}),
        (
            "signingKey: {file: key.pem}, method: privateKeyJwt, alg: ES256",
            {"private_key": "KEY", "auth_method": "private_key_jwt"},
        ),
    ):
        found = reader.policies(text % given).credential
        assert found is not None
        assert found.oauth == s.OAuthClient("https://idp/t", "me", grant="jwt_bearer", **wanted)
    assert "privateKeyJwt goes with signingKey" in reader.refusal(text % "clientSecret: s, method: privateKeyJwt")
    assert "privateKeyJwt goes with signingKey" in reader.refusal(text % "signingKey: k")
    assert "clientSecret: is required for clientSecretPost" in reader.refusal(text % "method: clientSecretPost")


def test_cross_app_access(reader: Reader) -> None:
    found = reader.policies(
        """
        backendAuth:
          crossAppAccess:
            identityProvider: {host: 'idp:443', path: /token, clientAuth: {clientId: a, clientSecret: s1}}
            resourceAuthorizationServer: {host: 'http://as:8080', clientAuth: {clientId: b, clientSecret: s2}}
            audience: https://as/
            resources: [https://api/]
            scopes: [read, write]
            accessTokenScopes: [read]
        """
    ).credential
    first = s.OAuthClient(
        "https://idp:443/token", "a", "s1", ("read", "write"), ("https://as/",), ("https://api/",),
        requested_token_type="urn:ietf:params:oauth:token-type:id-jag",
        subject_token_type="urn:ietf:params:oauth:token-type:id_token",
    )  # fmt: skip
    second = s.OAuthClient("http://as:8080/", "b", "s2", ("read",), grant="jwt_bearer", assertion=first)
    assert found == s.BackendCredential("token_exchange", oauth=second)
    bare = "{clientAuth: {clientId: a}}"
    both = f"identityProvider: {bare}, resourceAuthorizationServer: {bare}"
    told = reader.refusal(f"backendAuth: {{crossAppAccess: {{audience: '', {both}}}}}")
    assert "identityProvider.host: is required" in told and "resourceAuthorizationServer.host: is required" in told
    assert "audience: is empty" in told


def test_backend_tls(reader: Reader) -> None:
    reader.file("ca.pem", "CA")
    reader.file("c.pem", "C")
    reader.file("k.pem", "K")
    text = "backendTLS: {root: ca.pem, cert: c.pem, key: k.pem, hostname: api, insecure: false}"
    backend = reader.route(f"policies: {{{text}}}\nbackends: [{{host: b}}]", "oct").backends[0].http
    assert backend is not None and backend.tls is not None
    assert (backend.tls.ca, backend.tls.certificate, backend.tls.key) == ("CA", "C", "K")
    assert backend.tls.hostname == "api" and backend.addresses[0].port == 443
    assert "give both cert and key" in reader.refusal("backendTLS: {cert: c.pem}")


def test_backend_policies(reader: Reader) -> None:
    route = reader.route(
        """
        policies: {requestHeaderModifier: {set: {a: "1"}}, timeout: {requestTimeout: 5s}}
        backends:
        - host: b:80
          policies:
            requestHeaderModifier: {set: {b: "2"}}
            responseHeaderModifier: {remove: [c]}
            transformations: {request: {set: {d: '"x"'}}}
            backendAuth: {key: k}
            authorization: {rules: [request.method == "GET"]}
            backendTLS: {insecure: true}
            mcpAuthorization: {rules: ['mcp.tool.name == "a"']}
            requestRedirect: {status: 308, scheme: https}
            health: {eviction: {consecutiveFailures: 7}}
            extAuthz: {host: 'a:1', protocol: {http: {}}}
        """
    )
    found = route.backends[0].policies
    assert found.request_headers == s.HeaderModifier(set=(("a", "1"), ("b", "2"))) and found.timeout == 5.0
    assert found.credential is not None and found.authorization and found.transformation is not None
    assert found.response_headers == s.HeaderModifier(remove=("c",))
    assert found.mcp_authorization and found.redirect == s.Redirect(scheme="https", status=308)
    assert found.breaker == s.Breaker(7) and found.ext_auth == s.ExtAuth(
        "http://a:1", forward_headers=("authorization",)
    )
    assert route.policies.credential is None
    backend = route.backends[0].http
    assert backend is not None and backend.tls is not None and backend.tls.insecure


def test_health(reader: Reader) -> None:
    text = "health: {eviction: {duration: 10s, consecutiveFailures: 5}}"
    route = reader.route(f"backends: [{{host: 'b:80', policies: {{{text}}}}}]")
    assert route.backends[0].policies.breaker == s.Breaker(5, 10.0)
    route = reader.route("backends: [{host: 'b:80', policies: {health: {}}}]")
    assert route.backends[0].policies.breaker == s.Breaker()


def test_http_settings(reader: Reader) -> None:
    route = reader.route("backends: [{host: 'b:80', policies: {http: {version: HTTP/1.1, requestTimeout: 3s}}}]")
    assert route.backends[0].policies.backend_timeout == 3.0
    found = reader.errors(in_a_route("backends: [{host: 'b:80', policies: {http: {version: HTTP/2}}}]"))
    assert "expected one of HTTP/1.1" in found


def test_routes_are_closed_unless_anonymous_is_allowed(reader: Reader) -> None:
    assert not reader.policies("cors: {}").open
    assert reader.policies("cors: {}", allow_anonymous=True).open


PROOFS = {
    "requestHeaderModifier": test_header_modifiers,
    "responseHeaderModifier": test_header_modifiers,
    "requestRedirect": test_redirect,
    "urlRewrite": test_rewrite,
    "requestMirror": test_mirror,
    "directResponse": test_direct_response,
    "cors": test_cors,
    "mcpAuthorization": test_authorization,
    "authorization": test_authorization,
    "mcpAuthentication": test_mcp_authentication,
    "backendTLS": test_backend_tls,
    "backendAuth": test_backend_auth,
    "localRateLimit": test_rate_limit,
    "jwtAuth": test_jwt,
    "basicAuth": test_basic_auth,
    "apiKey": test_api_keys,
    "extAuthz": test_ext_authz,
    "transformations": test_transformations,
    "csrf": test_csrf,
    "timeout": test_timeout_and_retry,
    "retry": test_timeout_and_retry,
    "buffer": test_buffer,
    "concurrency": test_concurrency,
    "health": test_health,
    "http": test_http_settings,
}
"""Which test says what becomes of a policy's own fields, wherever the policy stands."""


@pytest.mark.parametrize(
    "model", [policies.RoutePolicies, policies.BackendPolicies, policies.TargetPolicies, policies.GatewayPolicies,
              oct.RoutePolicies, oct.GatewayPolicies]
)  # fmt: skip
def test_every_policy_reaches_the_snapshot(model: Any) -> None:
    """A policy that is called enforced has somebody who translates it."""
    for field in fields_of(model).values():
        if isinstance(field.cls, Enforced):
            assert field.attribute in HANDLED and field.name in PROOFS, field.name
