"""Who may do what, tried from inside the Pods: tokens, tools, networks, secrets."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from support.platform import SEED, Platform, eventually, files_below

from .test_clients import agent

KEY = "sk-e2e-provider-key-0123456789"
ROTATED = "sk-e2e-rotated-key-9876543210"
HEADER = "e2e-header-secret-abcdef"
INITIALIZE = {
    "jsonrpc": "2.0",
    "id": 1,
    "method": "initialize",
    "params": {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "e2e", "version": "1"}},
}

# Runs in a Pod, with the Pod's python: a connection to host:port; prints what came of it.
DIAL = """
import socket, sys
try:
    socket.create_connection((sys.argv[1], int(sys.argv[2])), 3).close()
    print("connected")
except OSError as error:
    print("refused", error.errno, type(error).__name__)
"""

DENIED = "refused 13 PermissionError"
"""The kernel's answer to a port that the sandbox does not name."""

# Runs in a Pod: a POST by urllib with a bearer token, or with none; prints the status.
GET = """
import sys, urllib.request, urllib.error
headers = {"Authorization": "Bearer " + sys.argv[2]} if sys.argv[2] else {}
request = urllib.request.Request(sys.argv[1], data=b"{}", headers=headers | {"Content-Type": "application/json"})
try:
    print(urllib.request.urlopen(request, timeout=5).status)
except urllib.error.HTTPError as error:
    print(error.code)
except OSError as error:
    print("unreachable", error)
"""


@pytest.fixture(scope="module")
def shared(seed: Platform) -> Iterator[Platform]:
    """Two Agents on one ServiceAccount, each with one tool of the same server."""
    seed.apply({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "shared", "namespace": "kagent"}})
    for name, tool in (("clock", "get_time"), ("calendar", "get_date")):
        document = agent(name, {"datetime-agent-mcp": [tool]})
        document["spec"]["declarative"]["deployment"] = {"serviceAccountName": "shared"}
        seed.apply(document)
    for name in ("clock", "calendar"):
        seed.wait(f"agent/{name}", seconds=90)
    yield seed
    seed.kubectl("delete", "agent", "clock", "calendar", "-n", "kagent")


def token_of(platform: Platform, name: str) -> str:
    path = "/var/run/secrets/tokens/quarterdeck-token"
    return platform.kubectl("exec", "-n", "kagent", f"deploy/{name}", "--", "cat", path).out.strip()


def workloads(platform: Platform) -> str:
    """The gateway's address for Pods, as an agent knows it; a Service's name gives way to its address."""
    document = platform.kubectl("exec", "-n", "kagent", "deploy/datetime-agent", "--", "cat", "/config/config.json").out
    url = str(json.loads(document)["http_tools"][0]["params"]["url"]).split("/mcp/")[0]
    host = host_of(url)
    if host.count(".") == 1:
        name, namespace = host.split(".")
        url = url.replace(host, platform.get("service", name, namespace)["spec"]["clusterIP"])
    return url


class Caller:
    """A legacy MCP session with a bearer token, spoken by hand: what an agent's process could do."""

    def __init__(self, base: str, token: str, path: str = "/mcp/kagent/datetime-agent-mcp") -> None:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        headers |= {"Accept": "application/json, text/event-stream", "Content-Type": "application/json"}
        self._http = httpx.Client(base_url=base, headers=headers, timeout=20)
        self._path = path
        self._session = ""

    def post(self, method: str, params: dict[str, Any] | None = None, session: str = "") -> httpx.Response:
        body = (
            INITIALIZE
            if method == "initialize"
            else {"jsonrpc": "2.0", "id": 2, "method": method, "params": params or {}}
        )
        return self._http.post(self._path, json=body, headers={"Mcp-Session-Id": session} if session else {})

    def session(self) -> str:
        """One for all calls: the server starts a process for each."""
        if not self._session:
            started = self.post("initialize")
            assert started.status_code == 200, started.text
            self._session = started.headers["mcp-session-id"]
        return self._session

    def ask(self, method: str, params: dict[str, Any] | None = None) -> dict[str, Any]:
        """The JSON-RPC answer, out of JSON or out of an event stream."""
        answer = self.post(method, params, self.session())
        text = answer.text
        if answer.headers["content-type"].startswith("text/event-stream"):
            text = [line[5:] for line in text.splitlines() if line.startswith("data:") and line[5:].strip()][-1]
        return json.loads(text)


