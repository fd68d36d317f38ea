"""Installed, upgraded, rolled back and removed on a real control plane, by helm 3, helm 4 and by ourselves.

Two controllers on a real PostgreSQL and two gateways, in namespaces that enforce the restricted Pod Security Standard.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import urllib.request
from base64 import b64decode
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any, Literal

import pytest

from quarterdeck.cli.chart import folder
from support import postgresql

from .build import helm_path
from .plane import NO_ROUTES, Plane, available, plane

COMMANDS, WHY = available()
pytestmark = [
    pytest.mark.slow,  # the fast tier installs by helm 4 in tests/support/real.py
    pytest.mark.skipif(COMMANDS is None, reason=f"kube-apiserver: {WHY}"),
    pytest.mark.skipif(postgresql.commands() is None, reason="PostgreSQL is not installed (Debian: postgresql)"),
    pytest.mark.timeout(500),
]
BIN = Path(sys.executable).parent
SYSTEM, TEAM = "quarterdeck-system", "kagent"
VALUES = "database.secretName=db,gateway.admin=off"
AGENT: dict[str, Any] = {
    "apiVersion": "kagent.dev/v1alpha2",
    "kind": "Agent",
    "metadata": {"name": "hello", "namespace": TEAM},
    "spec": {"type": "Declarative", "declarative": {"systemMessage": "You are kind."}},
}
OURS = "deployments,pods,services,serviceaccounts,secrets,configmaps,leases,roles,rolebindings,networkpolicies,pdb"


@pytest.fixture(scope="module")
def cluster() -> Generator[Plane]:
    pytest.importorskip("asyncpg")
    with plane() as started:
        if not started.routes:
            pytest.skip(NO_ROUTES)
        for namespace in (SYSTEM, TEAM):
            labels = {"pod-security.kubernetes.io/enforce": "restricted"}
            body = {"metadata": {"name": namespace, "labels": labels}}
            started.request("POST", "/api/v1/namespaces", {"apiVersion": "v1", "kind": "Namespace"} | body)
        yield started


@pytest.fixture
def database(cluster: Plane) -> Generator[None]:
    """A Secret with the URL of an empty database."""
    path = f"/api/v1/namespaces/{SYSTEM}/secrets"
    with postgresql.running() as url:
        cluster.request("POST", path, {"metadata": {"name": "db"}, "stringData": {"url": url}})
        yield
        cluster.request("DELETE", f"{path}/db")


class Installer:
    """One way to install. ``place`` is for its own files."""

    def __init__(self, cluster: Plane, place: Path) -> None:
        self.cluster = cluster
        self.environment = os.environ | {"KUBECONFIG": str(cluster.kubeconfig), "HOME": str(place)}

    def run(self, *command: str) -> str:
        done = subprocess.run(command, env=self.environment, capture_output=True, text=True, timeout=200)
        assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}{done.stderr}{self._state()}"
        return done.stdout

    def kubectl(self, *words: str) -> str:
        return self.run(str(BIN / "kubectl"), *words)

    def _state(self) -> str:
        """What a person would look at next."""
        asked = [["get", "pods,events", "-A"], ["logs", "-n", SYSTEM, "deploy/quarterdeck-controller", "--tail=20"]]
        return "".join(
            subprocess.run([str(BIN / "kubectl"), *words], env=self.environment, capture_output=True, text=True).stdout
            for words in asked
        )


class Helm(Installer):
    def __init__(self, cluster: Plane, place: Path, major: Literal[3, 4]) -> None:
        super().__init__(cluster, place)
        self.helm = str(helm_path(major))
        if not Path(self.helm).exists():
            pytest.skip(f"helm {major} is not built here: python tests/cluster/build.py (needs Go)")

    def install(self, values: str) -> None:
        common = ("upgrade", "--install", "-n", SYSTEM, "--wait", "--timeout=120s")
        self.run(self.helm, *common, "quarterdeck-crds", str(folder("quarterdeck-crds")))
        self.run(self.helm, *common, "quarterdeck", str(folder("quarterdeck")), "--set", values)

    def back(self) -> None:
        self.run(self.helm, "rollback", "quarterdeck", "1", "-n", SYSTEM, "--wait", "--timeout=120s")

    def uninstall(self) -> None:
        self.run(self.helm, "uninstall", "quarterdeck", "-n", SYSTEM, "--wait", "--timeout=60s")
        self.run(self.helm, "uninstall", "quarterdeck-crds", "-n", SYSTEM)


class Ourselves(Installer):
    def __init__(self, cluster: Plane, place: Path) -> None:
        super().__init__(cluster, place)
        self.before = ""

    def install(self, values: str) -> None:
        self.before = self.before or values
        self.run(str(BIN / "qd"), "install", "--no-helm", "--set", values, "--timeout=120s")

    def back(self) -> None:
        self.install(self.before)

    def uninstall(self) -> None:
        self.run(str(BIN / "qd"), "uninstall")


class OurselvesThroughHelm(Helm):
    """``qd`` with a helm on PATH, whose release it stays."""

    def __init__(self, cluster: Plane, place: Path) -> None:
        super().__init__(cluster, place, 4)
        (place / "bin").mkdir()
        (place / "bin" / "helm").symlink_to(self.helm)
        self.environment["PATH"] = f"{place / 'bin'}:{self.environment['PATH']}"

    def install(self, values: str) -> None:
        self.run(str(BIN / "qd"), "install", "--set", values, "--timeout=120s")
        assert self.kubectl("get", "configmaps", "-n", SYSTEM, "-o", "name").split() == ["configmap/kube-root-ca.crt"]

    def uninstall(self) -> None:
        self.run(str(BIN / "qd"), "uninstall")


WAYS: dict[str, Callable[[Plane, Path], Any]] = {
    "helm 4": lambda cluster, place: Helm(cluster, place, 4),
    "helm 3": lambda cluster, place: Helm(cluster, place, 3),
    "qd": Ourselves,
    "qd through helm": OurselvesThroughHelm,
}


@pytest.mark.parametrize("way", WAYS)
def test_install_upgrade_rollback_uninstall(way: str, cluster: Plane, database: None, tmp_path: Path) -> None:
    del database
    installer = WAYS[way](cluster, tmp_path)
    installer.install(VALUES)
    before = snapshot_of(installer)
    assert ready(installer) == {"quarterdeck": 2, "quarterdeck-controller": 2}
    cluster.request("POST", f"/apis/kagent.dev/v1alpha2/namespaces/{TEAM}/agents", AGENT)
    installer.kubectl("wait", "--for=condition=Ready", "agent/hello", "-n", TEAM, "--timeout=60s")
    assert "scripted model" in question(installer)

    installer.install(f"{VALUES},gateway.replicas=1,networkPolicy.enabled=false")
    assert ready(installer) == {"quarterdeck": 1, "quarterdeck-controller": 2}
    assert installer.kubectl("get", "networkpolicies", "-n", SYSTEM, "-o", "name") == ""
    installer.back()
    assert ready(installer) == {"quarterdeck": 2, "quarterdeck-controller": 2}
    assert snapshot_of(installer) == before
    assert "scripted model" in question(installer)

    installer.uninstall()
    left = gone(installer)
    assert left == {"serviceaccount/default", "configmap/kube-root-ca.crt", "secret/db"}, left
    agents = installer.kubectl("get", "agents,deployments", "-n", TEAM, "-o", "name").split()
    assert {"agent.kagent.dev/hello", "deployment.apps/hello"} <= set(agents), "agents outlive the operator"
    installer.kubectl("delete", "agents,modelconfigs", "--all", "-n", TEAM, "--timeout=60s")


def ready(installer: Installer) -> dict[str, int]:
    """Deployments with the number of their available Pods; none may be missing."""
    items = json.loads(installer.kubectl("get", "deployments", "-n", SYSTEM, "-o", "json"))["items"]
    assert all(d["status"].get("availableReplicas") == d["spec"]["replicas"] for d in items)
    return {d["metadata"]["name"]: d["spec"]["replicas"] for d in items}


def snapshot_of(installer: Installer) -> dict[str, Any]:
    """Specs of what was installed."""
    kinds = "deployments,services,networkpolicies,pdb,roles"
    items = json.loads(installer.kubectl("get", kinds, "-n", SYSTEM, "-o", "json"))["items"]
    return {f"{i['kind']}/{i['metadata']['name']}": i.get("spec") or i.get("rules") for i in items}


def question(installer: Installer) -> str:
    """The answer of the agent, through the gateway's Service, with the token of people."""
    read = ("get", "-n", SYSTEM, "-o")
    secret = installer.kubectl(*read, "jsonpath={.data.token}", "secret", "quarterdeck-access-token")
    address = installer.kubectl(*read, "jsonpath={.spec.clusterIP}", "service", "quarterdeck-gateway")
    message = {"messageId": "m", "role": "user", "kind": "message", "parts": [{"kind": "text", "text": "hello"}]}
    body = {"jsonrpc": "2.0", "id": 1, "method": "message/send", "params": {"message": message}}
    headers = {"authorization": f"Bearer {b64decode(secret).decode()}", "content-type": "application/json"}
    url = f"http://{address}:8701/a2a/{TEAM}/hello"
    request = urllib.request.Request(url, json.dumps(body).encode(), headers)
    with urllib.request.urlopen(request, timeout=60) as answer:
        return answer.read().decode()


def gone(installer: Installer) -> set[str]:
    """What is left in the namespace once the garbage collector is through."""
    keep = {"serviceaccount/default", "configmap/kube-root-ca.crt", "secret/db"}
    deadline = time.monotonic() + 60
    while True:
        left = set(installer.kubectl("get", OURS, "-n", SYSTEM, "-o", "name").split())
        left = {name for name in left if not name.startswith("secret/sh.helm.release")}
        if left == keep or time.monotonic() > deadline:
            return left
        time.sleep(0.5)
