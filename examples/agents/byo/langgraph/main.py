"""A LangGraph agent on kagent's SDK: it counts what it was told, and asks a model for the answer.

Nothing in here knows Quarterdeck. The conversation's state is in the control plane (``KAGENT_URL``), the model behind
the gateway (``OPENAI_BASE_URL``), and the Pod's relay proves who asks.
"""

import operator
import os
from typing import Annotated, Any

import httpx
import uvicorn
from kagent.core import KAgentConfig
from kagent.langgraph import KAgentApp, KAgentCheckpointer
from langchain_core.messages import AIMessage
from langgraph.graph import START, MessagesState, StateGraph
from openai import AsyncOpenAI

CARD = {
    "name": "counting_agent",
    "description": "Answers, and says how often it was asked.",
    "url": "http://localhost:8080",
    "version": "1.0.0",
    "capabilities": {"streaming": True},
    "defaultInputModes": ["text"],
    "defaultOutputModes": ["text"],
    "skills": [{"id": "count", "name": "Count", "description": "Counts turns.", "tags": ["count"]}],
}
ROLES = {"human": "user", "ai": "assistant"}


class State(MessagesState):
    turns: Annotated[int, operator.add]


async def answer(state: State) -> dict[str, Any]:
    said = [{"role": ROLES[message.type], "content": str(message.content)} for message in state["messages"]]
    model = os.environ.get("QUARTERDECK_MODEL", "scripted")
    done = await AsyncOpenAI().chat.completions.create(model=model, messages=said)
    text = f"{done.choices[0].message.content} (turn {state.get('turns', 0) + 1})"
    return {"messages": [AIMessage(content=text)], "turns": 1}


config = KAgentConfig()
saver = KAgentCheckpointer(client=httpx.AsyncClient(base_url=config.url), app_name=config.app_name)
graph = StateGraph(State).add_node("answer", answer).add_edge(START, "answer").compile(checkpointer=saver)
app = KAgentApp(graph=graph, agent_card=CARD, config=config, tracing=False).build()

if __name__ == "__main__":
    uvicorn.run(app, host="0.0.0.0", port=8080)