def refused(answer: dict[str, Any]) -> str:
    """The message of a denial, as an error or as a tool result."""
    if "error" in answer:
        return str(answer["error"]["message"])
    assert answer["result"].get("isError"), answer
    return str(answer["result"]["content"][0]["text"])


# -- agents and their tools


def test_agents_on_one_service_account_have_their_own_tools(shared: Platform) -> None:
    base = workloads(shared)
    for name, own, other in (("clock", "get_time", "get_date"), ("calendar", "get_date", "get_time")):
        caller = Caller(base, token_of(shared, name))
        listed = [tool["name"] for tool in caller.ask("tools/list")["result"]["tools"]]
        assert listed == [own], f"{name} sees {listed}"
        byhand = refused(caller.ask("tools/call", {"name": own, "arguments": {}}))
        assert "needs a permit" in byhand, byhand  # its token alone is not enough: only the steps of its runs are
        answer = shared.qd("agent", "invoke", name, "What time is it?" if own == "get_time" else "What date is it?")
        assert f"→ {own}" in answer.text and re.search(r"\d\d", answer.out), answer.text
        reason = refused(caller.ask("tools/call", {"name": other, "arguments": {}}))
        assert other in reason and f"kagent/{name}" in reason and "toolNames" in reason, reason


def test_the_multiplexed_endpoint_is_filtered_too(shared: Platform) -> None:
    caller = Caller(workloads(shared), token_of(shared, "clock"), "/mcp")
    listed = [tool["name"] for tool in caller.ask("tools/list")["result"]["tools"]]
    assert listed == ["datetime-agent-mcp_get_time"]
    reason = refused(caller.ask("tools/call", {"name": "datetime-agent-mcp_get_date", "arguments": {}}))
    assert "get_date" in reason


def test_a_denied_call_is_audited(shared: Platform) -> None:
    caller = Caller(workloads(shared), token_of(shared, "calendar"))
    refused(caller.ask("tools/call", {"name": "get_datetime", "arguments": {}}))

    def found() -> dict[str, Any] | None:
        records = [r for r in shared.audit() if r["agent"] == "kagent/calendar" and r["tool"] == "get_datetime"]
        return records[-1] if records else None

    record = eventually(found, "an audit record of the refusal")
    assert (record["decision"], record["outcome"], record["kind"]) == ("deny", "denied", "mcp")
    assert record["server"].endswith("kagent/datetime-agent-mcp")
    assert record["rule"] == "agent/kagent/calendar/tools/MCPServer/kagent/datetime-agent-mcp"
    ours = [r for r in shared.audit() if r["agent"] == "kagent/clock" and r["kind"] == "mcp"]
    allowed = [r for r in ours if r["outcome"] == "ok" and r["tool"]]
    assert allowed and allowed[-1]["tool"] == "get_time" and allowed[-1]["latencyMs"] >= 0


def test_an_agent_reaches_no_model_or_agent_it_was_not_given(shared: Platform) -> None:
    caller = Caller(workloads(shared), token_of(shared, "clock"), "/a2a/kagent/datetime-agent")
    denied = caller.post("message/send", {}).json()["error"]["message"]
    assert "kagent/datetime-agent is not granted to agent kagent/clock" in denied, denied
    caller = Caller(workloads(shared), token_of(shared, "clock"), "/llm/kagent/gemini-model-config/v1/chat/completions")
    assert caller.post("x").status_code == 403


# -- tokens


