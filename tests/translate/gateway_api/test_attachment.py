"""Which routes attach to which listeners, and what both are told (Gateway API: RouteReasons, ListenerConditions)."""

from __future__ import annotations

import pytest
import yaml

from quarterdeck.translate.gateway_api.attachment import intersection
from quarterdeck.translate.gateway_api.listeners import assign_ports

from .objects import GATEWAY, ROUTE, SERVICE, compiled, objects, only, verdict

NAMESPACES = """
kind: Namespace
metadata: {name: app, labels: {team: a}}
---
kind: Namespace
metadata: {name: infra, labels: {}}
"""


def with_listeners(*listeners: str) -> str:
    gateway = yaml.safe_load(GATEWAY)
    gateway["spec"]["listeners"] = [yaml.safe_load(text) for text in listeners]
    return yaml.safe_dump(gateway)


def with_spec(text: str, **spec: object) -> str:
    obj = yaml.safe_load(text)
    obj["spec"] |= spec
    return yaml.safe_dump(obj)


OPEN = "allowedRoutes: {namespaces: {from: All}}"


@pytest.mark.parametrize(
    ("listeners", "route", "status", "reason"),
    [
        ((f"{{name: a, port: 80, protocol: HTTP, {OPEN}}}",), {}, "True", "Accepted"),
        (("{name: a, port: 80, protocol: HTTP}",), {}, "False", "NotAllowedByListeners"),
        (
            (
                "{name: a, port: 80, protocol: HTTP, allowedRoutes: {namespaces: {from: Selector, "
                "selector: {matchLabels: {team: a}}}}}",
            ),
            {},
            "True",
            "Accepted",
        ),
        (
            (
                "{name: a, port: 80, protocol: HTTP, allowedRoutes: {namespaces: {from: Selector, "
                "selector: {matchLabels: {team: b}}}}}",
            ),
            {},
            "False",
            "NotAllowedByListeners",
        ),
        (
            (
                "{name: a, port: 80, protocol: HTTP, "
                "allowedRoutes: {namespaces: {from: All}, kinds: [{kind: GRPCRoute}]}}",
            ),
            {},
            "False",
            "NotAllowedByListeners",
        ),
        (
            (f"{{name: a, port: 80, protocol: HTTP, {OPEN}}}",),
            {"parentRefs": [{"name": "gw", "namespace": "infra", "sectionName": "b"}]},
            "False",
            "NoMatchingParent",
        ),
        (
            (f"{{name: a, port: 80, protocol: HTTP, {OPEN}}}",),
            {"parentRefs": [{"name": "gw", "namespace": "infra", "port": 81}]},
            "False",
            "NoMatchingParent",
        ),
        (
            (f"{{name: a, port: 80, protocol: HTTP, {OPEN}}}", f"{{name: b, port: 81, protocol: HTTP, {OPEN}}}"),
            {"parentRefs": [{"name": "gw", "namespace": "infra", "sectionName": "a", "port": 81}]},
            "False",
            "NoMatchingParent",
        ),
        (
            (f"{{name: a, port: 80, protocol: HTTP, hostname: a.example, {OPEN}}}",),
            {"hostnames": ["b.example"]},
            "False",
            "NoMatchingListenerHostname",
        ),
        (
            (f"{{name: a, port: 80, protocol: HTTP, hostname: '*.example', {OPEN}}}",),
            {"hostnames": ["b.example"]},
            "True",
            "Accepted",
        ),
        (
            (f"{{name: a, port: 80, protocol: HTTP, {OPEN}}}",),
            {"rules": [{"filters": [{"type": "NotThere"}], "backendRefs": [{"name": "web", "port": 80}]}]},
            "False",
            "UnsupportedValue",
        ),
        (
            (f"{{name: a, port: 80, protocol: HTTP, {OPEN}}}",),
            {"rules": [{"timeouts": {"request": "soon"}, "backendRefs": [{"name": "web", "port": 80}]}]},
            "False",
            "UnsupportedValue",
        ),
    ],
)
def test_accepted(listeners: tuple[str, ...], route: dict[str, object], status: str, reason: str) -> None:
    result = compiled(NAMESPACES, with_listeners(*listeners), SERVICE, with_spec(ROUTE, **route))
    verdicts = only(result.statuses.routes["HTTPRoute", "app", "r"])
    assert verdict(verdicts, "Accepted") == (status, reason)
    attached = sum(listener.attached for listener in result.statuses.gateways["infra", "gw"].listeners)
    assert attached == (1 if status == "True" else 0)


