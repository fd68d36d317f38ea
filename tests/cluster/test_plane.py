"""The test plane is a real cluster: its Pods run, are reached by name, are measured, and nothing of it stays behind."""

from __future__ import annotations

import json
import os
import signal
import ssl
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from quarterdeck.resources.images import own_image

from .guard import processes_of
from .plane import Plane, available

pytestmark = [pytest.mark.timeout(120), pytest.mark.slow]  # in the fast tier, those that use it prove it
KUBECTL = str(Path(sys.executable).parent / "kubectl")
SERVER = """
import http.server, os
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(os.environ["HOSTNAME"].encode())
print("serving", flush=True)
http.server.ThreadingHTTPServer(("0.0.0.0", 8080), Handler).serve_forever()
"""


def deployment(name: str, replicas: int = 1) -> list[dict[str, Any]]:
    """An HTTP server that says its Pod's name, and its Service."""
    container = {
        "name": "server", "image": own_image(), "command": ["python", "-c", SERVER],
        "ports": [{"containerPort": 8080}], "resources": {"requests": {"cpu": "100m"}},
        "readinessProbe": {"httpGet": {"path": "/", "port": 8080}, "periodSeconds": 1},
    }  # fmt: skip
    spec = {"containers": [container], "terminationGracePeriodSeconds": 1}
    return [
        {
            "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name},
            "spec": {"replicas": replicas, "selector": {"matchLabels": {"app": name}},
                     "template": {"metadata": {"labels": {"app": name}}, "spec": spec}},
        },
        {
            "apiVersion": "v1", "kind": "Service", "metadata": {"name": name},
            "spec": {"selector": {"app": name}, "ports": [{"port": 80, "targetPort": 8080}]},
        },
    ]  # fmt: skip


def kubectl(plane: Plane, *args: str, stdin: str | None = None, seconds: float = 60) -> str:
    done = subprocess.run(
        [KUBECTL, f"--kubeconfig={plane.kubeconfig}", *args], input=stdin, capture_output=True, text=True,
        timeout=seconds, env={**os.environ, "NO_PROXY": "*", "KUBECACHEDIR": str(plane.root / "kube-cache")},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def apply(plane: Plane, *documents: dict[str, Any]) -> None:
    kubectl(plane, "apply", "-f", "-", stdin=json.dumps({"apiVersion": "v1", "kind": "List", "items": documents}))


def get(plane: Plane, *what: str) -> Any:
    return json.loads(kubectl(plane, "get", *what, "-o", "json"))


def eventually(check: Callable[[], Any], what: str, seconds: float = 90) -> Any:
    deadline = time.monotonic() + seconds
    while not (found := check()):
        assert time.monotonic() < deadline, f"not within {seconds:g} s: {what}"
        time.sleep(0.1)
    return found


def ask(address: str) -> str:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(f"http://{address}", timeout=5) as answer:
        return answer.read().decode()


@pytest.fixture(scope="module")
def web(pods: Plane) -> Plane:
    """Two replicas behind the Service ``web``."""
    apply(pods, *deployment("web", 2))
    kubectl(pods, "rollout", "status", "deployment/web", "--timeout=60s", seconds=70)
    return pods


def test_the_node_is_a_nodes_own_identity(pods: Plane) -> None:
    node = get(pods, "node", "node-1")
    assert node["status"]["nodeInfo"]["containerRuntimeVersion"].startswith("quarterdeck://")
    assert node["status"]["capacity"]["pods"] == "200"
    writers = {e["user"]["username"] for e in pods.audit(writes=True) if e["objectRef"]["resource"] == "nodes"}
    assert "system:node:node-1" in writers
    lease = get(pods, "lease", "node-1", "-n", "kube-node-lease")
    assert lease["spec"]["holderIdentity"] == "node-1"


def test_a_service_address_leads_to_every_ready_endpoint(web: Plane) -> None:
    address = get(web, "service", "web")["spec"]["clusterIP"]
    pods = {p["metadata"]["name"] for p in get(web, "pods", "-l", "app=web")["items"]}
    eventually(lambda: {ask(address) for _ in range(4)} == pods, "the node's relay knows both endpoints")


def test_a_service_without_endpoints_refuses(web: Plane) -> None:
    _, service = deployment("nobody")
    apply(web, service)
    address = get(web, "service", "nobody")["spec"]["clusterIP"]
    with pytest.raises(OSError, match="refused"):
        ask(address)


def test_pods_know_services_by_name_also_new_ones(web: Plane) -> None:
    pod = get(web, "pods", "-l", "app=web")["items"][0]["metadata"]["name"]
    look = "import socket,sys;print(*(socket.gethostbyname(n) for n in sys.argv[1:]))"
    names = ("web", "web.default", "web.default.svc", "web.default.svc.cluster.local", "kubernetes.default")
    found = kubectl(web, "exec", pod, "--", "python", "-c", look, *names).split()
    api = get(web, "service", "kubernetes")["spec"]["clusterIP"]
    assert found == [get(web, "service", "web")["spec"]["clusterIP"]] * 4 + [api]
    _, late = deployment("late")
    apply(web, late)
    address = get(web, "service", "late")["spec"]["clusterIP"]
    eventually(lambda: address in kubectl(web, "exec", pod, "--", "cat", "/etc/hosts"), "the new Service's name")


def test_logs_exec_and_port_forward_go_through_the_kubelet_api(web: Plane) -> None:
    assert kubectl(web, "logs", "deployment/web").startswith("serving\n")
    assert kubectl(web, "exec", "deployment/web", "--", "echo", "inside") == "inside\n"
    forward = subprocess.Popen(
        [KUBECTL, f"--kubeconfig={web.kubeconfig}", "port-forward", "service/web", ":80"],
        stdout=subprocess.PIPE, text=True, env={**os.environ, "NO_PROXY": "*"},
    )  # fmt: skip
    try:
        assert forward.stdout is not None
        port = forward.stdout.readline().split(":")[1].split()[0]
        assert ask(f"127.0.0.1:{port}").startswith("web-")
    finally:
        forward.terminate()
        forward.wait(90)


def kubelet_status(plane: Plane, path: str, *, user: str = "", token: str = "") -> int:
    """What the kubelet API answers to a client certificate or a bearer token."""
    node = get(plane, "node", "node-1")
    address = next(a["address"] for a in node["status"]["addresses"] if a["type"] == "InternalIP")
    context = ssl.create_default_context(cafile=str(plane.ca))
    if user:
        config = plane.client_config(user)
        context.load_cert_chain(config.client_cert, config.client_key)
    headers = {"authorization": f"Bearer {token}"} if token else {}
    url = f"https://{address}:{node['status']['daemonEndpoints']['kubeletEndpoint']['Port']}{path}"
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context))
    try:
        return opener.open(urllib.request.Request(url, headers=headers), timeout=10).status
    except urllib.error.HTTPError as error:
        return error.code


