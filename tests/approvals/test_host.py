"""The agent host where a call waits for people: what the user is shown, and how the run goes on."""

from __future__ import annotations

from typing import Any

import pytest

from quarterdeck.agents.approvals import answer_of, meta, needs_approval, paused
from quarterdeck.agents.ask_user import AskUser
from quarterdeck.agents.ask_user import answer_of as ask_user_answer
from quarterdeck.agents.journal.pause import Pause
from quarterdeck.agents.model import ToolCall
from quarterdeck.agents.tool import Context
from quarterdeck.mcpclient import RpcError

DATA = {"approval": "kagent/delete-1", "argumentsHash": "sha256:00", "expiresAt": "2026-11-21T20:00:00Z"}
CALL = ToolCall("c1", "delete", {"path": "/tmp/x"})


def test_what_the_user_is_shown_is_kagents_confirmation() -> None:
    error = RpcError(4001, "needs approval", DATA)
    assert needs_approval(error) and not needs_approval(RpcError(4003, "denied"))
    pause = paused(error, CALL)
    assert pause.reason == "approval" and pause.question["approval"] == "kagent/delete-1"
    text, part = pause.parts
    assert "delete needs approval" in text["text"]
    assert part["metadata"] == {"kagent_type": "function_call", "kagent_is_long_running": True}
    assert part["data"] == {
        "name": "adk_request_confirmation",
        "id": "kagent/delete-1",
        "args": {
            "originalFunctionCall": {"id": "c1", "name": "delete", "args": {"path": "/tmp/x"}},
            "toolConfirmation": {"hint": text["text"], "confirmed": False, "payload": DATA},
        },
    }


def test_whatever_the_user_says_the_same_call_is_made_with_the_approval_that_was_asked_for() -> None:
    waiting = {"question": paused(RpcError(4001, "", DATA), CALL).question}
    message = {"parts": [{"data": {"decision_type": "approve", "approval": "kagent/other"}}]}
    data = answer_of(message, waiting)
    assert data == {"approval": "kagent/delete-1"}
    context = Context("u", "s", run="r", step=3, answer=data)
    assert meta(context) == {"dev.quarterdeck/approval": "kagent/delete-1"}
    assert meta(Context("u", "s")) == {}


QUESTIONS = [{"question": "Which cluster?", "choices": ["a", "b"]}, {"question": "Why?"}]


@pytest.mark.parametrize(
    ("said", "text", "result"),
    [
        ({"decision_type": "approve", "ask_user_answers": [{"answer": ["a"]}, {"answer": ["because"]}]}, "",
         '[{"question": "Which cluster?", "answer": ["a"]}, {"question": "Why?", "answer": ["because"]}]'),
        ({"decision_type": "approve", "ask_user_answers": [{"answer": "a"}]}, "",
         '[{"question": "Which cluster?", "answer": ["a"]}, {"question": "Why?", "answer": []}]'),
        ({"decision_type": "reject"}, "", '{"status": "cancelled"}'),
        (None, "the first",
         '[{"question": "Which cluster?", "answer": ["the first"]}, {"question": "Why?", "answer": []}]'),
    ],
)  # fmt: skip
async def test_ask_user_pauses_and_gives_the_answers(said: dict[str, Any] | None, text: str, result: str) -> None:
    tool = AskUser()
    with pytest.raises(Pause) as found:
        await tool.call({"questions": QUESTIONS}, Context("u", "s", run="r", step=2))
    pause = found.value
    assert pause.reason == "ask_user" and pause.parts[0]["text"] == "Which cluster?; Why?"
    original = pause.parts[1]["data"]["args"]["originalFunctionCall"]
    assert original["name"] == "ask_user" and original["args"] == {"questions": QUESTIONS}
    message = {"parts": [{"data": said} if said is not None else {"text": text}]}
    answer = ask_user_answer(message, text)
    outcome = await tool.call({"questions": QUESTIONS}, Context("u", "s", run="r", step=2, answer=answer))
    assert outcome.text == result and not outcome.failed


@pytest.mark.parametrize("questions", [None, [], "x", [{}], [{"question": "  "}], [{"question": "a"}] * 21])
async def test_questions_without_text_are_the_models_mistake(questions: Any) -> None:
    outcome = await AskUser().call({"questions": questions}, Context("u", "s"))
    assert outcome.failed and outcome.text.startswith("Error: ask_user:")
