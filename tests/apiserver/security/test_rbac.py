from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quarterdeck.apiserver.security.bootstrap import aggregated_updates, bootstrap_policy, reconciled
from quarterdeck.apiserver.security.escalation import check_escalation
from quarterdeck.apiserver.security.identity import Attributes, User, forbidden, service_account_user
from quarterdeck.apiserver.security.rbac import Authorizer
from quarterdeck.apiserver.security.rules import Rule, uncovered
from quarterdeck.errors import Forbidden
from quarterdeck.kube.resource import CLUSTER_ROLE, NODE, POD, ROLE, ROLE_BINDING

ALICE = User("alice", ("system:authenticated",))


@pytest.fixture
def authorizer(objects: Any) -> Authorizer:
    for resource, obj in bootstrap_policy():
        objects.put(resource, obj)
    return Authorizer(objects, lambda: objects.version)


def bind(objects: Any, namespace: str, role: str, user: str, kind: str = "ClusterRole") -> None:
    objects.put(
        ROLE_BINDING,
        {
            "metadata": {"name": f"{role}-{user}", "namespace": namespace},
            "roleRef": {"kind": kind, "name": role},
            "subjects": [{"kind": "User", "name": user}],
        },
    )


@pytest.mark.parametrize(
    ("attributes", "text"),
    [
        (Attributes(User("x"), "list", "", "pods", namespace="default"),
         'pods is forbidden: User "x" cannot list resource "pods" in API group "" in the namespace "default"'),
        (Attributes(User("x"), "get", "apps", "deployments", "scale", "d", "web"),
         'deployments.apps "web" is forbidden: User "x" cannot get resource "deployments/scale" in API group "apps" '
         'in the namespace "d"'),
        (Attributes(User("x"), "list", "", "nodes"),
         'nodes is forbidden: User "x" cannot list resource "nodes" in API group "" at the cluster scope'),
        (Attributes(User("x"), "get", path="/metrics"), 'forbidden: User "x" cannot get path "/metrics"'),
    ],
)  # fmt: skip
def test_forbidden_texts(attributes: Attributes, text: str) -> None:
    assert str(forbidden(attributes)) == text


def test_edit_in_one_namespace(objects: Any, authorizer: Authorizer) -> None:
    bind(objects, "team", "edit", "alice")
    may = authorizer.authorize
    assert may(ALICE, "create", "apps", "deployments", namespace="team").allowed
    assert may(ALICE, "get", "", "pods", "log", "team", "p").allowed
    assert may(ALICE, "patch", "kagent.dev", "agents", namespace="team", name="a").allowed
    assert may(ALICE, "create", "", "pods", "exec", "team", "p").allowed
    assert not may(ALICE, "create", "apps", "deployments", namespace="other").allowed
    assert not may(ALICE, "create", "rbac.authorization.k8s.io", "roles", namespace="team").allowed
    assert not may(ALICE, "list", "", "nodes").allowed
    assert may(ALICE, "create", "authorization.k8s.io", "selfsubjectaccessreviews").allowed


def test_non_resource_paths(authorizer: Authorizer) -> None:
    anonymous = User("system:anonymous", ("system:unauthenticated",))
    assert authorizer.authorize(ALICE, "get", path="/apis/apps/v1").allowed
    assert authorizer.authorize(anonymous, "get", path="/version").allowed
    assert not authorizer.authorize(anonymous, "get", path="/apis").allowed
    assert not authorizer.authorize(ALICE, "get", path="/metrics").allowed


def test_a_binding_to_a_missing_role_is_named(objects: Any, authorizer: Authorizer) -> None:
    bind(objects, "ns", "gone", "alice", "Role")
    decision = authorizer.authorize(ALICE, "get", "", "pods", namespace="ns")
    assert not decision.allowed
    assert decision.reason == 'RBAC: role.rbac.authorization.k8s.io "gone" not found'


