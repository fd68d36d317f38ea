"""Listeners, routes, backends and targets of files as the snapshot has them."""

from __future__ import annotations

import re

import pytest

from quarterdeck.errors import ConfigError
from quarterdeck.snapshot import Child, Endpoint, McpServer, Snapshot
from quarterdeck.snapshot import routing as r
from quarterdeck.snapshot.sign_in import SignIn

from .conftest import Reader, in_a_route


def server(snapshot: Snapshot, name: str) -> McpServer:
    return next(one for one in snapshot.mcp if one.name == name)


def targets(reader: Reader, body: str, **options: object) -> Snapshot:
    return reader.snapshot(in_a_route(f"backends: [{{mcp: {{targets: [{body}]}}}}]"), **options)  # type: ignore[arg-type]


def test_targets_with_sign_ins(reader: Reader) -> None:
    reader.file("secret", "s3cret\n")
    found = server(
        targets(
            reader,
            """{name: notes, mcp: {host: 'https://notes.example/mcp'}, auth: oauth, oauth: {clientId: qd,
                clientSecret: {file: secret}, method: clientSecretPost,
                issuer: 'https://id.example', scopes: [read], trustedHosts: [id.internal], name: Our notes}}""",
        ),
        "notes",
    )
    assert found.sign_in == SignIn(
        "https://notes.example/mcp", "qd", "s3cret", "", "client_secret_post", "https://id.example", ("read",),
        ("id.internal",), "Our notes",
    )  # fmt: skip
    plain = server(targets(reader, "{name: notes, mcp: {host: 'http://127.0.0.1:9000/mcp'}, auth: oauth}"), "notes")
    assert plain.sign_in == SignIn("http://127.0.0.1:9000/mcp", label="notes")
    key = server(
        targets(reader, "{name: n, mcp: {host: 'https://n.ex'}, auth: oauth, oauth: {clientId: a, signingKey: k}}"), "n"
    )
    assert key.sign_in is not None
    assert key.sign_in.private_key == "k"


@pytest.mark.parametrize(
    ("target", "problem"),
    [
        ("{name: a, stdio: {cmd: x}, auth: oauth}", "auth: nobody signs in at a process"),
        ("{name: a, mcp: {host: 'http://a:1/mcp'}, oauth: {}}", "oauth: says how users sign in"),
        ("{name: a, mcp: {host: 'http://a:1/mcp'}, auth: oauth, policies: {backendAuth: {key: x}}}", "remove policies"),
        ("{name: a, mcp: {host: 'http://a:1/mcp'}, auth: oauth, oauth: {clientSecret: x}}", "clientId: is required"),
        ("{name: a, mcp: {host: 'http://a:1/mcp'}, auth: basic}", "auth"),
    ],
)
def test_sign_ins_that_cannot_be(reader: Reader, target: str, problem: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(problem)):
        targets(reader, target)


@pytest.mark.parametrize("compat", ["oct", "now"])
def test_matches(reader: Reader, compat: str) -> None:
    route = reader.route(
        """
        hostnames: [a.example, "*.example"]
        matches:
        - path: {pathPrefix: /a}
          method: post
          headers: [{name: X-A, value: {exact: "1"}}, {name: X-B, value: {regex: "^v[0-9]$"}}]
          query: [{name: Q, value: {exact: z}}]
        - path: {exact: /b}
        - path: {regex: "/c/.*"}
        - headers: [{name: x, value: {exact: y}}]
        backends: [{host: 'b:80'}]
        """,
        compat,  # type: ignore[arg-type]
    )
    assert route.hostnames == ("a.example", "*.example")
    assert route.matches == (
        r.Match(
            r.PathMatch("prefix", "/a"),
            (r.TextMatch("x-a", "1"), r.TextMatch("x-b", "^v[0-9]$", True)),
            (r.TextMatch("Q", "z"),),
            "POST",
        ),
        r.Match(r.PathMatch("exact", "/b")),
        r.Match(r.PathMatch("regex", "/c/.*")),
        r.Match(headers=(r.TextMatch("x", "y"),)),
    )
    assert reader.route("backends: [{host: 'b:80'}]").matches == (r.Match(),)


