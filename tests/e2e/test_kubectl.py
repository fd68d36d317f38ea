"""What a person types at a running platform: the issue's "Done when", with real kubectl."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import signal
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from support.platform import SEED, Platform, eventually

LISTED = "agents,mcpservers,remotemcpservers,modelconfigs,deploy,rs,pods,svc"
WEB = {
    "apiVersion": "apps/v1",
    "kind": "Deployment",
    "metadata": {"name": "web", "labels": {"app": "web"}},
    "spec": {
        "replicas": 1,
        "selector": {"matchLabels": {"app": "web"}},
        "template": {
            "metadata": {"labels": {"app": "web"}},
            "spec": {
                "terminationGracePeriodSeconds": 1,
                "containers": [
                    {
                        "name": "web",
                        "image": "datetime-server:latest",
                        "command": ["python", "-m", "http.server", "8000", "--directory", "/usr/share"],
                        "ports": [{"containerPort": 8000}],
                        "env": [{"name": "COLOUR", "value": "blue"}],
                        "readinessProbe": {"httpGet": {"path": "/", "port": 8000}, "periodSeconds": 1},
                    }
                ],
            },
        },
    },
}
"""A workload nobody owns, from the image of the demo."""


@pytest.fixture(scope="module")
def web(seed: Platform) -> Iterator[Platform]:
    seed.kubectl("create", "namespace", "web")
    seed.apply(WEB | {"metadata": WEB["metadata"] | {"namespace": "web"}})
    seed.kubectl("rollout", "status", "deploy/web", "-n", "web", "--timeout=90s")
    yield seed
    seed.kubectl("delete", "namespace", "web", "--ignore-not-found", "--timeout=90s")


@contextmanager
def running(process: subprocess.Popen[str]) -> Iterator[subprocess.Popen[str]]:
    """End a kubectl that goes on by itself."""
    try:
        yield process
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.communicate(timeout=5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()


def read_until(process: subprocess.Popen[str], pattern: str, seconds: float = 90) -> str:
    """Lines of a running command until one matches; fails with what came instead."""
    assert process.stdout is not None
    text, descriptor = "", process.stdout.fileno()
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if select.select([descriptor], [], [], 0.2)[0]:
            chunk = os.read(descriptor, 65536).decode()
            text += chunk
            if re.search(pattern, text):
                return text
            if not chunk:
                break
    raise AssertionError(f"no {pattern!r} in:\n{text}")


# -- apply, diff


def test_everything_of_the_seed_applies_twice(seed: Platform) -> None:
    again = seed.kubectl("apply", "-f", str(SEED)).out.splitlines()
    # The v1alpha1 ModelConfig is printed with a status, which a server ignores, so kubectl always sends it.
    changed = [line for line in again if not line.endswith(" unchanged")]
    assert changed == ["modelconfig.kagent.dev/gemini-model-config configured"]
    assert seed.kubectl("diff", "-f", str(SEED / "datetime-agent.yaml")).out == ""


@pytest.mark.parametrize("path", sorted(SEED.glob("*.yaml")), ids=lambda p: p.name)
def test_the_seed_applies_on_the_server_side(seed: Platform, path: Path) -> None:
    ran = seed.kubectl("apply", "--server-side", "--force-conflicts", "--field-manager=e2e", "-f", str(path))
    assert ran.out.count("serverside-applied") == path.read_text().count("\nkind:") + ran.out.count("\nkind: ")
    dry = seed.kubectl("apply", "--server-side", "--dry-run=server", "--field-manager=e2e", "-f", str(path))
    assert "serverside-applied (server dry run)" in dry.out


def test_diff_shows_a_change_and_changes_nothing(seed: Platform) -> None:
    changed = (SEED / "datetime-agent.yaml").read_text().replace("accurate date", "precise date")
    ran = seed.kubectl("diff", "-f", "-", stdin=changed, ok=False)
    assert ran.code == 1, ran.text
    assert re.search(r"^\+.*precise date", ran.out, re.M) and "generation: 2" in ran.out
    assert "accurate date" in json.dumps(seed.get("agent", "datetime-agent"))
    server = seed.kubectl("diff", "--server-side", "--force-conflicts", "-f", "-", stdin=changed, ok=False)
    assert server.code == 1 and "precise date" in server.out


# -- what the seed's objects say


def test_the_datetime_pair_is_ready(seed: Platform) -> None:
    assert seed.condition("agent", "datetime-agent", "Ready")["status"] == "True"
    assert seed.condition("agent", "datetime-agent", "Accepted")["status"] == "True"
    assert seed.condition("mcpserver", "datetime-agent-mcp", "Ready")["status"] == "True"


def test_an_image_that_cannot_run_here_says_so(seed: Platform) -> None:
    def found() -> dict[str, Any] | None:
        condition = seed.condition("mcpserver", "github-mcp-server", "Ready", "mcp")
        return condition if condition.get("reason") == "ImageNotRunnable" else None

    condition = eventually(found, "github-mcp-server says ImageNotRunnable")
    assert condition["status"] == "False"
    assert "ghcr.io/github/github-mcp-server" in condition["message"]
    assert "qd mcp build" in condition["message"] or "podman" in condition["message"], condition["message"]


@pytest.mark.parametrize("name", ["agw-mcp-servers", "kagent-tool-server"])
def test_a_server_without_a_peer_names_what_it_dialled(seed: Platform, name: str) -> None:
    condition = eventually(lambda: seed.condition("remotemcpserver", name, "Ready"), f"{name} has a condition")
    assert (condition["status"], condition["reason"]) == ("False", "ServerUnreachable")
    host = {"agw-mcp-servers": "agentgateway.mcp", "kagent-tool-server": "kagent-tools.kagent"}[name]
    assert host in condition["message"] and name in condition["message"], condition["message"]
    assert seed.condition("remotemcpserver", name, "Accepted")["status"] == "False"


def test_an_agent_names_the_tools_it_misses(seed: Platform) -> None:
    condition = eventually(lambda: seed.condition("agent", "aire-agent", "ResolvedRefs"), "aire-agent has a condition")
    assert (condition["status"], condition["reason"]) == ("False", "ToolsNotFound")
    assert "create_pull_request" in condition["message"] and "k8s_get_pod_logs" in condition["message"]


# -- reading


def test_get_in_every_shape(seed: Platform) -> None:
    table = seed.kubectl("get", LISTED, "-A").out
    for name in ("agent.kagent.dev/datetime-agent", "mcpserver.kagent.dev/datetime-agent-mcp",
                 "remotemcpserver.kagent.dev/agw-mcp-servers", "modelconfig.kagent.dev/default-model-config",
                 "deployment.apps/datetime-agent", "replicaset.apps/", "pod/", "service/datetime-agent"):  # fmt: skip
        assert name in table
    wide = seed.kubectl("get", LISTED, "-A", "-o", "wide").out
    assert "CONTAINERS" in wide and "NOMINATED NODE" in wide and "SELECTOR" in wide
    whole = seed.kubectl("get", LISTED, "-A", "-o", "yaml").out
    assert whole.startswith("apiVersion: v1\nitems:") and "kind: List" in whole
    names = seed.kubectl("get", "agents", "-n", "kagent", "-o", "name").out.split()
    assert "agent.kagent.dev/datetime-agent" in names
    ready = seed.kubectl("get", "agent", "datetime-agent", "-n", "kagent", "-o",
                         "jsonpath={.status.conditions[?(@.type=='Ready')].status}").out  # fmt: skip
    assert ready == "True"


def test_get_all_and_short_names(seed: Platform) -> None:
    assert "deployment.apps/datetime-agent" in seed.kubectl("get", "all", "-n", "kagent").out
    assert "datetime-agent-mcp" in seed.kubectl("get", "mcps", "-A").out
    assert "local" in seed.kubectl("get", "no").out
    custom = seed.kubectl(
        "get",
        "po",
        "-n",
        "kagent",
        "--sort-by=.metadata.name",
        "-o",
        "custom-columns=N:.metadata.name,P:.status.phase",
        "--no-headers",
    ).out.split("\n")
    assert custom == [*sorted(custom[:-1]), ""]


def test_watch_shows_a_change(seed: Platform) -> None:
    with running(seed.start("get", "agents", "-A", "-w")) as watch:
        read_until(watch, "datetime-agent")
        seed.kubectl("label", "agent", "datetime-agent", "-n", "kagent", "watched=yes", "--overwrite")
        read_until(watch, "datetime-agent")
    seed.kubectl("label", "agent", "datetime-agent", "-n", "kagent", "watched-")


def test_describe_and_explain(seed: Platform) -> None:
    described = seed.kubectl("describe", "agent", "datetime-agent", "-n", "kagent").out
    for part in ("Name:", "datetime-agent", "System Message:", "get_datetime", "Type:", "Accepted", "Events:"):
        assert part in described
    tools = seed.kubectl("explain", "agent.spec.declarative.tools").out
    assert re.search(r"KIND:\s+Agent", tools) and "FIELD: tools <[]Object>" in tools and "mcpServer" in tools
    assert "toolNames" in seed.kubectl("explain", "agent.spec.declarative.tools", "--recursive").out
    assert "replicas" in seed.kubectl("explain", "deployment.spec").out
    assert "Node:" in seed.kubectl("describe", "pods", "-n", "kagent", "-l", "kagent=datetime-agent").out
    assert "quarterdeck" in seed.kubectl("describe", "node", "local").out.lower()


def test_events_and_api_resources(seed: Platform) -> None:
    events = seed.kubectl("events", "-n", "kagent", "--for", "agent/datetime-agent").out
    assert "DeploymentReady" in events and "Agent/datetime-agent" in events
    assert "Scheduled" in seed.kubectl("get", "events", "-n", "kagent").out
    resources = seed.kubectl("api-resources", "-o", "wide").out
    assert re.search(r"^agents\s.*kagent\.dev/v1alpha2\s+true\s+Agent", resources, re.M)
    assert "kagent.dev/v1alpha1" in seed.kubectl("api-versions").out


def test_wait_for_a_condition(seed: Platform) -> None:
    ran = seed.kubectl("wait", "--for=condition=Ready", "agent/datetime-agent", "-n", "kagent", "--timeout=90s")
    assert "agent.kagent.dev/datetime-agent condition met" in ran.out
    late = seed.kubectl("wait", "--for=condition=Ready", "agent/k8s-agent", "-n", "default", "--timeout=1s", ok=False)
    assert late.code == 1 and "timed out waiting" in late.err
    seed.kubectl("wait", "--for=jsonpath={.status.readyReplicas}=1", "deploy/datetime-agent", "-n", "kagent",
                 "--timeout=90s")  # fmt: skip


def test_auth_can_i(seed: Platform) -> None:
    assert seed.kubectl("auth", "can-i", "create", "agents").out.strip() == "yes"
    pod = "--as=system:serviceaccount:kagent:datetime-agent"
    denied = seed.kubectl("auth", "can-i", "get", "secrets", "-n", "kagent", pod, ok=False)
    assert (denied.code, denied.out.strip()) == (1, "no")
    refused = seed.kubectl("get", "secrets", "-n", "kagent", pod, ok=False)
    assert "Forbidden" in refused.err and 'cannot list resource "secrets"' in refused.err
    assert "system:masters" in seed.kubectl("auth", "whoami").out


# -- Pods


def test_logs(web: Platform) -> None:
    name = web.pod("app=web", "web")["metadata"]["name"]
    web.kubectl("exec", "-n", "web", name, "--", "python", "-c",
                "import urllib.request as u; u.urlopen('http://127.0.0.1:8000/?first').read()")  # fmt: skip
    eventually(lambda: "?first" in web.kubectl("logs", "deploy/web", "-n", "web").out, "the request is logged")
    last = web.kubectl("logs", name, "-n", "web", "--tail=1", "--timestamps").out.splitlines()
    assert len(last) == 1 and re.match(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+Z ", last[0])
    assert web.kubectl("logs", name, "-n", "web", "--since=1h").out
    future = "2099-01-01T00:00:00Z"
    assert web.kubectl("logs", name, "-n", "web", f"--since-time={future}").out == ""
    assert 0 < len(web.kubectl("logs", name, "-n", "web", "--limit-bytes=20").out) <= 20
    with running(web.start("logs", "-f", "deploy/web", "-n", "web", "--tail=0")) as follow:
        web.kubectl("exec", "-n", "web", name, "--", "python", "-c",
                    "import urllib.request as u; u.urlopen('http://127.0.0.1:8000/?second').read()")  # fmt: skip
        read_until(follow, r"\?second")


def test_logs_of_an_agent(seed: Platform) -> None:
    with running(seed.start("logs", "-f", "deploy/datetime-agent", "-n", "kagent")) as follow:
        read_until(follow, "datetime-agent")


def test_logs_of_the_container_before(web: Platform) -> None:
    body = {
        "name": "again",
        "image": "datetime-server:latest",
        "command": ["sh", "-c", "echo run $$; sleep 0.2; exit 3"],
    }
    web.apply({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "again", "namespace": "web"},
               "spec": {"containers": [body]}})  # fmt: skip
    eventually(
        lambda: web.get("pod", "again", "web")["status"].get("containerStatuses", [{}])[0].get("restartCount", 0) > 0,
        "it restarts",
    )
    assert "run " in web.kubectl("logs", "again", "-n", "web", "--previous").out
    state = web.get("pod", "again", "web")["status"]["containerStatuses"][0]
    assert state["lastState"]["terminated"]["exitCode"] == 3 or state["state"]["terminated"]["exitCode"] == 3
    none = web.kubectl("logs", web.pod("app=web", "web")["metadata"]["name"], "-n", "web", "--previous", ok=False)
    assert none.code == 1 and "previous terminated container" in none.err
    web.kubectl("delete", "pod", "again", "-n", "web", "--grace-period=1")


def test_exec(web: Platform) -> None:
    target = ("exec", "-n", "web", "deploy/web", "--")
    assert web.kubectl(*target, "sh", "-c", "echo $COLOUR; echo bad >&2").out == "blue\n"
    assert web.kubectl(*target, "sh", "-c", "exit 7", ok=False).code == 7
    missing = web.kubectl(*target, "no-such-command", ok=False)
    assert missing.code in (126, 127) and "no-such-command" in missing.err
    text = "".join(f"{n}\n" for n in range(20_000))
    assert web.kubectl("exec", "-i", "-n", "web", "deploy/web", "--", "cat", stdin=text).out == text
    both = web.kubectl(*target, "sh", "-c", "echo out; echo err >&2")
    assert (both.out, both.err) == ("out\n", "err\n")


def test_exec_with_a_terminal(web: Platform) -> None:
    leader, follower = pty.openpty()
    process = web.start("exec", "-it", "-n", "web", "deploy/web", "--", "sh", stdin=follower, stdout=follower,
                        stderr=follower, start_new_session=True)  # fmt: skip
    os.close(follower)
    text = ""

    def read(pattern: str) -> None:
        nonlocal text
        deadline = time.monotonic() + 60
        while not re.search(pattern, text):
            assert time.monotonic() < deadline, f"no {pattern!r} in {text!r}"
            if select.select([leader], [], [], 0.2)[0]:
                text += os.read(leader, 4096).decode()

    try:
        read(r"[#$] ")
        os.write(leader, b"[ -t 0 ] && [ -t 1 ] && echo seen-$((40+2))\n")
        read(r"seen-42")
        os.write(leader, b"exit 5\n")
        assert process.wait(timeout=90) == 5
    finally:
        process.kill()
        os.close(leader)


def test_attach_shows_what_comes(web: Platform) -> None:
    name = web.pod("app=web", "web")["metadata"]["name"]
    with running(web.start("attach", "-n", "web", name)) as attached:

        def ask() -> bool:
            web.kubectl("exec", "-n", "web", name, "--", "python", "-c",
                        "import urllib.request as u; u.urlopen('http://127.0.0.1:8000/?attached').read()")  # fmt: skip
            assert attached.stdout is not None
            return bool(select.select([attached.stdout.fileno()], [], [], 0.5)[0])

        eventually(ask, "attach prints")
        read_until(attached, r"\?attached")


@pytest.mark.parametrize("target", ["deploy/web", "pod"])
def test_port_forward(web: Platform, target: str) -> None:
    if target == "pod":
        target = "pod/" + web.pod("app=web", "web")["metadata"]["name"]
    with running(web.start("port-forward", "-n", "web", target, ":8000", "--address", "127.0.0.1")) as forward:
        line = read_until(forward, r"Forwarding from 127\.0\.0\.1:\d+ -> 8000")
        port = int(re.findall(r"127\.0\.0\.1:(\d+)", line)[0])
        for _ in range(3):
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=60) as answer:
                assert answer.status == 200 and b"Directory listing" in answer.read()


def test_port_forward_to_an_agent_service(seed: Platform) -> None:
    with running(seed.start("port-forward", "-n", "kagent", "svc/datetime-agent", ":8080")) as forward:
        port = int(re.findall(r"127\.0\.0\.1:(\d+)", read_until(forward, r"Forwarding from 127.*"))[0])
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/.well-known/agent-card.json", timeout=60) as answer:
            assert json.load(answer)["name"].replace("_", "-") == "datetime-agent"


def test_top_pods(seed: Platform) -> None:
    shown = eventually(lambda: seed.kubectl("top", "pods", "-A", ok=False).out, "metrics exist")
    eventually(lambda: "datetime-agent-" in seed.kubectl("top", "pods", "-n", "kagent").out, "its Pods are measured")
    assert "CPU(cores)" in shown
    assert "local" in seed.kubectl("top", "nodes").out


# -- Deployments


def test_scale(web: Platform) -> None:
    web.kubectl("scale", "deploy/web", "-n", "web", "--replicas=2")
    web.kubectl("rollout", "status", "deploy/web", "-n", "web", "--timeout=90s")
    assert web.get("deploy", "web", "web")["status"]["readyReplicas"] == 2
    web.kubectl("scale", "deploy", "web", "-n", "web", "--current-replicas=2", "--replicas=1")
    eventually(lambda: len(web.get("pods", namespace="web", selector="app=web")["items"]) == 1, "one Pod is left")


def test_rollout_status_history_undo(web: Platform) -> None:
    web.kubectl("set", "env", "deploy/web", "-n", "web", "COLOUR=green")
    done = web.kubectl("rollout", "status", "deploy/web", "-n", "web", "--timeout=40s").out
    assert "successfully rolled out" in done
    history = web.kubectl("rollout", "history", "deploy/web", "-n", "web").out
    assert re.findall(r"^(\d+)\s", history, re.M)[-2:] == ["1", "2"]
    assert "green" in web.kubectl("rollout", "history", "deploy/web", "-n", "web", "--revision=2").out
    assert "rolled back" in web.kubectl("rollout", "undo", "deploy/web", "-n", "web").out
    web.kubectl("rollout", "status", "deploy/web", "-n", "web", "--timeout=40s")
    eventually(
        lambda: (
            web.kubectl("exec", "-n", "web", "deploy/web", "--", "sh", "-c", "echo $COLOUR", ok=False).out == "blue\n"
        ),
        "the template before is back",
    )


def test_rollout_pause_and_resume(web: Platform) -> None:
    web.kubectl("rollout", "pause", "deploy/web", "-n", "web")
    web.kubectl("set", "env", "deploy/web", "-n", "web", "COLOUR=red")
    eventually(lambda: web.get("deploy", "web", "web")["status"]["observedGeneration"]
               == web.get("deploy", "web", "web")["metadata"]["generation"], "it is observed")  # fmt: skip
    assert web.get("deploy", "web", "web")["status"].get("updatedReplicas", 0) == 0
    web.kubectl("rollout", "resume", "deploy/web", "-n", "web")
    web.kubectl("rollout", "status", "deploy/web", "-n", "web", "--timeout=40s")


def test_restart_of_an_owned_deployment(seed: Platform) -> None:
    before = seed.pod("kagent=datetime-agent")["metadata"]["uid"]
    seed.kubectl("rollout", "restart", "deploy/datetime-agent", "-n", "kagent")
    seed.kubectl("rollout", "status", "deploy/datetime-agent", "-n", "kagent", "--timeout=60s")
    after = seed.pod("kagent=datetime-agent")["metadata"]["uid"]
    assert after != before
    template = seed.get("deploy", "datetime-agent")["spec"]["template"]["metadata"]["annotations"]
    assert "kubectl.kubernetes.io/restartedAt" in template


def test_an_owned_template_is_restored_with_an_event(seed: Platform) -> None:
    before = seed.get("deploy", "datetime-agent")["spec"]["template"]["spec"]["containers"][0]["args"]
    patch = [{"op": "replace", "path": "/spec/template/spec/containers/0/args", "value": ["--port", "1"]}]
    seed.kubectl("patch", "deploy", "datetime-agent", "-n", "kagent", "--type=json", "-p", json.dumps(patch))
    eventually(
        lambda: seed.get("deploy", "datetime-agent")["spec"]["template"]["spec"]["containers"][0]["args"] == before,
        "the controller restores the template",
    )
    seen = seed.kubectl("events", "-n", "kagent", "--for", "agent/datetime-agent").out
    assert re.search(r"Restored|TemplateRestored|DeploymentRestored", seen), seen
    seed.kubectl("rollout", "status", "deploy/datetime-agent", "-n", "kagent", "--timeout=60s")
    seed.wait("agent/datetime-agent")


def test_undo_of_an_owned_deployment_is_restored(seed: Platform) -> None:
    """Its revisions differ by what the Agent said; undo asks for an old one and the Agent's present one comes back."""
    image = seed.get("deploy", "datetime-agent")["spec"]["template"]
    seed.kubectl("rollout", "undo", "deploy/datetime-agent", "-n", "kagent", ok=False)
    eventually(lambda: seed.get("deploy", "datetime-agent")["spec"]["template"]["spec"] == image["spec"], "restored")
    seed.kubectl("rollout", "status", "deploy/datetime-agent", "-n", "kagent", "--timeout=60s")
    seed.wait("agent/datetime-agent")