def test_a_change_takes_effect_at_once(objects: Any, authorizer: Authorizer) -> None:
    account = service_account_user("ns", "robot")
    assert not authorizer.authorize(account, "get", "", "secrets", namespace="ns", name="a").allowed
    rules = [{"apiGroups": [""], "resources": ["secrets"], "resourceNames": ["a"], "verbs": ["get"]}]
    objects.put(ROLE, {"metadata": {"name": "r", "namespace": "ns"}, "rules": rules})
    subject = {"kind": "ServiceAccount", "name": "robot", "namespace": "ns"}
    binding = {
        "metadata": {"name": "b", "namespace": "ns"},
        "roleRef": {"kind": "Role", "name": "r"},
        "subjects": [subject],
    }
    objects.put(ROLE_BINDING, binding)
    assert authorizer.authorize(account, "get", "", "secrets", namespace="ns", name="a").allowed
    assert not authorizer.authorize(account, "get", "", "secrets", namespace="ns", name="b").allowed
    assert not authorizer.authorize(account, "list", "", "secrets", namespace="ns").allowed
    objects.drop(ROLE_BINDING, "ns", "b")
    assert not authorizer.authorize(account, "get", "", "secrets", namespace="ns", name="a").allowed


def test_escalation_is_refused_in_upstreams_words(objects: Any, authorizer: Authorizer) -> None:
    bind(objects, "ns", "admin", "alice")
    role = {"metadata": {"name": "r", "namespace": "ns"}, "rules": [
        {"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]},
        {"apiGroups": [""], "resources": ["nodes"], "verbs": ["get", "list"]},
    ]}  # fmt: skip
    with pytest.raises(Forbidden) as caught:
        check_escalation(authorizer, ALICE, ROLE, role, None)
    assert str(caught.value) == (
        'roles.rbac.authorization.k8s.io "r" is forbidden: user "alice" (groups=["system:authenticated"]) is '
        "attempting to grant RBAC permissions not currently held:\n"
        '{APIGroups:[""], Resources:["nodes"], Verbs:["get", "list"]}'
    )
    role["rules"].pop()
    check_escalation(authorizer, ALICE, ROLE, role, None)
    binding = {
        "metadata": {"name": "b", "namespace": "ns"},
        "roleRef": {"kind": "ClusterRole", "name": "cluster-admin"},
    }
    with pytest.raises(Forbidden):
        check_escalation(authorizer, ALICE, ROLE_BINDING, binding, None)
    check_escalation(authorizer, User("root", ("system:masters",)), ROLE_BINDING, binding, None)


def test_a_node_reads_only_what_its_pods_use(objects: Any, authorizer: Authorizer) -> None:
    volumes = [{"name": "v", "secret": {"secretName": "mine"}}]
    spec = {"nodeName": "n1", "serviceAccountName": "agent", "volumes": volumes, "containers": []}
    objects.put(POD, {"metadata": {"name": "p", "namespace": "ns"}, "spec": spec})
    objects.put(POD, {"metadata": {"name": "q", "namespace": "ns"}, "spec": {"nodeName": "n2"}})
    objects.put(NODE, {"metadata": {"name": "n1"}})
    node = User("system:node:n1", ("system:nodes", "system:authenticated"))
    table = [
        ("get", "", "secrets", "", "ns", "mine", True), ("get", "", "secrets", "", "ns", "other", False),
        ("list", "", "secrets", "", "ns", "", False), ("get", "", "secrets", "", "else", "mine", False),
        ("update", "", "secrets", "", "ns", "mine", False),
        ("create", "", "serviceaccounts", "token", "ns", "agent", True),
        ("create", "", "serviceaccounts", "token", "ns", "other", False),
        ("patch", "", "pods", "status", "ns", "p", True), ("patch", "", "pods", "status", "ns", "q", False),
        ("update", "", "nodes", "status", "", "n1", True), ("update", "", "nodes", "status", "", "n2", False),
        ("update", "coordination.k8s.io", "leases", "", "kube-node-lease", "n1", True),
        ("update", "coordination.k8s.io", "leases", "", "kube-node-lease", "n2", False),
        ("create", "", "events", "", "ns", "", True), ("create", "apps", "deployments", "", "ns", "", False),
    ]  # fmt: skip
    for verb, group, resource, sub, namespace, name, allowed in table:
        decision = authorizer.authorize(node, verb, group, resource, sub, namespace, name)
        assert decision.allowed is allowed, (verb, resource, sub, name, decision.reason)


def test_bootstrap_keeps_what_users_added(objects: Any) -> None:
    policy = {o["metadata"]["name"]: o for r, o in bootstrap_policy() if r == CLUSTER_ROLE}
    discovery = policy["system:discovery"]
    assert reconciled(discovery, None) == discovery
    assert reconciled(discovery, discovery) is None
    extra = {"verbs": ["get"], "nonResourceURLs": ["/mine"]}
    edited = {**discovery, "rules": [extra]}
    merged = reconciled(discovery, edited)
    assert merged is not None and merged["rules"] == [extra, *discovery["rules"]]
    frozen = {
        **edited,
        "metadata": {**discovery["metadata"], "annotations": {"rbac.authorization.kubernetes.io/autoupdate": "false"}},
    }
    assert reconciled(discovery, frozen) is None


def test_aggregation_reaches_through_levels() -> None:
    roles = [o for r, o in bootstrap_policy() if r == CLUSTER_ROLE]
    label = {"rbac.authorization.k8s.io/aggregate-to-view": "true"}
    custom = {"apiGroups": ["example.com"], "resources": ["things"], "verbs": ["get"]}
    roles.append({"metadata": {"name": "custom", "labels": label}, "rules": [custom]})
    updated = {o["metadata"]["name"]: o for o in aggregated_updates(roles)}
    assert all(custom in _simple(updated[name]) for name in ("view", "edit", "admin"))
    assert aggregated_updates([updated.get(o["metadata"]["name"], o) for o in roles]) == []


def _simple(role: dict[str, Any]) -> list[dict[str, Any]]:
    return [{k: r[k] for k in ("apiGroups", "resources", "verbs") if k in r} for r in role["rules"]]


names = st.sampled_from(["get", "list", "pods", "pods/log", "pods/scale", "*/scale", "*", "secrets"])
verbs = st.lists(st.sampled_from(["get", "list", "create", "*"]), max_size=3)
rules = st.builds(
    lambda v, g, r, n: Rule(tuple(v), tuple(g), tuple(r), tuple(n)),
    verbs, st.lists(st.sampled_from(["", "apps", "*"]), max_size=2), st.lists(names, max_size=3),
    st.lists(st.sampled_from(["a", "b"]), max_size=2),
)  # fmt: skip


def model(rule: Rule, a: Attributes) -> bool:
    """RBAC matching written the long way, from the API documentation."""
    verb = any(v in ("*", a.verb) for v in rule.verbs)
    group = any(g in ("*", a.group) for g in rule.groups)
    resource = False
    for r in rule.resources:
        if r == "*":
            resource = True
        elif r.startswith("*/"):
            resource = resource or (a.subresource != "" and r[2:] == a.subresource)
        elif "/" in r:
            resource = resource or r.split("/") == [a.resource, a.subresource]
        else:
            resource = resource or (a.subresource == "" and r == a.resource)
    return verb and group and resource and (rule.names == () or a.name in rule.names)


requests = st.builds(
    lambda v, g, r, s, n: Attributes(ALICE, v, g, r, s, "ns", n),
    st.sampled_from(["get", "list", "create", "delete"]), st.sampled_from(["", "apps", "batch"]),
    st.sampled_from(["pods", "secrets"]), st.sampled_from(["", "log", "scale"]), st.sampled_from(["", "a", "b", "c"]),
)  # fmt: skip


@given(rules, requests)
def test_matching_agrees_with_the_model(rule: Rule, request: Attributes) -> None:
    assert rule.allows(request) == model(rule, request)


@given(st.lists(rules, max_size=3), rules, requests)
def test_what_is_covered_gives_nothing_new(owned: list[Rule], wanted: Rule, request: Attributes) -> None:
    if not uncovered(owned, [wanted]) and wanted.allows(request):
        assert any(o.allows(request) for o in owned)