@pytest.mark.parametrize(
    ("match", "problem"),
    [
        ("path: {}", "path: give exactly one of exact, pathPrefix, regex"),
        ("path: {exact: /a, regex: /a}", "not exact, regex"),
        ("path: {exact: a}", "'a' must begin with /"),
        ("path: {regex: '('}", "path.regex: "),
        ("headers: [{name: a, value: {}}]", "value: give exactly one of exact, regex"),
        ("headers: [{name: a, value: {regex: '['}}]", "value.regex: "),
    ],
)
def test_matches_that_match_nothing(reader: Reader, match: str, problem: str) -> None:
    assert problem in reader.errors(in_a_route(f"matches: [{{{match}}}]\nbackends: [{{host: 'b:80'}}]"))


def test_listeners(reader: Reader) -> None:
    text = """
    binds:
    - port: 3000
      listeners:
      - {name: one, hostname: a.example, routes: [{backends: [{host: 'b:80'}]}]}
      - {hostname: "*", routes: [{backends: [{host: 'c:80'}]}]}
    - port: 3001
      listeners: [{routes: []}]
    """
    for compat in ("oct", "now"):
        found = reader.snapshot(text, compat).listeners  # type: ignore[arg-type]
        assert [(x.name, x.port, x.hostname, x.protocol, x.address) for x in found] == [
            ("bind/3000/one", 3000, "a.example", "HTTP", "0.0.0.0"),
            ("bind/3000/listener1", 3000, "", "HTTP", "0.0.0.0"),
            ("bind/3001/listener0", 3001, "", "HTTP", "0.0.0.0"),
        ]
    reader.snapshot("binds: [{port: 1, listeners: [{gatewayName: gw, routes: []}]}]", "oct")
    reader.snapshot("binds: [{port: 1, tunnelProtocol: direct, listeners: [{routes: []}]}]")
    tunnel = "binds: [{port: 1, tunnelProtocol: hboneGateway, listeners: [{routes: []}]}]"
    assert "tunnelProtocol: expected one of direct" in reader.errors(tunnel)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("binds: [{port: 70000, listeners: [{routes: []}]}]", "70000 is no port"),
        ("binds: [{port: 1, listeners: [{}]}]", "has no routes"),
        ("binds: [{port: 1, listeners: [{protocol: TCP, routes: []}]}]", "TCP is not served; use HTTP or HTTPS"),
        ("binds: [{port: 1, listeners: [{protocol: HTTPS, routes: []}]}]", "HTTPS needs tls"),
        ("binds: [{port: 1, listeners: [{routes: []}, {routes: []}]}]", "another listener has port 1, too"),
        ("binds: [{port: 1, listeners: [{routes: [{}]}]}]", "has no backends, and neither"),
    ],
)
def test_listeners_that_cannot_be_served(reader: Reader, text: str, problem: str) -> None:
    assert problem in reader.errors(text)


def test_tls(reader: Reader) -> None:
    reader.file("c.pem", "CHAIN")
    reader.file("k.pem", "KEY")
    reader.file("ca.pem", "CA")
    text = "binds: [{port: 1, listeners: [{protocol: HTTPS, tls: {cert: c.pem, key: k.pem%s}, routes: []}]}]"
    for compat in ("oct", "now"):
        listener = reader.snapshot(text % "", compat).listeners[0]  # type: ignore[arg-type]
        assert listener.protocol == "HTTPS" and listener.certificates == (r.Certificate("CHAIN", "KEY"),)
    mutual = reader.snapshot(text % ", root: ca.pem, minTLSVersion: TLS_V1_2, maxTLSVersion: TLS_V1_3").listeners[0]
    assert mutual.client_ca == "CA"
    assert "TLS 1.2 cannot be switched off" in reader.errors(text % ", minTLSVersion: TLS_V1_3")
    assert "TLS 1.3 cannot be switched off" in reader.errors(text % ", maxTLSVersion: TLS_V1_2")
    assert "expected one of static" in reader.errors(text % ", mode: dynamicCA")
    plain = "binds: [{port: 1, listeners: [{tls: {cert: c.pem, key: k.pem}, routes: []}]}]"
    assert "HTTP has no tls; write protocol: HTTPS" in reader.errors(plain)