def test_no_token_no_entry(shared: Platform) -> None:
    base = workloads(shared)
    for path in ("/mcp", "/mcp/kagent/datetime-agent-mcp", "/a2a/kagent/datetime-agent", "/v1/models"):
        assert Caller(base, "", path).post("initialize").status_code == 401, path
    url = f"{base}/mcp/kagent/datetime-agent-mcp"
    inside = shared.kubectl("exec", "-n", "kagent", "deploy/clock", "--", "python", "-c", GET, url, "")
    assert inside.out.strip() == "401", inside.text


def test_tokens_for_others_are_refused(shared: Platform) -> None:
    base = workloads(shared)
    create = ("create", "token", "shared", "-n", "kagent")
    pod = shared.pod("kagent=clock")["metadata"]
    bound = ("--bound-object-kind=Pod", f"--bound-object-name={pod['name']}", f"--bound-object-uid={pod['uid']}")
    foreign = {
        "for the API server": shared.kubectl(*create).out.strip(),
        "for somebody else": shared.kubectl(*create, "--audience=vault", *bound).out.strip(),
        "not bound to a Pod": shared.kubectl(*create, "--audience=quarterdeck").out.strip(),
        "bent": token_of(shared, "clock")[:-6] + "AAAAAA",
        "nonsense": "a.b.c",
    }
    for what, token in foreign.items():
        answer = Caller(base, token).post("initialize")
        assert answer.status_code == 401, f"a token {what} was taken: {answer.status_code}"
        assert "bearer" in answer.headers["www-authenticate"].lower()
    right = shared.kubectl(*create, "--audience=quarterdeck", *bound).out.strip()
    assert Caller(base, right).post("initialize").status_code == 200
    # The gateway's audience opens nothing at the API server.
    denied = shared.kubectl("get", "pods", "-n", "kagent", "--token", token_of(shared, "clock"), "--kubeconfig",
                            str(no_admin(shared)), ok=False)  # fmt: skip
    assert denied.code == 1 and re.search("Unauthorized|must be logged in", denied.err), denied.err


def no_admin(platform: Platform) -> Path:
    """The kubeconfig without its administrator."""
    path = platform.scratch / "nobody.kubeconfig"
    document = yaml.safe_load(platform.kubeconfig.read_text())
    for user in document["users"]:
        user["user"] = {}
    path.write_text(yaml.safe_dump(document))
    return path


def test_a_deleted_pods_token_is_refused(shared: Platform) -> None:
    token = token_of(shared, "calendar")
    name = shared.pod("kagent=calendar")["metadata"]["name"]
    shared.kubectl("delete", "pod", name, "-n", "kagent", "--grace-period=1")
    base = workloads(shared)
    eventually(lambda: Caller(base, token).post("initialize").status_code == 401, "the token of a Pod that is gone")


# -- networks


def dial(platform: Platform, target: str, host: str, port: int, python: str = "python") -> str:
    ran = platform.kubectl("exec", "-n", "kagent", target, "--", python, "-c", DIAL, host, str(port))
    return ran.out.strip()


def port_of(url: str) -> int:
    return int(url.rsplit(":", 1)[1])


def host_of(url: str) -> str:
    return url.rsplit(":", 1)[0].removeprefix("http://")


def test_an_agent_cannot_go_past_the_gateway(shared: Platform) -> None:
    server = shared.pod("app.kubernetes.io/name=datetime-agent-mcp")["status"]["podIP"]
    other = shared.pod("kagent=calendar")["status"]["podIP"]
    base = workloads(shared)
    assert dial(shared, "deploy/clock", host_of(base), port_of(base)) == "connected"
    for host, port in ((server, 3000), (other, 8080)):
        assert dial(shared, "deploy/clock", host, port) == DENIED, f"an agent dialled {host}:{port} directly"
    if shared.home is not None:
        found = shared.endpoints()
        for name in ("gateway", "kubernetes"):
            assert dial(shared, "deploy/clock", "127.0.0.1", port_of(found[name])) == DENIED, name


