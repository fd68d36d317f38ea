"""The official SDK's clients, unmodified, over every binding and version that the agent's card names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import grpc.aio
import httpx
import pytest
from a2a.client import A2ACardResolver, ClientConfig, ClientFactory
from a2a.types import a2a_pb2 as pb

from fixtures.tck_agent.serving import gateway_in_front, pod_token, serving


def message(prefix: str, **more: Any) -> pb.SendMessageRequest:
    said = pb.Message(message_id=prefix, role=pb.Role.ROLE_USER, parts=[pb.Part(text="hi")], **more)
    return pb.SendMessageRequest(message=said)


async def walk(client: Any, *, lists: bool, known: bool = True) -> None:
    """Send, stream, get, list, subscribe, cancel and notify, as an application would."""
    events = [event async for event in client.send_message(message("tck-stream-artifact-chunked"))]
    kinds = [event.WhichOneof("payload") for event in events]
    assert kinds[0] == "task" and kinds.count("artifact_update") == 2 and kinds[-1] == "status_update"
    assert events[-1].status_update.status.state == pb.TaskState.TASK_STATE_COMPLETED
    task = await client.get_task(pb.GetTaskRequest(id=events[0].task.id))
    assert [part.text for part in task.artifacts[0].parts] == ["chunk-1 ", "chunk-2"]
    waits = [event async for event in client.send_message(message("tck-input-required"))]
    held = waits[0].task
    state = waits[-1].status_update.status.state or held.status.state
    assert state == pb.TaskState.TASK_STATE_INPUT_REQUIRED, "the task may wait before the stream has begun"
    config = pb.TaskPushNotificationConfig(task_id=held.id, url="https://client.example.com/hook", id="c1")
    made = await client.create_task_push_notification_config(config)
    assert made.id == "c1" and made.url == config.url
    wanted = pb.GetTaskPushNotificationConfigRequest(task_id=held.id, id="c1")
    got = await client.get_task_push_notification_config(wanted)
    assert got.url == config.url
    subscribed = [e async for e in client.subscribe(pb.SubscribeToTaskRequest(id=held.id))]
    assert subscribed[0].task.id == held.id
    canceled = await client.cancel_task(pb.CancelTaskRequest(id=held.id))
    assert canceled.status.state == pb.TaskState.TASK_STATE_CANCELED
    if lists:
        found = await client.list_tasks(pb.ListTasksRequest(page_size=1))
        assert len(found.tasks) == 1 and found.total_size == 2 and found.next_page_token
    if lists and known:
        extended = await client.get_extended_agent_card(pb.GetExtendedAgentCardRequest())
        assert extended.name == "tck"
    with pytest.raises(Exception, match="gone"):
        await client.get_task(pb.GetTaskRequest(id="gone"))


CASES = [("JSONRPC", "1.0"), ("JSONRPC", "0.3"), ("HTTP+JSON", "1.0"), ("HTTP+JSON", "0.3"), ("GRPC", "1.0")]


@pytest.mark.parametrize(("binding", "version"), CASES)
async def test_the_agent_itself(binding: str, version: str, tmp_path: Path) -> None:
    async with serving(tmp_path) as served, httpx.AsyncClient(trust_env=False) as http:
        http.headers["authorization"] = "Bearer alice"
        card = await A2ACardResolver(http, served.url).get_agent_card()
        known = binding != "GRPC"  # the channel carries no token
        await walk(client_of(card, http, binding, version), lists=version == "1.0", known=known)


@pytest.mark.parametrize("version", ["1.0", "0.3"])
@pytest.mark.parametrize("binding", ["JSONRPC", "HTTP+JSON"])
async def test_through_the_gateway(binding: str, version: str, tmp_path: Path) -> None:
    async with (
        serving(tmp_path) as served,
        gateway_in_front(tmp_path, served) as front,
        httpx.AsyncClient(trust_env=False) as http,
    ):
        http.headers["authorization"] = f"Bearer {pod_token('pod-a')}"
        card = await A2ACardResolver(http, front.workloads).get_agent_card()
        await walk(client_of(card, http, binding, version), lists=version == "1.0")


def client_of(card: pb.AgentCard, http: httpx.AsyncClient, binding: str, version: str) -> Any:
    kept = [i for i in card.supported_interfaces if (i.protocol_binding, i.protocol_version) == (binding, version)]
    assert len(kept) == 1
    del card.supported_interfaces[:]
    card.supported_interfaces.extend(kept)
    config = ClientConfig(
        httpx_client=http,
        supported_protocol_bindings=[binding],
        grpc_channel_factory=lambda url: grpc.aio.insecure_channel(url),
        use_client_preference=True,
    )
    return ClientFactory(config).create(card)
