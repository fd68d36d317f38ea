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

from .context.media import shown
from .context.output import INVALID, OutputSchema
from .context.paging import NAME as READ_RESULT
from .context.paging import is_paged
from .context.window import Window
from .journal.checkpoints import JournalSaver
from .journal.pause import RunFailed
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
    again: bool
    """Whether the last answer was not valid and the model gets another turn."""


@dataclass(slots=True)
class Turn:
    """What one user message is worked on with. ``on_text`` is told the model's text as it comes; None: not at all.

    ``see``: the model takes images. ``output``: what answers must be.
    """

    model: ChatModel
    tools: Mapping[str, Tool]
    steps: Steps
    window: Window
    max_steps: int
    on_text: Callable[[str], Awaitable[None]] | None = None
    output: OutputSchema | None = None
    see: bool = False
    reload: Callable[[Mapping[str, Tool]], Awaitable[Mapping[str, Tool]]] | None = None
    """Gives the tools as they are now: a server may have said that its list changed."""


def _turn(config: RunnableConfig) -> Turn:
    return cast(Turn, config.get("configurable", {})["turn"])


async def ask_model(state: State, config: RunnableConfig) -> dict[str, Any]:
    """Node: one model call."""
    turn, step = _turn(config), state["step"]
    again = state.get("again", False)
    last = again or state["steps"] + 1 >= turn.max_steps
    if turn.reload is not None and not turn.steps.known(step):
        turn.tools = await turn.reload(turn.tools)
    tools = [] if last else described(_offered(turn, state["messages"]))
    sent = [] if turn.steps.known(step) else await _sent(turn, state, tools)
    told, spoke = turn.on_text, False

    async def on_text(piece: str) -> None:
        nonlocal spoke
        spoke = True
        if told is not None:
            await told(piece)

    async def ask() -> Reply:
        turn.steps.seen.asked(sent)
        form = turn.output.response_format if turn.output is not None and last else None
        streams = told is not None and not spoke  # an answer that broke off is not said twice
        reply = await turn.model.reply(sent, tools, on_text if streams else None, response_format=form)
        turn.window.told(reply.usage)
        if last and reply.calls:
            return Reply(reply.text or f"I stopped after {turn.max_steps} steps without an answer.", [], reply.usage)
        return reply

    reply = await turn.steps.model(step, ask)
    again = _to_repeat(turn, reply, again=again)
    calls = [asdict(call) for call in reply.calls]
    return {
        "messages": [reply.message()], "steps": state["steps"] + 1, "calls": calls, "step": step + 1, "again": again,
    }  # fmt: skip


async def _sent(turn: Turn, state: State, tools: list[dict[str, Any]]) -> list[Message]:
    """What the model gets: what fits of the conversation, with what the host has to say at its end."""
    said: list[Message] = []
    if state.get("again") and turn.output is not None:
        _, problem = turn.output.read(str(state["messages"][-1].get("content") or ""))
        said.append({"role": "user", "content": turn.output.again(problem)})
    elif state["steps"] + 1 >= turn.max_steps and turn.tools:
        note = f"The limit of {turn.max_steps} steps is reached: answer now with what you know."
        said.append({"role": "system", "content": note})
    messages = await turn.window.fit(state["messages"], tools, said)
    return shown(marked([*messages, *said], turn.tools), see=turn.see)


def _to_repeat(turn: Turn, reply: Reply, *, again: bool) -> bool:
    """Whether an answer is not what it must be and may be given once more. Raises RunFailed at the second time."""
    if turn.output is None or reply.calls:
        return False
    _, problem = turn.output.read(reply.text)
    if problem and again:
        raise RunFailed(INVALID, f"{INVALID}: the answer does not match spec.declarative.outputSchema: {problem}")
    return bool(problem)


def _offered(turn: Turn, messages: list[Message]) -> dict[str, Tool]:
    """The tools; the one that reads on in long results only where there is one."""
    if turn.window.paged or any(is_paged(message.get("content")) for message in messages):
        return dict(turn.tools)
    return {name: tool for name, tool in turn.tools.items() if name != READ_RESULT}


async def call_tools(state: State, config: RunnableConfig) -> dict[str, Any]:
    """Node: carry out the calls of the last answer, side by side, results in the order asked."""
    calls = [ToolCall(**call) for call in state["calls"]]
    messages = await _turn(config).steps.tools(state["step"], calls, _turn(config).tools)
    return {"messages": messages, "calls": [], "step": state["step"] + len(calls)}


def _next(state: State) -> str:
    if state["calls"]:
        return "tools"
    return "model" if state.get("again") else END


def build(saver: JournalSaver) -> Any:
    """The compiled graph; what it holds between turns is in the journals that ``saver`` knows."""
    graph = StateGraph(State)
    graph.add_node("model", ask_model)
    graph.add_node("tools", call_tools)
    graph.add_edge(START, "model")
    graph.add_conditional_edges("model", _next, ["tools", "model", END])
    graph.add_edge("tools", "model")
    return graph.compile(checkpointer=saver)


async def run(graph: Any, turn: Turn, messages: list[Message], run_id: str, *, resume: bool) -> str:
    """Work on the run's ``messages``, which begin with the user's; returns the answer's text.

    ``resume``: go on where the run's journal says that the graph stood.
    """
    state: State = {"messages": messages, "steps": 0, "calls": [], "step": 1, "again": False}
    config = {"configurable": {"turn": turn, "thread_id": run_id}, "recursion_limit": 2 * turn.max_steps + 4}
    final = await graph.ainvoke(None if resume else state, config, durability="sync")
    return str(final["messages"][-1].get("content") or "")
