"""``qd approvals`` at a real control plane, and what ``qd agent`` reads of a task that waits."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner, Result

from quarterdeck.agents.approvals import confirmation
from quarterdeck.agents.model import ToolCall
from quarterdeck.cli.a2a import Asked, events_of
from quarterdeck.cli.approvals import group

from .conftest import Platform

Run = Callable[..., Awaitable[Result]]


@pytest.fixture
def qd(platform: Platform, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs a command as somebody."""
    monkeypatch.setenv("QUARTERDECK_API_URL", f"http://127.0.0.1:{platform.port}")

    async def run(*arguments: str, who: str = "alice") -> Result:
        config: dict[str, Any] = {
            "apiVersion": "v1", "kind": "Config", "current-context": "c",
            "clusters": [{"name": "c", "cluster": {"server": "http://127.0.0.1:1"}}],
            "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u", "namespace": "kagent"}}],
            "users": [{"name": "u", "user": {"token": who}}],
        }  # fmt: skip
        path = tmp_path / "kubeconfig"
        path.write_text(yaml.dump(config))
        monkeypatch.setenv("KUBECONFIG", str(path))
        return await asyncio.to_thread(CliRunner().invoke, group, list(arguments))

    return run


async def test_look_approve_and_wait(platform: Platform, qd: Run) -> None:
    approval = await platform.ask({"path": "/tmp/x"})
    name = approval.partition("/")[2]
    listed = await qd("list")
    assert name in listed.output and "0 of 1 approved" in listed.output
    assert "/tmp/x" not in (await qd("list", "-o", "json")).output, "arguments are in no list"
    shown = (await qd("show", name)).output
    for text in ("Caller:     kagent/b", "Requester:  carol@idp", "step 1", "path: /tmp/x", "sha256:"):
        assert text in shown
    assert json.loads((await qd("show", approval, "-o", "json")).output)["arguments"] == {"path": "/tmp/x"}

    refused = await qd("approve", name, who="mallory")
    assert "cannot approve" in str(refused.exception)
    approved = await qd("approve", name, "--reason", "fine")
    assert (approved.exit_code, approved.output) == (0, f"kagent/{name}: approved by alice\n")
    assert (await qd("wait", name)).exit_code == 0
    await platform.call(arguments={"path": "/tmp/x"}, approval=approval)
    assert (await qd("list")).output == "" or name not in (await qd("list")).output
    assert "Consumed" in (await qd("list", "--all")).output
    assert (await qd("wait", name)).output == f"kagent/{name}: consumed: approved by alice\n"


async def test_exit_codes(platform: Platform, qd: Run) -> None:
    from quarterdeck.errors import TimedOut

    approval = await platform.ask({"path": "/tmp/x"})
    waited = await qd("wait", approval, "--timeout", "0.01s")
    assert isinstance(waited.exception, TimedOut)
    denied = await qd("deny", approval, "--reason", "no")
    assert denied.exit_code == 0 and "denied by alice: no" in denied.output
    assert (await qd("wait", approval)).exit_code == 3


def test_a_task_that_waits_is_read() -> None:
    call = ToolCall("c1", "delete", {"path": "/tmp/x"})
    message = {"parts": [{"text": "delete needs approval"}, confirmation("kagent/d", call, "h", {})]}
    update = {"taskId": "t", "contextId": "s", "status": {"state": "TASK_STATE_INPUT_REQUIRED", "message": message}}
    asked, status = events_of({"statusUpdate": update})
    assert asked == Asked("delete", {"path": "/tmp/x"})
    assert status.message == "delete needs approval"
