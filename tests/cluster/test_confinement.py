"""Restricted Pods and NetworkPolicies on a real cluster: admitted, applied by our node, and tried from inside."""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.error
from pathlib import Path
from typing import Any

import pytest

from quarterdeck.resources.images import own_image
from quarterdeck.translate.agent import labels as agent_labels
from quarterdeck.translate.agent import selector as agent_selector
from quarterdeck.translate.mcp_server import selector as server_selector
from quarterdeck.translate.network import agent_policy, mcp_server_policy
from quarterdeck.translate.options import NetworkPolicies
from quarterdeck.translate.pod_security import restricted

from .plane import Plane

pytestmark = pytest.mark.timeout(180)
KUBECTL = str(Path(sys.executable).parent / "kubectl")
GOLDEN = Path(__file__).parents[1] / "translate" / "testdata" / "outputs"
NAMESPACE = "shut"
GATEWAY = """
import http.server
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.end_headers(); self.wfile.write(b"gateway")
http.server.ThreadingHTTPServer(("0.0.0.0", 8702), Handler).serve_forever()
"""
TRIES = """
import json, os, socket, subprocess
found = {}
def attempt(name, work):
    try: found[name] = repr(work())
    except OSError as error: found[name] = "refused"
attempt("write /", lambda: open("/x", "w"))
attempt("write /etc", lambda: open("/etc/x", "w"))
attempt("setuid", lambda: os.setuid(0))
attempt("raw", lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, 1))
attempt("tmp", lambda: open("/tmp/x", "w").name)
found["su"] = subprocess.run(["su", "-c", "id -u"], capture_output=True, stdin=subprocess.DEVNULL).stdout.decode()
found["uid"] = os.getuid()
print(json.dumps(found))
"""
ASK = """
import os, urllib.error, urllib.request
opener = urllib.request.build_opener(urllib.request.ProxyHandler({"http": os.environ["HTTP_PROXY"]}))
try: print(opener.open("http://quarterdeck-gateway.quarterdeck-system:8702/", timeout=20).read().decode())
except urllib.error.HTTPError as error: print(error.code, error.read().decode())
"""


def kubectl(plane: Plane, *args: str, stdin: str | None = None) -> str:
    command = [KUBECTL, f"--kubeconfig={plane.kubeconfig}", *args]
    done = subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


def apply(plane: Plane, *documents: dict[str, Any]) -> None:
    kubectl(plane, "apply", "-f", "-", stdin="\n---\n".join(json.dumps(d) for d in documents))


def namespace(name: str, labels: dict[str, str] | None = None) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels or {}}}


@pytest.fixture(scope="module")
def shut(cluster: Plane) -> str:
    """A namespace that admits restricted Pods only."""
    apply(cluster, namespace(NAMESPACE, {"pod-security.kubernetes.io/enforce": "restricted"}))
    kubectl(cluster, "wait", "--for=create", "-n", NAMESPACE, "serviceaccount/default", "--timeout=90s")
    return f"/api/v1/namespaces/{NAMESPACE}/pods"


def pod(name: str, spec: dict[str, Any], labels: dict[str, str] | None = None, home: str = NAMESPACE) -> dict[str, Any]:
    meta = {"name": name, "namespace": home, "labels": labels or {}}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": {"restartPolicy": "Never"} | spec}


def test_every_translated_pod_is_admitted(cluster: Plane, shut: str) -> None:
    with pytest.raises(urllib.error.HTTPError) as refused:
        cluster.request("POST", f"{shut}?dryRun=All", pod("open", {"containers": [{"name": "c", "image": "i"}]}))
    assert 'violates PodSecurity "restricted:latest"' in json.load(refused.value)["message"]
    tried = 0
    for path in sorted(GOLDEN.glob("*.json")):
        for obj in json.loads(path.read_text()):
            if obj["kind"] == "Deployment":
                spec = obj["spec"]["template"]["spec"] | {"serviceAccountName": "default", "restartPolicy": "Always"}
                try:
                    cluster.request("POST", f"{shut}?dryRun=All", pod(f"p{tried}", spec))
                except urllib.error.HTTPError as error:
                    pytest.fail(f"{path.stem} {obj['metadata']['name']}: {json.load(error)['message']}")
                tried += 1
    assert tried > 20


