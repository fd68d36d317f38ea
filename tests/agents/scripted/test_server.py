"""The server as its clients meet it: a real process, OpenAI's format over HTTP."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from quarterdeck.wire.client import Pool
from quarterdeck.wire.sse import SseParser

ADD = {"type": "function", "function": {
    "name": "add", "description": "Add two numbers",
    "parameters": {
        "type": "object",
        "properties": {"x": {"type": "number"}, "y": {"type": "number"}},
        "required": ["x", "y"],
    },
}}  # fmt: skip
LOOK = {"type": "function", "function": {
    "name": "look_up", "description": "Look up a word in the lexicon",
    "parameters": {"type": "object", "properties": {"word": {"type": "string"}}, "required": ["word"]},
}}  # fmt: skip


class Model:
    def __init__(self, port: int, pid: int) -> None:
        self.port, self.pid = port, pid

    async def send(self, method: str, target: str, body: bytes = b"") -> tuple[int, bytes]:
        pool = Pool()
        response = await pool.request(method, ("127.0.0.1", self.port, False), target, [], body)
        data = await response.read()
        pool.close()
        return response.status, data

    async def chat(self, ask: str, **more: Any) -> dict[str, Any]:
        document = {"model": "m", "messages": [{"role": "user", "content": ask}], "tools": [ADD, LOOK], **more}
        status, data = await self.send("POST", "/v1/chat/completions", json.dumps(document).encode())
        return {"status": status, **json.loads(data)}


@asynccontextmanager
async def model(*arguments: str) -> AsyncIterator[Model]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "quarterdeck.agents.scripted", "--host", "127.0.0.1", "--port", "0", *arguments,
        stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout is not None
    line = (await asyncio.wait_for(process.stdout.readline(), 30)).decode()
    try:
        yield Model(int(line.rpartition(":")[2].partition("/")[0]), process.pid)
    finally:
        process.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(process.wait(), 30) == 0


def message(answer: dict[str, Any]) -> dict[str, Any]:
    return answer["choices"][0]["message"]


async def test_plain_answers_and_what_it_calls_itself() -> None:
    async with model("--model", "planner-1") as server:
        answer = await server.chat("Add 2 and 40")
        assert answer["model"] == "planner-1"
        assert "scripted" in answer["system_fingerprint"]
        assert answer["choices"][0]["finish_reason"] == "tool_calls"
        call = message(answer)["tool_calls"][0]["function"]
        assert (call["name"], json.loads(call["arguments"])) == ("add", {"x": 2, "y": 40})
        status, listed = await server.send("GET", "/v1/models")
        assert status == 200
        assert [(m["id"], m["owned_by"]) for m in json.loads(listed)["data"]] == [("planner-1", "quarterdeck-scripted")]
        for probe in ("/health", "/ready"):
            assert (await server.send("GET", probe))[0] == 200
        rss = int(Path(f"/proc/{server.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6
        assert rss <= 60


async def test_streams_carry_the_same_answer() -> None:
    async with model() as server:
        for ask in ("Add 2 and 40 and look up the word 'ahoy'", "Sing a song"):
            whole = await server.chat(ask)
            document = {"model": "m", "stream": True, "stream_options": {"include_usage": True}, "tools": [ADD, LOOK],
                        "messages": [{"role": "user", "content": ask}]}  # fmt: skip
            status, body = await server.send("POST", "/v1/chat/completions", json.dumps(document).encode())
            events = [e.data for e in SseParser().feed(body)]
            assert (status, events[-1]) == (200, b"[DONE]")
            chunks = [json.loads(e) for e in events[:-1]]
            deltas = [c["choices"][0]["delta"] for c in chunks if c["choices"]]
            text = "".join(d.get("content") or "" for d in deltas)
            assert text == (message(whole)["content"] or "")
            calls: dict[int, str] = {}
            for part in (p for d in deltas for p in d.get("tool_calls", [])):
                calls[part["index"]] = calls.get(part["index"], "") + part["function"]["arguments"]
            expected = [c["function"]["arguments"] for c in message(whole).get("tool_calls", [])]
            assert list(calls.values()) == expected
            assert chunks[-2]["choices"][0]["finish_reason"] == whole["choices"][0]["finish_reason"]
            assert chunks[-1]["usage"]["total_tokens"] > 0


async def test_tool_choice_and_parallel_calls() -> None:
    async with model() as server:
        both = "Add 2 and 40 and look up the word 'ahoy'"
        assert len(message(await server.chat(both))["tool_calls"]) == 2
        assert len(message(await server.chat(both, parallel_tool_calls=False))["tool_calls"]) == 1
        assert "tool_calls" not in message(await server.chat(both, tool_choice="none"))
        chosen = {"type": "function", "function": {"name": "look_up"}}
        forced = await server.chat("Say 'ahoy'", tool_choice=chosen)
        assert message(forced)["tool_calls"][0]["function"] == {"name": "look_up", "arguments": '{"word": "ahoy"}'}
        assert "tool_calls" in message(await server.chat("'ahoy' 3 4", tool_choice="required"))


@pytest.mark.parametrize(
    ("body", "field"),
    [
        (b"{", "not JSON"),
        (b"[]", "JSON object"),
        (b"{}", "messages"),
        (b'{"messages": [{}]}', "messages[0].role"),
        (b'{"messages": [{"role": "user", "content": "x"}], "tools": 5}', "tools"),
        (b'{"messages": [{"role": "user", "content": "x"}], "tool_choice": "required"}', "tool_choice"),
        (b'{"messages": [{"role": "user", "content": "x"}], "tool_choice": {"function": {"name": "n"}}}', "'n'"),
        (b"[" * 100_000, "not JSON"),
    ],
)
async def test_bad_requests_name_the_field(body: bytes, field: str) -> None:
    async with model() as server:
        status, data = await server.send("POST", "/v1/chat/completions", body)
        error = json.loads(data)["error"]
        assert (status, error["type"]) == (400, "invalid_request_error")
        assert field in error["message"]


async def test_other_endpoints_methods_and_sizes_are_refused() -> None:
    async with model() as server:
        assert (await server.send("GET", "/v1/files"))[0] == 404
        assert (await server.send("GET", "/v1/embeddings"))[0] == 405
        assert (await server.send("GET", "/v1/chat/completions"))[0] == 405
        assert (await server.send("POST", "/v1/chat/completions", b" " * (5 << 20)))[0] == 413
        assert (await server.send("GET", "/v1/models/nobody"))[0] == 404
        assert b'status="200"' not in (await server.send("GET", "/metrics"))[1]


async def test_a_script_goes_before_the_planner(tmp_path: Path) -> None:
    script = tmp_path / "script.yaml"
    script.write_text(
        "- match: 'hail (\\w+)'\n  calls: [{tool: look_up, arguments: {word: '{1}'}}]\n  answer: 'Hail: {result}'\n"
    )
    async with model("--script", str(script)) as server:
        first = message(await server.chat("please hail Bob"))
        assert first["tool_calls"][0]["function"] == {"name": "look_up", "arguments": '{"word": "Bob"}'}
        history = [{"role": "user", "content": "please hail Bob"}, first,
                   {"role": "tool", "tool_call_id": first["tool_calls"][0]["id"], "content": "a name"}]  # fmt: skip
        assert message(await server.chat("", messages=history))["content"] == "Hail: a name"
        assert message(await server.chat("Add 1 and 2"))["tool_calls"][0]["function"]["name"] == "add"