# -- editing


def test_edit(web: Platform) -> None:
    script = web.scratch / "editor.sh"
    script.write_text('#!/bin/sh\nsed -i "s/COLOUR/SHADE/; s/^  labels:/  labels:\\n    edited: \\"yes\\"/" "$1"\n')
    script.chmod(0o755)
    ran = web.kubectl("edit", "deploy/web", "-n", "web", env={"EDITOR": str(script), "KUBE_EDITOR": str(script)})
    assert "deployment.apps/web edited" in ran.out
    edited = web.get("deploy", "web", "web")
    assert edited["metadata"]["labels"]["edited"] == "yes"
    assert edited["spec"]["template"]["spec"]["containers"][0]["env"][0]["name"] == "SHADE"


def test_label_annotate_patch(seed: Platform) -> None:
    agent = ("agent", "datetime-agent", "-n", "kagent")
    seed.kubectl("label", *agent, "team=clock")
    assert "datetime-agent" in seed.kubectl("get", "agents", "-n", "kagent", "-l", "team=clock").out
    twice = seed.kubectl("label", *agent, "team=other", ok=False)
    assert twice.code == 1 and "--overwrite" in twice.err
    seed.kubectl("label", *agent, "team-")
    seed.kubectl("annotate", *agent, "note=one")
    seed.kubectl("patch", *agent, "--type=merge", "-p", '{"metadata":{"annotations":{"note":null}}}')
    assert "note" not in seed.get("agent", "datetime-agent")["metadata"].get("annotations", {})


