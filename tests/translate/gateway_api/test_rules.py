"""What rules, filters, backends and policies become in the snapshot."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from quarterdeck.snapshot import McpServer
from quarterdeck.snapshot.policies import (
    Authorization,
    BackendCredential,
    CelRule,
    Cors,
    HeaderModifier,
    Policies,
    RateLimit,
    Redirect,
    Retry,
    Rewrite,
)
from quarterdeck.snapshot.routing import Endpoint, Match, PathMatch, Route, TextMatch

from .objects import GATEWAY, ROUTE, SERVICE, compiled, only, verdict


def route(rule: dict[str, Any], *more: str, gateway: str = GATEWAY) -> Route:
    """The one route compiled from one rule."""
    obj = yaml.safe_load(ROUTE)
    obj["spec"]["rules"] = [{"backendRefs": [{"name": "web", "port": 80}]} | rule]
    result = compiled(gateway, SERVICE, yaml.safe_dump(obj), *more)
    (found,) = result.gateways["infra", "gw"].listeners[0].routes
    return found


def test_matches() -> None:
    found = route(
        {
            "matches": [
                {
                    "path": {"type": "Exact", "value": "/a"},
                    "method": "GET",
                    "headers": [{"name": "X-A", "value": "1"}, {"name": "x-a", "value": "2"}],
                    "queryParams": [{"name": "q", "type": "RegularExpression", "value": "a|b"}],
                },
                {"path": {"type": "RegularExpression", "value": "/b.*"}},
                {"headers": [{"name": "v", "value": "2"}]},
            ]
        }
    )
    assert found.matches == (
        Match(PathMatch("exact", "/a"), (TextMatch("x-a", "1"),), (TextMatch("q", "a|b", True),), "GET"),
        Match(PathMatch("regex", "/b.*")),
        Match(PathMatch("prefix", "/"), (TextMatch("v", "2"),)),
    )


@pytest.mark.parametrize(
    ("filters", "policies"),
    [
        (
            [{"type": "RequestHeaderModifier", "requestHeaderModifier": {
                "set": [{"name": "a", "value": "1"}], "add": [{"name": "b", "value": "2"}], "remove": ["c"]}}],
            Policies(request_headers=HeaderModifier((("b", "2"),), (("a", "1"),), ("c",))),
        ),
        (
            [{"type": "ResponseHeaderModifier", "responseHeaderModifier": {"remove": ["server"]}}],
            Policies(response_headers=HeaderModifier(remove=("server",))),
        ),
        (
            [{"type": "RequestRedirect", "requestRedirect": {"scheme": "https", "port": 8443, "statusCode": 301,
              "path": {"type": "ReplacePrefixMatch", "replacePrefixMatch": "/new"}}}],
            Policies(redirect=Redirect("https", "", 8443, None, "/new", 301)),
        ),
        (
            [{"type": "URLRewrite", "urlRewrite": {"hostname": "x.example",
              "path": {"type": "ReplaceFullPath", "replaceFullPath": "/all"}}}],
            Policies(rewrite=Rewrite("x.example", path="/all")),
        ),
        (
            [{"type": "CORS", "cors": {"allowOrigins": ["https://a.example"], "allowCredentials": True, "maxAge": 9}}],
            Policies(cors=Cors(("https://a.example",), allow_credentials=True, max_age=9)),
        ),
    ],
)  # fmt: skip
def test_filters(filters: list[dict[str, Any]], policies: Policies) -> None:
    found = route({"filters": filters}).policies
    assert found.open
    assert {f: getattr(found, f) for f in Policies.__struct_fields__ if f != "open"} == {
        f: getattr(policies, f) for f in Policies.__struct_fields__ if f != "open"
    }


def test_timeouts_and_retries() -> None:
    found = route(
        {
            "timeouts": {"request": "10s", "backendRequest": "500ms"},
            "retry": {"attempts": 3, "codes": [502, 503], "backoff": "100ms"},
        }
    )
    assert (found.policies.timeout, found.policies.backend_timeout) == (10.0, 0.5)
    assert found.policies.retry == Retry(3, (502, 503), 0.1)


SET = {"type": "RequestHeaderModifier", "requestHeaderModifier": {"set": [{"name": "v", "value": "1"}]}}


def test_weights_addresses_and_filters_of_backends() -> None:
    found = route(
        {
            "backendRefs": [
                {"name": "web", "port": 80, "weight": 9, "filters": [SET]},
                {"name": "web", "port": 80, "weight": 0},
            ]
        }
    )  # fmt: skip
    first, second = found.backends
    assert (first.weight, second.weight) == (9, 0)
    assert first.http is not None and first.http.addresses == (Endpoint("10.1.0.4", 8080),)
    assert first.policies.request_headers == HeaderModifier(set=(("v", "1"),))
    assert second.policies.request_headers is None


def test_mirrors() -> None:
    ref, eighth = {"name": "web", "port": 80}, {"numerator": 1, "denominator": 8}
    found = route(
        {
            "filters": [
                {"type": "RequestMirror", "requestMirror": {"backendRef": ref, "percent": 20}},
                {"type": "RequestMirror", "requestMirror": {"backendRef": ref, "fraction": eighth}},
                {"type": "RequestMirror", "requestMirror": {"backendRef": {"name": "nobody", "port": 80}}},
            ]
        }
    )  # fmt: skip
    assert [mirror.percent for mirror in found.mirrors] == [20.0, 12.5]


def test_older_routes_come_first() -> None:
    def named(name: str, created: str) -> str:
        obj = yaml.safe_load(ROUTE)
        obj["metadata"] |= {"name": name, "creationTimestamp": created}
        return yaml.safe_dump(obj)

    texts = [named("b", "2026-01-01T00:00:00Z"), named("c", "2025-01-01T00:00:00Z"), named("a", "2026-01-01T00:00:00Z")]
    result = compiled(GATEWAY, SERVICE, *texts)
    routes = sorted(result.gateways["infra", "gw"].listeners[0].routes, key=lambda r: r.order)
    assert [r.name for r in routes] == ["app/c", "app/a", "app/b"]


MCP_BACKEND = """
kind: Backend
metadata: {name: tools, namespace: app}
spec:
  type: MCP
  mcp:
    targets:
    - {name: one, static: {host: web.app.svc.cluster.local, port: 80, protocol: StreamableHTTP}}
    - {name: two, static: {host: mcp.example, port: 8080, protocol: SSE}}
