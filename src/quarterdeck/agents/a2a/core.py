"""The operations of A2A in terms of 1.0 objects: what every binding and version ends up in.

Tasks are the :class:`Engine`'s (``runs.Runs``), what outlives the Pod is the :class:`Store`'s (the control plane).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

from quarterdeck.a2atypes import Json, errors, operations

from . import params as check
from . import types
from .card import AgentCard

HIDDEN = "quarterdeck.dev/replica"
"""Metadata of a task that is the platform's own."""
Event = tuple[int, Json]
"""A StreamResponse, and the number under which a client can ask for what came after it (0: none)."""


@dataclass(frozen=True, slots=True)
class Caller:
    """Who calls. ``authenticated``: by the gateway, as somebody with a credential."""

    user: str
    authenticated: bool = False


@dataclass(frozen=True, slots=True)
class Call:
    """One request. ``params`` are those of 1.0, whatever version the client speaks."""

    operation: str
    params: Json
    caller: Caller
    version: str = "1.0"
    extensions: tuple[str, ...] = ()
    after: int | None = None
    """Number of the last event that a client has seen of the task it subscribes to again (``Last-Event-ID``)."""
    base: str = ""
    """URL at which the client found the agent, with the slash at its end."""


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer without a task: a message of the agent."""

    message: Json


@dataclass(frozen=True, slots=True)
class Page:
    """Part of a user's tasks, newest status first. ``next`` is empty on the last page."""

    tasks: list[Json]
    next: str = ""
    total: int = 0


@dataclass(frozen=True, slots=True)
class Query:
    """Which tasks to list. ``since``: ISO 8601, status at this time or later."""

    context: str = ""
    state: str = ""
    since: str = ""
    size: int = 50
    token: str = ""


class Running(Protocol):
    """A task that was started here."""

    @property
    def task(self) -> Json: ...
    @property
    def finished(self) -> asyncio.Event: ...
    def follow(self, after: int | None = None) -> AsyncGenerator[Event]: ...


class Engine(Protocol):
    """Who works on tasks. A task of another user is not there."""

    async def start(self, message: Json, user: str) -> Running | Reply: ...
    async def get(self, task_id: str, user: str) -> Json: ...
    async def cancel(self, task_id: str, user: str) -> Json: ...
    def events(self, task_id: str, user: str, after: int | None = None) -> AsyncGenerator[Event]: ...


class Store(Protocol):
    """What the control plane keeps. Each call is one user's."""

    async def list_tasks(self, user: str, query: Query) -> Page: ...
    async def create_config(self, user: str, config: Json, version: str, *, catch_up: bool) -> Json: ...
    async def configs(self, user: str, task_id: str) -> list[Json]: ...
    async def delete_config(self, user: str, task_id: str, ident: str) -> None: ...