@pytest.mark.parametrize(
    ("backend", "grant", "reason"),
    [
        ("{name: web, port: 80}", "", "ResolvedRefs"),
        ("{name: nobody, port: 80}", "", "BackendNotFound"),
        ("{name: web, port: 81}", "", "BackendNotFound"),
        ("{name: web}", "", "UnsupportedValue"),
        ("{name: web, port: 80, kind: Thing, group: example.org}", "", "InvalidKind"),
        ("{name: web, namespace: other, port: 80}", "", "RefNotPermitted"),
        ("{name: web, namespace: other, port: 80}", "{group: '', kind: Service}", "BackendNotFound"),
        ("{name: web, namespace: other, port: 80}", "{group: '', kind: Service, name: web}", "BackendNotFound"),
        ("{name: web, namespace: other, port: 80}", "{group: '', kind: Service, name: db}", "RefNotPermitted"),
        ("{name: web, namespace: other, port: 80}", "{group: '', kind: Secret}", "RefNotPermitted"),
    ],
)
def test_references(backend: str, grant: str, reason: str) -> None:
    """A backend that cannot be reached keeps its weight: its share of requests answers 500."""
    grants = (
        "kind: ReferenceGrant\nmetadata: {name: g, namespace: other}\nspec:\n"
        "  from: [{group: gateway.networking.k8s.io, kind: HTTPRoute, namespace: app}]\n"
        f"  to: [{grant}]"
        if grant
        else ""
    )
    route = with_spec(ROUTE, rules=[{"backendRefs": [yaml.safe_load(backend) | {"weight": 3}]}])
    result = compiled(GATEWAY, SERVICE, route, grants)
    verdicts = only(result.statuses.routes["HTTPRoute", "app", "r"])
    assert verdict(verdicts, "ResolvedRefs")[1] == reason
    assert verdict(verdicts, "Accepted") == ("True", "Accepted")
    served = result.gateways["infra", "gw"].listeners[0].routes[0].backends[0]
    assert served.weight == 3
    assert bool(served.error) == (reason != "ResolvedRefs")


@pytest.mark.parametrize(
    ("listeners", "expected"),
    [
        (["{name: a, port: 80, protocol: HTTP}", "{name: b, port: 80, protocol: HTTPS}"], "ProtocolConflict"),
        (["{name: a, port: 80, protocol: HTTP}", "{name: b, port: 80, protocol: HTTP}"], "HostnameConflict"),
        (
            [
                "{name: a, port: 80, protocol: HTTP, hostname: X.example}",
                "{name: b, port: 80, protocol: HTTP, hostname: x.example}",
            ],
            "HostnameConflict",
        ),
        (
            [
                "{name: a, port: 80, protocol: HTTP, hostname: x.example}",
                "{name: b, port: 80, protocol: HTTP, hostname: y.example}",
            ],
            "NoConflicts",
        ),
        (["{name: a, port: 80, protocol: HTTP}", "{name: b, port: 81, protocol: HTTP}"], "NoConflicts"),
    ],
)
def test_conflicting_listeners_are_all_refused(listeners: list[str], expected: str) -> None:
    result = compiled(with_listeners(*listeners))
    for listener in result.statuses.gateways["infra", "gw"].listeners:
        assert verdict(listener.verdicts, "Conflicted")[1] == expected
        accepted = verdict(listener.verdicts, "Accepted")
        assert accepted == (("True", "Accepted") if expected == "NoConflicts" else ("False", expected))
    gateway = result.statuses.gateways["infra", "gw"].verdicts
    assert verdict(gateway, "Accepted")[0] == ("True" if expected == "NoConflicts" else "False")


@pytest.mark.parametrize(
    ("listener", "kinds", "accepted", "resolved"),
    [
        ("{name: a, port: 80, protocol: HTTP}", ["HTTPRoute"], "Accepted", "ResolvedRefs"),
        ("{name: a, port: 80, protocol: TCP}", [], "UnsupportedProtocol", "ResolvedRefs"),
        ("{name: a, port: 80, protocol: TLS, tls: {mode: Passthrough}}", [], "UnsupportedProtocol", "ResolvedRefs"),
        ("{name: a, port: 80, protocol: HTTPS}", ["HTTPRoute"], "Accepted", "InvalidCertificateRef"),
        (
            "{name: a, port: 80, protocol: HTTPS, tls: {certificateRefs: [{name: none}]}}",
            ["HTTPRoute"],
            "Accepted",
            "InvalidCertificateRef",
        ),
        (
            "{name: a, port: 80, protocol: HTTPS, tls: {certificateRefs: [{name: c, namespace: other}]}}",
            ["HTTPRoute"],
            "Accepted",
            "RefNotPermitted",
        ),
        (
            "{name: a, port: 80, protocol: HTTPS, tls: {certificateRefs: [{name: c, kind: Thing, group: x.org}]}}",
            ["HTTPRoute"],
            "Accepted",
            "InvalidCertificateRef",
        ),
        (
            "{name: a, port: 80, protocol: HTTP, allowedRoutes: {kinds: [{kind: HTTPRoute}, {kind: TLSRoute}]}}",
            ["HTTPRoute"],
            "Accepted",
            "InvalidRouteKinds",
        ),
        (
            "{name: a, port: 80, protocol: HTTP, allowedRoutes: {kinds: [{kind: GRPCRoute}]}}",
            [],
            "Accepted",
            "InvalidRouteKinds",
        ),
    ],
)
def test_listeners(listener: str, kinds: list[str], accepted: str, resolved: str) -> None:
    status = compiled(with_listeners(listener)).statuses.gateways["infra", "gw"].listeners[0]
    assert status.kinds == kinds
    assert verdict(status.verdicts, "Accepted")[1] == accepted
    assert verdict(status.verdicts, "ResolvedRefs")[1] == resolved
    assert status.valid == (bool(kinds) and resolved in ("ResolvedRefs", "InvalidRouteKinds"))


