"""Properties of the planner: it never crashes, its calls are valid, every conversation ends."""

from __future__ import annotations

import json
from time import process_time
from typing import Any

import jsonschema_rs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quarterdeck.agents.scripted.conversation import Turn, read
from quarterdeck.agents.scripted.plan import LONGEST, Call, decide
from quarterdeck.agents.scripted.results import Done, is_error
from quarterdeck.agents.scripted.schema import read_tools

from .table import NAMES, definitions, play

PHRASES = """list read write the first 3 files in /srv/x and then save it to notes.txt convert 14:00 from Old/York
into 'a b' with "quoted text" true 7.5 Ada Lovelace {"k": [1]} https://h.example/p *.md add sum plus search delete for
each of them, what is current number; create named x_y. Then get a@b.example result"""
WORDS = PHRASES.split()
requests = st.one_of(st.text(max_size=80), st.lists(st.sampled_from(WORDS), max_size=16).map(" ".join))
labels = st.sampled_from(["item", "itemName", "target_place", "amount", "flag", "kinds", "from", "to", "note", "when"])
scalars = st.one_of(
    st.fixed_dictionaries(
        {"type": st.sampled_from(["string", "number", "integer", "boolean"])},
        optional={
            "description": requests,
            "default": st.one_of(st.text(max_size=5), st.integers(), st.booleans()),
            "format": st.sampled_from(["uri", "email", "date-time"]),
            "minLength": st.integers(0, 3),
            "minimum": st.integers(-3, 3),
            "pattern": st.sampled_from(["^a+$", "[0-9]"]),
        },
    ),
    st.fixed_dictionaries({"enum": st.lists(st.text(min_size=1, max_size=6), min_size=1, max_size=3)}),
    st.just({}),
    st.just({"$ref": "#/$defs/thing"}),
    st.just({"anyOf": [{"type": "string"}, {"type": "null"}], "default": None}),
)


def objects(inner: Any) -> Any:
    return st.dictionaries(labels, inner, max_size=4).flatmap(
        lambda p: st.fixed_dictionaries(
            {
                "type": st.just("object"),
                "properties": st.just(p),
                "required": st.lists(st.sampled_from(sorted(p)), unique=True) if p else st.just([]),
            }
        )
    )


nested = st.recursive(
    scalars,
    lambda inner: st.one_of(objects(inner), st.fixed_dictionaries({"type": st.just("array"), "items": inner})),
    max_leaves=6,
)
schemas = objects(nested).map(lambda s: {**s, "$defs": {"thing": {"type": "string"}}})
tools = st.lists(
    st.builds(
        lambda name, description, schema: {
            "type": "function",
            "function": {"name": name, "description": description, "parameters": schema},
        },
        st.sampled_from(["list_items", "readItem", "save-note", "add", "x", "search_all"]),
        requests,
        schemas,
    ),
    max_size=4,
)
json_values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.text(max_size=8)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=8), inner, max_size=3)),
    max_leaves=8,
)


def schema_of(name: str, offered: list[dict[str, Any]]) -> list[Any]:
    return [t["function"]["parameters"] for t in offered if t["function"]["name"] == name]


@settings(max_examples=150, deadline=None)
@given(requests, tools, st.sampled_from([None, "*", "add"]))
def test_calls_are_valid_or_something_is_said(ask: str, offered: list[dict[str, Any]], forced: str | None) -> None:
    decision = decide(Turn(ask), read_tools(offered), forced=forced)
    assert decision.calls or decision.text
    for call in decision.calls:
        assert any(jsonschema_rs.is_valid(s, call.arguments) for s in schema_of(call.name, offered))


@settings(max_examples=100, deadline=None)
@given(requests, tools, st.lists(st.one_of(requests, json_values.map(json.dumps)), min_size=1, max_size=6))
async def test_conversations_end_and_repeat_no_call(
    ask: str, offered: list[dict[str, Any]], answers: list[str]
) -> None:
    made: list[tuple[str, str]] = []

    async def run(stage: int, call: Call) -> str:
        assert call.key not in made
        made.append(call.key)
        return answers[(len(made) - 1) % len(answers)]

    _, text = await play(ask, offered, run, most=16)
    assert text


