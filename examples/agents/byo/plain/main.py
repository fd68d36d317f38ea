"""A plain agent on the official a2a-sdk: it remembers what was said for as long as it runs."""

import uvicorn
from a2a.helpers import new_task_from_user_message, new_text_part
from a2a.server.agent_execution import AgentExecutor, RequestContext
from a2a.server.events import EventQueue
from a2a.server.request_handlers import DefaultRequestHandler
from a2a.server.routes import create_agent_card_routes, create_jsonrpc_routes, create_rest_routes
from a2a.server.tasks import InMemoryTaskStore, TaskUpdater
from a2a.types import AgentCapabilities, AgentCard, AgentInterface, AgentSkill
from starlette.applications import Starlette

CARD = AgentCard(
    name="parrot",
    description="Says again what it was told.",
    version="1",
    capabilities=AgentCapabilities(streaming=True),
    supported_interfaces=[
        AgentInterface(url="http://localhost:8080/", protocol_binding="JSONRPC", protocol_version="1.0"),
        AgentInterface(url="http://localhost:8080", protocol_binding="HTTP+JSON", protocol_version="1.0"),
    ],
    default_input_modes=["text/plain"],
    default_output_modes=["text/plain"],
    skills=[AgentSkill(id="repeat", name="Repeat", description="Repeats everything.", tags=["text"])],
)


class Parrot(AgentExecutor):
    def __init__(self) -> None:
        self.heard: dict[str, list[str]] = {}

    async def execute(self, context: RequestContext, event_queue: EventQueue) -> None:
        task = context.current_task or new_task_from_user_message(context.message)
        await event_queue.enqueue_event(task)
        updater = TaskUpdater(event_queue, task.id, task.context_id)
        heard = self.heard.setdefault(task.context_id, [])
        heard.append(context.get_user_input())
        user = context.call_context.state["headers"].get("x-user-id", "")
        await updater.add_artifact([new_text_part(f"{user} said: {', '.join(heard)}")])
        await updater.complete()

    async def cancel(self, context: RequestContext, event_queue: EventQueue) -> None:
        raise NotImplementedError


handler = DefaultRequestHandler(agent_executor=Parrot(), task_store=InMemoryTaskStore(), agent_card=CARD)
routes = [*create_agent_card_routes(CARD), *create_jsonrpc_routes(handler, "/"), *create_rest_routes(handler)]
app = Starlette(routes=routes)

if __name__ == "__main__":
    uvicorn.run(app, host="0.0.0.0", port=8080)