def run(plane: Plane, name: str, code: str, labels: dict[str, str], home: str) -> str:
    """A restricted Pod that runs ``code`` to its end; what it printed."""
    container = {"name": "main", "image": own_image(), "command": ["python", "-c", code]}
    apply(plane, pod(name, restricted({"containers": [container]}, ("main",)), labels, home))
    kubectl(plane, "wait", "-n", home, f"pod/{name}", "--for=jsonpath={.status.phase}=Succeeded", "--timeout=60s")
    return kubectl(plane, "logs", "-n", home, name)


def test_what_is_promised_holds_inside(pods: Plane, shut: str) -> None:
    found = json.loads(run(pods, "tries", TRIES, {}, NAMESPACE))
    assert {found[name] for name in ("write /", "write /etc", "setuid", "raw")} == {"refused"}
    assert (found["su"], found["uid"], found["tmp"]) == ("", 65532, "'/tmp/x'")
    conditions = json.loads(kubectl(pods, "get", "pod", "-n", NAMESPACE, "tries", "-o", "json"))["status"]["conditions"]
    assert any(c["type"] == "quarterdeck.dev/Isolated" and c["status"] == "True" for c in conditions)


def test_non_root_is_refused_as_a_kubelet_does(pods: Plane, shut: str) -> None:
    context = {"runAsUser": 0, "runAsNonRoot": True}
    container = {"name": "main", "image": own_image(), "command": ["true"], "securityContext": context}
    apply(pods, pod("root", {"containers": [container]}, home="default"))
    waiting = "jsonpath={.status.containerStatuses[0].state.waiting.reason}=CreateContainerConfigError"
    kubectl(pods, "wait", "pod/root", f"--for={waiting}", "--timeout=90s")
    shown = json.loads(kubectl(pods, "get", "pod", "root", "-o", "json"))
    message = shown["status"]["containerStatuses"][0]["state"]["waiting"]["message"]
    assert message.startswith("container's runAsUser breaks non-root policy (pod: \"root_default(")


def test_translated_policies_are_applied(pods: Plane) -> None:
    """An agent reaches the gateway; an MCP server does not, and is told which policy says so."""
    settings = NetworkPolicies()
    serving = {"name": "main", "image": own_image(), "command": ["python", "-c", GATEWAY], "ports": [
        {"name": "workloads", "containerPort": 8702}], "readinessProbe": {"tcpSocket": {"port": 8702},
                                                                          "periodSeconds": 1}}  # fmt: skip
    owner: dict[str, Any] = {"apiVersion": "kagent.dev/v1alpha2", "kind": "Agent"}
    agent = owner | {"metadata": {"name": "one", "namespace": "team", "uid": "1"}}
    server = owner | {"kind": "MCPServer", "metadata": {"name": "two", "namespace": "team", "uid": "2"}}
    policies = [
        agent_policy(agent, agent_labels("one"), settings),
        mcp_server_policy(server, server_selector("two"), server_selector("two"), settings),
    ]
    for policy in policies:
        del policy["metadata"]["ownerReferences"]  # they have no owner here
    service = {"apiVersion": "v1", "kind": "Service", "metadata": {
        "name": "quarterdeck-gateway", "namespace": "quarterdeck-system"}, "spec": {
            "selector": dict(settings.gateway), "ports": [{"name": "workloads", "port": 8702}]}}  # fmt: skip
    apply(pods, namespace("team"), namespace("quarterdeck-system"))
    for home in ("team", "quarterdeck-system"):
        kubectl(pods, "wait", "--for=create", "-n", home, "serviceaccount/default", "--timeout=90s")
    gateway = pod("gateway", {"containers": [serving]}, dict(settings.gateway), "quarterdeck-system")
    apply(pods, *policies, service, gateway)
    kubectl(pods, "wait", "-n", "quarterdeck-system", "pod/gateway", "--for=condition=Ready", "--timeout=60s")
    assert run(pods, "one", ASK, agent_selector("one"), "team") == "gateway\n"
    refused = run(pods, "two", ASK, server_selector("two"), "team")
    assert refused.startswith("403 quarterdeck egress: quarterdeck-gateway.quarterdeck-system")
    assert "egress not allowed by NetworkPolicy team/two" in refused
