"""A client on the official SDK of 0.3, in an environment of its own: ``client_03.py URL BINDING TOKEN``."""

import asyncio
import json
import sys

import httpx
from a2a.client import A2ACardResolver, ClientConfig, ClientFactory
from a2a.types import (
    GetTaskPushNotificationConfigParams,
    Message,
    Part,
    PushNotificationConfig,
    Role,
    TaskIdParams,
    TaskPushNotificationConfig,
    TaskQueryParams,
    TextPart,
)


def said(prefix, **more):
    return Message(message_id=prefix, role=Role.user, parts=[Part(root=TextPart(text="hi"))], **more)


async def main(url, binding, token):
    found = {}
    headers = {"authorization": f"Bearer {token}"}
    async with httpx.AsyncClient(trust_env=False, timeout=20, headers=headers) as http:
        card = await A2ACardResolver(http, url).get_agent_card()
        config = ClientConfig(httpx_client=http, supported_transports=[binding], use_client_preference=True)
        client = ClientFactory(config).create(card)
        task = [event async for event in client.send_message(said("tck-stream-artifact-chunked"))][-1][0]
        found["streamed"] = [part.root.text for part in task.artifacts[0].parts]
        found["got"] = (await client.get_task(TaskQueryParams(id=task.id))).status.state.value
        waits = [event async for event in client.send_message(said("tck-input-required"))][-1][0]
        found["waits"] = waits.status.state.value
        hook = PushNotificationConfig(id="c", url="https://client.example.com/x")
        await client.set_task_callback(TaskPushNotificationConfig(task_id=waits.id, push_notification_config=hook))
        asked = GetTaskPushNotificationConfigParams(id=waits.id, push_notification_config_id="c")
        found["hook"] = (await client.get_task_callback(asked)).push_notification_config.url
        found["resubscribed"] = len([e async for e in client.resubscribe(TaskIdParams(id=waits.id))])
        more = said("tck-complete-task", task_id=waits.id, context_id=waits.context_id)
        found["went_on"] = [event async for event in client.send_message(more)][-1][0].status.state.value
        reply = [event async for event in client.send_message(said("tck-message-response"))][-1]
        found["reply"] = reply.parts[0].root.text
    print(json.dumps(found))


asyncio.run(main(*sys.argv[1:4]))
