"""A real agent's task, from a message with a webhook to what the webhook gets."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from quarterdeck.server.a2a_delivery import SIGNATURE, Client, Guard, Pusher
from quarterdeck.server.database import Database
from quarterdeck.server.signing import SigningKey
from quarterdeck.wire.http import Exchange, Server

from .conftest import call, say, user_message


async def test_a_webhook_is_told_how_the_task_went(start: Any, tmp_path: Path) -> None:
    got: list[tuple[Any, dict[bytes, bytes]]] = []

    def receive(exchange: Exchange) -> None:
        got.append((json.loads(exchange.body), dict(exchange.headers)))
        exchange.respond(200, b"")

    webhook = Server(receive, name="webhook")
    _, port = await webhook.listen("127.0.0.1", 0)
    agent = await start(call("count", {"steps": 1}), say("done"))
    config = {"url": f"http://127.0.0.1:{port}/", "token": "t0k", "authentication": {"scheme": "Bearer"}}
    params = {"message": user_message("count"), "configuration": {"taskPushNotificationConfig": config}}
    task = (await agent.rpc("SendMessage", params))["result"]["task"]
    listed = await agent.rpc("ListTaskPushNotificationConfigs", {"taskId": task["id"]})
    assert listed["result"]["configs"][0]["token"] == "t0k"

    # another process of the control plane delivers
    database = await Database.open(str(tmp_path / "server.db"))
    client = Client(Guard(["127.0.0.0/8"]))
    pusher = Pusher(database, await SigningKey.open(database), client.send)
    while await pusher.step():
        pass
    payloads = [payload for payload, _ in got]
    last = payloads[-1].get("statusUpdate", payloads[-1].get("task"))
    assert last["status"]["state"] == "TASK_STATE_COMPLETED"
    assert any("done" in json.dumps(payload) for payload in payloads), "the answer is told, too"
    headers = got[-1][1]
    assert headers[b"x-a2a-notification-token"] == b"t0k"
    assert headers[b"authorization"] == b"Bearer " + headers[SIGNATURE.lower().encode()]
    await client.close()
    await database.close()
    await webhook.stop(0)


async def test_tasks_are_listed_as_they_are(start: Any) -> None:
    agent = await start(say("one"), say("two"))
    first = await agent.ask("first")
    second = await agent.ask("second", contextId=first["contextId"])
    found = (await agent.rpc("ListTasks", {"contextId": first["contextId"], "includeArtifacts": True}))["result"]
    assert [task["id"] for task in found["tasks"]] == [second["id"], first["id"]] and found["nextPageToken"] == ""
    assert found["tasks"][0]["artifacts"][0]["parts"][0]["text"] == "two"
    nobody = await agent.rpc("ListTasks", {"status": "TASK_STATE_WORKING"})
    assert nobody["result"]["tasks"] == []
