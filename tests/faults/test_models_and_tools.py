"""Models and tool servers that misbehave, under a real agent behind the real gateway."""

from __future__ import annotations

import re

import pytest
from mcp import Client
from mcp.shared.exceptions import MCPError

from support.platform import Platform, eventually

from .conftest import A2A, said, state
from .model_double import ModelDouble


@pytest.mark.parametrize(
    ("message", "pattern"),
    [
        ("malformed-arguments", r"result: Error: the arguments are not valid JSON"),
        ("unknown-tool", r"result: Error: there is no tool 'launch_missiles'; the tools are: .*pid"),
    ],
)
def test_a_call_that_cannot_be_made_is_told_to_the_model(victim: A2A, message: str, pattern: str) -> None:
    def told() -> bool:  # on a busy machine the server's tools may come late
        task = victim.send(message)
        assert state(task) == "COMPLETED", said(task)
        return bool(re.search(pattern, said(task)))

    eventually(told, pattern, 60)


@pytest.mark.parametrize(
    ("message", "pattern"),
    [
        ("not-json", r"model double: "),
        ("no-choices", r"model double: .*not a chat completion"),
        ("calls-of-the-wrong-type", r"model double: .*not a chat completion"),
        ("http-500", r"double.*500.*out of memory"),
        ("http-429", r"double.*429.*slow down.*asked again in 86400 s"),
        ("breaks-off", r"model double: .*middle"),
    ],
)
def test_a_broken_answer_of_the_model_fails_the_task_and_says_why(victim: A2A, message: str, pattern: str) -> None:
    task = victim.send(message)
    assert state(task) == "FAILED"
    assert re.search(pattern, said(task)), said(task)
    assert state(victim.send("call pid {}")) == "COMPLETED", "the agent did not survive"


def test_a_model_that_never_stops_calling_tools_is_ended(victim: A2A, model: ModelDouble) -> None:
    model.requests.clear()
    task = victim.send("loops")
    assert "loop_detected: tool pid was called 3 times" in said(task)
    assert len(model.requests) == 3


def test_a_hanging_model_can_be_cancelled(victim: A2A, model: ModelDouble) -> None:
    model.requests.clear()
    task = victim.send("hangs", wait=False)
    eventually(lambda: model.requests, "the model is asked")
    cancelled = victim.call("CancelTask", {"id": task["id"]})
    assert state(cancelled["result"]) == "CANCELED"
    assert state(victim.task(task["id"])) == "CANCELED"


def test_an_answer_without_end_is_cut_off(victim: A2A) -> None:
    task = victim.send("endless", timeout=90)
    assert state(task) == "FAILED"
    assert re.search(r"bytes|too large|larger|longer", said(task)), said(task)


@pytest.mark.parametrize(
    ("call", "pattern"),
    [
        ("call hang {}", r"spec\.timeout of the MCPServer"),
        ("call garbage {}", r"survived"),
        ("call freeze {}", r"spec\.timeout of the MCPServer"),
        ('call count {"steps": "many"}', r"steps"),
    ],
)
def test_a_tools_failure_is_a_result_the_model_can_read(victim: A2A, call: str, pattern: str) -> None:
    task = victim.send(call)
    assert state(task) == "COMPLETED", said(task)
    assert re.search(pattern, said(task)), said(task)

    def works() -> bool:
        return bool(re.fullmatch(r"result: \d+", said(victim.send("call pid {}"))))

    eventually(works, "the server works again")


@pytest.mark.parametrize(
    ("call", "pattern"),
    [("call crash {}", r"exited with code 7"), ('call huge {"size": 20000000}', r"longer than")],
)
def test_a_call_that_may_have_done_something_is_asked_about(victim: A2A, call: str, pattern: str) -> None:
    """The process ended in the middle: nobody knows how far it came, and twice may not be like once."""
    task = victim.send(call)
    assert state(task) == "INPUT_REQUIRED", said(task)
    assert re.search(pattern, said(task)) and "skip" in said(task), said(task)
    eventually(lambda: re.fullmatch(r"result: \d+", said(victim.send("call pid {}"))), "the server works again")


async def test_one_gigabyte_ends_the_process_not_the_platform(faulty: Platform) -> None:
    url = f"{faulty.endpoints()['gateway']}/mcp/kagent/faulty"
    async with Client(url, mode="auto", read_timeout_seconds=60) as client:
        with pytest.raises(MCPError, match=r"longer than|spec\.timeout"):
            await client.call_tool("huge", {"size": 1_000_000_000})
    async with Client(url, mode="legacy") as client:
        result = await client.call_tool("pid", {})
    assert result.content[0].text.isdigit()