"""
TO_MCP = {"backendRefs": [{"name": "tools", "group": "gateway.kgateway.dev", "kind": "Backend"}]}


def test_mcp_backends() -> None:
    obj = yaml.safe_load(ROUTE)
    obj["spec"]["rules"] = [TO_MCP]
    result = compiled(GATEWAY, SERVICE, MCP_BACKEND, yaml.safe_dump(obj))
    served = result.gateways["infra", "gw"]
    backend = served.listeners[0].routes[0].backends[0].mcp
    assert backend is not None
    assert [(t.name, t.server) for t in backend.targets] == [
        ("one", "Target/app/Backend.tools.one"),
        ("two", "Target/app/Backend.tools.two"),
    ]
    one, two = served.servers
    assert (one.path, one.protocol, one.endpoints[0].host) == ("/mcp", "STREAMABLE_HTTP", "10.1.0.4")
    assert (two.path, two.protocol, two.authority) == ("/sse", "SSE", "mcp.example:8080")
    assert result.statuses.backends["Backend", "app", "tools"][0].status == "True"


@pytest.mark.parametrize("group", ["gateway.kgateway.dev", "gateway.networking.k8s.io"])
def test_the_seeds_policy_is_about_tools_whatever_its_group(group: str) -> None:
    policy = f"""
