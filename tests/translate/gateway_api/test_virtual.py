"""Routes to VirtualServers: what they need of the snapshot, and whose policies hold behind them."""

from __future__ import annotations

from dataclasses import replace

import pytest
import yaml

from quarterdeck.snapshot import McpServer, Snapshot
from quarterdeck.snapshot.policies import CelRule, Policies
from quarterdeck.snapshot.virtual import ChosenServer, VirtualServer
from quarterdeck.translate.gateway_api.compile import Result, compile_gateways, own_snapshot

from .objects import GATEWAY, ROUTE, only, verdict, world

SERVERS = {f"MCPServer/app/{name}": McpServer("app", name, "MCPServer", "/mcp") for name in ("time", "mail", "other")}
VIEW = VirtualServer("app", "support", tuple(ChosenServer(n, f"MCPServer/app/{n}") for n in ("mail", "time")))
POLICY = """
kind: TrafficPolicy
metadata: {{name: p-{name}, namespace: app}}
spec:
  targetRefs: [{{group: {group}, kind: {kind}, name: {name}}}]
  rbac: {{policy: {{matchExpressions: ['mcp.tool.name == "{tool}"']}}}}
"""


def compiled(*policies: str, name: str = "support") -> Result:
    obj = yaml.safe_load(ROUTE)
    obj["spec"]["rules"] = [{"backendRefs": [{"name": name, "group": "quarterdeck.dev", "kind": "VirtualServer"}]}]
    found = world(GATEWAY, yaml.safe_dump(obj), *policies, servers=SERVERS)
    return compile_gateways(replace(found, virtual={"app/support": VIEW}))


def test_it_is_a_backend_and_its_servers_come_along() -> None:
    result = compiled()
    part = result.gateways["infra", "gw"]
    assert part.used == {"VirtualServer/app/support", "MCPServer/app/mail", "MCPServer/app/time"}
    (found,) = part.listeners[0].routes
    backend = found.backends[0].mcp
    assert backend is not None and backend.virtual == "app/support"
    assert [target.name for target in backend.targets] == ["mail", "time"]
    base = Snapshot(mcp=tuple(SERVERS.values()), virtual=(VIEW, VirtualServer("app", "unused")))
    own = own_snapshot(base, "infra/gw", part, SERVERS)
    assert own.virtual == (VIEW,) and [server.name for server in own.mcp] == ["mail", "time"]


def test_one_that_is_not_there() -> None:
    result = compiled(name="none")
    verdicts = only(result.statuses.routes["HTTPRoute", "app", "r"])
    assert verdict(verdicts, "ResolvedRefs") == ("False", "BackendNotFound")


@pytest.mark.parametrize("kind", ["VirtualServer", "MCPServer"])
def test_policies_of_it_and_of_the_servers_behind_it_hold(kind: str) -> None:
    virtual = kind == "VirtualServer"
    name, group = ("support", "quarterdeck.dev") if virtual else ("time", "kagent.dev")
    result = compiled(POLICY.format(kind=kind, name=name, group=group, tool="now"))
    (found,) = result.gateways["infra", "gw"].listeners[0].routes
    backend = found.backends[0]
    assert backend.mcp is not None
    rules = (CelRule("allow", 'mcp.tool.name == "now"'),)

    def ruled(policies: Policies) -> bool:
        return [each.rules for each in policies.mcp_authorization] == [rules]

    assert ruled(backend.policies) == virtual
    assert [ruled(target.policies) for target in backend.mcp.targets] == [False, not virtual]
    status = result.statuses.policies["TrafficPolicy", "app", f"p-{name}"]
    assert all(v.status == "True" for entry in status for v in entry.verdicts)