def test_the_kubelet_api_asks_the_api_server_who_may(pods: Plane) -> None:
    kubectl(pods, "create", "serviceaccount", "scraper")
    kubectl(pods, "create", "clusterrole", "scraper", "--verb=get", "--resource=nodes/metrics")
    kubectl(
        pods, "create", "clusterrolebinding", "scraper", "--clusterrole=scraper", "--serviceaccount=default:scraper"
    )
    token = kubectl(pods, "create", "token", "scraper").strip()
    assert kubelet_status(pods, "/metrics/resource", token=token) == 200
    assert kubelet_status(pods, "/pods", token=token) == 403
    assert kubelet_status(pods, "/exec/default/any/server", token=token) == 403
    assert kubelet_status(pods, "/metrics/resource", token="no.such.token") == 401
    assert kubelet_status(pods, "/metrics/resource") == 401
    assert kubelet_status(pods, "/metrics/resource", user="somebody") == 403
    assert kubelet_status(pods, "/pods", user="kubernetes-admin") == 200
    assert kubelet_status(pods, "/healthz") == 200


IDENTITY = """
import os, ssl, urllib.request
folder = "/var/run/secrets/kubernetes.io/serviceaccount"
context = ssl.create_default_context(cafile=folder + "/ca.crt")
url = "https://%s:%s/apis" % (os.environ["KUBERNETES_SERVICE_HOST"], os.environ["KUBERNETES_SERVICE_PORT"])
ask = urllib.request.Request(url, headers={"authorization": "Bearer " + open(folder + "/token").read()})
print(urllib.request.urlopen(ask, context=context, timeout=10).status, open(folder + "/namespace").read())
"""


def test_a_pod_with_the_machines_network_is_a_client_of_the_api(web: Plane) -> None:
    spec = {
        "hostNetwork": True, "restartPolicy": "Never",
        "containers": [{"name": "client", "image": own_image(), "command": ["python", "-c", IDENTITY]}],
    }  # fmt: skip
    apply(web, {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "client"}, "spec": spec})
    kubectl(web, "wait", "pod/client", "--for=jsonpath={.status.phase}=Succeeded", "--timeout=90s")
    assert kubectl(web, "logs", "client") == "200 default\n"


def test_an_autoscaler_acts_on_what_metrics_server_measures(web: Plane) -> None:
    kubectl(web, "autoscale", "deployment/web", "--min=1", "--max=3", "--cpu=50%")
    eventually(lambda: get(web, "deployment", "web")["spec"]["replicas"] == 1, "scaled down: it is idle", 60)
    usage = json.loads(web.request("GET", "/apis/metrics.k8s.io/v1beta1/namespaces/default/pods"))
    assert usage["items"][0]["containers"][0]["name"] == "server"
    kubectl(web, "delete", "hpa", "web")


def test_the_audit_log_says_who_wrote_what(cluster: Plane) -> None:
    apply(cluster, {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "told"}, "data": {"a": "b"}})
    events = cluster.audit(user_agent="kubectl", user="kubernetes-admin", writes=True)
    told = [e for e in events if e["objectRef"].get("name") == "told"]
    assert [e["verb"] for e in told] == ["create"]
    assert told[0]["requestObject"]["data"] == {"a": "b"}


def test_the_api_server_and_etcd_come_back(cluster: Plane) -> None:
    for component in (cluster.api_server, cluster.etcd):
        component.kill()
        component.start()
        cluster.wait_ready()
    assert get(cluster, "namespace", "default")["status"]["phase"] == "Active"


HOLDER = """
import sys
sys.path.insert(0, sys.argv[1])
from cluster.plane import plane
with plane() as started:
    print(started.root, flush=True)
    sys.stdin.read()
"""


def test_a_plane_whose_pytest_was_killed_leaves_nothing() -> None:
    place, why = available()
    if place is None:
        pytest.skip(f"kube-apiserver: {why}")
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(Path(__file__).parents[1])], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        text=True,
    )  # fmt: skip
    assert holder.stdout is not None
    root = Path(holder.stdout.readline().strip())
    assert root.name.startswith("qd-plane-") and processes_of(root)
    ranges = [json.loads(p.read_text())["cidr"] for p in root.glob("ranges/*/addresses.json")]
    os.kill(holder.pid, signal.SIGKILL)
    holder.wait()
    eventually(lambda: not root.exists() and not processes_of(root), "processes and folder gone")
    table = subprocess.run(["ip", "route", "show", "table", "local"], capture_output=True, text=True).stdout
    assert [r for r in ranges if r in table] == []
