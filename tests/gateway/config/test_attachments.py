# ruff: noqa: E501 - messages and files as they are
"""Policies that name what they apply to."""

from __future__ import annotations

import pytest

from quarterdeck.snapshot import Snapshot

from .conftest import Reader

FILE = """
binds:
- port: 3000
  listeners:
  - name: web
    %s
    routes:
    - name: one
      ruleName: r1
      policies: {timeout: {requestTimeout: 1s}}
      backends:
      - mcp: {targets: [{name: a, stdio: {cmd: x}}, {name: b, stdio: {cmd: y}}]}
    - {name: two, matches: [{path: {pathPrefix: /two}}], backends: [{host: 'b:80'}]}
"""


def ages(snapshot: Snapshot) -> dict[str, int]:
    """The max_age of CORS at each place: it tells where a policy came to."""

    def age(policies: object) -> int:
        cors = getattr(policies, "cors", None)
        return cors.max_age if cors is not None else 0

    (listener,) = snapshot.listeners
    found = {"listener": age(listener.policies)}
    for route in listener.routes:
        found[route.name] = age(route.policies)
        for backend in route.backends:
            found[f"{route.name}/b"] = age(backend.policies)
            for target in backend.mcp.targets if backend.mcp is not None else ():
                found[f"{route.name}/{target.name}"] = age(target.policies)
    return {place: seconds for place, seconds in found.items() if seconds}


ONE = {"default/one": 7, "default/one/b": 7, "default/one/a": 7}
TWO = {"default/two": 7, "default/two/b": 7}


@pytest.mark.parametrize(
    ("target", "wanted"),
    [
        ("gateway: gw", {**ONE, **TWO}),
        ("gateway: bind/3000", {**ONE, **TWO}),
        ("listener: bind/3000/web", {**ONE, **TWO}),
        ("listener: web", {**ONE, **TWO}),
        ("route: one", ONE),
        ("route: default/two", TWO),
        ("route: bind/3000/web/default/two", TWO),
        ("routeRule: default/one/r1", ONE),
        ("backend: default/two/backend0", {"default/two/b": 7}),
        ("subBackend: backend0/a", {"default/one/a": 7}),
    ],
)
def test_targets_of_october(reader: Reader, target: str, wanted: dict[str, int]) -> None:
    text = (
        FILE % "gatewayName: gw" + f"policies: [{{name: p, target: {{{target}}}, policy: {{cors: {{maxAge: 7s}}}}}}]\n"
    )
    found = ages(reader.snapshot(text, "oct"))
    assert {place: seconds for place, seconds in found.items() if place != "default/one/b"} == {
        place: seconds for place, seconds in wanted.items() if place != "default/one/b"
    }


@pytest.mark.parametrize(
    ("target", "wanted"),
    [
        ("gateway: {gatewayName: default, gatewayNamespace: default}", {**ONE, **TWO}),
        ("gateway: {gatewayName: bind/3000, listenerName: web, port: 3000}", {**ONE, **TWO}),
        ("route: {name: one, namespace: default}", ONE),
        ("route: {name: one, ruleName: r1, kind: HTTPRoute}", ONE),
        ("backend: {backend: {name: default/two/backend0, namespace: ''}}", {"default/two/b": 7}),
        ("backend: {backend: {name: default/one/backend0, section: b}}", {}),
    ],
)
def test_targets_of_today(reader: Reader, target: str, wanted: dict[str, int]) -> None:
    entry = f"policies: [{{name: {{name: p, namespace: d}}, target: {{{target}}}, policy: {{cors: {{maxAge: 7s}}}}}}]\n"
    found = ages(reader.snapshot(FILE % "" + entry))
    assert {k: v for k, v in found.items() if k != "default/one/b"} == {
        k: v for k, v in wanted.items() if k != "default/one/b"
    }
    if "section" in target:
        assert found == {"default/one/b": 7}


def test_gateway_policies_of_october(reader: Reader) -> None:
    text = (
        FILE % "" + "gatewayPolicies: [{name: p, target: {listener: web}, policy: "
        "{jwtAuth: {issuer: i, jwks: {url: 'https://i/keys'}}, transformations: {request: {remove: [a]}}}}]"
    )
    (listener,) = reader.snapshot(text, "oct").listeners
    assert listener.policies.transformation is not None
    assert listener.policies.jwt is not None and listener.policies.jwt.providers[0].issuer == "i"
    assert all(route.policies.transformation is None for route in listener.routes)


def test_the_gateway_phase_of_today(reader: Reader) -> None:
    entry = "policies: [{name: p, phase: gateway, target: {gateway: {gatewayName: default}}, policy: {csrf: {}}}]"
    (listener,) = reader.snapshot(FILE % "" + entry).listeners
    assert listener.policies.csrf is not None and all(route.policies.csrf is None for route in listener.routes)


def test_policies_of_other_kinds_of_routes_fit_nothing(reader: Reader) -> None:
    for target in (
        "route: {name: one, kind: GRPCRoute}",
        "gateway: {gatewayName: default, gatewayNamespace: other}",
        "backend: {backend: {name: default/two/backend0, namespace: other}}",
    ):
        entry = f"policies: [{{name: p, target: {{{target}}}, policy: {{csrf: {{}}}}}}]"
        assert "nothing in this file has that name" in reader.errors(FILE % "" + entry)


def test_what_stands_at_the_route_wins(reader: Reader) -> None:
    entry = "policies: [{name: p, target: {route: {name: one}}, policy: {timeout: {requestTimeout: 9s}}}]"
    assert reader.snapshot(FILE % "" + entry).listeners[0].routes[0].policies.timeout == 1.0


def test_rule_sets_add_up(reader: Reader) -> None:
    entry = """
policies:
- {name: p1, target: {gateway: {gatewayName: default}}, policy: {authorization: {rules: [deny: 'request.method == "PUT"']}}}
- {name: p2, target: {route: {name: two}}, policy: {authorization: {rules: ['request.method == "GET"']}}}
"""
    routes = reader.snapshot(FILE % "" + entry).listeners[0].routes
    assert [[one.where for one in route.policies.authorization] for route in routes] == [
        ["policy/p1"], ["policy/p1", "policy/p2"],
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("compat", "target"),
    [("oct", "{route: three}"), ("oct", "{gateway: other}"), ("now", "{route: {name: three}}"),
     ("now", "{gateway: {gatewayName: default, port: 1}}"), ("now", "{backend: {backend: {name: nobody}}}")],
)  # fmt: skip
def test_a_policy_that_protects_nothing_is_an_error(reader: Reader, compat: str, target: str) -> None:
    text = FILE % "" + f"policies:\n- {{name: p, target: {target}, policy: {{csrf: {{}}}}}}"
    found = reader.errors(text, compat)  # type: ignore[arg-type]
    assert "policies[0].target: nothing in this file has that name" in found


def test_targets_must_be_one(reader: Reader) -> None:
    text = FILE % "" + "policies: [{name: p, target: {}, policy: {csrf: {}}}]"
    assert "give exactly one of" in reader.errors(text, "oct")
    assert "give exactly one of" in reader.errors(text, "now")


def test_parts_of_routes_cannot_be_attached(reader: Reader) -> None:
    text = FILE % "" + "policies: [{name: p, target: {route: {name: one}}, policy: {backendTLS: {}}}]"
    assert "policy.backendTLS: write it where the route or backend is" in reader.errors(text)
