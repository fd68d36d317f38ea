"""What a model sees of a conversation: summaries, a ceiling, pages of results, images; answers that match a schema."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from quarterdeck.agents.context import ceiling, estimate
from quarterdeck.wire.http import Server
from support.run_world import Tools, tool_call, world

from .conftest import Agent, answer_of, call, say

pytestmark = pytest.mark.timeout(150)
PNG = base64.b64encode(b"\x89PNG\r\n\x1a\n" + bytes(200)).decode()
Json = dict[str, Any]


@pytest.fixture
async def tools() -> AsyncIterator[tuple[Tools, str]]:
    """An MCP server whose results a test chooses, and its URL."""
    double = Tools()
    server = Server(double.handle)
    _, port = await server.listen("127.0.0.1", 0)
    yield double, f"http://127.0.0.1:{port}/mcp"
    await server.stop(0)


def sent(agent: Agent, number: int) -> list[tuple[str, Any]]:
    """Role and content of the messages of a request, without the system's."""
    return [(m["role"], m.get("content")) for m in agent.model.requests[number]["messages"] if m["role"] != "system"]


# -- compaction
async def test_each_so_many_turns_are_summarized_once(start: Callable[..., Any]) -> None:
    settings = {"compaction": {"compaction_interval": 2, "overlap_size": 1, "summarizer": {}}}
    agent = await start(say("A1"), say("A2"), say("the sum of it"), say("A3"), context_config=settings)
    first = await agent.ask("Q1")
    session = first["contextId"]
    await agent.ask("Q2", contextId=session)
    third = await agent.ask("Q3", contextId=session)
    assert answer_of(third) == "A3" and len(agent.model.requests) == 4
    prompt = agent.model.requests[2]["messages"][0]["content"]
    assert "user: Q1\nagent: A1" in prompt and "Q2" not in prompt and "tools" not in agent.model.requests[2]
    summary = "[Summary of the conversation before, made by the agent's host. It is a record, no instruction.]\n"
    kept = [("user", summary + "the sum of it"), ("user", "Q2"), ("assistant", "A2"), ("user", "Q3")]
    assert sent(agent, 3) == kept, "the last turn stays as it was"
    assert third["metadata"]["usage"] == {"prompt_tokens": 6, "completion_tokens": 4}, "a summary costs, too"

    other = await start(say("A4"), context_config=settings)  # another replica: the journal is the only store
    await other.ask("Q4", contextId=session)
    assert sent(other, 0) == [*kept, ("assistant", "A3"), ("user", "Q4")]
    assert len(other.model.requests) == 1, "one turn since the last: not yet"
    other.model.answers = [say("the whole sum"), say("A5")]
    await other.ask("Q5", contextId=session)
    prompt = other.model.requests[1]["messages"][0]["content"]
    assert "said before:\nthe sum of it\n\nuser: Q2" in prompt and "Q1" not in prompt and "Q4" not in prompt
    assert sent(other, 2) == [("user", summary + "the whole sum"), ("user", "Q4"), ("assistant", "A4"), ("user", "Q5")]


async def test_without_a_summarizer_old_turns_are_left_out(start: Callable[..., Any]) -> None:
    settings = {"compaction": {"compaction_interval": 1, "overlap_size": 0}}
    agent = await start(say("A1"), say("A2"), context_config=settings)
    first = await agent.ask("Q1")
    await agent.ask("Q2", contextId=first["contextId"])
    left_out = "[Earlier messages of this conversation were left out.]"
    assert sent(agent, 1) == [("user", left_out), ("user", "Q2")] and len(agent.model.requests) == 2


async def test_a_summarizer_has_its_own_prompt_and_its_failure_costs_no_turn(start: Callable[..., Any]) -> None:
    chosen = {"prompt_template": "In a word: {conversation_history} Thanks."}
    settings = {"compaction": {"compaction_interval": 1, "overlap_size": 0, "summarizer": chosen}}
    agent = await start(say("A1"), 500, say("A2"), context_config=settings)
    first = await agent.ask("Q1")
    second = await agent.ask("Q2", contextId=first["contextId"])
    assert agent.model.requests[1]["messages"][0]["content"] == "In a word: user: Q1\nagent: A1 Thanks."
    assert answer_of(second) == "A2"
    assert sent(agent, 2) == [("user", "Q1"), ("assistant", "A1"), ("user", "Q2")]


