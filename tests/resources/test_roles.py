"""The roles for people cover every kind, and status stays the controllers' word."""

from __future__ import annotations

import pytest

from quarterdeck.resources.base import Kind
from quarterdeck.resources.crd import GATEWAY_KINDS, KINDS
from quarterdeck.resources.roles import cluster_roles

ROLES = {role["metadata"]["name"]: role for role in cluster_roles({"app.kubernetes.io/part-of": "quarterdeck"})}
EDITORS = ("quarterdeck-edit", "quarterdeck-admin")
WRITERS: dict[str, tuple[str, ...]] = {"Approval": (), "Run": (), "ApprovalPolicy": ("quarterdeck-admin",)}


def may(role: str, verb: str, group: str, resource: str) -> bool:
    return any(
        verb in rule["verbs"] and group in rule["apiGroups"] and resource in rule["resources"]
        for rule in ROLES[role]["rules"]
    )


@pytest.mark.parametrize("kind", [*KINDS, *GATEWAY_KINDS], ids=lambda kind: kind.kind)
def test_every_kind_can_be_seen_by_all_and_written_by_editors(kind: Kind) -> None:
    for role in ROLES:
        assert may(role, "watch", kind.group, kind.plural)
        assert may(role, "get", kind.group, f"{kind.plural}/status")
        assert not may(role, "patch", kind.group, f"{kind.plural}/status")
        assert may(role, "get", kind.group, f"{kind.plural}/scale") == kind.scale
        assert may(role, "delete", kind.group, kind.plural) == (role in WRITERS.get(kind.kind, EDITORS))
    assert may("quarterdeck-edit", "patch", kind.group, f"{kind.plural}/scale") == kind.scale


def test_who_administers_a_namespace_approves_and_nobody_writes_approvals() -> None:
    for role in ROLES:
        assert may(role, "approve", "quarterdeck.dev", "approvals") == (role == "quarterdeck-admin")
        assert not may(role, "patch", "quarterdeck.dev", "approvals")


def test_routes_are_editors_and_what_the_management_api_keeps_is_seen_by_all_and_changed_by_admins() -> None:
    api = "gateway.networking.k8s.io"
    for role in ROLES:
        edits = role != "quarterdeck-view"
        for plural in ("gateways", "httproutes", "grpcroutes", "referencegrants"):
            assert may(role, "list", api, plural) and may(role, "create", api, plural) == edits
            assert not may(role, "patch", api, f"{plural}/status")
        assert not may(role, "create", api, "gatewayclasses"), "they are the cluster's"
        for kept in ("revocations", "toolpins", "status", "auditcheckpoints"):
            assert may(role, "get", "quarterdeck.dev", kept)
        for verb, kept in (("create", "revocations"), ("delete", "revocations"), ("update", "toolpins")):
            assert may(role, verb, "quarterdeck.dev", kept) == (role == "quarterdeck-admin")


def test_only_admins_hand_out_roles_and_nobody_reads_secrets() -> None:
    for role in ROLES:
        assert may(role, "create", "rbac.authorization.k8s.io", "rolebindings") == (role == "quarterdeck-admin")
        assert not may(role, "get", "", "secrets")
        assert "*" not in str(ROLES[role]["rules"])


def test_each_is_aggregated_into_the_role_of_its_name_and_carries_the_charts_labels() -> None:
    for name, role in ROLES.items():
        assert role["metadata"]["labels"] == {
            "app.kubernetes.io/part-of": "quarterdeck",
            f"rbac.authorization.k8s.io/aggregate-to-{name.rpartition('-')[2]}": "true",
        }