@dataclass(slots=True)
class Core:
    """The agent as A2A sees it."""

    engine: Engine
    store: Store
    card: AgentCard
    _unary: dict[str, Callable[[Call], Awaitable[Json]]] = field(init=False)

    def __post_init__(self) -> None:
        self._unary = {
            operations.SEND: self._send,
            operations.GET: self._get,
            operations.LIST: self._list,
            operations.CANCEL: self._cancel,
            operations.PUSH_CREATE: self._push_create,
            operations.PUSH_GET: self._push_get,
            operations.PUSH_LIST: self._push_list,
            operations.PUSH_DELETE: self._push_delete,
            operations.EXTENDED_CARD: self._extended,
        }

    def activated(self, call: Call) -> tuple[str, ...]:
        """The extensions asked for that the agent has."""
        return tuple(uri for uri in call.extensions if uri in self.card.extensions)

    async def unary(self, call: Call) -> Json:
        """Answer anything but a stream, with the response message of 1.0. Raises QuarterdeckError."""
        self._admit(call)
        return await self._unary[call.operation](call)

    async def stream(self, call: Call) -> AsyncGenerator[Event]:
        """The events of a new or running task. Raises QuarterdeckError before the first one."""
        self._admit(call)
        if not self.card.streaming:
            raise errors.UnsupportedOperation("this agent does not stream; its card says so")
        if call.operation == operations.SUBSCRIBE:
            return await self._subscribe(call)
        started = await self._start(call)
        return _only(started) if isinstance(started, Reply) else _shown(started.follow())

    def _admit(self, call: Call) -> None:
        """What holds for every operation: tenant, required extensions, capabilities."""
        tenant = call.params.get("tenant") or ""
        if tenant != self.card.tenant and tenant:
            raise errors.InvalidParams(f"tenant: this agent serves no tenant {str(tenant)[:100]!r}")
        if call.operation in operations.PUSH and not self.card.push:
            raise errors.PushNotSupported("this agent sends no push notifications; its card says so")
        missing = [uri for uri in self.card.required_extensions if uri not in call.extensions]
        if missing and call.operation != operations.EXTENDED_CARD:
            raise errors.ExtensionSupportRequired(
                f"this agent requires extension {missing[0]}; name it in A2A-Extensions", extension=missing[0]
            )

    # -- messages
    async def begin(self, message: Json, user: str) -> Running | Reply:
        """Start to work on a message that came in another protocol. Raises QuarterdeckError."""
        return await self.engine.start(types.check_message(message, self.card.input_modes), user)

    async def _start(self, call: Call) -> Running | Reply:
        message = types.check_message(call.params.get("message"), self.card.input_modes)
        configuration = check.configuration(call.params)
        config = configuration.get("taskPushNotificationConfig")
        if config is not None:
            if not self.card.push:
                raise errors.PushNotSupported("this agent sends no push notifications; its card says so")
            config = check.push_config(config, "configuration.taskPushNotificationConfig")
        started = await self.engine.start(message, call.caller.user)
        if config is not None and not isinstance(started, Reply):
            config = config | {"taskId": started.task["id"]}
            await self.store.create_config(call.caller.user, config, call.version, catch_up=True)
        return started

    async def _send(self, call: Call) -> Json:
        configuration = check.configuration(call.params)
        length = check.history_length(configuration)
        started = await self._start(call)
        if isinstance(started, Reply):
            return {"message": started.message}
        if configuration.get("returnImmediately") is not True:
            await started.finished.wait()
        return {"task": shown(started.task, length)}

    async def _subscribe(self, call: Call) -> AsyncGenerator[Event]:
        ident, user = check.text(call.params, "id"), call.caller.user
        task = await self.engine.get(ident, user)
        if task["status"]["state"] in types.TERMINAL and call.after is None:
            raise errors.UnsupportedOperation(f"task {ident!r} is finished; get it instead", taskId=ident)
        return _shown(self.engine.events(ident, user, call.after))

    # -- tasks
    async def _get(self, call: Call) -> Json:
        length = check.history_length(call.params)
        return shown(await self.engine.get(check.text(call.params, "id"), call.caller.user), length)

    async def _cancel(self, call: Call) -> Json:
        return shown(await self.engine.cancel(check.text(call.params, "id"), call.caller.user))

    async def _list(self, call: Call) -> Json:
        query, length, artifacts = check.listing(call.params)
        page = await self.store.list_tasks(call.caller.user, Query(**query))
        tasks = [shown(task, length) for task in page.tasks]
        if not artifacts:
            tasks = [{k: v for k, v in task.items() if k != "artifacts"} for task in tasks]
        return {"tasks": tasks, "nextPageToken": page.next, "pageSize": query["size"], "totalSize": page.total}

    # -- push notifications
    async def _push_create(self, call: Call) -> Json:
        config = check.push_config(call.params, "")
        config["taskId"] = check.text(call.params, "taskId")
        await self.engine.get(config["taskId"], call.caller.user)
        return await self.store.create_config(call.caller.user, config, call.version, catch_up=False)

    async def _push_get(self, call: Call) -> Json:
        found = await self._configs(call)
        ident = call.params.get("id") or ""
        for config in found:
            if config["id"] == ident or (not ident and call.version == "0.3"):
                return config
        raise errors.TaskNotFound(f"the task has no push notification config {ident!r}")

    async def _push_list(self, call: Call) -> Json:
        return {"configs": await self._configs(call), "nextPageToken": ""}

    async def _push_delete(self, call: Call) -> Json:
        task_id = check.text(call.params, "taskId")
        await self.engine.get(task_id, call.caller.user)
        await self.store.delete_config(call.caller.user, task_id, check.text(call.params, "id"))
        return {}

    async def _configs(self, call: Call) -> list[Json]:
        task_id = check.text(call.params, "taskId")
        await self.engine.get(task_id, call.caller.user)
        return await self.store.configs(call.caller.user, task_id)

    # -- card
    async def _extended(self, call: Call) -> Json:
        if not self.card.has_extended:
            raise errors.UnsupportedOperation("this agent has no extended card; its card says so")
        if not call.caller.authenticated:
            raise errors.Unauthenticated("the extended card is for authenticated callers: come through the gateway")
        return await self.card.extended_card(call.base)


def shown(task: Json, history_length: int | None = None) -> Json:
    """The task as clients get it."""
    metadata: dict[str, Any] = {k: v for k, v in (task.get("metadata") or {}).items() if k != HIDDEN}
    return types.trimmed(task | {"metadata": metadata}, history_length)


async def _only(reply: Reply) -> AsyncGenerator[Event]:
    yield 0, {"message": reply.message}


async def _shown(events: AsyncGenerator[Event]) -> AsyncGenerator[Event]:
    try:
        async for number, event in events:
            yield number, {"task": shown(event["task"])} if "task" in event else event
    finally:
        await events.aclose()
