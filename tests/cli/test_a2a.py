from __future__ import annotations

from typing import Any

import pytest

from quarterdeck.cli.a2a import Status, ToolsMissing, events_of, failure
from quarterdeck.cli.conversation import show_tools

METADATA = {"unavailable": {"http://127.0.0.1:8702/mcp/kagent/clock": "no ready endpoints"}}
STATUS = {"state": "TASK_STATE_WORKING"}


@pytest.mark.parametrize(
    "result",
    [
        {"statusUpdate": {"taskId": "t", "contextId": "c", "status": STATUS, "metadata": METADATA}},
        {"task": {"id": "t", "contextId": "c", "status": STATUS, "metadata": METADATA}},
    ],
)
def test_missing_tools_are_a_warning_on_stderr(result: Any, capsys: pytest.CaptureFixture[str]) -> None:
    events = events_of(result)
    assert events == [ToolsMissing("kagent/clock", "no ready endpoints"), Status("t", "c", STATUS["state"], "")]
    for event in events:
        show_tools(event)
    shown = capsys.readouterr()
    assert shown.err == "warning: the tools of kagent/clock are not available now: no ready endpoints\n"
    assert shown.out == ""


@pytest.mark.parametrize(
    ("status", "body", "exit_code", "says"),
    [
        (403, b'{"error": {"message": "user alice is revoked", "code": 403}}', 3, "user alice is revoked"),
        (401, b"no", 3, "HTTP 401: no"),
        (403, b'{"error": {"message": "no", "code": 4003}}', 3, "no"),
        (404, b'{"error": {"message": "agent k/a is not served by this gateway", "code": 404}}', 1, "qd get agents"),
        (500, b'{"error": {"message": "broken", "code": 500}}', 1, "broken"),
    ],
)
def test_a_refusal_is_one_however_it_is_worded(status: int, body: bytes, exit_code: int, says: str) -> None:
    error = failure(status, body, "http://gateway")
    assert error.exit_code == exit_code and says in str(error)