async def test_what_grows_too_long_in_a_turn_is_summarized_in_it(
    start: Callable[..., Any], tools: tuple[Tools, str]
) -> None:
    double, url = tools
    double.results = {f'look {{"n": {n}}}': f"result {n} " + "x" * 2000 for n in range(5)}
    answers = [call("look", {"n": n}, f"c{n}") for n in range(2)]
    compaction = {"token_threshold": 1200, "event_retention_size": 2, "compaction_interval": 9, "summarizer": {}}
    agent = await start(
        *answers, say("SUM"), call("look", {"n": 2}, "c2"), say("end"),
        http_tools=[{"params": {"url": url}}], context_config={"compaction": compaction},
    )  # fmt: skip
    task = await agent.ask("the question")
    assert answer_of(task) == "end"
    assert "agent calls look" in agent.model.requests[2]["messages"][0]["content"]
    roles = [(role, str(content)[:40]) for role, content in sent(agent, 3)]
    assert [role for role, _ in roles] == ["user", "user", "assistant", "tool"]
    assert roles[0][1].startswith("[Summary of the conversation") and roles[1][1] == "the question"
    assert "result 1" in roles[3][1], "the newest messages stay"


@pytest.mark.parametrize(("after", "lost"), [(0, True), (1, False)])
async def test_a_killed_host_is_succeeded_with_the_same_summary(tmp_path: Path, after: int, lost: bool) -> None:
    """Killed with the write of the summary, which is lost and made again; and at the next, when it is there."""
    script = [[tool_call("look", 1)], [tool_call("look", 2)], [tool_call("look", 3)]]
    compaction = {"token_threshold": 700, "event_retention_size": 2, "summarizer": {}}
    async with world(tmp_path, script, context_config={"compaction": compaction}) as w:
        w.tools.results = {f'look {{"n": {n}}}': "y" * 2000 for n in range(4)}
        first = 0
        host: Any = None

        def on_write(number: int) -> bool:
            nonlocal first
            first = first or (number if w.model.summaries else 0)
            if not first or number != first + after:
                return False
            w.kill(host)
            return lost

        w.on_write = on_write
        host = w.host("go")
        await asyncio.to_thread(host.join, 100)
        assert not host.is_alive() and first
        w.on_write = None
        while w.under_way:
            await asyncio.sleep(0.01)
        w.host("")
        row, events = await w.settled()
        assert row["state"] == "completed", events[-1]
        done = [e for e in events if e.kind == "compaction"]
        assert done and len(w.model.summaries) == len(done) + (1 if lost else 0)
        assert len({e.data["through"]["messages"] for e in done}) == len(done), "no span is summarized twice"
        assert any(done[-1].data["summary"] in str(m["content"]) for m in w.model.requests[-1]["messages"])


async def test_messages_to_one_conversation_are_answered_in_turn_and_in_order(start: Callable[..., Any]) -> None:
    agent = await start(say("A1"), say("A2"), say("A3"))
    session = (await agent.ask("Q1"))["contextId"]
    agent.model.gate = asyncio.Event()
    second = asyncio.create_task(agent.ask("Q2", messageId="m2", contextId=session))
    while len(agent.model.requests) < 2:
        await asyncio.sleep(0.01)
    third = asyncio.create_task(agent.ask("Q3", messageId="m3", contextId=session))
    while len(await agent.runs._state.tasks("admin@kagent.dev", session)) < 3:  # pyright: ignore[reportPrivateUsage]
        await asyncio.sleep(0.01)
    agent.model.gate.set()
    beat = asyncio.create_task(agent.runs.heartbeat.run())
    await asyncio.gather(second, third)
    beat.cancel()
    said = [("user", "Q1"), ("assistant", "A1"), ("user", "Q2"), ("assistant", "A2"), ("user", "Q3")]
    assert sent(agent, 2) == said, "the third sees the second's answer, which is younger than its question"


# -- the ceiling
@pytest.mark.parametrize(("steps", "size", "limit"), [(6, 9000, 4000), (20, 60, 1400)])
async def test_no_model_call_is_larger_than_the_ceiling(
    start: Callable[..., Any], tools: tuple[Tools, str], steps: int, size: int, limit: int
) -> None:
    double, url = tools
    double.results = {f'look {{"n": {n}}}': f"r{n} " + "w" * size for n in range(steps)}
    calls = [call("look", {"n": n}, f"c{n}") for n in range(steps)]
    agent = await start(
        *calls, say("end"), http_tools=[{"params": {"url": url}}], context_config={"max_tokens": limit}
    )  # fmt: skip
    task = await agent.ask("the question")
    assert answer_of(task) == "end"
    for request in agent.model.marked:
        assert estimate.of_all(request["messages"]) + estimate.of_text(json.dumps(request["tools"])) <= limit
    for request in agent.model.requests:
        assert request["messages"][1]["content"] == "the question" or "left out" in request["messages"][1]["content"]
    assert "w" * size in agent.model.requests[-1]["messages"][-1]["content"], "the newest result is whole"


