"""The chart as rendered here: golden files, the restricted Pod Security Standard, refused values, generated parts."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import yaml

from quarterdeck.cli.chart import Release, folder, load
from quarterdeck.controllers import rbac
from quarterdeck.errors import ConfigError
from quarterdeck.gateway import options as gateway_options
from quarterdeck.server import operator_options

HERE = Path(__file__).parent
SETS = sorted(path.stem for path in (HERE / "values").glob("*.yaml"))
CHART = load("quarterdeck")
RELEASE = Release("quarterdeck", "quarterdeck-system", "Helm")


def values(name: str) -> dict[str, Any]:
    return yaml.safe_load((HERE / "values" / f"{name}.yaml").read_text())


def rendered(given: dict[str, Any]) -> list[dict[str, Any]]:
    return [manifest.body for manifest in CHART.render(RELEASE, given)]


def pods(given: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {d["metadata"]["name"]: d["spec"]["template"] for d in rendered(given) if d["kind"] == "Deployment"}


@pytest.mark.parametrize("name", SETS)
def test_golden(name: str) -> None:
    text = yaml.safe_dump_all(rendered(values(name)), sort_keys=False, width=120)
    golden = HERE / "golden" / f"{name}.yaml"
    if os.environ.get("UPDATE_GOLDEN"):
        golden.write_text(text)
    assert golden.read_text() == text, "after a wanted change: UPDATE_GOLDEN=1 pytest tests/charts"


@pytest.mark.parametrize("name", sorted(rbac.templates()))
def test_the_committed_roles_are_the_generated_ones(name: str) -> None:
    committed = (folder("quarterdeck") / "templates" / name).read_text()
    assert committed == rbac.templates()[name], (
        "run: python -m quarterdeck.controllers.rbac charts/quarterdeck/templates"
    )


@pytest.mark.parametrize("name", SETS)
def test_every_pod_meets_the_restricted_standard_with_a_read_only_root(name: str) -> None:
    for template in pods(values(name)).values():
        pod = template["spec"]
        assert not {"hostNetwork", "hostPID", "hostIPC"} & pod.keys()
        assert all(not {"hostPath"} & volume.keys() for volume in pod["volumes"])
        assert pod["securityContext"] == {
            "runAsNonRoot": True, "runAsUser": 65532, "runAsGroup": 65532, "fsGroup": 65532,
            "seccompProfile": {"type": "RuntimeDefault"},
        }  # fmt: skip
        for container in (*pod["containers"], *pod.get("initContainers", ())):
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "runAsNonRoot": True,
                "capabilities": {"drop": ["ALL"]}, "seccompProfile": {"type": "RuntimeDefault"},
            }  # fmt: skip
            assert all("hostPort" not in port for port in container["ports"])
            assert {"readinessProbe", "livenessProbe", "startupProbe"} <= container.keys()


@pytest.mark.parametrize("name", SETS)
def test_the_operator_understands_its_arguments(name: str) -> None:
    container = pods(values(name))["quarterdeck-controller"]["spec"]["containers"][0]
    assert container["command"] == ["python", "-m", "quarterdeck.server", "operator"]
    args = [arg.replace("$(POD_IP)", "10.0.0.7") for arg in container["args"]]
    options = operator_options.parse(
        args, {"POD_NAMESPACE": "quarterdeck-system", "QUARTERDECK_DATABASE_URL": "/tmp/x.db"}
    )
    assert options.api == ("10.0.0.7", 8700)
    assert options.controllers.gateway == "quarterdeck-system/quarterdeck"
    assert options.controllers.gateway_url == "http://quarterdeck-gateway.quarterdeck-system:8702"
    assert options.controllers.watch_namespaces == tuple(values(name).get("watchNamespaces", ()))
    scripted = {"provider": "Scripted", "model": "scripted"}
    default = values(name).get("defaultModel", {})
    assert options.default_model == (scripted | default.get("spec", {}) if default.get("create", True) else None)


@pytest.mark.parametrize("name", SETS)
def test_the_gateway_understands_its_arguments(name: str) -> None:
    container = pods(values(name))["quarterdeck"]["spec"]["containers"][0]
    assert container["command"] == ["python", "-m", "quarterdeck.gateway"]
    options = gateway_options.parse([arg.replace("$(POD_IP)", "10.0.0.7") for arg in container["args"]])
    assert options.peers == ("10.0.0.7", 8704), "replicas reach each other"
    given = values(name).get("gateway", {}).get("audit", {})
    assert options.audit.on_failure == given.get("onFailure", "block")
    assert options.audit.rotate == (100 * 2**20 if given else 0)
    assert (options.audit.otlp, options.audit.http) == (given.get("otlp", ""), given.get("http", ""))
    assert options.audit.redact == tuple(given.get("redact", ()))
    assert options.audit.sample == (0.05 if given else 0.0)


def test_only_the_gateways_own_pods_reach_its_peers_port() -> None:
    policy = next(d for d in rendered({}) if d["kind"] == "NetworkPolicy" and d["metadata"]["name"] == "quarterdeck")
    rules = [rule for rule in policy["spec"]["ingress"] if any(port["port"] == 8704 for port in rule["ports"])]
    assert [(rule["ports"], rule["from"]) for rule in rules] == [
        ([{"port": 8704, "protocol": "TCP"}], [{"podSelector": policy["spec"]["podSelector"]}])
    ]


def test_no_role_has_a_wildcard_or_is_cluster_admin() -> None:
    for name in SETS:
        for document in rendered(values(name)):
            for rule in document.get("rules", ()):
                assert "*" not in {*rule.get("apiGroups", ()), *rule.get("resources", ()), *rule["verbs"]}
                assert not {"bind", "escalate", "impersonate"} & set(rule["verbs"])
            assert document.get("roleRef", {}).get("name") != "cluster-admin"


def test_with_watched_namespaces_nothing_is_cluster_wide() -> None:
    kinds = {d["kind"] for d in rendered({"watchNamespaces": ["kagent"]})}
    assert not kinds & {"ClusterRole", "ClusterRoleBinding"}
    assert {"Role", "RoleBinding"} <= kinds


def test_labels_that_network_policies_of_agents_select() -> None:
    """translate/network.py knows gateway and control plane by these."""
    for name, component in (("quarterdeck", "gateway"), ("quarterdeck-controller", "controller")):
        labels = pods({})[name]["metadata"]["labels"]
        assert labels["app.kubernetes.io/name"] == "quarterdeck"
        assert labels["app.kubernetes.io/component"] == component


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"controller": {"replicas": 2}}, "SQLite serves one controller"),
        ({"gatway": {}}, "gatway"),
        ({"gateway": {"replicas": "three"}}, "gateway.replicas"),
        ({"gateway": {"auditFile": "/etc/passwd"}}, "gateway.auditFile"),
        ({"watchNamespaces": ["Not_A_Name"]}, "watchNamespaces.0"),
        ({"image": {"digest": "sha256:short"}}, "image.digest"),
        ({"database": {"sqlite": {"size": "much"}}}, "database.sqlite.size"),
        ({"database": None}, "database"),
    ],
)
def test_values_are_refused_with_their_name(given: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        rendered(given)


def test_sqlite_means_one_controller_and_postgresql_two() -> None:
    def replicas(given: dict[str, Any]) -> int:
        found = [d for d in rendered(given) if d["metadata"]["name"] == "quarterdeck-controller"]
        return next(d["spec"]["replicas"] for d in found if d["kind"] == "Deployment")

    database = {"database": {"secretName": "db"}}
    assert [replicas({}), replicas(database), replicas(database | {"controller": {"replicas": 4}})] == [1, 2, 4]
    assert replicas({"controller": {"replicas": 0}}) == 0


@pytest.mark.parametrize(
    ("given", "peers"),
    [
        ({}, [{"podSelector": {}}]),
        ({"monitoring": {"serviceMonitor": {"enabled": True}}}, [{"namespaceSelector": {}}]),
        (
            {"networkPolicy": {"metricsFrom": [{"podSelector": {"matchLabels": {"app": "prometheus"}}}]}},
            [{"podSelector": {"matchLabels": {"app": "prometheus"}}}],
        ),
    ],
)
def test_health_and_metrics_are_open_to_whom_the_values_name(given: dict[str, Any], peers: list[Any]) -> None:
    """Never to everybody: probes come from the node, which NetworkPolicies do not stop."""
    policies = {d["metadata"]["name"]: d["spec"] for d in rendered(given) if d["kind"] == "NetworkPolicy"}
    for name, port in (("quarterdeck-controller", 8080), ("quarterdeck", 15020)):
        rules = [r for r in policies[name]["ingress"] if port in {p["port"] for p in r["ports"]}]
        assert [rule.get("from") for rule in rules] == [peers]
