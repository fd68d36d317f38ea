"""Who may connect to whom in a cluster we translated, as a table, by the evaluator of kube/."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import yaml

from quarterdeck.errors import ConfigError
from quarterdeck.kube.network_policy import Peer, Policies
from quarterdeck.kube.resource import Object
from quarterdeck.resources.base import parse
from quarterdeck.resources.conversion import model_spec
from quarterdeck.resources.mcp_server import MCPServerSpec
from quarterdeck.translate.agent import translate_agent
from quarterdeck.translate.mcp_server import translate_mcp_server
from quarterdeck.translate.network import EGRESS, ENVIRONMENT, environment_policy
from quarterdeck.translate.options import NetworkPolicies
from quarterdeck.translate.scripted import translate_scripted

from .test_golden import OPTIONS, inputs_of

SETTINGS = NetworkPolicies()
CLUSTER = replace(OPTIONS, network_policies=SETTINGS)
DOCUMENTS = """
apiVersion: kagent.dev/v1alpha2
kind: Agent
metadata: {name: shop, namespace: prod, uid: u1}
spec: {type: Declarative, declarative: {systemMessage: hi, modelConfig: model}}
---
apiVersion: kagent.dev/v1alpha2
kind: Agent
metadata: {name: trial, namespace: dev, uid: u2}
spec: {type: Declarative, declarative: {systemMessage: hi, modelConfig: model}}
---
apiVersion: kagent.dev/v1alpha1
kind: MCPServer
metadata: {name: tools, namespace: prod, uid: u3}
spec: {transportType: stdio, deployment: {cmd: uvx, args: [mcp-server-time], port: 3000}}
---
apiVersion: kagent.dev/v1alpha1
kind: MCPServer
metadata: {name: closed, namespace: prod, uid: u4, annotations: {quarterdeck.dev/egress: none}}
spec: {transportType: stdio, deployment: {cmd: uvx, args: [mcp-server-time], port: 3000}}
---
apiVersion: kagent.dev/v1alpha2
kind: ModelConfig
metadata: {name: model, namespace: prod, uid: u5}
spec: {provider: Scripted, model: scripted}
"""
ENVIRONMENTS = {"prod": {ENVIRONMENT: "prod"}, "dev": {ENVIRONMENT: "dev"}, "quarterdeck-system": {}, "kube-system": {}}


def translated() -> list[Object]:
    documents: list[Object] = list(yaml.safe_load_all(DOCUMENTS))
    out: list[Object] = []
    for obj in documents:
        if obj["kind"] == "Agent":
            out += translate_agent(inputs_of(obj, documents), CLUSTER)
        elif obj["kind"] == "MCPServer":
            out += translate_mcp_server(obj, parse(MCPServerSpec, obj["spec"], "MCPServer"), CLUSTER)
        else:
            out += translate_scripted(obj, model_spec(obj), CLUSTER)
    for name, labels in ENVIRONMENTS.items():
        namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "uid": name, "labels": labels}}
        policy = environment_policy(namespace, SETTINGS)
        out += [policy] if policy is not None else []
    return out


def pod(name: str, namespace: str, labels: dict[str, str], ip: str, **spec: Any) -> Peer:
    obj = {"metadata": {"name": name, "namespace": namespace, "labels": labels}, "spec": spec}
    return Peer.of(obj, ENVIRONMENTS[namespace], ip)


OBJECTS = translated()
POLICIES = Policies(obj for obj in OBJECTS if obj["kind"] == "NetworkPolicy")
PEERS = {
    obj["metadata"]["name"]: Peer.of(
        {"metadata": obj["spec"]["template"]["metadata"] | {"namespace": obj["metadata"]["namespace"],
                                                            "name": obj["metadata"]["name"]},
         "spec": obj["spec"]["template"]["spec"]},
        ENVIRONMENTS[obj["metadata"]["namespace"]], f"10.1.0.{number}",
    )
    for number, obj in enumerate(OBJECTS) if obj["kind"] == "Deployment"
} | {
    "canary": pod(
        "c", "prod", {"app": "kagent", "kagent": "shop-canary", "app.kubernetes.io/managed-by": "kagent"}, "10.1.0.50"
    ),
    "gateway": pod("g", "quarterdeck-system", dict(SETTINGS.gateway), "10.1.0.60"),
    "control plane": pod("c", "quarterdeck-system", dict(SETTINGS.controller), "10.1.0.61"),
    "dns": pod("d", "kube-system", {"k8s-app": "kube-dns"}, "10.1.0.62"),
    "prod database": pod("db", "prod", {"app": "db"}, "10.1.0.63"),
    "prod job": pod("job", "prod", {"app": "job"}, "10.1.0.64"),
    "dev job": pod("job", "dev", {"app": "job"}, "10.1.0.65"),
    "internet": Peer("93.184.215.14"),
    "office": Peer("10.200.0.1"),
    "metadata": Peer("169.254.169.254"),
}  # fmt: skip


@pytest.mark.parametrize(
    ("source", "destination", "port", "allowed"),
    [
        ("shop", "gateway", 8702, True), ("shop", "gateway", 8701, False), ("shop", "gateway", 15020, False),
        ("shop", "control plane", 8083, True), ("shop", "control plane", 8700, True),
        ("shop", "control plane", 8443, False), ("shop", "dns", 53, True), ("shop", "dns", 9153, False),
        ("shop", "tools", 3000, False), ("shop", "trial", 8080, False), ("shop", "model", 8080, False),
        ("shop", "prod database", 5432, False), ("shop", "internet", 443, False), ("shop", "metadata", 80, False),
        ("canary", "gateway", 8702, True), ("canary", "internet", 443, False), ("gateway", "canary", 8080, True),
        ("prod job", "canary", 8080, False),
        ("gateway", "shop", 8080, True), ("gateway", "tools", 3000, True), ("gateway", "model", 8080, True),
        ("control plane", "tools", 3000, True), ("control plane", "shop", 8080, False),
        ("trial", "shop", 8080, False), ("prod job", "shop", 8080, False), ("prod job", "tools", 3000, False),
        ("internet", "tools", 3000, False), ("dev job", "tools", 3000, False),
        ("tools", "internet", 443, True), ("tools", "office", 443, False), ("tools", "metadata", 80, False),
        ("tools", "dns", 53, True), ("tools", "prod database", 5432, False), ("tools", "shop", 8080, False),
        ("tools", "closed", 3000, False), ("tools", "gateway", 8702, False),
        ("closed", "internet", 443, False), ("closed", "dns", 53, False), ("gateway", "closed", 3000, True),
        ("model", "internet", 443, False),
        # dev → prod
        ("dev job", "prod database", 5432, False), ("prod job", "prod database", 5432, True),
        ("prod job", "dev job", 80, False), ("trial", "prod database", 5432, False),
        ("gateway", "prod database", 5432, True),
    ],
)  # fmt: skip
def test_table(source: str, destination: str, port: int, allowed: bool) -> None:
    verdict = POLICIES.decide(PEERS[source], PEERS[destination], port)
    assert verdict.allowed is allowed, str(verdict)


def test_dns_by_udp() -> None:
    assert POLICIES.decide(PEERS["shop"], PEERS["dns"], 53, "UDP").allowed
    assert POLICIES.decide(PEERS["shop"], Peer("169.254.20.10"), 53, "UDP").allowed


def test_a_policy_comes_before_the_pods_it_is_for() -> None:
    for namespace, name in (("prod", "shop"), ("prod", "tools"), ("prod", "model")):
        mine = [o["kind"] for o in OBJECTS if (o["metadata"]["namespace"], o["metadata"]["name"]) == (namespace, name)]
        assert mine.index("NetworkPolicy") < mine.index("Deployment")


def test_none_where_they_are_off() -> None:
    documents: list[Object] = list(yaml.safe_load_all(DOCUMENTS))
    assert not [o for o in translate_agent(inputs_of(documents[0], documents), OPTIONS) if o["kind"] == "NetworkPolicy"]


@pytest.mark.parametrize(("value", "egress"), [("none", None), ("all", [{}])])
def test_egress_annotation(value: str, egress: Any) -> None:
    obj: Object = list(yaml.safe_load_all(DOCUMENTS))[2]
    obj["metadata"]["annotations"] = {EGRESS: value}
    objects = translate_mcp_server(obj, parse(MCPServerSpec, obj["spec"], "MCPServer"), CLUSTER)
    spec = next(o["spec"] for o in objects if o["kind"] == "NetworkPolicy")
    assert spec.get("egress") == egress
    assert "Egress" in spec["policyTypes"]


def test_an_unknown_egress_is_refused() -> None:
    obj: Object = list(yaml.safe_load_all(DOCUMENTS))[2]
    obj["metadata"]["annotations"] = {EGRESS: "some"}
    with pytest.raises(ConfigError, match=r"MCPServer tools: annotation .*'some'"):
        translate_mcp_server(obj, parse(MCPServerSpec, obj["spec"], "MCPServer"), CLUSTER)


def _namespace(name: str) -> Object:
    return {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": name}}}


OUTSIDE = [
    {"ipBlock": {"cidr": "0.0.0.0/0", "except": list(SETTINGS.private)}},
    {"ipBlock": {"cidr": "::/0", "except": list(SETTINGS.private6)}},
]


@pytest.mark.parametrize(
    ("url", "peers"),
    [
        ("http://otel.obs.svc.cluster.local:4318", [_namespace("obs")]),
        ("http://otel:4318", [{"podSelector": {}}]),
        ("http://10.1.2.3:4318", [{"ipBlock": {"cidr": "10.1.2.3/32"}}]),
        ("https://otlp.example.com:4318", OUTSIDE),
        ("http://otel.obs:4318", [_namespace("obs"), *OUTSIDE]),
    ],
)
def test_agents_reach_the_collector_of_their_spans(url: str, peers: list[Object]) -> None:
    documents: list[Object] = list(yaml.safe_load_all(DOCUMENTS))
    options = replace(CLUSTER, environment=(("OTEL_EXPORTER_OTLP_ENDPOINT", url),))
    agent = next(obj for obj in documents if obj["kind"] == "Agent")
    policy = next(o for o in translate_agent(inputs_of(agent, documents), options) if o["kind"] == "NetworkPolicy")
    assert {"to": peers, "ports": [{"port": 4318, "protocol": "TCP"}]} in policy["spec"]["egress"]
