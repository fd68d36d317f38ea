"""Calls and lists are decided by one function: they cannot disagree. Default is deny."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from quarterdeck import snapshot as s
from quarterdeck.gateway.mcp.route import McpRoute
from quarterdeck.gateway.mcp.session import Session, SessionSealer
from quarterdeck.gateway.policy.authorizer import Authorizer, Request
from quarterdeck.gateway.policy.principal import ANONYMOUS, agent_principal
from quarterdeck.gateway.upstream import Upstreams

names = st.sampled_from(["a", "b", "c", "A", ""])
grants = st.builds(
    s.ToolGrant,
    namespace=st.just("ns"),
    name=names,
    kind=st.sampled_from(["MCPServer", "RemoteMCPServer"]),
    tools=st.none() | st.lists(names).map(tuple),
    approval=st.lists(names, max_size=2).map(tuple),
)
policies = st.builds(s.AgentPolicy, namespace=st.just("ns"), name=names, tools=st.lists(grants, max_size=3).map(tuple))


@given(st.lists(policies, max_size=3, unique_by=lambda p: p.name), names, names, names)
def test_a_tool_is_listed_exactly_when_a_call_is_not_denied(
    given_policies: list[s.AgentPolicy], agent: str, server: str, tool: str
) -> None:
    authorizer = Authorizer(s.Snapshot(policies=tuple(given_policies)))
    route = McpRoute(s.McpServer("ns", server, "MCPServer", "/mcp"), authorizer, Upstreams())
    principal = agent_principal(f"ns/{agent}")
    decision = authorizer.decide(Request(principal, route.target, "tools/call", tool))
    assert route.lane(principal).shows(tool) == (decision.verdict != "deny")
    wanted = [
        g for p in given_policies if p.name == agent for g in p.tools if (g.name, g.kind) == (server, "MCPServer")
    ]
    if not wanted:
        assert decision.verdict == "deny" and "default-deny" in decision.rule
    else:
        last = wanted[-1]
        expected = "approval" if tool in last.approval else "allow"
        assert decision.verdict == ("deny" if last.tools is not None and tool not in last.tools else expected)


def test_people_are_not_bound_by_agents_rules_and_limited_agents_read_no_resources() -> None:
    grant = s.ToolGrant("ns", "srv", "MCPServer", ("a",))
    authorizer = Authorizer(s.Snapshot(policies=(s.AgentPolicy("ns", "x", (grant,)),)))
    target = ("MCPServer", "ns", "srv")
    assert authorizer.decide(Request(ANONYMOUS, target, "tools/call", "b")).allow
    agent = agent_principal("ns/x")
    for method, allowed in (("tools/list", True), ("resources/read", False), ("made/up", False)):
        assert authorizer.decide(Request(agent, target, method)).allow == allowed


@given(st.binary(max_size=200), st.binary(max_size=20))
def test_session_tokens_open_with_their_binding_only(junk: bytes, binding: bytes) -> None:
    sealer = SessionSealer(b"k" * 32)
    session = Session("upstream-id", "127.0.0.1", 80)
    token = sealer.seal(session, binding)
    assert sealer.open(token, binding) == session
    assert sealer.open(token, binding + b"x") is None
    assert SessionSealer(b"j" * 32).open(token, binding) is None
    assert sealer.open(junk, binding) is None
