"""What the agent host and gateways ask of the control plane for A2A: ``/api/a2a/…`` (agents), cards, the JWK Set."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Awaitable, Callable
from time import time
from typing import Any

from sqlalchemy import and_, func, or_, select

from quarterdeck.a2atypes import JWKS_PATH, Json, cards
from quarterdeck.errors import BadRequest, Forbidden, NotFound, Unauthorized

from .a2a_delivery import Guard
from .a2a_queue import PER_TASK, PushStore
from .database import Database, tasks
from .http import Answer, Call, Route, route
from .identity import Identity
from .signing import SigningKey

Who = Callable[[Call], Awaitable[tuple[str, str]]]
"""The verified agent and the user it works for."""
_LARGEST_PAGE = 100


class A2aApi:
    """Routes of both listeners."""

    def __init__(self, database: Database, identity: Identity, key: SigningKey, guard: Guard) -> None:
        self._database = database
        self._identity = identity
        self._key = key
        self._guard = guard
        self._push = PushStore(database)

    def agent_routes(self, who: Who) -> list[Route]:
        """On the kagent listener."""
        api = _AgentApi(self._database, self._identity, self._push, self._key, self._guard, who)
        push = "/api/a2a/tasks/{id}/push"
        return [
            route("GET", "/api/a2a/tasks", api.list_tasks),
            route("POST", push, api.create_config),
            route("GET", push, api.configs),
            route("DELETE", push + "/{config}", api.delete_config),
            route("POST", "/api/a2a/cards/sign", api.sign),
            route("POST", "/api/a2a/callers", api.caller),
            route("GET", JWKS_PATH, self.jwks),
        ]

    def management_routes(self) -> list[Route]:
        """On the management API."""
        return [
            route("GET", "/v1/jwks.json", self.jwks),
            route("POST", "/v1/gateways/{namespace}/{name}/cards/sign", self.sign_for_gateway),
            route("POST", "/v1/gateways/{namespace}/{name}/cards/keys", self.keys_for_gateway),
        ]

    async def jwks(self, call: Call) -> Answer:
        """Public: the key that cards and push notifications are verified with."""
        del call
        return Answer(self._key.jwks())

    async def sign_for_gateway(self, call: Call) -> Answer:
        """``{card, agent, jku}``: an agent's card as the gateway serves it. Its addresses must be the gateway's."""
        parameters = call.parameters
        await self._identity.gateway(call.header(b"authorization"), parameters["namespace"], parameters["name"])
        body = call.body()
        agent, jku = call.text(body, "agent", required=True) or "", call.text(body, "jku") or ""
        card = _card(body)
        urls = [str(each.get("url", "")) for each in card.get("supportedInterfaces") or () if isinstance(each, dict)]
        if any(not url.rstrip("/").endswith(f"/a2a/{agent}") for url in urls):
            raise Forbidden(f"the card names addresses that are not /a2a/{agent} of a gateway")
        return Answer({"signatures": _signatures(self._key, card, jku)})

    async def keys_for_gateway(self, call: Call) -> Answer:
        """The JWK Set, for the gateway to publish."""
        await self._identity.gateway(
            call.header(b"authorization"), call.parameters["namespace"], call.parameters["name"]
        )
        return Answer({"jwks": self._key.jwks()})


class _AgentApi:
    def __init__(
        self, database: Database, identity: Identity, push: PushStore, key: SigningKey, guard: Guard, who: Who
    ) -> None:
        self._database = database
        self._identity = identity
        self._push = push
        self._key = key
        self._guard = guard
        self._who = who

    async def list_tasks(self, call: Call) -> Answer:
        """A user's tasks, newest status first: ``?context=&state=&since=&size=&token=``. 404 for a foreign token."""
        agent, user = await self._who(call)
        query = call.query
        where = [tasks.c.agent == agent, tasks.c.user_id == user]
        moment = func.coalesce(tasks.c.status_at, tasks.c.updated_at)
        if query.get("context"):
            where.append(tasks.c.session_id == query["context"])
        if query.get("state"):
            where.append(tasks.c.state == _word(query["state"]))
        if query.get("since"):
            where.append(moment >= query["since"])
        total = (await self._database.rows(select(func.count().label("n")).select_from(tasks).where(and_(*where))))[0][
            "n"
        ]
        if query.get("token"):
            last, ident = _cursor(query["token"])
            where.append(or_(moment < last, and_(moment == last, tasks.c.id < ident)))
        size = min(max(1, _whole(query.get("size", "50"))), _LARGEST_PAGE)
        columns = select(tasks.c.id, tasks.c.data, moment.label("moment"))
        ordered = columns.where(and_(*where)).order_by(moment.desc(), tasks.c.id.desc())
        rows = await self._database.rows(ordered.limit(size + 1))
        following = _token(rows[size - 1]["moment"], rows[size - 1]["id"]) if len(rows) > size else ""
        found = [json.loads(row["data"]) for row in rows[:size]]
        return Answer(_envelope({"tasks": found, "next": following, "total": total}))

    async def create_config(self, call: Call) -> Answer:
        """``{config, version, catchUp}``. Answers ``{config}``, or ``{refused: why}`` if it must not be called."""
        agent, user = await self._who(call)
        task_id = await self._task(agent, user, call)
        body = call.body()
        config = body.get("config")
        if not isinstance(config, dict) or not isinstance(config.get("url"), str):
            raise BadRequest("config: must be a push notification config with a url")
        problem = await self._guard.problem(config["url"], unknown_ok=True)
        if not problem and await self._push.count(agent, task_id) >= PER_TASK:
            problem = f"the task has {PER_TASK} configs already"
        if problem:
            return Answer(_envelope({"refused": problem}))
        version = "0.3" if body.get("version") == "0.3" else "1.0"
        catch_up = body.get("catchUp") is True
        config = config | {"taskId": task_id}
        kept = await self._push.create(agent, user, config, version, time(), catch_up=catch_up)
        return Answer(_envelope({"config": kept}), 201)

    async def configs(self, call: Call) -> Answer:
        agent, user = await self._who(call)
        return Answer(_envelope(await self._push.configs(agent, user, await self._task(agent, user, call))))

    async def delete_config(self, call: Call) -> Answer:
        agent, user = await self._who(call)
        task_id = await self._task(agent, user, call)
        await self._push.delete(agent, user, task_id, call.parameters["config"])
        return Answer(_envelope(None))

    async def sign(self, call: Call) -> Answer:
        """``{card}``: an agent's own card. Its name must be the agent's."""
        agent, _ = await self._who(call)
        card = _card(call.body())
        name = agent.partition("/")[2]
        if card.get("name") not in (name, name.replace("-", "_")):
            raise Forbidden(f"agent {agent} may have its own card signed, not that of {str(card.get('name'))[:100]!r}")
        jku = f"http://{call.header(b'host')}{JWKS_PATH}"
        return Answer(_envelope({"signatures": _signatures(self._key, card, jku)}))

    async def caller(self, call: Call) -> Answer:
        """``{authorization}``: what an agent's client sent. Answers ``{user}``, empty for a token that is not valid."""
        await self._who(call)
        try:
            found = await self._identity.workload(call.text(call.body(), "authorization") or "")
        except Unauthorized:
            return Answer(_envelope({"user": ""}))
        return Answer(_envelope({"user": f"agent:{found.agent}" if found.agent else found.name}))

    async def _task(self, agent: str, user: str, call: Call) -> str:
        """The id in the path, if it is a task of that user. Raises NotFound."""
        row = await self._database.task(agent, call.parameters["id"])
        if row["user_id"] != user:
            raise NotFound(f"task {row['id']!r} of agent {agent} does not exist", name=str(row["id"]))
        return str(row["id"])


def _signatures(key: SigningKey, card: Json, jku: str) -> list[dict[str, str]]:
    try:
        return [key.signature(payload, jku) for payload in cards.payloads(card)]
    except (ValueError, AttributeError, TypeError) as error:
        raise BadRequest(f"card: cannot be signed: {error}") from error


def _card(body: Json) -> Json:
    card = body.get("card")
    if not isinstance(card, dict):
        raise BadRequest("card: must be an agent card")
    return card


def _envelope(data: Any) -> Json:
    return {"error": False, "data": data, "message": ""}


def _word(state: str) -> str:
    return state.removeprefix("TASK_STATE_").lower().replace("_", "-")


def _whole(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise BadRequest(f"size: {text!r} is not a whole number") from None


def _token(moment: str, ident: str) -> str:
    return base64.urlsafe_b64encode(json.dumps([moment, ident]).encode()).decode().rstrip("=")


def _cursor(token: str) -> tuple[str, str]:
    """Raises NotFound for what is no token of ours."""
    try:
        moment, ident = json.loads(base64.urlsafe_b64decode(token + "=" * (-len(token) % 4)))
        return str(moment), str(ident)
    except (ValueError, binascii.Error, TypeError):
        raise NotFound("this page token was not given here", name="token") from None
