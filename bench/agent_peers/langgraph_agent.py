"""LangGraph alone: its prebuilt agent with LangChain's OpenAI model and MCP tools, no server around it.

``python langgraph_agent.py MODEL_URL TOOLS_URL``; each line read is a number of turns, each line
written the last answer.
"""

from __future__ import annotations

import asyncio
import sys
from uuid import uuid4

from langchain_mcp_adapters.client import MultiServerMCPClient
from langchain_mcp_adapters.tools import load_mcp_tools
from langchain_openai import ChatOpenAI
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.prebuilt import create_react_agent


async def main(model_url: str, tools_url: str) -> None:
    client = MultiServerMCPClient({"bench": {"transport": "streamable_http", "url": tools_url}})
    async with client.session("bench") as session:
        model = ChatOpenAI(model="trivial", base_url=model_url, api_key="none", use_responses_api=False)
        tools = await load_mcp_tools(session)
        agent = create_react_agent(model, tools, prompt="Use your tool.", checkpointer=InMemorySaver())
        print("ready", flush=True)
        while line := await asyncio.to_thread(sys.stdin.readline):
            answer = ""
            for _ in range(int(line)):
                config = {"configurable": {"thread_id": uuid4().hex}}
                asked = {"messages": [{"role": "user", "content": "Say hello."}]}
                found = await agent.ainvoke(asked, config)
                answer = str(found["messages"][-1].content)
            print(answer, flush=True)


asyncio.run(main(*sys.argv[1:]))