kind: TrafficPolicy
metadata: {{name: rbac, namespace: app}}
spec:
  targetRefs: [{{name: tools, kind: Backend, group: {group}}}]
  rbac: {{policy: {{matchExpressions: ['mcp.tool.name in ["a"]']}}}}
"""
    found = route(TO_MCP, MCP_BACKEND, policy)
    rule = CelRule("allow", 'mcp.tool.name in ["a"]')
    expected = (Authorization((rule,), True, "TrafficPolicy/app/rbac"),)
    assert found.backends[0].policies.mcp_authorization == expected
    assert found.policies.mcp_authorization == ()


def test_only_plain_http_is_open_to_everybody_by_default() -> None:
    assert route({}).policies.open
    assert not route(TO_MCP, MCP_BACKEND).backends[0].policies.open
    theirs = GATEWAY.replace("gatewayClassName: quarterdeck", "gatewayClassName: agentgateway")
    assert route(TO_MCP, MCP_BACKEND, gateway=theirs).backends[0].policies.open
    said = GATEWAY.replace(
        "namespace: infra", "namespace: infra, annotations: {quarterdeck.dev/allow-anonymous: 'true'}"
    )
    assert route(TO_MCP, MCP_BACKEND, gateway=said).backends[0].policies.open


def policy(
    kind: str, spec: dict[str, Any], name: str = "p", created: str = "2026-01-01T00:00:00Z", ns: str = "app"
) -> str:
    metadata = {"name": name, "namespace": ns, "creationTimestamp": created}
    return yaml.safe_dump({"kind": kind, "metadata": metadata, "spec": spec})


TO_ROUTE = {"targetRefs": [{"group": "gateway.networking.k8s.io", "kind": "HTTPRoute", "name": "r"}]}
TO_GATEWAY = {"targetRefs": [{"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": "gw"}]}


def test_inner_policies_win_and_of_two_at_one_place_the_older() -> None:
    def limit(tokens: int) -> dict[str, Any]:
        bucket = {"maxTokens": tokens, "tokensPerFill": 1, "fillInterval": "1s"}
        return {"rateLimit": {"local": {"tokenBucket": bucket}}}

    outer = policy("TrafficPolicy", TO_GATEWAY | limit(1) | {"timeouts": {"request": "7s"}}, ns="infra")
    older = policy("TrafficPolicy", TO_ROUTE | limit(2), "z")
    newer = policy("TrafficPolicy", TO_ROUTE | limit(3), "a", "2026-02-01T00:00:00Z")
    found = route({}, outer, newer, older).policies
    assert found.rate_limits == (RateLimit(2, 1, 1.0),)
    assert found.timeout == 7.0


def test_policies_of_listeners_and_rules() -> None:
    listener = {"targetRefs": [TO_GATEWAY["targetRefs"][0] | {"sectionName": "http"}]}
    rule = {"targetRefs": [TO_ROUTE["targetRefs"][0] | {"sectionName": "special"}]}
    other = {"targetRefs": [TO_ROUTE["targetRefs"][0] | {"sectionName": "none"}]}
    texts = [
        policy("AgentgatewayPolicy", listener | {"traffic": {"timeouts": {"request": "3s"}}}, "l", ns="infra"),
        policy("AgentgatewayPolicy", rule | {"traffic": {"retry": {"attempts": 2, "codes": [503]}}}, "r"),
        policy("AgentgatewayPolicy", other | {"traffic": {"retry": {"attempts": 9}}}, "o"),
    ]
    found = route({"name": "special"}, *texts).policies
    assert (found.timeout, found.retry) == (3.0, Retry(2, (503,)))
    obj = yaml.safe_load(ROUTE)
    obj["spec"]["rules"][0]["name"] = "special"
    result = compiled(GATEWAY, SERVICE, yaml.safe_dump(obj), *texts)
    verdicts = only(result.statuses.policies["AgentgatewayPolicy", "app", "o"])
    assert verdict(verdicts, "Accepted") == ("False", "TargetNotFound")
    verdicts = only(result.statuses.policies["AgentgatewayPolicy", "app", "r"])
    assert verdict(verdicts, "Accepted") == ("True", "Accepted")


@pytest.mark.parametrize(
    ("kind", "spec"),
    [
        ("TrafficPolicy", {"extAuth": {"extensionRef": {"name": "x"}}}),
        ("TrafficPolicy", {"extProc": {"extensionRef": {"name": "x"}}}),
        ("TrafficPolicy", {"rateLimit": {"global": {"descriptors": []}}}),
        ("TrafficPolicy", {"timeouts": {"request": "soon"}}),
        ("AgentgatewayPolicy", {"traffic": {"extProc": {"backendRef": {"name": "x"}}}}),
        ("AgentgatewayPolicy", {"traffic": {"extAuth": {"backendRef": {"name": "x", "port": 1}, "grpc": {"a": {}}}}}),
        ("AgentgatewayPolicy", {"traffic": {"apiKeyAuthentication": {"secretRef": {"name": "none"}}}}),
        ("AgentgatewayPolicy", {"backend": {"auth": {"aws": {"serviceName": "x"}}}}),
        ("AgentgatewayPolicy", {"backend": {"mcp": {"guardrails": {"processors": [1]}}}}),
        ("AgentgatewayPolicy", {"frontend": {"networkAuthorization": {"policy": {}}}}),
        ("AgentgatewayPolicy", {"traffic": {"authorization": {"action": "Allow"}}}),
        ("TrafficPolicy", {"rbac": {"policy": {"matchExpressions": ["mcp.tool.name =="]}}}),
    ],
)
def test_a_policy_that_cannot_be_enforced_closes_what_it_protects(kind: str, spec: dict[str, Any]) -> None:
    text = policy(kind, TO_ROUTE | spec)
    found = route({"filters": [{"type": "RequestRedirect", "requestRedirect": {"hostname": "x.example"}}]}, text)
    assert found.backends[0].error and found.policies == Policies()
    result = compiled(GATEWAY, SERVICE, ROUTE, text)
    assert verdict(only(result.statuses.policies[kind, "app", "p"]), "Accepted")[0] == "False"


def test_credentials_of_policies_come_from_secrets() -> None:
    secrets = """
