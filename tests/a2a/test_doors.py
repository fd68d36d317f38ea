"""OpenAI's chat completions and responses, and AG-UI, on an agent: directly and through the gateway."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from ag_ui_validate.pytest_plugin import assert_valid_agui

from fixtures.tck_agent.serving import gateway_in_front, pod_token, serving
from quarterdeck.agents.doors import agui, asked, openai
from quarterdeck.agents.doors.pieces import Call, End, Reader, Result, Text
from quarterdeck.agents.journal.told import new_task, tell
from quarterdeck.snapshot.runs import Event

IDS = {"taskId": "t", "contextId": "c"}
TASK: dict[str, Any] = {
    "id": "t",
    "contextId": "c",
    "status": {"state": "TASK_STATE_WORKING"},
    "metadata": {"usage": {"prompt_tokens": 3, "completion_tokens": 2}},
}


@pytest.fixture(params=[False, True], ids=["direct", "through-gateway"])
async def http(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[httpx.AsyncClient]:
    async with serving(tmp_path, delay=0.05) as served, gateway_in_front(tmp_path, served) as front:
        base = front.workloads if request.param else served.url
        headers = {"authorization": f"Bearer {pod_token('pod-a')}", "x-user-id": "alice"}
        async with httpx.AsyncClient(base_url=base, headers=headers, trust_env=False, timeout=20) as client:
            yield client


def events(text: str) -> list[Any]:
    lines = [line[6:] for line in text.splitlines() if line.startswith("data: ")]
    return [line if line == "[DONE]" else json.loads(line) for line in lines]


async def test_a_chat_completion(http: httpx.AsyncClient) -> None:
    body = {"model": "tck", "messages": [{"role": "system", "content": "s"}, {"role": "user", "content": "hi"}]}
    answer = (await http.post("/v1/chat/completions", json=body)).json()
    assert answer["object"] == "chat.completion" and answer["model"] == "tck"
    assert answer["choices"][0]["finish_reason"] == "stop"
    assert answer["choices"][0]["message"]["content"] == "Hello from TCK"
    assert set(answer["metadata"]) == {"context_id", "task_id", "state"}
    streamed = events((await http.post("/v1/chat/completions", json=body | {"stream": True})).text)
    assert streamed[0]["choices"][0]["delta"]["role"] == "assistant" and streamed[-1] == "[DONE]"
    assert streamed[-2]["choices"][0]["finish_reason"] == "stop"
    wrong = await http.post("/v1/chat/completions", json={"messages": []})
    assert wrong.status_code == 400 and wrong.json()["error"]["type"] == "invalid_request_error"
    assert (await http.get("/v1/models")).json()["data"][0]["id"] == "tck"


async def test_a_response_goes_on_from_the_previous_one(http: httpx.AsyncClient) -> None:
    first = (await http.post("/v1/responses", json={"input": "hi"})).json()
    assert first["object"] == "response" and first["status"] == "completed" and first["id"].startswith("resp_")
    body = {"input": [{"role": "user", "content": [{"type": "input_text", "text": "more"}]}], "stream": True}
    streamed = events((await http.post("/v1/responses", json=body | {"previous_response_id": first["id"]})).text)
    assert [e["sequence_number"] for e in streamed] == list(range(len(streamed)))
    assert streamed[0]["type"] == "response.created" and streamed[-1]["type"] == "response.completed"
    assert streamed[-1]["response"]["metadata"]["context_id"] == first["metadata"]["context_id"]
    unknown = await http.post("/v1/responses", json={"input": "x", "previous_response_id": "resp_gone"})
    assert unknown.status_code == 404


async def test_a_run_of_ag_ui(http: httpx.AsyncClient) -> None:
    body = {"threadId": "thread-1", "runId": "run-1", "messages": [{"id": "m", "role": "user", "content": "hi"}]}
    answer = await http.post("/agui", json=body)
    assert answer.headers["content-type"].startswith("text/event-stream")
    found = events(answer.text)
    assert_valid_agui(found, max_warnings=0)
    assert found[0]["threadId"] == "thread-1" and found[-1]["outcome"] == {"type": "success"}
    assert (await http.post("/agui", json={"threadId": "t"})).status_code == 400


# -- pure
def status(state: str, *parts: Any, **metadata: Any) -> Any:
    message = {"messageId": "m", "role": "ROLE_AGENT", "parts": list(parts), "metadata": metadata}
    return {"statusUpdate": IDS | {"status": {"state": state} | ({"message": message} if parts else {})}}


PARTIAL = {"quarterdeck.dev/partial": True}
STORY = [
    {"task": TASK},
    status("TASK_STATE_WORKING", {"text": "Let me "}, **PARTIAL),
    status("TASK_STATE_WORKING", {"text": "look."}, **PARTIAL),
    status(
        "TASK_STATE_WORKING",
        {"data": {"id": "c1", "name": "add", "args": {"a": 1}}, "metadata": {"kagent_type": "function_call"}},
    ),
    status(
        "TASK_STATE_WORKING",
        {
            "data": {"id": "c1", "name": "add", "response": {"result": "3", "isError": False}},
            "metadata": {"kagent_type": "function_response"},
        },
    ),
    status("TASK_STATE_WORKING", {"text": "It is "}, **PARTIAL),
    {"artifactUpdate": IDS | {"artifact": {"artifactId": "a", "parts": [{"text": "It is 3."}]}}},
    status("TASK_STATE_COMPLETED"),
]


async def told(story: list[Any]) -> AsyncIterator[Any]:
    reader = Reader(TASK)
    for event in story:
        for piece in reader.read(event):
            yield piece


async def test_nothing_is_said_twice_when_a_stream_ends_with_the_whole_answer() -> None:
    found = [piece async for piece in told(STORY)]
    assert [type(piece) for piece in found] == [Text, Text, Call, Result, Text, Text, End]
    assert "".join(p.text for p in found[4:6] if isinstance(p, Text)) == "It is 3."


async def test_ag_ui_of_a_story_with_tools_is_valid() -> None:
    waits = [*STORY[:5], status("TASK_STATE_INPUT_REQUIRED", {"text": "May I?"})]
    canceled = [STORY[0], status("TASK_STATE_CANCELED")]
    for story, outcome in ((STORY, "success"), (waits, "interrupt"), (canceled, "cancelled")):
        found = [e async for e in agui.stream("c", "r", told(story), lambda: 1_755_300_000.0)]  # type: ignore[arg-type]
        assert_valid_agui(found, max_warnings=0)
        assert found[-1]["outcome"]["type"] == outcome
    failed = [STORY[0], status("TASK_STATE_FAILED", {"text": "no model"})]
    found = [e async for e in agui.stream("c", "r", told(failed), lambda: 1_755_300_000.0)]  # type: ignore[arg-type]
    assert_valid_agui(found, max_warnings=0)
    assert found[-1]["type"] == "RUN_ERROR" and found[-1]["message"] == "no model"


def test_what_a_run_used_comes_with_its_end() -> None:
    message = {"messageId": "m", "role": "ROLE_USER", "parts": [{"text": "hi"}], "taskId": "t", "contextId": "c"}
    begun = new_task(message)
    used = {"prompt_tokens": 3, "completion_tokens": 2}
    final = Event(2, "final", 0, 1.0, 1, {"state": "completed", "reason": "", "text": "yes", "usage": used})
    answer, reader = openai.Answer(begun, "m", 1), Reader(begun)
    for update in tell(new_task(message), final):
        for piece in reader.read(update):
            answer.add(piece)
    assert openai.completion(answer)["usage"] == used | {"total_tokens": 5}
    assert openai.response(answer)["usage"]["input_tokens"] == 3


async def test_chunks_and_events_of_the_same_story() -> None:
    answer = openai.Answer(TASK, "m", 1)
    chunks = [c async for c in openai.completion_chunks(answer, told(STORY), usage=True)]  # type: ignore[arg-type]
    said = "".join(c["choices"][0]["delta"].get("content", "") for c in chunks if c["choices"])
    assert said == "Let me look.It is 3." and chunks[-1]["usage"]["total_tokens"] == 5
    answer = openai.Answer(TASK, "m", 1)
    streamed = [e async for e in openai.response_events(answer, told(STORY))]  # type: ignore[arg-type]
    assert "".join(e["delta"] for e in streamed if e["type"] == "response.output_text.delta") == said
    failed = openai.Answer(TASK, "m", 1)
    story = [status("TASK_STATE_FAILED", {"text": "no model"})]
    assert [e async for e in openai.response_events(failed, told(story))][-1]["type"] == "response.failed"  # type: ignore[arg-type]
    assert openai.response(failed)["error"]["message"] == "no model"


def test_messages_as_they_come() -> None:
    many = [
        {"role": "user", "content": "one"},
        {"role": "assistant", "content": "two"},
        {"role": "user", "content": "three"},
    ]
    parts = asked.chat({"messages": many})["parts"]
    assert "user: one" in parts[0]["text"] and "assistant: two" in parts[0]["text"] and parts[1] == {"text": "three"}
    known = asked.chat({"messages": many, "metadata": {"context_id": "c", "task_id": "t"}})
    assert known["parts"] == [{"text": "three"}] and (known["contextId"], known["taskId"]) == ("c", "t")
    resumed = asked.agui({"threadId": "c", "runId": "r", "resume": [{"interruptId": "t", "status": "cancelled"}]})
    assert resumed["taskId"] == "t" and resumed["parts"] == [{"data": {"decision_type": "reject"}}]
    for bad in (
        {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]},
        {"messages": [{"role": "assistant", "content": "x"}]},
    ):
        with pytest.raises(Exception, match="messages"):
            asked.chat(bad)
