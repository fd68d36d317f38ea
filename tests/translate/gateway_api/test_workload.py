"""What Gateways consist of."""

from __future__ import annotations

from typing import Any

import yaml

from quarterdeck.resources.base import parse
from quarterdeck.resources.gateway_api.gateway import GatewaySpec
from quarterdeck.translate.gateway_api.workload import GatewayPods, admission, dedicated, shared

from .objects import GATEWAY

PODS = GatewayPods("http://quarterdeck.q:8700", image="ghcr.io/x/quarterdeck:1")


def gateway(**annotations: str) -> tuple[dict[str, Any], GatewaySpec]:
    obj: dict[str, Any] = yaml.safe_load(GATEWAY) | {"apiVersion": "gateway.networking.k8s.io/v1"}
    obj["metadata"] |= {"uid": "u-1", "annotations": {f"quarterdeck.dev/{k}": v for k, v in annotations.items()}}
    obj["spec"]["infrastructure"] = {"labels": {"team": "a"}, "annotations": {"note": "b"}}
    return obj, parse(GatewaySpec, obj["spec"], "Gateway")


def test_deployment_service_and_identity() -> None:
    obj, spec = gateway()
    account, secret, deployment, service = dedicated(obj, spec, {80: 8080, 443: 8443}, PODS, "a2V5")
    assert [o["kind"] for o in (account, deployment, service)] == ["ServiceAccount", "Deployment", "Service"]
    assert (secret["metadata"]["name"], secret["data"]) == ("gw-session-key", {"gateway.key": "a2V5"})
    assert secret["metadata"]["ownerReferences"][0]["uid"] == "u-1"
    for each in (account, deployment, service, deployment["spec"]["template"]):
        assert each["metadata"]["labels"]["team"] == "a" and each["metadata"]["annotations"]["note"] == "b"
    assert all(o["metadata"]["ownerReferences"][0]["uid"] == "u-1" for o in (account, deployment, service))
    selector = deployment["spec"]["selector"]["matchLabels"]
    assert selector.items() <= deployment["spec"]["template"]["metadata"]["labels"].items()
    assert service["spec"]["selector"] == selector
    ports = {p["port"]: p["targetPort"] for p in service["spec"]["ports"]}
    assert ports == {80: 8080, 443: 8443}
    pod = deployment["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert (
        "--gateway=infra/gw" in container["args"] and "--control-plane=http://quarterdeck.q:8700" in container["args"]
    )
    assert pod["serviceAccountName"] == "gw" and pod["automountServiceAccountToken"] is False
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    shared_key = {"--peers=$(POD_IP):8704", "--key-file=/var/run/secrets/gateway/gateway.key"}
    assert shared_key <= set(container["args"]), "a session of one replica is good at the others"
    assert {"secretName": "gw-session-key", "defaultMode": 0o440} in [v.get("secret") for v in pod["volumes"]]
    _, _, other, _ = dedicated(obj, spec, {80: 8080}, PODS, "a2V5")
    assert other["spec"]["template"] == deployment["spec"]["template"], "listeners come and go without a rollout"


def test_annotations_choose_replicas_and_the_kind_of_service() -> None:
    obj, spec = gateway(**{"service-type": "LoadBalancer", "replicas": "3"})
    *_, deployment, service = dedicated(obj, spec, {80: 8080}, PODS, "a2V5")
    assert (deployment["spec"]["replicas"], service["spec"]["type"]) == (3, "LoadBalancer")
    obj, spec = gateway(**{"service-type": "Anything", "replicas": "many"})
    *_, deployment, service = dedicated(obj, spec, {80: 8080}, PODS, "a2V5")
    assert (deployment["spec"]["replicas"], service["spec"]["type"]) == (1, "ClusterIP")


def test_a_shared_gateway_is_found_by_the_service_of_the_gateway() -> None:
    obj, spec = gateway()
    service, piece = shared(obj, spec, {80: 8080}, ["127.0.0.1"])
    assert "selector" not in service["spec"]
    assert piece["metadata"]["labels"]["kubernetes.io/service-name"] == "gw"
    assert [p["port"] for p in piece["ports"]] == [8080]
    assert [p["name"] for p in piece["ports"]] == [p["name"] for p in service["spec"]["ports"]]


def test_only_the_servers_of_its_routes_in_its_namespace_let_a_gateway_in() -> None:
    obj, spec = gateway()
    used = ["MCPServer/infra/a", "MCPServer/other/b", "RemoteMCPServer/infra/c", "Target/infra/d", "MCPServer/infra/e"]
    (policy,) = admission(obj, spec, used)
    selected = policy["spec"]["podSelector"]["matchExpressions"]
    assert {expression["key"]: expression["values"] for expression in selected} == {
        "app.kubernetes.io/name": ["a", "e"],
        "app.kubernetes.io/instance": ["a", "e"],
    }
    (rule,) = policy["spec"]["ingress"]
    (peer,) = rule["from"]
    assert set(peer) == {"podSelector"}, "Pods of the same namespace only"
    assert admission(obj, spec, ["Target/infra/d"]) == []