def test_names(reader: Reader) -> None:
    text = """
    binds:
    - port: 1
      listeners:
      - routes:
        - {name: own, namespace: ns, ruleName: r1, backends: [{host: 'b:80'}]}
        - backends: [{host: 'b:80'}]
    - port: 2
      listeners:
      - routes: [{backends: [{host: 'b:80'}]}, {backends: [{host: 'b:80'}]}]
    """
    routes = [route for listener in reader.snapshot(text).listeners for route in listener.routes]
    assert [route.name for route in routes] == [
        "ns/own", "default/route1", "default/route0", "default/route1@bind.2.listener0",
    ]  # fmt: skip
    assert routes[0].rule == "r1" and [route.order for route in routes] == [0, 1, 0, 1]


@pytest.mark.parametrize(
    ("host", "wanted"),
    [
        ("b:8080", ("b", 8080, "b:8080", False)),
        ("b", ("b", 80, "b", False)),
        ("'[::1]:8080'", ("::1", 8080, "[::1]:8080", False)),
        ("http://b", ("b", 80, "b", False)),
        ("https://b/", ("b", 443, "b", True)),
        ("https://b:8443", ("b", 8443, "b:8443", True)),
    ],
)
def test_http_backends(reader: Reader, host: str, wanted: tuple[str, int, str, bool]) -> None:
    backend = reader.route(f"backends: [{{host: {host!s}, weight: 3}}]").backends[0]
    assert backend.http is not None and backend.weight == 3
    address = backend.http.addresses[0]
    assert (address.host, address.port, backend.http.host, backend.http.tls is not None) == wanted


@pytest.mark.parametrize(
    ("backend", "problem"),
    [
        ("{host: 'b:x'}", "is no address"),
        ("{host: 'ftp://b'}", "must be HOST:PORT or http(s)://"),
        ("{host: 'b:80/x'}", "a host has no path; use urlRewrite"),
        ("{host: 'http://me:pw@b'}", "host: must not hold a name and password; use backendAuth"),
        ("{}", "give exactly one of host, mcp, backend"),
        ("{host: 'b:80', weight: -1}", "weight: must not be negative"),
    ],
)
def test_backends_that_lead_nowhere(reader: Reader, backend: str, problem: str) -> None:
    assert problem in reader.errors(in_a_route(f"backends: [{backend}]"))


@pytest.mark.parametrize(
    ("target", "wanted"),
    [
        ("mcp: {host: h, port: 3000, path: /x}", ("h", 3000, "/x", False, "STREAMABLE_HTTP")),
        ("mcp: {host: 'https://h/remote/mcp'}", ("h", 443, "/remote/mcp", True, "STREAMABLE_HTTP")),
        ("mcp: {host: 'http://h:81'}", ("h", 81, "", False, "STREAMABLE_HTTP")),
        ("mcp: {host: 'https://h/mcp?key=1'}", ("h", 443, "/mcp?key=1", True, "STREAMABLE_HTTP")),
        ("sse: {host: h, port: 3000, path: /sse}", ("h", 3000, "/sse", False, "SSE")),
    ],
)
def test_mcp_targets(reader: Reader, target: str, wanted: tuple[str, int, str, bool, str]) -> None:
    for compat in ("oct", "now"):
        found = server(targets(reader, f"{{name: t, {target}}}", compat=compat), "t")
        host, port, path, tls, protocol = wanted
        assert found.endpoints == (Endpoint(host, port),) and (found.path, found.tls) == (path, tls)
        assert found.protocol == protocol and (found.kind, found.namespace) == ("Target", "file")

    text = in_a_route("backends: [{mcp: {targets: [{name: t, mcp: {backend: api, path: /m}}]}}]")
    named = server(reader.snapshot(text + "backends: [{name: api, host: 'h:82'}]\n"), "t")
    assert (named.endpoints, named.path) == ((Endpoint("h", 82),), "/m")