def test_invalid_objects_are_refused_with_the_field(seed: Platform) -> None:
    agent = (SEED / "datetime-agent.yaml").read_text().partition("---\n")[2]
    unknown = seed.kubectl("apply", "-f", "-", stdin=agent.replace("systemMessage:", "systemMesage:"), ok=False)
    assert unknown.code == 1 and 'unknown field "spec.declarative.systemMesage"' in unknown.err
    wrong = seed.kubectl("apply", "-f", "-", stdin=agent.replace("type: Declarative", "type: Magic"), ok=False)
    assert wrong.code == 1 and "spec.type" in wrong.err and "Declarative" in wrong.err


def test_typed_commands(web: Platform) -> None:
    n = ("-n", "web")
    web.kubectl("create", "configmap", "settings", "--from-literal=a=1", *n)
    web.kubectl("create", "secret", "generic", "hidden", "--from-literal=key=value", *n)
    web.kubectl("create", "serviceaccount", "robot", *n)
    token = web.kubectl("create", "token", "robot", *n).out.strip()
    assert token.count(".") == 2
    web.kubectl("create", "role", "reader", "--verb=get,list", "--resource=pods", *n)
    web.kubectl("create", "rolebinding", "reader", "--role=reader", "--serviceaccount=web:robot", *n)
    assert "web" in web.kubectl("get", "pods", *n, "--token", token, "--kubeconfig", str(web.kubeconfig)).out
    robot = "--as=system:serviceaccount:web:robot"
    assert web.kubectl("auth", "can-i", "list", "pods", robot, *n).out.strip() == "yes"
    web.kubectl("create", "deployment", "second", "--image=datetime-server:latest", "--replicas=0", *n)
    web.kubectl("expose", "deploy/web", "--port=80", "--target-port=8000", *n)
    eventually(lambda: web.get("endpointslices", namespace="web", selector="kubernetes.io/service-name=web")["items"],
               "the Service has endpoints")  # fmt: skip
    web.kubectl("create", "job", "once", "--image=datetime-server:latest", *n, "--", "sh", "-c", "echo done")
    web.kubectl("wait", "--for=condition=complete", "job/once", *n, "--timeout=90s")
    assert web.kubectl("logs", "job/once", *n).out == "done\n"
    web.kubectl(
        "run", "single", "--image=datetime-server:latest", "--restart=Never", *n, "--command", "--", "sleep", "60"
    )
    web.kubectl("wait", "--for=condition=Ready", "pod/single", *n, "--timeout=90s")
    assert 'pod "single" deleted' in web.kubectl("delete", "pod", "single", *n, "--grace-period=1").out
    web.kubectl("create", "namespace", "other", "--dry-run=client", "-o", "yaml")