kind: Secret
metadata: {name: keys, namespace: app, labels: {use: keys}}
stringData: {one: k-1, two: '{"key": "k-2", "metadata": {"group": "sales"}}'}
---
kind: Secret
metadata: {name: upstream, namespace: app}
stringData: {Authorization: Bearer s3cret}
"""
    spec = TO_ROUTE | {
        "traffic": {"apiKeyAuthentication": {"secretSelector": {"matchLabels": {"use": "keys"}}}},
        "backend": {"auth": {"secretRef": {"name": "upstream"}}},
    }
    found = route({}, secrets, policy("AgentgatewayPolicy", spec)).policies
    assert found.api_keys is not None and found.api_keys.mode == "strict"
    assert [key.metadata for key in found.api_keys.keys] == [{}, {"group": "sales"}]
    assert found.credential == BackendCredential("key", "s3cret")
    assert "k-1" not in repr(found)


def test_services_that_speak_mcp() -> None:
    service = SERVICE.replace("targetPort: 8080}", "appProtocol: kgateway.dev/mcp}").replace(
        "namespace: app}", "namespace: app, annotations: {kgateway.dev/mcp-path: /tools}}", 1
    )
    result = compiled(GATEWAY, service, ROUTE)
    served = result.gateways["infra", "gw"]
    backend = served.listeners[0].routes[0].backends[0].mcp
    assert backend is not None and [t.name for t in backend.targets] == ["web"]
    assert (served.servers[0].path, served.servers[0].kind) == ("/tools", "Target")


def test_targets_by_labels_of_services() -> None:
    backend = """