@pytest.mark.parametrize(
    ("target", "problem"),
    [
        ("{name: t}", "give exactly one of sse, mcp, stdio, openapi"),
        ("{name: t, mcp: {host: h, port: 1}}", "give host as a URL alone, or host, port and path together"),
        ("{name: t, mcp: {host: 'http://h', port: 1, path: /}}", "a URL stands alone"),
        ("{name: t, mcp: {}}", "host is required"),
        ("{name: t, mcp: {backend: nobody, path: /}}", "no backend of this file with a host"),
        ("{name: 'a/b', stdio: {cmd: x}}", "must be a name without /"),
        ("{name: t, stdio: {cmd: ''}}", "cmd: is empty"),
        ("{name: t, stdio: {cmd: x}}, {name: t, stdio: {cmd: y}}", "is the name of another target, too"),
        ("{name: t, stdio: {cmd: x}, policies: {}}", "a stdio target has none"),
    ],
)
def test_targets_that_lead_nowhere(reader: Reader, target: str, problem: str) -> None:
    assert problem in reader.errors(in_a_route(f"backends: [{{mcp: {{targets: [{target}]}}}}]"))


def test_stdio_targets(reader: Reader) -> None:
    body = "{name: time, stdio: {cmd: uvx, args: [mcp-server-time], env: {B: '2', A: $HOME}, clear_env: true}}"
    found = targets(reader, body, environment={"HOME": "/h"})
    assert found.children == (
        Child("Target/file/time", "uvx", ("mcp-server-time",), (("A", "/h"), ("B", "2")), clear_env=True),
    )
    assert server(found, "time").path == "/mcp" and server(found, "time").endpoints == ()
    assert server(found, "time").timeout == 300


def test_targets_that_say_the_same_share_one_server(reader: Reader) -> None:
    text = """
    binds:
    - port: 1
      listeners:
      - routes:
        - backends: [{mcp: {targets: [{name: a, stdio: {cmd: x}}]}}]
        - backends: [{mcp: {targets: [{name: a, stdio: {cmd: x}}]}}]
        - backends: [{mcp: {targets: [{name: a, stdio: {cmd: y}}]}}]
    """
    found = reader.snapshot(text)
    assert [child.server for child in found.children] == ["Target/file/a", "Target/file-2/a"]
    used = [route.backends[0].mcp for route in found.listeners[0].routes]
    assert [group.targets[0].server for group in used if group] == [
        "Target/file/a", "Target/file/a", "Target/file-2/a",
    ]  # fmt: skip


def test_openapi_targets(reader: Reader) -> None:
    reader.file("api.yaml", "openapi: 3.0.3\ninfo: {title: t, version: '1'}\npaths: {}\n")
    found = server(targets(reader, "{name: t, openapi: {host: 'h:81', schema: {file: api.yaml}}}"), "t")
    assert found.openapi is not None and found.openapi["openapi"] == "3.0.3"
    assert found.endpoints == (Endpoint("h", 81),)
    both = server(targets(reader, "{name: t, openapi: {host: h, port: 81, path: /v1, schema: {file: api.yaml}}}"), "t")
    assert both.endpoints == (Endpoint("h", 81),) and both.path == "/v1"
    text = in_a_route("backends: [{mcp: {targets: [{name: t, openapi: {host: 'h:1', schema: 'swagger: 2'}}]}}]")
    assert "is not an OpenAPI 3 document" in reader.errors(text)
    named = "{name: t, openapi: {backend: api, path: /v2, schema: {file: api.yaml}}}"
    text = in_a_route(f"backends: [{{mcp: {{targets: [{named}]}}}}]") + "backends: [{name: api, host: 'h:82'}]\n"
    found = server(reader.snapshot(text), "t")
    assert (found.endpoints, found.path) == ((Endpoint("h", 82),), "/v2")