def test_run_prints_and_goes(web: Platform) -> None:
    ran = web.kubectl("run", "hello", "-n", "web", "--image=datetime-server:latest", "--restart=Never", "--rm", "-i",
                      "--command", "--", "sh", "-c", "sleep 1; echo hello from a Pod")  # fmt: skip
    assert "hello from a Pod" in ran.out
    eventually(lambda: "NotFound" in web.kubectl("get", "pod", "hello", "-n", "web", ok=False).err, "it is gone")


def test_delete_namespace_takes_everything(seed: Platform) -> None:
    seed.kubectl("create", "namespace", "gone")
    document = WEB | {"metadata": WEB["metadata"] | {"namespace": "gone"}}
    seed.apply(document, {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "held", "namespace": "gone"}})
    server = (SEED / "datetime-agent.yaml").read_text().partition("---\n")[0].replace("kagent\n", "gone\n")
    seed.apply(server)
    uid = seed.pod("app=web", "gone")["metadata"]["uid"]
    ran = seed.kubectl("delete", "namespace", "gone", "--timeout=45s")
    assert 'namespace "gone" deleted' in ran.out
    left = seed.kubectl("get", f"{LISTED},configmaps,endpointslices,secrets,serviceaccounts", "-n", "gone", ok=False)
    assert left.out == "" and "No resources found" in left.err, left.text
    if seed.home is not None:
        assert not (seed.home / "node" / "pods" / uid).exists()