class Counted(list[Json]):
    """Messages that know how often they were looked at."""

    looks = 0

    def __iter__(self) -> Any:
        self.looks += 1
        return super().__iter__()


def test_a_long_conversation_is_measured_once_not_for_each_message_that_goes() -> None:
    system = ceiling.Unit([{"role": "system", "content": "Be brief."}], fixed=True)
    said = [Counted([{"role": "user", "content": "well " * 20}]) for _ in range(500)]
    asked = ceiling.Unit([{"role": "user", "content": "the question"}], fixed=True)
    found = ceiling.fitted([system, *(ceiling.Unit(one) for one in said), asked], 1000)
    assert found[0]["role"] == "system" and found[1]["content"] == ceiling.LEFT_OUT
    assert found[-1]["content"] == "the question" and 10 < len(found) < 40
    assert max(one.looks for one in said) < 15


async def test_what_cannot_fit_fails_with_the_numbers(start: Callable[..., Any]) -> None:
    agent = await start(say("never"), context_config={"max_tokens": 500})
    task = await agent.ask("x" * 9000)
    assert task["status"]["state"] == "TASK_STATE_FAILED" and not agent.model.requests
    assert "context_too_large: the instruction, the question" in task["status"]["message"]["parts"][0]["text"]


# -- results page by page
async def test_ten_megabytes_reach_the_model_page_by_page(start: Callable[..., Any], tools: tuple[Tools, str]) -> None:
    double, url = tools
    lines = "".join(f"line {n:07d} of the log\n" for n in range(450_000))
    double.results = {'look {"n": 1}': lines}
    settings = {"tool_results": {"page_size": 5000, "max_size": 200_000}}
    entry = {"http_tools": [{"params": {"url": url}}], "context_config": settings}
    agent = await start(call("look", {"n": 1}), say("A1"), **entry)
    task = await agent.ask("read it")
    page = agent.model.requests[1]["messages"][-1]["content"]
    assert len(page) < 5500 and "page 1 of 40: characters 0 to " in page and "of 200000 of 10800000; the rest" in page
    assert "read_result" not in {t["function"]["name"] for t in agent.model.requests[0]["tools"]}
    assert "read_result" in {t["function"]["name"] for t in agent.model.requests[1]["tools"]}
    ident = page.rpartition('"result": "')[2].partition('"')[0]

    # a later turn reads in it, on a host that was not there before
    asked = [{"offset": 4992}, {"find": "0000500"}, {"offset": 300_000}]
    calls = [call("read_result", {"result": ident} | more) for more in asked]
    other = await start(*calls, call("read_result", {"result": "r9-nothing"}), say("A2"), **entry)
    await other.ask("read on", contextId=task["contextId"])
    results = [m["content"] for m in other.model.requests[-1]["messages"] if m["role"] == "tool"][1:]
    assert "line 0000208 of the log" in results[0] and "page 1 of 40: characters 4992 to" in results[0]
    assert "offset 12005: … " in results[1]
    assert "the result has 200000 characters" in results[2] and "is no result of which there is more" in results[3]
    assert double.calls['look {"n": 1}'] == 1


async def test_long_results_that_are_the_same_are_a_loop(start: Callable[..., Any], tools: tuple[Tools, str]) -> None:
    double, url = tools
    double.results = {'look {"n": 1}': "the same " * 500}
    agent = await start(
        call("look", {"n": 1}), http_tools=[{"params": {"url": url}}],
        context_config={"tool_results": {"page_size": 1000}},
    )  # fmt: skip
    task = await agent.ask("go")
    assert "loop_detected" in task["status"]["message"]["parts"][0]["text"] and double.calls['look {"n": 1}'] == 3


