"""Names for shell completion. A server that does not answer at once completes to nothing, without a message."""

from __future__ import annotations

from typing import Any

import typer

_TIMEOUT = 2.0


def _names(path: str) -> list[str]:
    import asyncio

    from quarterdeck.errors import QuarterdeckError

    from .target import connect

    async def ask() -> list[str]:
        async with asyncio.timeout(_TIMEOUT), connect() as client:
            answer: dict[str, Any] = await client.request("GET", path)
            return [str(item["metadata"]["name"]) for item in answer.get("items", [])]

    try:
        return asyncio.run(ask())
    except (QuarterdeckError, TimeoutError):
        return []


def _matching(names: list[str], incomplete: str) -> list[str]:
    return [name for name in names if name.startswith(incomplete)]


def namespaces(incomplete: str) -> list[str]:
    return _matching(_names("/api/v1/namespaces"), incomplete)


def agents(ctx: typer.Context, incomplete: str) -> list[str]:
    return _matching(_names(f"/apis/kagent.dev/v1alpha2/namespaces/{_namespace(ctx)}/agents"), incomplete)


def servers(ctx: typer.Context, incomplete: str) -> list[str]:
    base = f"namespaces/{_namespace(ctx)}"
    names = _names(f"/apis/kagent.dev/v1alpha1/{base}/mcpservers")
    names += _names(f"/apis/kagent.dev/v1alpha2/{base}/remotemcpservers")
    return _matching(names + _names(f"/apis/quarterdeck.dev/v1alpha1/{base}/virtualservers"), incomplete)


def kinds(incomplete: str) -> list[str]:
    """Plural names of everything the server has."""
    return _matching([kind.resource.plural for kind in _served()], incomplete)


def objects(ctx: typer.Context, incomplete: str) -> list[str]:
    """Names of objects of the kind that was typed before."""
    from quarterdeck.errors import QuarterdeckError

    from .kinds import Kinds
    from .target import find_config

    try:
        kind = Kinds(_served()).find(str(ctx.params.get("kind") or ""))
        namespace = str(ctx.params.get("namespace") or find_config().namespace)
    except QuarterdeckError:
        return []
    return _matching(_names(kind.resource.path(namespace)), incomplete)


def _served() -> list[Any]:
    import asyncio

    from quarterdeck.errors import QuarterdeckError

    from .kinds import discover
    from .target import connect

    async def ask() -> list[Any]:
        async with asyncio.timeout(_TIMEOUT), connect() as client:
            return (await discover(client)).all

    try:
        return asyncio.run(ask())
    except (QuarterdeckError, TimeoutError):
        return []


def _namespace(ctx: typer.Context) -> str:
    from .target import agents_namespace

    return agents_namespace(str(ctx.params.get("namespace") or ""))
