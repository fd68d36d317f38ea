"""``ask_user``: the tool by which the model asks the user and waits. Schema and answers are kagent's (0.10)."""

from __future__ import annotations

import json
from typing import Any

from .approvals import confirmation, decision_in
from .journal.pause import Json, Pause
from .model import ToolCall
from .tool import Context, Outcome

NAME = "ask_user"
REASON = "ask_user"
_MOST = 20
_QUESTION: Json = {
    "type": "object",
    "properties": {
        "question": {"type": "string", "description": "The question text to display to the user."},
        "choices": {
            "type": "array",
            "items": {"type": "string"},
            "description": "Answers to choose from. Leave empty for free text.",
        },
        "multiple": {"type": "boolean", "description": "Whether several choices may be taken. Defaults to false."},
    },
    "required": ["question"],
}


_SCHEMA: Json = {
    "type": "object",
    "properties": {"questions": {"type": "array", "items": _QUESTION, "minItems": 1, "maxItems": _MOST}},
    "required": ["questions"],
}
_DESCRIPTION = (
    "Ask the user one or more questions and wait for the answers. Use it when the request cannot be carried out "
    "without knowing more, or when the user must choose."
)


class AskUser:
    """Offered by every agent, as in kagent."""

    trusted = True
    """What it answers are the user's own words (:mod:`.untrusted`)."""

    def __init__(self) -> None:
        self.name = self.upstream = NAME
        self.server = ""
        self.repeatable = True
        self.description = _DESCRIPTION
        self.schema = _SCHEMA

    async def call(self, arguments: dict[str, Any], context: Context) -> Outcome:
        """Raises Pause until there is an answer."""
        questions = arguments.get("questions")
        problem = _problem(questions)
        if problem:
            text = f"Error: ask_user: {problem}; call it again with questions that have text, or answer without asking"
            return Outcome(text, failed=True)
        assert isinstance(questions, list)
        if context.answer is None:
            call = ToolCall(context.key or NAME, NAME, {"questions": questions})
            hint = "; ".join(str(question["question"]) for question in questions)
            question: Json = {"questions": questions, "call": {"id": call.id, "name": NAME}}
            raise Pause(REASON, question, [{"text": hint}, confirmation(call.id, call, hint, {"questions": questions})])
        if context.answer.get("canceled"):
            return Outcome(json.dumps({"status": "cancelled"}))
        given: list[Any] = context.answer.get("answers") or []
        said = [
            {"question": question["question"], "answer": given[at] if at < len(given) else []}
            for at, question in enumerate(questions)
        ]
        return Outcome(json.dumps(said, ensure_ascii=False))


def answer_of(message: Json, text: str) -> Json:
    """The data of an answer: kagent's ``ask_user_answers: [{answer: […]}]``, a refusal, or plain text for all."""
    decision = decision_in(message)
    if decision is None:
        return {"answers": [[text]]}
    if decision.get("decision_type") == "reject":
        return {"canceled": True}
    answers = decision.get("ask_user_answers")
    return {"answers": [_answer(one) for one in answers] if isinstance(answers, list) else [[text]]}


def _answer(value: Any) -> list[str]:
    given = value.get("answer") if isinstance(value, dict) else value
    return [str(one) for one in given] if isinstance(given, list) else [str(given)]


def _problem(questions: Any) -> str:
    """What is wrong with the questions; empty when nothing is."""
    if not isinstance(questions, list) or not questions:
        return "at least one question is needed"
    if len(questions) > _MOST:
        return f"{len(questions)} questions are too many, {_MOST} are the most"
    for number, question in enumerate(questions, 1):
        text = question.get("question") if isinstance(question, dict) else None
        if not isinstance(text, str) or not text.strip():
            return f"question {number} has no text"
    return ""
