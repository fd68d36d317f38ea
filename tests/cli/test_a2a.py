from __future__ import annotations

from typing import Any

import pytest

from quarterdeck.cli.a2a import Status, ToolsMissing, events_of
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
