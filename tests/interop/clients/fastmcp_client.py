"""FastMCP's client, as its documentation uses it: python fastmcp_client.py URL. Prints what it saw as JSON."""

import asyncio
import json
import sys

from fastmcp import Client


async def main(url: str) -> None:
    progress: list[float] = []

    async def step(done: float, total: float | None, message: str | None) -> None:
        progress.append(done)

    async def answer(message: str, response_type: type, params: object, context: object) -> dict[str, str]:
        return {"color": "green"}

    client = Client(url, elicitation_handler=answer, progress_handler=step, timeout=60, init_timeout=60)
    async with client:

        async def call(name: str, arguments: dict[str, object]) -> str:
            result = await client.call_tool(name, arguments)
            return "".join(getattr(part, "text", "") for part in result.content)

        async def failing(name: str) -> str:
            try:
                return await call(name, {})
            except Exception as error:  # noqa: BLE001 - whatever it is that this client raises
                return str(error)

        saw = {
            "tools": [tool.name for tool in await client.list_tools()],
            "prompts": [prompt.name for prompt in await client.list_prompts()],
            "resources": [str(resource.uri) for resource in await client.list_resources()],
            "echo": await call("everything_echo", {"message": "hello"}),
            "time": await call(
                "time_convert_time", {"source_timezone": "UTC", "time": "12:00", "target_timezone": "Asia/Tokyo"}
            ),
            "search": await call("github_search_code", {"query": "gateway"}),
            "asked": await call("github_ask", {}),
            "steps": await call("github_steps", {"count": 3}),
            "progress": progress,
            "prompt": str(await client.get_prompt("github_review", {"path": "a.py"})),
            "resource": str(await client.read_resource("github+repo://readme")),
            "unknown": await failing("github_nonsense"),
        }
    print(json.dumps(saw))


asyncio.run(main(sys.argv[1]))
