"""The agent's loop as a LangGraph graph: ask the model, carry out what it calls, ask again, until it answers.

State is the conversation in OpenAI's message form. A turn is bounded by steps and by time; the last step asks the model
without tools, so that even a model that never stops gives an answer.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import asdict, dataclass
from operator import add
from typing import Annotated, Any, TypedDict, cast

from langchain_core.runnables import RunnableConfig
from langgraph.graph import END, START, StateGraph

from .journal.checkpoints import JournalSaver
from .journal.steps import Steps
from .model import ChatModel, Message, Reply, ToolCall
from .tool import Tool
from .toolbox import described
from .untrusted import marked


class State(TypedDict):
    """``messages`` grows; ``steps`` counts model calls; ``calls`` are those of the last answer, ``step`` the number of
    the next step of the run."""

    messages: Annotated[list[Message], add]
    steps: int
    calls: list[dict[str, Any]]
    step: int


@dataclass(slots=True)
class Turn:
    """What one user message is worked on with. ``on_text`` is told the model's text as it comes; None: not at all."""

    model: ChatModel
    tools: Mapping[str, Tool]
    steps: Steps
    max_steps: int
    on_text: Callable[[str], Awaitable[None]] | None = None


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

    messages = marked(messages, turn.tools)

    async def ask() -> Reply:
        turn.steps.seen.asked(state["messages"])
        reply = await turn.model.reply(messages, [] if last else described(dict(turn.tools)), turn.on_text)
        if last and reply.calls:
            return Reply(reply.text or f"I stopped after {turn.max_steps} steps without an answer.", [], reply.usage)
        return reply

    reply = await turn.steps.model(state["step"], ask)
    calls = [asdict(call) for call in reply.calls]
    return {"messages": [reply.message()], "steps": state["steps"] + 1, "calls": calls, "step": state["step"] + 1}


async def call_tools(state: State, config: RunnableConfig) -> dict[str, Any]:
    """Node: carry out the calls of the last answer, side by side, results in the order asked."""
    calls = [ToolCall(**call) for call in state["calls"]]
    messages = await _turn(config).steps.tools(state["step"], calls, _turn(config).tools)
    return {"messages": messages, "calls": [], "step": state["step"] + len(calls)}


def _next(state: State) -> str:
    return "tools" if state["calls"] else END


def build(saver: JournalSaver) -> Any:
    """The compiled graph; what it holds between turns is in the journals that ``saver`` knows."""
    graph = StateGraph(State)
    graph.add_node("model", ask_model)
    graph.add_node("tools", call_tools)
    graph.add_edge(START, "model")
    graph.add_conditional_edges("model", _next, ["tools", END])
    graph.add_edge("tools", "model")
    return graph.compile(checkpointer=saver)


async def run(graph: Any, turn: Turn, messages: list[Message], run_id: str, *, resume: bool) -> str:
    """Work on a conversation whose last message is the user's; returns the answer's text.

    ``resume``: go on where the run's journal says that the graph stood.
    """
    state: State = {"messages": messages, "steps": 0, "calls": [], "step": 1}
    config = {"configurable": {"turn": turn, "thread_id": run_id}, "recursion_limit": 2 * turn.max_steps + 2}
    final = await graph.ainvoke(None if resume else state, config, durability="sync")
    return str(final["messages"][-1].get("content") or "")
