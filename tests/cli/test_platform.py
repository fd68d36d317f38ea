"""Agents, tools, audit, logs and doctor against a real ``qd up`` on free ports."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from quarterdeck.cli.a2a import Answer, Status, ToolAnswered, ToolCalled, events_of
from quarterdeck.cli.records import Filter, _row  # pyright: ignore[reportPrivateUsage]
from quarterdeck.cli.toolcalls import arguments, result_text, typed
from quarterdeck.errors import UsageError
from quarterdeck.mcpclient import Tool

from .conftest import Run, runner

ROOT = Path(__file__).parents[2]
PORTS = ["--kubernetes-port", "--api-port", "--kagent-port", "--gateway-port", "--workloads-port"]


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    home = tmp_path_factory.mktemp("up")
    # what uv needs on this machine (proxies, certificates, its cache) stays; what points at another platform does not
    kept = {
        k: v for k, v in os.environ.items() if k != "KUBECONFIG" and not k.startswith("QUARTERDECK_") and k != "PATH"
    }
    run = runner("qd", {**kept, "QUARTERDECK_HOME": str(home)})
    run("mcp", "build", "-d", str(ROOT / "examples" / "datetime-server"), "-t", "datetime-server:latest", timeout=120)
    run("up", "--detach", *(word for port in PORTS for word in (port, "0")), timeout=120)
    try:
        run("apply", "-f", str(ROOT / "examples" / "seed" / "datetime-agent.yaml"))
        run("wait", "--for=condition=Ready", "agent/datetime-agent", "-n", "kagent", "--timeout", "60s", timeout=90)
        run(
            "wait",
            "mcpserver/datetime-agent-mcp",
            "-n",
            "kagent",
            "--for=condition=Ready",
            "--timeout",
            "60s",
            timeout=90,
        )
        yield run
    finally:
        run("down", ok=False, timeout=90)


pytestmark = pytest.mark.timeout(240)


@pytest.mark.e2e
def test_invoke_shows_the_tool_call_and_the_answer(platform: Run) -> None:
    done = platform("agent", "invoke", "datetime-agent", "What time is it?")
    assert done.stderr.startswith("→ get_time {}\n← ")
    time_of_day = done.stderr.splitlines()[1].removeprefix("← ")
    assert time_of_day in done.stdout
    found = json.loads(platform("agent", "invoke", "datetime-agent", "What is the date?", "-o", "json").stdout)
    assert found["state"] == "TASK_STATE_COMPLETED"
    assert [call["name"] for call in found["toolCalls"]] == ["get_date"]
    records = platform("audit", "tail", "-o", "json", "-n", "1000", "--tool", "get_date").stdout.splitlines()
    assert found["traceId"] in [json.loads(line)["traceId"] for line in records]


@pytest.mark.e2e
def test_chat_keeps_its_session(platform: Run) -> None:
    done = platform("agent", "chat", "kagent/datetime-agent", input="What time is it?\nWhat is the date?\n")
    assert [line for line in done.stderr.splitlines() if line.startswith("→")] == ["→ get_time {}", "→ get_date {}"]


@pytest.mark.e2e
@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["agent", "invoke", "nobody", "hello"], 1, "kagent/nobody"),
        (["agent", "invoke", "nobody", "hello"], 1, "qd get agents -A"),
        (["tools", "call", "nosuch", "x"], 1, "MCP server kagent/nosuch is not served"),
        (["agent", "invoke", "datetime-agent", "hello", "--timeout", "1ms"], 5, "no answer within 0.001 s"),
        (["agent", "invoke", "datetime-agent", " "], 2, "the question is empty"),
        (["tools", "call", "datetime-agent-mcp", "get_tim"], 2, "did you mean get_time?"),
        (["tools", "call", "datetime-agent-mcp", "get_time", "--arg", "x=1"], 2, "takes no arguments"),
        (["tools", "list", "nosuch"], 1, "qd get mcpservers,remotemcpservers,virtualservers -A"),
        (["logs", "nosuch"], 1, 'pods "nosuch" not found'),
        (["logs"], 2, "name a Pod"),
        (["run", "list", "--state", "done"], 2, "--state=done: must be pending, running, waiting, completed"),
        (["run", "usage", "--by", "step"], 2, "--run RUN"),
        (["run", "show", "nosuch"], 1, "run 'nosuch' does not exist"),
        (["run", "show", "kagent/nosuch"], 1, 'runs.quarterdeck.dev "nosuch" not found'),
        (["run", "start", "nobody", "hello"], 1, "kagent/nobody"),
    ],
)
def test_errors_and_exit_codes(words: list[str], code: int, message: str, platform: Run) -> None:
    done = platform(*words, ok=False)
    assert (done.returncode, done.stdout) == (code, "")
    assert message in done.stderr


@pytest.mark.e2e
def test_runs_go_by_their_agents_name_and_by_their_objects(platform: Run) -> None:
    begun = platform("run", "start", "datetime-agent", "What time is it?").stdout
    run = begun.split()[1]
    assert begun == f"run {run} begun; see: qd run show {run}\n"
    platform("run", "watch", run)
    listed = json.loads(platform("run", "list", "--agent", "datetime-agent", "-o", "json").stdout)
    assert run in [one["id"] for one in listed]
    assert json.loads(platform("run", "list", "-n", "default", "-o", "json").stdout) == []
    name = f"datetime-agent-{run[-12:]}"  # its object follows within a moment
    platform("wait", "--for=create", f"run/{name}", "-n", "kagent", "--timeout", "60s", timeout=90)
    for shown in (name, f"kagent/{name}", run):
        assert platform("run", "show", shown).stdout.startswith(f"Run {run} of agent kagent/datetime-agent"), shown


@pytest.mark.e2e
def test_tools_logs_audit_doctor_version(platform: Run) -> None:
    names = platform("tools", "list", "datetime-agent-mcp", "-o", "name").stdout.split()
    assert names == ["get_date", "get_time", "get_datetime"]
    assert "datetime-agent-mcp_get_time" in platform("tools", "list").stdout
    result = json.loads(platform("tools", "call", "datetime-agent-mcp", "get_time", "-o", "json").stdout)
    assert result["content"][0]["text"]
    assert platform("logs", "mcpserver/datetime-agent-mcp").stdout.count("\n") > 0
    assert "[pod/quarterdeck-" in platform("logs", "deploy/quarterdeck", "-n", "quarterdeck-system", "--prefix").stdout
    assert "none changed or removed" in platform("audit", "verify").stdout
    assert json.loads(platform("audit", "verify", "-o", "json").stdout)["ok"] is True
    assert "ok: true" in platform("audit", "verify", "-o", "yaml").stdout
    findings = json.loads(platform("doctor", "-o", "json").stdout)
    assert {f["check"]: f["level"] for f in findings}["platform"] == "ok"
    assert "serverVersion" in json.loads(platform("version", "-o", "json").stdout)
    assert "Ready" in platform("describe", "agent", "datetime-agent", "-n", "kagent").stdout


def tool(**schema: object) -> Tool:
    return Tool("t", "", {"type": "object", **schema}, {})


def test_arguments_are_checked_before_the_call() -> None:
    properties = {"n": {"type": "integer"}, "who": {"type": "string"}}
    offered = tool(properties=properties, required=["n"])
    assert arguments(offered, ["n=3", "who=7"], '{"n": 1}') == {"n": 3, "who": "7"}
    with pytest.raises(UsageError, match="needs n; give it with: --arg n=INTEGER"):
        arguments(offered, [], "")
    with pytest.raises(UsageError, match="no argument 'x'; it takes: n, who"):
        arguments(offered, ["n=1", "x=1"], "")
    with pytest.raises(UsageError, match="KEY=VALUE"):
        arguments(offered, ["n"], "")
    with pytest.raises(UsageError, match="JSON object"):
        arguments(offered, [], "[1]")


@pytest.mark.parametrize(
    ("text", "schema", "value"),
    [
        ("1", {"type": "integer"}, 1),
        ("1.5", {"type": "number"}, 1.5),
        ("TRUE", {"type": "boolean"}, True),
        ("a,b", {"type": "array", "items": {"type": "string"}}, ["a", "b"]),
        ("[1]", {"type": "array"}, [1]),
        ('{"a": 1}', {"type": "object"}, {"a": 1}),
        ("null", {"anyOf": [{"type": "integer"}, {"type": "null"}]}, None),
        ("12", {}, "12"),
    ],
)
def test_words_become_values_of_the_schema(text: str, schema: dict[str, object], value: object) -> None:
    assert typed("k", text, schema) == value


@pytest.mark.parametrize(("text", "kind"), [("x", "integer"), ("1.5", "integer"), ("true", "number"), ("1", "boolean")])
def test_a_word_of_the_wrong_type_is_refused(text: str, kind: str) -> None:
    with pytest.raises(UsageError, match=f"must be of type {kind}"):
        typed("k", text, {"type": kind})


def test_results_as_text() -> None:
    content = [{"type": "text", "text": "a"}, {"type": "image", "mimeType": "image/png"}]
    assert result_text({"content": content}) == "a\n[image image/png]\n"
    assert result_text({"structuredContent": {"a": 1}}) == '{"a": 1}\n'


def test_a2a_events() -> None:
    def update(part: dict[str, object]) -> dict[str, object]:
        status = {"state": "TASK_STATE_WORKING", "message": {"parts": [part]}}
        return {"statusUpdate": {"taskId": "t", "contextId": "c", "status": status}}

    call = update({"data": {"id": "1", "name": "f", "args": {"a": 1}}, "metadata": {"kagent_type": "function_call"}})
    assert events_of(call)[0] == ToolCalled("1", "f", {"a": 1})
    response = {"id": "1", "name": "f", "response": {"result": "r", "isError": True}}
    answered = update({"data": response, "metadata": {"kagent_type": "function_response"}})
    assert events_of(answered)[0] == ToolAnswered("1", "f", "r", True)
    assert events_of({"artifactUpdate": {"artifact": {"parts": [{"text": "done"}]}}}) == [Answer("done")]
    waiting = {"task": {"id": "t", "contextId": "c", "status": {"state": "TASK_STATE_INPUT_REQUIRED"}}}
    assert events_of(waiting) == [Status("t", "c", "TASK_STATE_INPUT_REQUIRED", "")]


def test_the_end_of_a_long_reason_is_marked() -> None:
    detail = "agent kagent/a is not granted this tool: add it to the agent's spec, under spec.declarative.tools"
    assert _row({"detail": detail + "\nmore"})[-1] == detail
    assert len(_row({"detail": "x" * 999})[-1]) == 240 and _row({"detail": "x" * 999})[-1].endswith("…")


def test_audit_filter() -> None:
    record = {"agent": "kagent/a", "tool": "t", "decision": "deny"}
    assert Filter("a", "t", "deny").matches(record)
    assert Filter("kagent/a").matches(record)
    assert not Filter("b").matches(record)
    assert not Filter(decision="allow").matches(record)


@pytest.mark.e2e
def test_checkpoints_of_the_control_plane_vouch_for_the_records(platform: Run) -> None:
    platform("tools", "call", "datetime-agent-mcp", "get_time")
    wait_for(lambda: json.loads(platform("audit", "verify", "-o", "json").stdout)["anchored"] > 0)
    found = json.loads(platform("audit", "verify", "-o", "json").stdout)
    assert found["ok"] and found["checkpoints"]


@pytest.mark.e2e
def test_the_kill_switch(platform: Run) -> None:
    made = json.loads(
        platform("gateway", "revoke", "--server", "kagent/datetime-agent-mcp", "--reason", "odd", "-o", "json").stdout
    )
    wait_for(lambda: "revoked" in platform("tools", "call", "datetime-agent-mcp", "get_time", ok=False).stderr)
    assert made["id"] in platform("gateway", "revocations").stdout
    records = platform("audit", "tail", "-o", "json", "--decision", "deny").stdout.splitlines()
    assert json.loads(records[-1])["rule"] == "revoked/server/kagent/datetime-agent-mcp"
    platform("gateway", "unrevoke", made["id"])
    wait_for(lambda: platform("tools", "call", "datetime-agent-mcp", "get_time", ok=False).returncode == 0)
    assert "nobody is revoked" in platform("gateway", "revocations").stderr


@pytest.mark.e2e
def test_tools_are_pinned(platform: Run) -> None:
    server = "datetime-agent-mcp"
    assert "was never approved" in platform("tools", "diff", server, ok=False).stdout
    assert "nobody to ask" in platform("tools", "approve", server, "--tool", "get_time", ok=False).stderr
    assert "1 tools approved: get_time" in platform("tools", "approve", server, "--tool", "get_time", "--yes").stdout
    wait_for(lambda: platform("tools", "list", server, "-o", "name").stdout.split() == ["get_time"])
    refused = platform("tools", "call", server, "get_date", ok=False)
    assert "has no tool 'get_date'" in refused.stderr
    wait_for(lambda: "Quarantined" in platform("get", "mcpserver", server, "-n", "kagent", "-o", "yaml").stdout)
    platform("tools", "approve", server, "--yes")
    assert platform("tools", "diff", server).returncode == 0
    wait_for(lambda: platform("tools", "call", server, "get_date", ok=False).returncode == 0)
    assert "nothing suspicious" in platform("tools", "scan", server).stderr
    platform("tools", "withdraw", server)
    wait_for(lambda: "get_date" in platform("tools", "list", server, "-o", "name").stdout)


def wait_for(condition: Callable[[], bool], seconds: float = 90) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.2)