@pytest.mark.parametrize(
    ("listener", "route", "expected"),
    [
        ("", [], ()),
        ("", ["A.example"], ("a.example",)),
        ("a.example", [], ()),
        ("a.example", ["a.example", "b.example"], ("a.example",)),
        ("a.example", ["*.example"], ("a.example",)),
        ("*.example", ["a.example", "a.b.example", "example"], ("a.example", "a.b.example")),
        ("*.example", ["*.b.example"], ("*.b.example",)),
        ("*.b.example", ["*.example"], ("*.b.example",)),
        ("*.example", ["*.example"], ("*.example",)),
        ("a.example", ["b.example"], None),
        ("*.example", ["example", "example.org"], None),
    ],
)
def test_hostnames(listener: str, route: list[str], expected: tuple[str, ...] | None) -> None:
    assert intersection(listener, route) == expected


def test_a_route_named_twice_counts_once() -> None:
    refs = [{"name": "gw", "namespace": "infra"}, {"name": "gw", "namespace": "infra", "sectionName": "http"}]
    result = compiled(GATEWAY, SERVICE, with_spec(ROUTE, parentRefs=refs))
    assert result.statuses.gateways["infra", "gw"].listeners[0].attached == 1
    assert len(result.gateways["infra", "gw"].listeners[0].routes) == 1
    assert len(result.statuses.routes["HTTPRoute", "app", "r"]) == 2


def test_routes_count_at_listeners_that_cannot_be_served() -> None:
    listener = f"{{name: a, port: 443, protocol: HTTPS, tls: {{certificateRefs: [{{name: none}}]}}, {OPEN}}}"
    result = compiled(with_listeners(listener), SERVICE, ROUTE)
    assert result.statuses.gateways["infra", "gw"].listeners[0].attached == 1
    assert result.gateways["infra", "gw"].listeners == ()


def test_gateways_and_routes_of_others_are_left_alone() -> None:
    other = GATEWAY.replace("gatewayClassName: quarterdeck", "gatewayClassName: istio")
    result = compiled(other, SERVICE, ROUTE)
    assert result.gateways == {} and result.statuses.gateways == {} and result.statuses.routes == {}


def test_a_class_of_that_name_with_another_controller_is_not_ours() -> None:
    other = "kind: GatewayClass\nmetadata: {name: foreign}\nspec: {controllerName: example.org/x}"
    result = compiled(other, GATEWAY.replace("gatewayClassName: quarterdeck", "gatewayClassName: foreign"))
    assert result.gateways == {}


def test_grpc_routes_are_told_that_they_are_not_served() -> None:
    grpc = ROUTE.replace("kind: HTTPRoute", "kind: GRPCRoute")
    result = compiled(GATEWAY, SERVICE, grpc)
    verdicts = only(result.statuses.routes["GRPCRoute", "app", "r"])
    assert verdict(verdicts, "Accepted") == ("False", "UnsupportedProtocol")


def test_ports_a_process_without_privileges_cannot_have_become_high_ones() -> None:
    listeners = [f"{{name: l{port}, port: {port}, protocol: HTTP}}" for port in (80, 443, 3000, 8080, 8701, 15021)]
    result = compiled(with_listeners(*listeners))
    ports = result.gateways["infra", "gw"].ports
    assert ports == {80: 8080, 443: 8443, 3000: 3000, 8080: 16080, 8701: 16701, 15021: 23021}
    served = result.gateways["infra", "gw"].listeners[0]
    assert (served.port, served.public_port) == (8080, 80)
    assert "port 80 is 8080 there" in result.statuses.gateways["infra", "gw"].notes


def test_gateways_on_one_process_do_not_share_a_port() -> None:
    second = GATEWAY.replace("name: gw", "name: later, creationTimestamp: '2026-01-02T00:00:00Z'")
    first = GATEWAY.replace("name: gw", "name: gw, creationTimestamp: '2026-01-01T00:00:00Z'")
    result = compiled(second, first, shared=True)
    assert result.gateways["infra", "gw"].ports == {80: 8080}
    assert result.gateways["infra", "later"].ports == {80: 8081}
    assert assign_ports([], set()) is None and objects("") == []