def test_an_mcp_server_reaches_nobody(shared: Platform) -> None:
    target = "deploy/datetime-agent-mcp"
    agent_ip = shared.pod("kagent=clock")["status"]["podIP"]
    assert dial(shared, target, agent_ip, 8080).startswith("refused")
    if shared.home is not None:
        found = shared.endpoints()
        for name in ("gateway", "gatewayWorkloads", "kubernetes", "api", "kagent"):
            assert dial(shared, target, "127.0.0.1", port_of(found[name])).startswith("refused"), name


def test_an_mcp_servers_way_out_ends_at_private_addresses(shared: Platform) -> None:
    """Its proxy takes it to public hosts only."""
    url = shared.gateway + "/mcp"
    code = f"""
import os, urllib.request, urllib.error
os.environ["NO_PROXY"] = os.environ["no_proxy"] = ""
try:
    print(urllib.request.urlopen({url!r}, timeout=5).status)
except urllib.error.HTTPError as error:
    print(error.code, error.read().decode())
"""
    ran = shared.kubectl("exec", "-n", "kagent", "deploy/datetime-agent-mcp", "--", "python", "-c", code)
    assert ran.out.startswith("403") and "not a public address" in ran.out


def test_nobody_but_the_gateway_reaches_an_mcp_server(shared: Platform) -> None:
    """From the machine itself the Pod's address answers the gateway's connections only."""
    server = shared.pod("app.kubernetes.io/name=datetime-agent-mcp")["status"]["podIP"]
    for target in ("deploy/datetime-agent", "deploy/default-model-config"):
        assert dial(shared, target, server, 3000) == DENIED, target


# -- secrets


@pytest.fixture(scope="module")
def keyed(shared: Platform) -> Iterator[Platform]:
    """A model with a provider key, a server with a header from a Secret, and an agent that uses both."""
    encode = lambda text: base64.b64encode(text.encode()).decode()  # noqa: E731
    shared.apply(
        {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "provider", "namespace": "kagent"},
         "data": {"KEY": encode(KEY), "HEADER": encode(HEADER)}},
        {"apiVersion": "kagent.dev/v1alpha2", "kind": "ModelConfig",
         "metadata": {"name": "keyed", "namespace": "kagent"},
         "spec": {"provider": "OpenAI", "model": "gpt-e2e", "apiKeySecret": "provider", "apiKeySecretKey": "KEY",
                  "openAI": {"baseUrl": "http://127.0.0.1:9/v1"}}},
        {"apiVersion": "kagent.dev/v1alpha2", "kind": "RemoteMCPServer",
         "metadata": {"name": "headed", "namespace": "kagent"},
         "spec": {"description": "x", "protocol": "STREAMABLE_HTTP", "url": "http://127.0.0.1:9/mcp", "headersFrom": [
             {"name": "X-Api-Key", "valueFrom": {"type": "Secret", "name": "provider", "key": "HEADER"}}]}},
    )  # fmt: skip
    document = agent("keyed", {})
    document["spec"]["declarative"] |= {"modelConfig": "keyed", "tools": [
        {"type": "McpServer", "mcpServer": {"apiGroup": "kagent.dev", "kind": "RemoteMCPServer", "name": "headed",
                                            "toolNames": ["x"]}}]}  # fmt: skip
    shared.apply(document)
    shared.wait("agent/keyed", seconds=60)
    yield shared
    for target in ("agent/keyed", "modelconfig/keyed", "remotemcpserver/headed", "secret/provider"):
        shared.kubectl("delete", target, "-n", "kagent")


SECRETS = (KEY, HEADER, base64.b64encode(KEY.encode()).decode(), base64.b64encode(HEADER.encode()).decode())


