"""ApprovalPolicy → rule: what is wrong with a policy makes it demand more, never less."""

from __future__ import annotations

from typing import Any

import pytest

from quarterdeck.gateway.consent import Rule
from quarterdeck.snapshot.consent import ApprovalRule, ServerPattern
from quarterdeck.translate.approvals import approval_rule, problem


def policy(spec: dict[str, Any], namespace: str = "kagent") -> dict[str, Any]:
    return {"metadata": {"name": "p", "namespace": namespace}, "spec": spec}


def test_all_of_a_policy() -> None:
    spec = {
        "servers": [{"name": "github", "kind": "RemoteMCPServer"}],
        "tools": ["delete_*", "merge"],
        "when": "arguments.force",
        "approvers": {"users": ["alice", "bob"], "groups": ["oncall"]},
        "required": 2,
        "requesterMayApprove": True,
        "expiresAfter": "10m",
        "description": "d",
    }
    assert problem(policy(spec)) is None
    assert approval_rule(policy(spec)) == ApprovalRule(
        "ApprovalPolicy/kagent/p", (ServerPattern("github", "kagent", "RemoteMCPServer"),), ("delete_*", "merge"),
        "arguments.force", ("alice", "bob"), ("oncall",), 2, True, 600.0, "d",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("namespace", "servers", "governed"),
    [
        ("kagent", None, {"kagent/a", "kagent/b"}),
        ("kagent", [{"name": "a"}], {"kagent/a"}),
        ("kagent", [{"name": "a", "namespace": "mcp"}], set()),
        ("quarterdeck-system", None, {"kagent/a", "kagent/b", "mcp/a"}),
        ("quarterdeck-system", [{"name": "a"}], {"kagent/a", "mcp/a"}),
        ("quarterdeck-system", [{"name": "a", "namespace": "mcp"}], {"mcp/a"}),
    ],
)
def test_whom_a_policy_governs(namespace: str, servers: Any, governed: set[str]) -> None:
    obj = policy({"servers": servers} if servers else {}, namespace)
    rule = approval_rule(obj)
    all_of_them = [("kagent", "a"), ("kagent", "b"), ("mcp", "a")]
    assert {"/".join(s) for s in all_of_them if rule.governs("MCPServer", *s)} == governed
    assert (problem(obj) is not None) == (governed == set())


@pytest.mark.parametrize(
    ("spec", "text"),
    [
        ({"when": "arguments.("}, "when:"),
        ({"when": "request.headers.x == 'y'"}, "there is no variable 'request'"),
        ({"required": 0}, "required"),
        ({"expiresAfter": "soon"}, "expiresAfter"),
    ],
)
def test_a_bad_policy_says_why_and_demands_all(spec: dict[str, Any], text: str) -> None:
    error = problem(policy(spec))
    assert error is not None and text in str(error)
    rule = Rule(approval_rule(policy(spec)))
    assert rule.demands({"tool": "any", "server": "kagent/a", "arguments": {}, "agent": "", "user": ""})


@pytest.mark.parametrize(
    ("when", "arguments", "demanded"),
    [
        ("arguments.n > 5", {"n": 6}, True),
        ("arguments.n > 5", {"n": 5}, False),
        ("arguments.n > 5", {"n": "6"}, True),
        ("arguments.n > 5", {}, True),
        ("'x'", {}, True),
        ("arguments.all(k, k.startsWith('a'))", {"a1": 1, "b": 2}, False),
        ("agent == '' && user == 'alice' && tool == 'delete' && server == 'kagent/a'", {}, True),
        ("!(agent == '' && user == 'alice')", {}, False),
    ],
)
def test_what_is_not_plainly_false_demands_an_approval(when: str, arguments: Any, demanded: bool) -> None:
    rule = Rule(ApprovalRule("r", (ServerPattern(),), ("del*",), when))
    variables = {"tool": "delete", "server": "kagent/a", "arguments": arguments, "agent": "", "user": "alice"}
    assert rule.demands(variables) is demanded
    assert not rule.demands({**variables, "tool": "add"})
    assert rule.demands({**variables, "tool": " DELETE"}) is demanded or "tool ==" in when