def test_target_policies(reader: Reader) -> None:
    reader.file("ca.pem", "CA")
    route = reader.route(
        """
        policies: {mcpAuthorization: {rules: ['mcp.tool.name == "a"']}}
        backends:
        - mcp:
            targets:
            - name: t
              mcp: {host: 'https://h/mcp'}
              policies:
                backendAuth: {key: k}
                requestHeaderModifier: {set: {a: b}}
                mcpAuthorization: {rules: ['mcp.tool.name == "b"']}
                backendTLS: {root: ca.pem, hostname: inner}
                transformations: {request: {set: {x-tool: mcp.tool.name}}}
                http: {requestTimeout: 7s}
        """
    )
    group = route.backends[0].mcp
    assert group is not None
    found = group.targets[0].policies
    assert found.credential is not None and found.credential.value == "k" and found.request_headers is not None
    assert [one.where for one in found.mcp_authorization] == ["route/default/route0", "target/t"]
    assert found.transformation is not None and found.backend_timeout == 7.0


def test_tls_of_a_target_is_its_servers(reader: Reader) -> None:
    reader.file("ca.pem", "CA")
    body = "{name: t, mcp: {host: h, port: 1, path: /}, policies: {backendTLS: {root: ca.pem, hostname: n}}}"
    found = server(targets(reader, body), "t")
    assert found.tls and found.tls_ca == "CA" and found.authority == "n" and not found.tls_insecure
    route_wide = (
        "policies: {backendTLS: {insecure: true}}\nbackends: [{mcp: {targets: [{name: t, mcp: {host: 'https://h'}}]}}]"
    )
    assert server(reader.snapshot(in_a_route(route_wide), "oct"), "t").tls_insecure


def test_mcp_backends(reader: Reader) -> None:
    body = "{name: a, stdio: {cmd: x}}"
    group = reader.route(f"backends: [{{mcp: {{targets: [{body}]}}}}]").backends[0].mcp
    assert group is not None and (group.prefix, group.stateful, group.fail_open) == ("conditional", True, False)
    text = f"backends: [{{mcp: {{targets: [{body}], statefulMode: stateless, prefixMode: always%s}}}}]"
    old = reader.route(text % "", "oct").backends[0].mcp
    assert old is not None and (old.prefix, old.stateful) == ("always", False)
    new = reader.route(text.replace("always", "never") % ", failureMode: failOpen").backends[0].mcp
    assert new is not None and (new.prefix, new.fail_open) == ("never", True)
    assert "targets: is empty" in reader.errors(in_a_route("backends: [{mcp: {targets: []}}]"))


def test_target_names_of_october_may_hold_an_underscore(reader: Reader) -> None:
    body = "{name: my_target, stdio: {cmd: x}}, {name: my, stdio: {cmd: y}}"
    loaded = reader.load(in_a_route(f"backends: [{{mcp: {{targets: [{body}]}}}}]"), "oct")
    assert any("the _ in it" in warning for warning in loaded.warnings)


def test_named_backends(reader: Reader) -> None:
    text = """
    backends:
    - {name: api, host: 'api:8080', policies: {backendAuth: {key: k}}}
    - {name: tools, mcp: {targets: [{name: t, mcp: {backend: api, path: /mcp}}]}}
    binds:
    - port: 1
      listeners:
      - routes:
        - {matches: [{path: {pathPrefix: /api}}], backends: [{backend: api, weight: 2}]}
        - {backends: [{backend: tools}]}
    """
    found = reader.snapshot(text)
    first, second = (route.backends[0] for route in found.listeners[0].routes)
    assert first.http is not None and first.http.name == "api" and first.weight == 2
    assert first.policies.credential is not None
    assert second.mcp is not None and second.mcp.name == "tools"
    assert server(found, "t").endpoints == (Endpoint("api", 8080),)
    assert "backends of this file: api, tools" in reader.errors(text.replace("backend: tools}", "backend: tool}"))