def test_no_secret_is_in_a_pod_or_in_what_configures_it(keyed: Platform) -> None:
    target = ("exec", "-n", "kagent", "deploy/keyed", "--")
    seen = keyed.kubectl(
        *target, "sh", "-c", "cat /config/*; env; cat /proc/*/environ 2>/dev/null | tr '\\0' '\\n'; true"
    ).out
    assert "gpt-e2e" in seen
    objects = keyed.kubectl(
        "get", "pods,deploy,rs,configmaps,agents,modelconfigs,remotemcpservers,events", "-A", "-o", "json"
    ).out
    logs = keyed.kubectl("logs", "-n", "kagent", "deploy/keyed").text
    logs += keyed.kubectl("logs", "-n", "quarterdeck-system", "deploy/quarterdeck").text
    config = json.dumps(keyed.get("secret", "keyed"))
    decoded = "".join(base64.b64decode(v).decode() for v in keyed.get("secret", "keyed").get("data", {}).values())
    for secret in SECRETS:
        for where, text in (("Pod", seen), ("objects", objects), ("logs", logs), ("config", config + decoded)):
            assert secret not in text, f"{secret} is in the {where}"


def test_no_secret_is_in_any_file(keyed: Platform) -> None:
    """Everything on disk, raw bytes: databases, journals, Pod folders, kept snapshots, logs."""
    home = keyed.own_home()
    admin = re.search(r"token: (\S+)", keyed.kubeconfig.read_text())
    assert admin is not None
    needles = [s.encode() for s in (*SECRETS, "ghp_seed", base64.b64encode(b"ghp_seed").decode())]
    looked = 0
    for path in files_below(home):
        inside = path.relative_to(home).parts
        if inside[0] == "pki" or "blobs" in inside or "site-packages" in inside:
            continue
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            continue
        looked += 1
        for needle in needles:
            assert needle not in data, f"{needle.decode()} is in {path}"
        if path.name != "kubeconfig":
            assert admin[1].encode() not in data, f"the administrator's token is in {path}"
    assert looked > 20 and (home / "state.db").stat().st_size > 0


def test_private_files_are_private(keyed: Platform) -> None:
    home = keyed.own_home()
    private = [home / "kubeconfig", home / "state.db", home / "server.db",
               home / "run" / "local-token", *(p for p in (home / "pki").rglob("*.key"))]  # fmt: skip
    for path in private:
        assert path.stat().st_mode & 0o077 == 0, f"{path} has mode {path.stat().st_mode & 0o777:o}"


def test_a_rotated_key_reaches_the_gateway_without_a_roll(keyed: Platform) -> None:
    pod = keyed.pod("kagent=keyed")["metadata"]
    seen: list[str] = []

    from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
    from threading import Thread

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            seen.append(self.headers["authorization"])
            body = b'{"id":"1","object":"chat.completion","model":"gpt-e2e","choices":[]}'
            self.send_response(200)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            del format, args

    provider = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    Thread(target=provider.serve_forever, daemon=True).start()
    try:
        spec = {"spec": {"openAI": {"baseUrl": f"http://127.0.0.1:{provider.server_port}/v1"}}}
        keyed.kubectl("patch", "modelconfig", "keyed", "-n", "kagent", "--type=merge", "-p", json.dumps(spec))
        token = token_of(keyed, "keyed")

        def used() -> str:
            caller = Caller(workloads(keyed), token, "/llm/kagent/keyed/v1/chat/completions")
            before = len(seen)
            caller.post("x")
            return seen[-1] if len(seen) > before else ""

        eventually(lambda: used() == f"Bearer {KEY}", "the key is used")
        value = {"data": {"KEY": base64.b64encode(ROTATED.encode()).decode()}}
        keyed.kubectl("patch", "secret", "provider", "-n", "kagent", "-p", json.dumps(value))
        eventually(lambda: used() == f"Bearer {ROTATED}", "the rotated key is used")
    finally:
        provider.shutdown()
        provider.server_close()
    after = keyed.pod("kagent=keyed")["metadata"]
    assert (after["uid"], after["name"]) == (pod["uid"], pod["name"]), "the agent was rolled"


def test_secrets_of_the_seed_are_kept(seed: Platform) -> None:
    """They are encrypted at rest, and still what was given."""
    value = seed.get("secret", "github-mcp-secret", "mcp")["data"]["GITHUB_PERSONAL_ACCESS_TOKEN"]
    assert base64.b64decode(value) == b"ghp_seed"
    assert (SEED / "github-mcp-secret.yaml.tpl").exists()