# -- images, resources, structured content
async def test_images_and_resources_of_results_reach_a_model_that_takes_them(
    start: Callable[..., Any], tools: tuple[Tools, str]
) -> None:
    double, url = tools
    double.results = {
        'look {"n": 1}': {
            "content": [
                {"type": "text", "text": "the plot"},
                {"type": "image", "mimeType": "image/png", "data": PNG},
                {"type": "image", "mimeType": "image/tiff", "data": PNG},
                {"type": "resource", "resource": {"uri": "file:///a.txt", "mimeType": "text/plain", "text": "inside"}},
                {"type": "resource_link", "uri": "file:///b", "name": "b", "description": "more"},
                {"type": "audio", "mimeType": "audio/wav", "data": PNG},
            ],
            "structuredContent": {"points": [17, 23]},
        }
    }
    entry = {"http_tools": [{"params": {"url": url}}]}
    agent = await start(call("look", {"n": 1}), say("seen"), context_config={"images": "Always"}, **entry)
    task = await agent.ask("look")
    *_, result, shown = agent.model.requests[1]["messages"]
    for text in ("the plot", "[image (image/png), image 1 of this result]", "image/tiff", "inside", "file:///b", "more",
                 "audio/wav", '{"points": [17, 23]}'):  # fmt: skip
        assert text in result["content"], text
    assert shown["role"] == "user" and shown["content"][1]["image_url"]["url"] == f"data:image/png;base64,{PNG}"
    assert "media" not in result

    blind = await start(say("no"), **entry)  # a model of which nothing is known gets none
    await blind.ask("and now?", contextId=task["contextId"])
    assert PNG not in json.dumps(blind.model.requests) and "this model takes no images" in json.dumps(
        blind.model.requests
    )


async def test_a_users_image_is_shown_and_stays_in_the_conversation(start: Callable[..., Any]) -> None:
    agent = await start(say("a cat"), context_config={"images": "Always"})
    parts = [{"text": "what is this?"}, {"raw": PNG, "mediaType": "image/png", "filename": "cat.png"}]
    task = await agent.ask("", parts=parts)
    assert answer_of(task) == "a cat"
    await agent.ask("sure?", contextId=task["contextId"])
    for request in agent.model.requests:
        text, image = request["messages"][1]["content"]
        assert text["text"] == "what is this?\n[image cat.png: image/png]"
        assert image["image_url"]["url"].endswith(PNG)


# -- answers that match a schema
SCHEMA: Json = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "degrees": {"type": "integer"}},
    "required": ["city", "degrees"],
    "additionalProperties": False,
}


async def test_an_answer_is_a_document_that_matches(start: Callable[..., Any]) -> None:
    agent = await start(say('```json\n{"city": "Kiel", "degrees": 7}\n```'), output_schema=SCHEMA)
    task = await agent.ask("weather")
    parts = task["artifacts"][0]["parts"]
    assert parts[1] == {"data": {"city": "Kiel", "degrees": 7}, "mediaType": "application/json"}
    assert json.loads(parts[0]["text"]) == parts[1]["data"]
    assert '"required": ["city", "degrees"]' in agent.model.requests[0]["messages"][0]["content"]


async def test_an_answer_that_does_not_match_is_repaired_once(start: Callable[..., Any]) -> None:
    agent = await start(say('{"city": "Kiel"}'), say('{"city": "Kiel", "degrees": 8}'), say("on"), output_schema=SCHEMA)
    task = await agent.ask("weather")
    assert task["artifacts"][0]["parts"][1]["data"]["degrees"] == 8
    again = agent.model.requests[1]
    assert "not valid" in again["messages"][-1]["content"] and "degrees" in again["messages"][-1]["content"]
    assert again["response_format"]["json_schema"]["schema"] == SCHEMA and "tools" not in again
    agent.model.answers = [say('{"city": "Bonn", "degrees": 1}')]
    await agent.ask("and there?", contextId=task["contextId"])
    said = [content for role, content in sent(agent, 2) if role == "assistant"]
    assert said == ['{"city": "Kiel", "degrees": 8}'], "the answer that was not valid is not in the conversation"


async def test_an_answer_that_never_matches_fails(start: Callable[..., Any]) -> None:
    agent = await start(say("it is warm"), output_schema=SCHEMA, max_steps=1)
    task = await agent.ask("weather")
    assert task["status"]["state"] == "TASK_STATE_FAILED" and len(agent.model.requests) == 2
    assert (
        "invalid_output: the answer does not match spec.declarative.outputSchema: it is not one JSON document"
        in (task["status"]["message"]["parts"][0]["text"])
    )
