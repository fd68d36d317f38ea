"""NetworkPolicy semantics: tables, and a second evaluation that shares no code."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quarterdeck.kube.network_policy import Peer, Policies, policy_types

Spec = dict[str, Any]


def policy(spec: Spec, namespace: str = "a", name: str = "p") -> dict[str, Any]:
    return {"metadata": {"namespace": namespace, "name": name}, "spec": {"podSelector": {}} | spec}


def peer(
    ip: str, namespace: str = "a", env: str = "dev", ports: Mapping[str, int] | None = None, **labels: str
) -> Peer:
    named = {(name, "TCP"): number for name, number in (ports or {}).items()}
    spaces = {"env": env, "kubernetes.io/metadata.name": namespace}
    return Peer(ip, namespace, labels, spaces, named, f"{namespace}/{ip}") if namespace else Peer(ip)


WEB = peer("10.0.0.1", app="web", ports={"http": 8080})
CLIENT = peer("10.0.0.2", app="client")
ELSEWHERE = peer("10.0.1.2", "b", "prod", app="client")
OUTSIDE = peer("8.8.8.8", "")


def allowed(spec: Spec, source: Peer, destination: Peer = WEB, port: int = 8080, protocol: str = "TCP") -> bool:
    return Policies([policy(spec)]).check("Ingress", source, destination, port, protocol).allowed


@pytest.mark.parametrize(
    ("ingress", "from_client", "from_elsewhere", "from_outside"),
    [
        ([], False, False, False),
        ([{}], True, True, True),
        ([{"from": []}], True, True, True),
        ([{"from": [{"podSelector": {}}]}], True, False, False),
        ([{"from": [{"podSelector": {"matchLabels": {"app": "client"}}}]}], True, False, False),
        ([{"from": [{"podSelector": {"matchLabels": {"app": "x"}}}]}], False, False, False),
        ([{"from": [{"namespaceSelector": {}}]}], True, True, False),
        ([{"from": [{"namespaceSelector": {"matchLabels": {"env": "prod"}}}]}], False, True, False),
        ([{"from": [{"namespaceSelector": {"matchLabels": {"env": "prod"}},
                     "podSelector": {"matchLabels": {"app": "x"}}}]}], False, False, False),
        ([{"from": [{"namespaceSelector": {"matchLabels": {"env": "prod"}}},
                    {"podSelector": {"matchLabels": {"app": "client"}}}]}], True, True, False),
        ([{"from": [{"ipBlock": {"cidr": "0.0.0.0/0", "except": ["10.0.0.0/8"]}}]}], False, False, True),
        ([{"from": [{"ipBlock": {"cidr": "10.0.0.0/24"}}]}], True, False, False),
        ([{"from": [{"ipBlock": {"cidr": "nonsense"}}]}], False, False, False),
        ([{"from": [{}]}], False, False, False),
        ([{"ports": [{"port": 8080}]}], True, True, True),
        ([{"ports": [{"port": "http"}]}], True, True, True),
        ([{"ports": [{"port": "other"}]}], False, False, False),
        ([{"ports": [{"port": 8000, "endPort": 8100}]}], True, True, True),
        ([{"ports": [{"port": 8000, "endPort": 8079}]}], False, False, False),
        ([{"ports": [{"protocol": "UDP"}]}], False, False, False),
        ([{"ports": [{"protocol": "TCP"}]}], True, True, True),
        ([{"from": [{"podSelector": {}}], "ports": [{"port": 1}]}, {"ports": [{"port": 8080}]}], True, True, True),
    ],
)  # fmt: skip
def test_ingress(ingress: list[Spec], from_client: bool, from_elsewhere: bool, from_outside: bool) -> None:
    found = [allowed({"ingress": ingress}, source) for source in (CLIENT, ELSEWHERE, OUTSIDE)]
    assert found == [from_client, from_elsewhere, from_outside]


def test_types_are_filled_in_as_the_server_does() -> None:
    assert policy_types(policy({})) == ["Ingress"]
    assert policy_types(policy({"egress": [{}]})) == ["Ingress", "Egress"]
    assert policy_types(policy({"egress": [{}], "policyTypes": ["Egress"]})) == ["Egress"]
    only_egress = {"policyTypes": ["Egress"], "egress": []}
    assert allowed(only_egress, CLIENT), "not selected for ingress: open"
    assert not Policies([policy(only_egress)]).check("Egress", CLIENT, WEB, 8080).allowed


def test_policies_add_up_and_name_themselves() -> None:
    first = policy({"ingress": []}, name="closed")
    second = policy({"ingress": [{"from": [{"podSelector": {}}]}]}, name="open")
    assert str(Policies([first]).decide(CLIENT, WEB, 80)) == "ingress not allowed by NetworkPolicy a/closed"
    assert str(Policies([first, second]).decide(CLIENT, WEB, 80)) == "ingress allowed by NetworkPolicy a/open"
    assert str(Policies([]).decide(CLIENT, WEB, 80)) == "no NetworkPolicy applies"
    elsewhere = policy({"ingress": []}, namespace="b")
    assert Policies([elsewhere]).decide(CLIENT, WEB, 80).allowed, "a policy applies in its own namespace"


def test_both_ends_must_allow() -> None:
    out = policy({"policyTypes": ["Egress"], "egress": [{"ports": [{"port": 80}]}]}, name="out")
    into = policy({"podSelector": {"matchLabels": {"app": "web"}}, "ingress": [{"ports": [{"port": 81}]}]}, name="in")
    both = Policies([out, into])
    assert [both.decide(CLIENT, WEB, port).direction for port in (80, 81)] == ["Ingress", "Egress"]
    assert not both.decide(CLIENT, WEB, 80).allowed
    assert not both.decide(CLIENT, WEB, 81).allowed


def test_egress_to_a_named_port_is_the_destinations() -> None:
    out = Policies([policy({"policyTypes": ["Egress"], "egress": [{"ports": [{"port": "http"}]}]})])
    assert out.check("Egress", CLIENT, WEB, 8080).allowed
    assert not out.check("Egress", CLIENT, OUTSIDE, 8080).allowed


def test_a_pod_reaches_itself_and_host_network_pods_are_no_pods() -> None:
    closed = Policies([policy({"ingress": []})])
    assert closed.decide(WEB, WEB, 8080).allowed
    meta = {"namespace": "a", "name": "n", "labels": {"app": "client"}}
    host = Peer.of({"metadata": meta, "spec": {"hostNetwork": True}}, {}, "192.168.0.1")
    by_label = Policies([policy({"ingress": [{"from": [{"podSelector": {}}]}]})])
    assert not by_label.decide(host, WEB, 8080).allowed
    assert by_label.decide(WEB, host, 8080).allowed, "no policy selects what has no namespace"


def test_peer_of_a_pod() -> None:
    ports = [
        {"name": "http", "containerPort": 80},
        {"containerPort": 81},
        {"name": "d", "containerPort": 53, "protocol": "UDP"},
    ]
    pod = {
        "metadata": {"namespace": "a", "name": "n"},
        "spec": {"containers": [{"ports": ports}]},
        "status": {"podIP": "1.2.3.4"},
    }
    found = Peer.of(pod, {"env": "dev"})
    assert found.ports == {("http", "TCP"): 80, ("d", "UDP"): 53}
    assert found.namespace_labels == {"env": "dev", "kubernetes.io/metadata.name": "a"}
    assert (found.ip, str(found)) == ("1.2.3.4", "Pod a/n")


def test_ports_for_who_can_be_told_ports_only() -> None:
    rules = [
        {"ports": [{"port": 8702}, {"port": 53, "protocol": "UDP"}, {"port": "http"}]},
        {"to": [{"podSelector": {}}], "ports": [{"port": 10, "endPort": 12}]},
    ]
    spec = {"policyTypes": ["Egress"], "egress": rules}
    assert Policies([policy(spec)]).egress_ports(CLIENT, [WEB]) == {8702, 8080, 10, 11, 12}
    assert Policies([]).egress_ports(CLIENT, []) is None
    assert Policies([policy(spec | {"egress": [{}]})]).egress_ports(CLIENT, []) is None
    assert Policies([policy(spec | {"egress": []})]).egress_ports(CLIENT, []) == frozenset()
    assert (
        Policies([policy(spec | {"egress": [{"ports": [{"port": 1, "endPort": 65535}]}]})]).egress_ports(CLIENT, [])
        is None
    )


# -- a second evaluation: sets of what a policy admits, spelled out
APPS, SPACES, ENVS = ("web", "client", "db"), ("a", "b"), ("dev", "prod")
PODS = [
    peer(f"10.{s}.{n}.1", space, ENVS[s], ports={"http": 8080} if app == "web" else {"http": 9090}, app=app)
    for s, space in enumerate(SPACES)
    for n, app in enumerate(APPS)
]
EVERYBODY = [*PODS, OUTSIDE, peer("192.168.1.1", "")]
PORTS = (53, 8080, 9090)

_values = st.sampled_from(APPS + ENVS)
_expression = st.one_of(
    st.builds(lambda k, o, v: {"key": k, "operator": o, "values": v}, st.sampled_from(["app", "env", "no"]),
              st.sampled_from(["In", "NotIn"]), st.lists(_values, min_size=1, max_size=2)),
    st.builds(lambda k, o: {"key": k, "operator": o}, st.sampled_from(["app", "env", "no"]),
              st.sampled_from(["Exists", "DoesNotExist"])),
)  # fmt: skip
_selector = st.one_of(
    st.just({}),
    st.builds(lambda k, v: {"matchLabels": {k: v}}, st.sampled_from(["app", "env"]), _values),
    st.builds(lambda e: {"matchExpressions": e}, st.lists(_expression, min_size=1, max_size=2)),
)
_block = st.builds(
    lambda c, e: {"ipBlock": {"cidr": c} | ({"except": e} if e else {})},
    st.sampled_from(["0.0.0.0/0", "10.0.0.0/8", "10.1.0.0/16", "8.8.8.8/32"]),
    st.lists(st.sampled_from(["10.0.0.0/16", "10.1.2.0/24"]), max_size=1),
)
_peer = st.one_of(
    _block,
    st.builds(lambda s: {"podSelector": s}, _selector),
    st.builds(lambda s: {"namespaceSelector": s}, _selector),
    st.builds(lambda s, n: {"podSelector": s, "namespaceSelector": n}, _selector, _selector),
)
_port = st.one_of(
    st.sampled_from(
        [{}, {"port": 8080}, {"port": "http"}, {"protocol": "UDP", "port": 53}, {"port": 50, "endPort": 9000}]
    )
)
_side = st.lists(_peer, max_size=2)
_ingress = st.builds(lambda p, f: {"ports": p, "from": f}, st.lists(_port, max_size=2), _side)
_egress = st.builds(lambda p, t: {"ports": p, "to": t}, st.lists(_port, max_size=2), _side)
_policy = st.builds(
    lambda n, s, i, e, t: policy({"podSelector": s, "ingress": i, "egress": e} | ({"policyTypes": t} if t else {}), n),
    st.sampled_from(SPACES),
    _selector,
    st.lists(_ingress, max_size=2),
    st.lists(_egress, max_size=2),
    st.lists(st.sampled_from(["Ingress", "Egress"]), max_size=2, unique=True),
)


def chosen(selector: Spec, labels: Mapping[str, str]) -> bool:
    wanted = {(k, v) for k, v in (selector.get("matchLabels") or {}).items()}
    if not wanted <= set(labels.items()):
        return False
    for e in selector.get("matchExpressions") or ():
        has = e["key"] in labels
        inside = has and labels[e["key"]] in (e.get("values") or [])
        if {"In": not inside, "NotIn": inside, "Exists": not has, "DoesNotExist": has}[e["operator"]]:
            return False
    return True


def admitted(rule: Spec, space: str, key: str) -> set[str]:
    """Addresses of everybody a rule is for."""
    found: set[str] = set()
    for each in EVERYBODY:
        for item in rule[key] or [None]:
            if item is None:
                found.add(each.ip)
            elif "ipBlock" in item:
                nets = [ipaddress.ip_network(n) for n in (item["ipBlock"]["cidr"], *item["ipBlock"].get("except", ()))]
                inside = [ipaddress.ip_address(each.ip) in net for net in nets]
                if inside[0] and not any(inside[1:]):
                    found.add(each.ip)
            elif each in PODS:
                near = each.namespace == space
                if "namespaceSelector" in item:
                    near = chosen(item["namespaceSelector"], each.namespace_labels)
                if near and chosen(item.get("podSelector", {}), each.labels):
                    found.add(each.ip)
    return found


def open_ports(rule: Spec, destination: Peer, protocol: str) -> set[int]:
    found: set[int] = set()
    for item in rule["ports"] or [{"protocol": protocol}]:
        if item.get("protocol", "TCP") == protocol:
            given: int | str = item.get("port", 0)
            if isinstance(given, str):
                first = last = destination.ports.get((given, protocol), -1)
            else:
                end: int = item.get("endPort", given)
                first, last = given, end if given else 65535
            found |= {port for port in PORTS if first <= port <= last}
    return found


def expected(policies: list[dict[str, Any]], source: Peer, destination: Peer, port: int, protocol: str) -> bool:
    if source == destination and source in PODS:
        return True
    for subject, other, direction, key in (
        (source, destination, "Egress", "to"), (destination, source, "Ingress", "from"),
    ):  # fmt: skip
        own = [
            p
            for p in policies
            if subject in PODS
            and p["metadata"]["namespace"] == subject.namespace
            and chosen(p["spec"]["podSelector"], subject.labels)
            and direction in (p["spec"].get("policyTypes") or ["Ingress", *(["Egress"] if p["spec"]["egress"] else [])])
        ]
        if own and not any(
            other.ip in admitted(rule, p["metadata"]["namespace"], key)
            and port in open_ports(rule, destination, protocol)
            for p in own
            for rule in p["spec"][direction.lower()]
        ):
            return False
    return True


@settings(max_examples=150, deadline=None)
@given(st.lists(_policy, max_size=3), st.sampled_from(EVERYBODY), st.sampled_from(EVERYBODY))
def test_two_evaluations_agree(policies: list[dict[str, Any]], source: Peer, destination: Peer) -> None:
    found = Policies(policies)
    for port in PORTS:
        for protocol in ("TCP", "UDP"):
            verdict = found.decide(source, destination, port, protocol)
            assert verdict.allowed == expected(policies, source, destination, port, protocol), (
                port,
                protocol,
                str(verdict),
            )
