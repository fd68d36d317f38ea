"""google-adk's agent and runner with an OpenAI-compatible model and MCP tools, no server around it.

``python adk_agent.py MODEL_URL TOOLS_URL``; each line read is a number of turns, each line written the last answer.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncGenerator
from typing import Any

import httpx
from google.adk.agents import LlmAgent
from google.adk.models.base_llm import BaseLlm
from google.adk.models.llm_request import LlmRequest
from google.adk.models.llm_response import LlmResponse
from google.adk.runners import InMemoryRunner
from google.adk.tools.mcp_tool import McpToolset, StreamableHTTPConnectionParams
from google.genai import types


class Chat(BaseLlm):
    """Chat completions over httpx: ADK's own way to them is LiteLLM, which costs far more."""

    url: str
    client: Any = None

    async def generate_content_async(
        self, llm_request: LlmRequest, stream: bool = False
    ) -> AsyncGenerator[LlmResponse, None]:
        del stream
        messages: list[dict[str, Any]] = []
        for content in llm_request.contents:
            for part in content.parts or []:
                if part.function_response is not None:
                    text = json.dumps(part.function_response.response)
                    messages.append({"role": "tool", "tool_call_id": "call_1", "content": text})
                elif part.text:
                    messages.append({"role": "assistant" if content.role == "model" else "user", "content": part.text})
        tools = [{"type": "function", "function": {"name": name}} for name in llm_request.tools_dict]
        body = {"model": self.model, "messages": messages, "tools": tools}
        answer = (await self.client.post(f"{self.url}/chat/completions", json=body)).json()["choices"][0]["message"]
        calls = [
            types.Part.from_function_call(name=call["function"]["name"], args=json.loads(call["function"]["arguments"]))
            for call in answer.get("tool_calls") or []
        ]
        parts = calls or [types.Part(text=answer["content"])]
        yield LlmResponse(content=types.Content(role="model", parts=parts))


async def main(model_url: str, tools_url: str) -> None:
    tools = McpToolset(connection_params=StreamableHTTPConnectionParams(url=tools_url))
    model = Chat(model="trivial", url=model_url, client=httpx.AsyncClient())
    agent = LlmAgent(name="bench", model=model, instruction="Use your tool.", tools=[tools])
    runner = InMemoryRunner(agent=agent, app_name="bench")
    print("ready", flush=True)
    while line := await asyncio.to_thread(sys.stdin.readline):
        answer = ""
        for _ in range(int(line)):
            session = await runner.session_service.create_session(app_name="bench", user_id="u")
            asked = types.Content(role="user", parts=[types.Part(text="Say hello.")])
            async for event in runner.run_async(user_id="u", session_id=session.id, new_message=asked):
                for part in (event.content.parts if event.content else None) or []:
                    answer = part.text or answer
        print(answer, flush=True)


asyncio.run(main(*sys.argv[1:]))