kind: AgentgatewayBackend
metadata: {name: tools, namespace: app}
spec:
  mcp: {prefixMode: Always, failureMode: FailOpen, sessionRouting: Stateless,
        targets: [{name: all, selector: {services: {matchLabels: {mcp: 'yes'}}}}]}
"""
    services = """
kind: Service
metadata: {name: a, namespace: app, labels: {mcp: 'yes'}}
spec: {ports: [{port: 80, appProtocol: agentgateway.dev/mcp}, {port: 81}]}
---
kind: Service
metadata: {name: b, namespace: app, labels: {mcp: 'yes', kagent.dev/mcp-service: 'true'}}
spec: {ports: [{port: 90}]}
---
kind: Service
metadata: {name: c, namespace: app, labels: {mcp: 'no'}}
spec: {ports: [{port: 80, appProtocol: agentgateway.dev/mcp}]}
---
kind: Service
metadata: {name: d, namespace: other, labels: {mcp: 'yes'}}
spec: {ports: [{port: 80, appProtocol: agentgateway.dev/mcp}]}
"""
    ref = {"backendRefs": [{"name": "tools", "group": "agentgateway.dev", "kind": "AgentgatewayBackend"}]}
    found = route(ref, backend, services).backends[0].mcp
    assert found is not None
    assert [target.name for target in found.targets] == ["a", "b"]
    assert (found.prefix, found.fail_open, found.stateful) == ("always", True, False)


def test_servers_of_kagent_are_backends_in_their_own_namespace() -> None:
    server = McpServer("app", "time", "MCPServer", "/mcp")
    obj = yaml.safe_load(ROUTE)
    obj["spec"]["rules"] = [{"backendRefs": [{"name": "time", "group": "kagent.dev", "kind": "MCPServer"}]}]
    result = compiled(GATEWAY, yaml.safe_dump(obj), servers={"MCPServer/app/time": server})
    assert result.gateways["infra", "gw"].used == {"MCPServer/app/time"}
    obj["spec"]["rules"][0]["backendRefs"][0]["namespace"] = "kagent"
    result = compiled(GATEWAY, yaml.safe_dump(obj), servers={"MCPServer/kagent/time": server})
    assert verdict(only(result.statuses.routes["HTTPRoute", "app", "r"]), "ResolvedRefs")[1] == "RefNotPermitted"


def test_the_service_of_an_mcp_server_is_no_way_around_its_rules() -> None:
    owned = SERVICE.replace(
        "namespace: app}",
        "namespace: app, ownerReferences: [{apiVersion: kagent.dev/v1alpha1, kind: MCPServer, name: web, uid: u, "
        "controller: true}]}",
        1,
    )
    result = compiled(GATEWAY, owned, ROUTE)
    assert verdict(only(result.statuses.routes["HTTPRoute", "app", "r"]), "ResolvedRefs")[1] == "RefNotPermitted"


@pytest.mark.parametrize(
    ("kind", "spec"),
    [("Backend", {"type": "AI", "ai": {"llm": {}}}), ("AgentgatewayBackend", {"a2a": {"host": "a", "port": 1}})],
)
def test_backends_that_are_not_served_yet_say_so(kind: str, spec: dict[str, Any]) -> None:
    group = "gateway.kgateway.dev" if kind == "Backend" else "agentgateway.dev"
    text = yaml.safe_dump({"kind": kind, "metadata": {"name": "tools", "namespace": "app"}, "spec": spec})
    obj = yaml.safe_load(ROUTE)
    obj["spec"]["rules"] = [{"backendRefs": [{"name": "tools", "group": group, "kind": kind}]}]
    result = compiled(GATEWAY, text, yaml.safe_dump(obj))
    (said,) = result.statuses.backends[kind, "app", "tools"]
    assert (said.status, said.reason) == ("False", "UnsupportedValue")
    assert result.gateways["infra", "gw"].listeners[0].routes[0].backends[0].error
