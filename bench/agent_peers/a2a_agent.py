"""A plain agent of the official SDKs: a2a-sdk's server in memory, the mcp SDK's client, the openai SDK's model.

``python a2a_agent.py MODEL_URL TOOLS_URL PORT``.
"""

from __future__ import annotations

import json
import sys
from contextlib import asynccontextmanager
from typing import Any

import uvicorn
from a2a.helpers import new_task_from_user_message, new_text_part
from a2a.server.agent_execution import AgentExecutor, RequestContext
from a2a.server.events import EventQueue
from a2a.server.request_handlers import DefaultRequestHandler
from a2a.server.routes import create_agent_card_routes, create_jsonrpc_routes
from a2a.server.tasks import InMemoryTaskStore, TaskUpdater
from a2a.types import AgentCapabilities, AgentCard, AgentInterface
from mcp import ClientSession
from mcp.client.streamable_http import streamable_http_client
from openai import AsyncOpenAI
from starlette.applications import Starlette

MODEL, TOOLS, PORT = sys.argv[1:]
tool: dict[str, Any] = {}


class Executor(AgentExecutor):
    def __init__(self) -> None:
        self.model = AsyncOpenAI(base_url=MODEL, api_key="none")

    async def execute(self, context: RequestContext, event_queue: EventQueue) -> None:
        task = context.current_task or new_task_from_user_message(context.message)
        await event_queue.enqueue_event(task)
        updater = TaskUpdater(event_queue, task.id, task.context_id)
        await updater.start_work()
        messages: list[Any] = [
            {"role": "system", "content": "Use your tool."}, {"role": "user", "content": context.get_user_input()},
        ]  # fmt: skip
        while True:
            found = await self.model.chat.completions.create(
                model="trivial", messages=messages, tools=tool["described"]
            )
            said = found.choices[0].message
            messages.append(said.model_dump(exclude_none=True))
            if not said.tool_calls:
                break
            for call in said.tool_calls:
                result = await tool["session"].call_tool(call.function.name, json.loads(call.function.arguments))
                text = "".join(part.text for part in result.content)
                messages.append({"role": "tool", "tool_call_id": call.id, "content": text})
        await updater.add_artifact([new_text_part(said.content or "")])
        await updater.complete()

    async def cancel(self, context: RequestContext, event_queue: EventQueue) -> None:
        raise NotImplementedError


@asynccontextmanager
async def lifespan(app: Starlette) -> Any:
    async with streamable_http_client(TOOLS) as streams, ClientSession(*streams[:2]) as session:
        await session.initialize()
        listed = await session.list_tools()
        tool["session"] = session
        tool["described"] = [
            {"type": "function", "function": {"name": t.name, "description": t.description, "parameters": schema(t)}}
            for t in listed.tools
        ]
        yield


def schema(described: Any) -> Any:
    """By the name that this release of the SDK has for it."""
    return getattr(described, "input_schema", None) or getattr(described, "inputSchema", None)


card = AgentCard(
    name="bench", description="A bench agent.", version="1", capabilities=AgentCapabilities(streaming=True),
    supported_interfaces=[AgentInterface(url=f"http://127.0.0.1:{PORT}/", protocol_binding="JSONRPC")],
    default_input_modes=["text/plain"], default_output_modes=["text/plain"],
)  # fmt: skip
handler = DefaultRequestHandler(agent_executor=Executor(), task_store=InMemoryTaskStore(), agent_card=card)
routes = [*create_agent_card_routes(card), *create_jsonrpc_routes(handler, "/")]
uvicorn.run(Starlette(routes=routes, lifespan=lifespan), host="127.0.0.1", port=int(PORT), log_level="warning")
