"""The gateway's upstream client and OAuth client, as the conformance suite's client: ``python -m … URL``.

The suite sets ``MCP_CONFORMANCE_SCENARIO``, ``…_CONTEXT`` (JSON) and ``…_PROTOCOL_VERSION`` and serves the other side.
All that is done here is what the gateway's callers do: choose tools, answer questions, and open URLs in a "browser".
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Callable
from time import time
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import msgspec
from msgspec import Raw

from quarterdeck import snapshot as s
from quarterdeck.errors import UpstreamError
from quarterdeck.gateway.mcp.client import list_all
from quarterdeck.gateway.mcp.route import McpRoute
from quarterdeck.gateway.oauth import discovery
from quarterdeck.gateway.oauth.challenge import Challenge
from quarterdeck.gateway.oauth.conversation import Elicitation, UserConversation
from quarterdeck.gateway.oauth.flow import Grant
from quarterdeck.gateway.oauth.guard import GuardedFetcher
from quarterdeck.gateway.oauth.protected import Protected
from quarterdeck.gateway.oauth.registration import Identity
from quarterdeck.gateway.oauth.token_endpoint import Client
from quarterdeck.gateway.policy.authorizer import Authorizer
from quarterdeck.gateway.policy.outbound import Tokens
from quarterdeck.gateway.policy.principal import Principal
from quarterdeck.gateway.upstream import Upstreams
from quarterdeck.mcptypes import lists, protocol
from quarterdeck.snapshot.policies import OAuthClient
from quarterdeck.snapshot.sign_in import SignIn

REDIRECT = "http://localhost:3000/callback"
METADATA = "https://conformance-test.local/client-metadata.json"
ID_JAG = "urn:ietf:params:oauth:token-type:id-jag"
ID_TOKEN = "urn:ietf:params:oauth:token-type:id_token"


class Kept:
    """Clients that were registered, in memory."""

    def __init__(self) -> None:
        self.clients: dict[str, Client] = {}

    async def client(self, issuer: str, redirect_uri: str) -> Client | None:
        return self.clients.get(issuer)

    async def keep_client(self, issuer: str, redirect_uri: str, client: Client) -> None:
        self.clients[issuer] = client


class Somebody:
    """The only user there is, with a browser that grants everything at once."""

    label = "the suite"

    def __init__(self, url: str, context: dict[str, Any], fetch: GuardedFetcher) -> None:
        settings = SignIn(
            url,
            context.get("client_id", ""),
            context.get("client_secret", ""),
            context.get("private_key_pem", ""),
            issuer=context.get("issuer", ""),
        )
        self._context = context
        self._fetch = fetch
        self._protected = Protected(settings, fetch, Identity(REDIRECT, "conformance", METADATA), Kept())
        self._grant: Grant | None = None

    def user_of(self, principal: Principal) -> str:
        return principal.id

    async def grant(self, user: str) -> Grant | None:
        return self._grant

    async def renewed(self, user: str, grant: Grant | None, challenge: Challenge) -> Grant | None:
        if "private_key_pem" in self._context or "idp_id_token" in self._context or self._machine:
            self._grant = await self._without_user(challenge)
            return self._grant
        before = grant.scope.split() if grant is not None and challenge.steps_up else ()
        url, flow = await self._protected.begin(challenge, before)
        answer = await self._fetch.request("GET", url)
        location = (answer.header(b"location") or b"").decode()
        if not location.startswith(REDIRECT):
            raise UpstreamError(f"sent the browser to {location!r} (HTTP {answer.status})")
        self._grant = await self._protected.finish(flow, dict(parse_qsl(urlsplit(location).query)))
        return self._grant

    @property
    def _machine(self) -> bool:
        return os.environ["MCP_CONFORMANCE_SCENARIO"].startswith("auth/client-credentials")

    async def _without_user(self, challenge: Challenge) -> Grant:
        """What ``backendAuth`` of a target does: client credentials, or an ID-JAG got for a user's token."""
        context, settings = self._context, self._protected.settings
        found = await discovery.find(self._fetch, settings.url, challenge)
        wanted = OAuthClient(
            found.server.token_endpoint, settings.client_id, settings.client_secret, resources=(found.resource,),
            private_key=settings.private_key, auth_method="private_key_jwt" if settings.private_key else "",
            issuer=found.server.issuer,
        )  # fmt: skip
        subject = b""
        if "idp_id_token" in context:
            subject = context["idp_id_token"].encode()
            at_idp = OAuthClient(
                context["idp_token_endpoint"], context["idp_client_id"], audiences=(found.server.issuer,),
                resources=(found.resource,), requested_token_type=ID_JAG, subject_token_type=ID_TOKEN,
            )  # fmt: skip
            wanted = msgspec.structs.replace(wanted, grant="jwt_bearer", resources=(), assertion=at_idp)
        token = await Tokens(wanted, self._fetch, time).get(subject)
        return Grant(token.decode(), 1e12, 0.0, Client(), found.server, found.resource)

    async def elicit(self, user: str, principal: Principal, challenge: Challenge) -> Elicitation:
        raise UpstreamError("wants more than the user can grant")

    async def pending(self, user: str) -> bool:
        return False

    async def confirm(self, user: str, code: str) -> bool:
        return False

    async def arrival(self, user: str, elicitation: Elicitation, seconds: float) -> bool:
        return False

    def watch(self, user: str, told: Callable[[str], None]) -> None:
        del user, told