@settings(max_examples=100, deadline=None)
@given(st.lists(json_values, max_size=4), json_values)
def test_no_shape_of_messages_or_tools_crashes(messages: list[Any], offered: Any) -> None:
    decide(read(messages), read_tools(offered))
    decide(read([{"role": "user", "content": messages}, {"role": "assistant", "tool_calls": messages}]), read_tools([]))
    decide(Turn("list the first item"), read_tools([{"function": {"name": "list", "parameters": offered}}]))


@settings(max_examples=100, deadline=None)
@given(requests)
def test_real_definitions_get_valid_arguments(ask: str) -> None:
    offered = [
        {"function": {"name": t["name"], "description": t["description"], "parameters": t["inputSchema"]}}
        for server in NAMES for t in definitions(server)
    ]  # fmt: skip
    decision = decide(Turn(ask), read_tools(offered))
    for call in decision.calls:
        assert jsonschema_rs.is_valid(schema_of(call.name, offered)[0], call.arguments)


def test_references_elsewhere_are_never_followed() -> None:
    schema = {"type": "object", "properties": {"item": {"$ref": "http://127.0.0.1:1/s.json"}}, "required": ["item"]}
    offered = [{"function": {"name": "show_item", "description": "Show an item", "parameters": schema}}]
    decision = decide(Turn("Show the item 'x'"), read_tools(offered))
    assert not decision.calls
    assert "schema cannot be used" in decision.text


PERSON = {"type": "string", "description": "Whom to greet"}
GREET = {
    "function": {
        "name": "greet",
        "description": "Greet a person",
        "parameters": {"type": "object", "properties": {"person": PERSON}, "required": ["person"]},
    }
}


def test_the_answer_to_a_question_completes_the_request() -> None:
    offered = read_tools([GREET])
    first = [{"role": "user", "content": "Greet the person"}]
    question = decide(read(first), offered)
    assert question.text == "To use greet I need `person` (Whom to greet). What should it be?"
    second = [*first, {"role": "assistant", "content": question.text}, {"role": "user", "content": "Grace Hopper"}]
    assert decide(read(second), offered).calls == [Call("greet", {"person": "Grace Hopper"})]


@pytest.mark.parametrize(
    ("text", "failed"),
    [
        ("Error: no such file", True),
        ("ENOENT: no such file or directory", True),
        ("Access denied - path outside allowed directories", True),
        ('{"error": "quota"}', True),
        ("14:05:33", False),
        ("Errors are listed below: none", False),
        ("Enterprise plan", False),
        ('{"error": null, "value": 1}', False),
    ],
)
def test_errors_are_recognised(text: str, failed: bool) -> None:
    assert is_error(text) is failed


def test_an_error_ends_the_plan_and_is_reported() -> None:
    offered = read_tools([GREET])
    turn = Turn(
        "Greet the person 'Ada' and then greet the person 'Bob'", [Done("greet", {"person": "Ada"}, "Error: gone")]
    )
    decision = decide(turn, offered)
    assert decision.calls == []
    assert decision.text == "The tool greet reported an error: Error: gone"


@pytest.mark.parametrize("piece", ["read list and then write ", '"a" ', "Aa Bb ", "[{", "a/", "1-", "“", "two ", "' "])
def test_long_requests_take_bounded_work(piece: str) -> None:
    offered = read_tools([GREET])
    before = process_time()
    decide(Turn(piece * (LONGEST // len(piece))), offered)
    assert process_time() - before < 10
    assert "fewer" in decide(Turn(piece * (LONGEST + 1)), offered).text


def test_tools_that_are_away_are_named_instead_of_denied() -> None:
    note = "The tools of server kagent/clock are not available now: no answer"
    turn = read([{"role": "system", "content": f"Be brief.\n{note}"}, {"role": "user", "content": "What time is it?"}])
    assert note in decide(turn, []).text
