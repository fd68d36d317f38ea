"""The agent's card as it serves it itself: its own address, what it can, signed when somebody signs."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from quarterdeck.a2atypes import Json, cards
from quarterdeck.a2atypes.cards import Interface
from quarterdeck.a2atypes.errors import ExtendedCardNotConfigured
from quarterdeck.agents.config import AgentConfig
from quarterdeck.agents.toolbox import server_name

Signer = Callable[[Json], Awaitable[list[Json]]]
"""Signatures (AgentCardSignature) of a card; empty when nobody can sign now."""
_KEPT = 16


class AgentCard:
    """``document``: kagent's ``agent-card.json``. ``grpc_port``: 0 for none. ``extended``: skills for known callers.
    ``media``: types it takes besides."""

    def __init__(
        self,
        document: Json,
        *,
        push: bool = True,
        grpc_port: int = 0,
        extended: list[Json] | None = None,
        has_extended: bool = True,
        signer: Signer | None = None,
        media: Sequence[str] = (),
    ) -> None:
        modes: list[str] = [*(document.get("defaultInputModes") or ["text"]), *media]
        self._document = document = document | ({"defaultInputModes": modes} if media else {})
        self.grpc_port = grpc_port
        self._extended = extended
        self._signer = signer
        self._signed: dict[bytes, list[Json]] = {}
        self.push = push
        self.has_extended = has_extended
        capabilities: dict[str, Any] = document.get("capabilities") or {}
        self.streaming = capabilities.get("streaming", True) is not False
        declared: list[Json] = capabilities.get("extensions") or []
        self.extensions = frozenset(str(each.get("uri", "")) for each in declared)
        self.required_extensions = tuple(str(each["uri"]) for each in declared if each.get("required") is True)
        self.tenant = cards.tenant_of(document)
        self.input_modes: tuple[str, ...] = tuple(self._served([])["defaultInputModes"])
        self.home = f"{str(document.get('url') or 'http://localhost:8080').rstrip('/')}/"
        """Where the agent is in its cluster; gRPC does not tell under which name it was called."""
        self.name = str(document.get("name") or "agent")

    async def public(self, base: str) -> Json:
        """``base``: the URL it was asked at, with the slash at its end."""
        return await self._with_signatures(self._served(self._interfaces(base)))

    async def extended_card(self, base: str) -> Json:
        """Unsigned: it is for this caller. ``base`` without a slash at its end is a gateway's, which has no gRPC.

        Raises ExtendedCardNotConfigured.
        """
        card = self._served(self._interfaces(base))
        if self._extended is None:
            raise ExtendedCardNotConfigured("no extended card is configured for this agent")
        return card | {"skills": [*card["skills"], *self._extended]}

    def _served(self, interfaces: list[Interface]) -> Json:
        return cards.served(self._document, interfaces, push=self.push, extended=self.has_extended)

    def _interfaces(self, base: str) -> list[Interface]:
        found = [Interface(base, cards.JSONRPC), Interface(base.rstrip("/"), cards.HTTP_JSON)]
        if self.grpc_port and base.endswith("/"):
            host = base.partition("://")[2].partition("/")[0].rpartition(":")[0] or base.partition("://")[2].rstrip("/")
            found.append(Interface(f"{host}:{self.grpc_port}", cards.GRPC, ("1.0",)))
        return found

    async def _with_signatures(self, card: Json) -> Json:
        if self._signer is None:
            return card
        key = cards.encoded(card)
        found = self._signed.get(key)
        if not found:
            found = await self._signer(card)
            while len(self._signed) >= _KEPT:
                del self._signed[next(iter(self._signed))]
            self._signed[key] = found
        return card | ({"signatures": found} if found else {})


def tool_skills(config: AgentConfig) -> list[Json]:
    """What the extended card adds for known callers: the tool servers and agents that the agent may use."""
    found: list[Json] = []
    for entry in [*config.http_tools, *config.sse_tools]:
        name = server_name(entry.params.url)
        tools = f"its tools {', '.join(entry.tools)}" if entry.tools else "all its tools"
        found.append(
            {"id": f"mcp:{name}", "name": name, "description": f"MCP server {name}: {tools}.", "tags": ["tools", "mcp"]}
        )
    for agent in config.remote_agents:
        text = agent.description or f"The agent {agent.name}."
        found.append({"id": f"agent:{agent.name}", "name": agent.name, "description": text, "tags": ["tools", "a2a"]})
    return found
