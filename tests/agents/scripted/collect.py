"""Write ``tools/<server>.json``: the tool definitions of the real servers, as they answer ``tools/list`` today.

Run it with the project's python after a version in ``peers.py`` or ``tests/package.json`` moved.
"""

from __future__ import annotations

import asyncio
import json
import tempfile
from pathlib import Path

from peers import NAMES, peer

TOOLS = Path(__file__).parent / "tools"


async def collect() -> None:
    with tempfile.TemporaryDirectory() as folder:
        for name in NAMES:
            async with peer(name, Path(folder)) as session:
                kept = [
                    {k: t[k] for k in ("name", "description", "inputSchema") if k in t} for t in await session.tools()
                ]
            (TOOLS / f"{name}.json").write_text(json.dumps(kept, indent=1, ensure_ascii=False) + "\n")
            print(f"{name}: {len(kept)} tools")


if __name__ == "__main__":
    asyncio.run(collect())
