"""A client whose stream broke goes on after the last event it has seen, on both bindings, through the gateway, too."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import httpx
import pytest

from fixtures.tck_agent.serving import gateway_in_front, serving

SAID = {"messageId": "tck-stream-artifact-chunked", "role": "ROLE_USER", "parts": [{"text": "hi"}]}


def events(text: str) -> list[tuple[int, Any]]:
    found: list[tuple[int, Any]] = []
    for block in text.split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.splitlines())
        if "data" in fields:
            found.append((int(fields.get("id", 0)), json.loads(fields["data"])))
    return found


@pytest.mark.parametrize("binding", ["jsonrpc", "http_json"])
async def test_nothing_is_lost_and_nothing_comes_twice(binding: str, tmp_path: Path) -> None:
    async with (
        serving(tmp_path, delay=0.05) as served,
        gateway_in_front(tmp_path, served) as front,
        httpx.AsyncClient(trust_env=False, timeout=20, headers={"a2a-version": "1.0"}) as http,
    ):
        held = {"message": SAID | {"messageId": "tck-hold"}, "configuration": {"returnImmediately": True}}
        task = (await http.post(f"{front.url}/message:send", json=held)).json()["task"]

        async def subscribe(**headers: str) -> list[tuple[int, Any]]:
            if binding == "http_json":
                answer = await http.post(f"{front.url}/tasks/{task['id']}:subscribe", headers=headers)
                return events(answer.text)
            body = {"jsonrpc": "2.0", "id": 1, "method": "SubscribeToTask", "params": {"id": task["id"]}}
            answer = await http.post(front.url, json=body, headers=headers)
            return [(number, event["result"]) for number, event in events(answer.text)]

        live = served.stack.engine.active(task["id"], "tck")
        while live.task["status"]["state"] != "TASK_STATE_WORKING":
            await asyncio.sleep(0.005)
        live.artifact({"text": "one"})
        live.artifact({"text": "two"}, "a2")
        streams = [asyncio.create_task(subscribe(**{"last-event-id": last})) for last in ("0", "2")]
        while len(live.watchers) < len(streams):
            await asyncio.sleep(0.005)
        served.stack.engine.release.set()
        whole, rest = await asyncio.gather(*streams)
        assert [number for number, _ in whole] == [1, 2, 3, 4]
        assert rest == whole[2:], "what came after the second event, once"
        assert (await subscribe(**{"last-event-id": "4"}))[0][1]["task"]["id"] == task["id"], "it is over: the task"
