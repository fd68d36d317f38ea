"""The agent's loop as a LangGraph graph: ask the model, carry out what it calls, ask again, until it answers.

State is the conversation in OpenAI's message form. A turn is bounded by steps and by time; the last step asks the model
without tools, so that even a model that never stops gives an answer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from operator import add
from typing import Annotated, Any, Protocol, TypedDict, cast

from langchain_core.runnables import RunnableConfig
from langgraph.graph import END, START, StateGraph

from .model import ChatModel, Message, Reply, ToolCall
from .tool import Context, Outcome, Tool
from .toolbox import carry_out, described


class State(TypedDict):
    """``messages`` grows; ``steps`` counts model calls; ``calls`` are those of the last answer."""

    messages: Annotated[list[Message], add]
    steps: int
    calls: list[ToolCall]


class Observer(Protocol):
    """Told what happens in a turn, in order."""

    async def text(self, piece: str) -> None: ...
    async def tool_started(self, call: ToolCall) -> None: ...
    async def tool_finished(self, call: ToolCall, outcome: Outcome) -> None: ...
    async def message(self, message: Message) -> None: ...


@dataclass(slots=True)
class Turn:
    """What one user message is worked on with."""

    model: ChatModel
    tools: Mapping[str, Tool]
    context: Context
    observer: Observer
    max_steps: int
    stream: bool
    usage: dict[str, int] = field(default_factory=dict[str, int])

    def count(self, usage: Mapping[str, int]) -> None:
        for name, value in usage.items():
            self.usage[name] = self.usage.get(name, 0) + value


def _turn(config: RunnableConfig) -> Turn:
    return cast(Turn, config.get("configurable", {})["turn"])


async def ask_model(state: State, config: RunnableConfig) -> dict[str, Any]:
    """Node: one model call."""
    turn = _turn(config)
    last = state["steps"] + 1 >= turn.max_steps
    messages = state["messages"]
    if last and turn.tools:
        note = f"The limit of {turn.max_steps} steps is reached: answer now with what you know."
        messages = [*messages, {"role": "system", "content": note}]
    on_text: Callable[[str], Awaitable[None]] | None = turn.observer.text if turn.stream else None
    reply: Reply = await turn.model.reply(messages, [] if last else described(dict(turn.tools)), on_text)
    turn.count(reply.usage)
    if last and reply.calls:
        reply = Reply(reply.text or f"I stopped after {turn.max_steps} steps without an answer.", [], reply.usage)
    message = reply.message()
    await turn.observer.message(message)
    return {"messages": [message], "steps": state["steps"] + 1, "calls": reply.calls}


async def call_tools(state: State, config: RunnableConfig) -> dict[str, Any]:
    """Node: carry out the calls of the last answer, side by side, results in the order asked."""
    turn = _turn(config)

    async def one(call: ToolCall) -> Message:
        await turn.observer.tool_started(call)
        outcome = await carry_out(call, dict(turn.tools), turn.context)
        await turn.observer.tool_finished(call, outcome)
        return {"role": "tool", "tool_call_id": call.id, "content": outcome.text}

    messages = list(await asyncio.gather(*(one(call) for call in state["calls"])))
    for message in messages:
        await turn.observer.message(message)
    return {"messages": messages, "calls": []}


def _next(state: State) -> str:
    return "tools" if state["calls"] else END


def build() -> Any:
    """The compiled graph; it holds no state between turns."""
    graph = StateGraph(State)
    graph.add_node("model", ask_model)
    graph.add_node("tools", call_tools)
    graph.add_edge(START, "model")
    graph.add_conditional_edges("model", _next, ["tools", END])
    graph.add_edge("tools", "model")
    return graph.compile()


async def run(graph: Any, turn: Turn, messages: list[Message]) -> str:
    """Work on a conversation whose last message is the user's; returns the answer's text."""
    state: State = {"messages": messages, "steps": 0, "calls": []}
    config = {"configurable": {"turn": turn}, "recursion_limit": 2 * turn.max_steps + 2}
    final = await graph.ainvoke(state, config)
    return str(final["messages"][-1].get("content") or "")
