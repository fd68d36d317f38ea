"""``python -m bench.journal_process FILE``: the journal over HTTP on a real database; prints its port."""

from __future__ import annotations

import asyncio
import sys
from typing import cast

import uvloop

from quarterdeck.server.database import Database
from quarterdeck.server.identity import Caller, Identity
from quarterdeck.server.kagent import KagentApi
from quarterdeck.server.runs_again import Again
from quarterdeck.server.runs_api import RunsApi
from quarterdeck.server.runs_store import RunStore
from quarterdeck.wire.http import Server


class _AnyAgent:
    """Tokens are measured elsewhere: their reviews are remembered for a minute."""

    async def agent(self, authorization: str) -> str:
        del authorization
        return "kagent/a"

    async def workload(self, authorization: str) -> Caller:
        del authorization
        return Caller("system:serviceaccount:kagent:a", (), "kagent/a")

    async def gateway(self, authorization: str, namespace: str, name: str) -> tuple[str, str]:
        del authorization
        return f"{namespace}/{name}", ""


async def main(file: str) -> None:
    database = await Database.open(file)
    store = RunStore(database, lambda agent: True)
    await store.open()
    identity = cast(Identity, _AnyAgent())
    api = RunsApi(store, Again(store, database), identity, lambda name: True)
    _, port = await Server(KagentApi(database, identity, api.routes()).router().handle).listen("127.0.0.1", 0)
    print(port, flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(main(sys.argv[1]))