def test_gateways(reader: Reader) -> None:
    text = """
    gateways:
      default: {port: 8080}
      edge:
        port: 8443
        listeners:
        - {name: a, hostname: a.example}
        - {name: b, hostname: b.example}
    routes:
    - {name: one, backends: [{host: 'b:80'}]}
    - {name: two, gateways: edge, backends: [{host: 'b:80'}]}
    - {name: three, gateways: [edge/b, default], backends: [{host: 'b:80'}]}
    """
    found = {x.name: [route.name for route in x.routes] for x in reader.snapshot(text).listeners}
    assert found == {
        "default/default": ["default/one", "default/three@default.default"],
        "edge/a": ["default/two"],
        "edge/b": ["default/two@edge.b", "default/three"],
    }
    assert "no gateway 'egde'; there are default, edge" in reader.errors(
        text.replace("gateways: edge,", "gateways: egde,")
    )
    everything = """
    gateways:
      default:
        port: 8080
        protocol: HTTP
        cors: {allowOrigins: ['https://x']}
        jwtAuth: {issuer: i, jwks: {url: 'https://i/keys'}}
        apiKey: {keys: [{key: k}]}
        basicAuth: {htpasswd: 'a:{SHA}x'}
        authorization: {rules: ['request.path == "/"']}
        extAuthz: {host: 'a:1', protocol: {http: {}}}
        transformations: {request: {remove: [a]}}
    routes: [{backends: [{host: 'b:80'}]}]
    """
    (listener,) = reader.snapshot(everything).listeners
    rules = listener.policies
    assert None not in (rules.cors, rules.jwt, rules.api_keys, rules.basic, rules.ext_auth, rules.transformation)
    assert rules.authorization and listener.protocol == "HTTP"
    assert "none is called default" in reader.errors("gateways: {x: {port: 1}}\nroutes: [{backends: [{host: 'b:80'}]}]")


def test_listener_policies(reader: Reader) -> None:
    text = """
    gateways:
      default:
        port: 8080
        apiKey: {mode: strict, keys: [{key: k}]}
        listeners:
        - {name: a, authorization: {rules: ['request.path == "/"']}}
    binds:
    - port: 1
      listeners: [{policies: {basicAuth: {htpasswd: 'a:b'}, cors: {allowOrigins: ['https://x']},
                             jwtAuth: {issuer: i, jwks: {url: 'https://i'}}, extAuthz: {host: a, protocol: {http: {}}},
                             transformations: {request: {remove: [a]}}}, routes: []}]
    """
    first, second = reader.snapshot(text, allow_anonymous=True).listeners
    assert first.policies.basic is not None and first.policies.cors is not None
    assert second.policies.api_keys is not None and second.policies.authorization[0].where == "listener/default/a"
    assert None not in (first.policies.jwt, first.policies.transformation, first.policies.ext_auth)
    assert not first.policies.open, "it belongs to routes"


def test_simple_mcp(reader: Reader) -> None:
    text = """
    mcp:
      port: 3300
      prefixMode: always
      statefulMode: stateless
      failureMode: failOpen
      targets: [{name: a, stdio: {cmd: x}}, {name: b, mcp: {host: 'http://h/mcp'}}]
      policies: {cors: {allowOrigins: ['https://x']}}
    """
    (listener,) = reader.snapshot(text).listeners
    assert (listener.name, listener.port) == ("mcp/default", 3300)
    (route,) = listener.routes
    assert route.name == "default/mcp" and route.policies.cors is not None
    assert [match.path for match in route.matches] == [r.PathMatch("exact", "/mcp"), r.PathMatch("exact", "/sse")]
    group = route.backends[0].mcp
    assert group is not None and (group.prefix, group.fail_open, group.stateful) == ("always", True, False)
    assert [target.name for target in group.targets] == ["a", "b"]
    assert reader.snapshot("mcp: {targets: [{name: a, stdio: {cmd: x}}]}").listeners[0].port == 3000
    joined = "gateways: {default: {port: 8080}}\nmcp: {targets: [{name: a, stdio: {cmd: x}}]}"
    (listener,) = reader.snapshot(joined).listeners
    assert listener.port == 8080 and [route.name for route in listener.routes] == ["default/mcp"]
    assert "mcp.targets[0].stdio.cmd: is empty" in reader.errors("mcp: {targets: [{name: a, stdio: {cmd: ''}}]}")
