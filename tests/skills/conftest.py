"""Skills as people write them, and real servers to fetch them from."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from aiohttp import web

SKILL = """---
name: {name}
description: {description}
---
# {name}

Follow these steps.
"""


def skill_text(name: str, description: str = "Does something useful. Use it for useful things.") -> str:
    return SKILL.format(name=name, description=description)


def write_skill(folder: Path, name: str, **files: str) -> Path:
    """A skill with SKILL.md and ``files`` (``__`` in their names is a slash, ``_py`` the ending)."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "SKILL.md").write_text(skill_text(name))
    for key, text in files.items():
        path = folder / key.replace("__", "/").replace("_py", ".py").replace("_md", ".md")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


@asynccontextmanager
async def served(answer: Callable[[web.Request], Awaitable[web.Response]]) -> AsyncIterator[str]:
    """A server on loopback that answers all GETs so; its URL."""
    app = web.Application()
    app.router.add_get("/{path:.*}", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()