def filled_in(params: dict[str, Any]) -> dict[str, Any]:
    """What somebody answers to a form who accepts all defaults and says yes."""
    fields: dict[str, Any] = (params.get("requestedSchema") or {}).get("properties") or {}
    content = {name: field["default"] for name, field in fields.items() if "default" in field}
    content |= {name: True for name, field in fields.items() if field.get("type") == "boolean" and name not in content}
    return {"action": "accept", "content": content}


class User:
    """Uses one server through the gateway's client."""

    def __init__(self, conversation: UserConversation) -> None:
        self._conversation = conversation

    async def list(self, method: str, key: str) -> list[dict[str, Any]]:
        found = await list_all(self._conversation.ask, method, key)
        return [msgspec.json.decode(item) for item in found]

    async def request(self, method: str, params: dict[str, Any]) -> Any:
        """The result of a request; the server's questions are answered."""
        conversation = self._conversation
        raw = lists.members(msgspec.json.encode(params))
        flight = await conversation.send(method, dict(raw))
        while True:
            event = await flight.next(20)
            if event.kind == "answer":
                print("answer", event.message.result, event.message.error, file=sys.stderr)
                return event.message.result
            if event.kind == "end":
                raise event.error or UpstreamError("ended")
            if event.kind == "question":
                message = event.message
                key = msgspec.json.decode(message.id) if isinstance(message.id, Raw) else "0"
                key = str(key).rpartition("/")[2]
                flight.asked[key] = message
                params_ = msgspec.json.decode(message.params) if isinstance(message.params, Raw) else {}
                await conversation.answer(flight, {key: Raw(msgspec.json.encode(filled_in(params_)))})

    async def everything(self, arguments: dict[str, dict[str, Any]]) -> None:
        """List and use all there is; ``arguments`` of tools that want some."""
        tools = await self.list(protocol.TOOLS_LIST, "tools")
        for tool in tools:
            name = tool["name"]
            if name == "json_schema_echo":
                arguments = {**arguments, name: {"schema": tools[0]["inputSchema"]}}
            await self.request(protocol.TOOLS_CALL, {"name": name, "arguments": arguments.get(name, {})})
        capabilities = self._conversation.greeting.capabilities
        if "resources" in capabilities:
            for resource in await self.list(protocol.RESOURCES_LIST, "resources"):
                await self.request(protocol.RESOURCES_READ, {"uri": resource["uri"]})
        if "prompts" in capabilities:
            for prompt in await self.list(protocol.PROMPTS_LIST, "prompts"):
                await self.request(protocol.PROMPTS_GET, {"name": prompt["name"]})


async def main(url: str) -> None:
    context = json.loads(os.environ.get("MCP_CONFORMANCE_CONTEXT") or "{}")
    version = os.environ.get("MCP_CONFORMANCE_PROTOCOL_VERSION", "2025-11-25")
    parts = urlsplit(url)
    upstreams = Upstreams()
    host = parts.hostname or "localhost"
    server = s.McpServer(
        "conformance", "suite", "Target", parts.path or "/", endpoints=(s.Endpoint(host, parts.port or 80),)
    )
    route = McpRoute(server, Authorizer(s.Snapshot()), upstreams)
    fetch = GuardedFetcher(frozenset({host}), upstreams.refuse)
    lane = route.lane(Principal("somebody"))
    conversation = UserConversation(
        Somebody(url, context, fetch), None, route, lane, {"elicitation": {"form": {}}},
        info={"name": "quarterdeck", "version": "1"},
    )  # fmt: skip
    conversation.stateless = version == "2026-07-28"
    arguments = {"add_numbers": {"a": 5, "b": 3}}
    arguments |= {call["name"]: call["arguments"] for call in context.get("toolCalls", [])}
    try:
        await conversation.open()
        await User(conversation).everything(arguments)
    finally:
        conversation.close()
        upstreams.close()
        fetch.close()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[-1]))
