"""What each requirement means, as a check that a :class:`Peer` of any binding can make."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import uuid4

from a2a_drivers import Driver, Failed, Json

from fixtures.tck_agent.stack import CARD, OPTIONAL, REQUIRED
from quarterdeck.a2atypes import operations as op

TERMINAL = {"TASK_STATE_COMPLETED", "TASK_STATE_FAILED", "TASK_STATE_CANCELED", "TASK_STATE_REJECTED"}
TENANT = "acme"
WEBHOOK = "https://client.example.com/hook"
WORLDS: dict[str, Json] = {
    "plain": {},
    "no-push": {"push": False},
    "no-streaming": {"card": CARD | {"capabilities": {"streaming": False}}},
    "no-extended": {"has_extended": False},
    "not-configured": {"extended": None},
    "extension": {
        "card": CARD | {"capabilities": {"streaming": True, "extensions": [{"uri": REQUIRED, "required": True}]}}
    },
    "tenant": {"card": CARD | {"supportedInterfaces": [{"tenant": TENANT}]}},
}


@dataclass
class Peer:
    """A user's client."""

    world: Any
    driver: Driver
    user: str = field(default_factory=lambda: f"user-{uuid4().hex[:8]}")
    token: str = ""

    @property
    def headers(self) -> dict[str, str]:
        if self.driver.binding == "grpc":
            return {"authorization": f"Bearer {self.user}"}
        headers = {"authorization": f"Bearer {self.token or self.user}", "x_user_id": self.user}
        acting_for = self.world.acting_for
        return headers | ({"x_quarterdeck_acting_for": acting_for(self.user)} if acting_for is not None else {})

    def other(self) -> Peer:
        return Peer(self.world, self.driver, token=self.token)

    async def call(self, operation: str, params: Json, **headers: str) -> Json:
        return await self.driver.call(operation, params, **(self.headers | headers))

    async def fails(self, kind: str, operation: str, params: Json, **headers: str) -> Failed:
        try:
            if operation in op.STREAMS:
                async for _ in self.driver.stream(operation, params, **(self.headers | headers)):
                    pass
            else:
                await self.call(operation, params, **headers)
        except Failed as error:
            assert error.kind == kind, error
            assert error.message
            return error
        raise AssertionError(f"{operation} did not fail")

    async def send(
        self, prefix: str = "tck-complete-task", *, configuration: Json | None = None, **message: Any
    ) -> Json:
        return await self.call(op.SEND, _request(prefix, configuration, message))

    async def task(
        self, prefix: str = "tck-complete-task", *, configuration: Json | None = None, **message: Any
    ) -> Json:
        return (await self.send(prefix, configuration=configuration, **message))["task"]

    async def stream(self, prefix: str, **message: Any) -> list[Json]:
        return [e async for e in self.driver.stream(op.STREAM, _request(prefix, None, message), **self.headers)]

    async def hold(self) -> Json:
        """A task that works until it is released or canceled."""
        return await self.task("tck-hold", configuration={"returnImmediately": True})


def _request(prefix: str, configuration: Json | None, message: Json) -> Json:
    given = {"messageId": f"{prefix}-{uuid4().hex[:8]}", "role": "ROLE_USER", "parts": [{"text": "hi"}]} | message
    return {"message": given} | ({"configuration": configuration} if configuration else {})


@dataclass(frozen=True)
class Check:
    run: Callable[[Peer], Awaitable[None]]
    world: str = "plain"


CHECKS: dict[str, Check] = {}


def check(*idents: str, world: str = "plain") -> Callable[[Any], Any]:
    def register(function: Any) -> Any:
        for ident in idents:
            assert ident not in CHECKS, ident
            CHECKS[ident] = Check(function, world)
        return function

    return register


def state(task: Json) -> str:
    return str(task["status"]["state"])


# -- send
@check("SEND-TASK-OR-MESSAGE")
async def _(p: Peer) -> None:
    assert set(await p.send()) == {"task"}
    assert set(await p.send("tck-message-response")) == {"message"}


@check("SEND-TERMINAL")
async def _(p: Peer) -> None:
    for prefix in ("tck-complete-task", "tck-reject-task"):
        done = await p.task(prefix)
        await p.fails("UNSUPPORTED_OPERATION", op.SEND, _request("tck-complete-task", None, {"taskId": done["id"]}))
    held = await p.hold()
    await p.call(op.CANCEL, {"id": held["id"]})
    await p.fails("UNSUPPORTED_OPERATION", op.SEND, _request("tck-complete-task", None, {"taskId": held["id"]}))


@check("SEND-CONTENT-TYPE")
async def _(p: Peer) -> None:
    for part in (
        {"raw": "dGNr", "mediaType": "application/x-unsupported"},
        {"url": "https://x/y", "mediaType": "image/png"},
    ):
        await p.fails("CONTENT_TYPE_NOT_SUPPORTED", op.SEND, _request("tck-complete-task", None, {"parts": [part]}))


# -- stream
@check("STREAM-ESTABLISHED", "STREAM-TASK-FIRST", "STREAM-ENDS", "GRPC-STREAM")
async def _(p: Peer) -> None:
    events = await p.stream("tck-stream-001")
    assert set(events[0]) == {"task"} and len(events) > 1
    assert all(set(e) <= {"statusUpdate", "artifactUpdate"} for e in events[1:])
    assert state(events[-1]["statusUpdate"]) in TERMINAL


@check("STREAM-MESSAGE-ONLY")
async def _(p: Peer) -> None:
    events = await p.stream("tck-message-response")
    assert len(events) == 1 and set(events[0]) == {"message"}
    assert events[0]["message"]["role"] == "ROLE_AGENT"


@check("STREAM-FEEDBACK")
async def _(p: Peer) -> None:
    stream = p.driver.stream(op.STREAM, _request("tck-hold", None, {}), **p.headers)
    first = (await anext(stream))["task"]
    if state(first) == "TASK_STATE_SUBMITTED":
        assert state((await anext(stream))["statusUpdate"]) == "TASK_STATE_WORKING", "told before the task has ended"
    await p.call(op.CANCEL, {"id": first["id"]})
    assert state([e async for e in stream][-1]["statusUpdate"]) == "TASK_STATE_CANCELED"


@check("STREAM-TASK-NOT-FOUND")
async def _(p: Peer) -> None:
    await p.fails("TASK_NOT_FOUND", op.STREAM, _request("tck-stream-001", None, {"taskId": "gone"}))


# -- get, list, cancel
@check("GET-STATE")
async def _(p: Peer) -> None:
    done = await p.task("tck-artifact-text")
    found = await p.call(op.GET, {"id": done["id"]})
    assert state(found) == "TASK_STATE_COMPLETED" and found["artifacts"] == done["artifacts"]
    held = await p.hold()
    assert state(await p.call(op.GET, {"id": held["id"]})) == "TASK_STATE_WORKING"
    await p.call(op.CANCEL, {"id": held["id"]})


@check("GET-NOT-FOUND")
async def _(p: Peer) -> None:
    await p.fails("TASK_NOT_FOUND", op.GET, {"id": "gone"})


@check("LIST-VISIBLE")
async def _(p: Peer) -> None:
    mine, stranger = await p.task(), p.other()
    theirs = await stranger.task(contextId=mine["contextId"])
    for who, task in ((p, mine), (stranger, theirs)):
        found = await who.call(op.LIST, {"contextId": mine["contextId"]})
        assert [t["id"] for t in found["tasks"]] == [task["id"]] and found["totalSize"] == 1


@check("LIST-CURSOR", "LIST-LAST-PAGE", "LIST-ORDER")
async def _(p: Peer) -> None:
    made = [(await p.task())["id"] for _ in range(5)]
    seen: list[str] = []
    times: list[str] = []
    token, pages = "", 0
    while True:
        page = await p.call(op.LIST, {"pageSize": 2} | ({"pageToken": token} if token else {}))
        assert "nextPageToken" in page and page["pageSize"] == 2 and page["totalSize"] == 5
        seen += [t["id"] for t in page["tasks"]]
        times += [t["status"]["timestamp"] for t in page["tasks"]]
        token, pages = page["nextPageToken"], pages + 1
        if not token:
            break
    assert pages == 3 and sorted(seen) == sorted(made)
    moments = [datetime.fromisoformat(each.replace("Z", "+00:00")) for each in times]
    assert moments == sorted(moments, reverse=True)
    await p.fails("INVALID_PARAMS", op.LIST, {"pageToken": "made-up"})


@check("LIST-NO-ARTIFACTS", "LIST-ARTIFACTS")
async def _(p: Peer) -> None:
    await p.task("tck-artifact-text")
    assert "artifacts" not in (await p.call(op.LIST, {}))["tasks"][0]
    assert "artifacts" not in (await p.call(op.LIST, {"includeArtifacts": False}))["tasks"][0]
    assert (await p.call(op.LIST, {"includeArtifacts": True}))["tasks"][0]["artifacts"][0]["parts"]


@check("LIST-FILTERS")
async def _(p: Peer) -> None:
    done, waits = await p.task(), await p.task("tck-input-required")
    by_context = await p.call(op.LIST, {"contextId": done["contextId"]})
    assert [t["id"] for t in by_context["tasks"]] == [done["id"]]
    by_state = await p.call(op.LIST, {"status": "TASK_STATE_INPUT_REQUIRED"})
    assert [t["id"] for t in by_state["tasks"]] == [waits["id"]]
    since = await p.call(op.LIST, {"statusTimestampAfter": "2099-01-01T00:00:00Z"})
    assert since["tasks"] == [] and since["totalSize"] == 0
    assert (await p.call(op.LIST, {"statusTimestampAfter": "2020-01-01T00:00:00Z"}))["totalSize"] == 2


@check("CANCEL-UPDATED")
async def _(p: Peer) -> None:
    for task in (await p.hold(), await p.task("tck-input-required")):
        canceled = await p.call(op.CANCEL, {"id": task["id"]})
        assert canceled["id"] == task["id"] and state(canceled) == "TASK_STATE_CANCELED"
        assert state(await p.call(op.GET, {"id": task["id"]})) == "TASK_STATE_CANCELED"


@check("CANCEL-TERMINAL")
async def _(p: Peer) -> None:
    done = await p.task()
    await p.fails("TASK_NOT_CANCELABLE", op.CANCEL, {"id": done["id"]})


@check("CANCEL-NOT-FOUND")
async def _(p: Peer) -> None:
    await p.fails("TASK_NOT_FOUND", op.CANCEL, {"id": "gone"})


# -- subscribe
@check("SUBSCRIBE-TASK-FIRST", "SUBSCRIBE-ENDS")
async def _(p: Peer) -> None:
    held = await p.hold()
    stream = p.driver.stream(op.SUBSCRIBE, {"id": held["id"]}, **p.headers)
    first = await anext(stream)
    assert first["task"]["id"] == held["id"] and state(first["task"]) == "TASK_STATE_WORKING"
    await p.call(op.CANCEL, {"id": held["id"]})
    rest = [e async for e in stream]
    assert state(rest[-1]["statusUpdate"]) == "TASK_STATE_CANCELED"


@check("SUBSCRIBE-TERMINAL")
async def _(p: Peer) -> None:
    done = await p.task()
    await p.fails("UNSUPPORTED_OPERATION", op.SUBSCRIBE, {"id": done["id"]})


@check("SUBSCRIBE-NOT-FOUND")
async def _(p: Peer) -> None:
    await p.fails("TASK_NOT_FOUND", op.SUBSCRIBE, {"id": "gone"})


# -- push notification configs
def _config(task: Json, **more: Any) -> Json:
    return {"taskId": task["id"], "url": WEBHOOK} | more


@check("PUSH-CREATE", "PUSH-GET")
async def _(p: Peer) -> None:
    task = await p.task()
    given = _config(task, token="t0k", authentication={"scheme": "Bearer", "credentials": "secret"})
    made = await p.call(op.PUSH_CREATE, given)
    assert made["id"] and {k: made[k] for k in given} == given
    assert await p.call(op.PUSH_GET, {"taskId": task["id"], "id": made["id"]}) == made


@check("PUSH-CREATE-NOT-FOUND")
async def _(p: Peer) -> None:
    await p.fails("TASK_NOT_FOUND", op.PUSH_CREATE, {"taskId": "gone", "url": WEBHOOK})


@check("PUSH-PERSISTS", "PUSH-LIST")
async def _(p: Peer) -> None:
    task = await p.hold()
    made = [await p.call(op.PUSH_CREATE, _config(task, id=ident)) for ident in ("one", "two")]
    await p.call(op.CANCEL, {"id": task["id"]})
    listed = await p.call(op.PUSH_LIST, {"taskId": task["id"]})
    assert sorted(c["id"] for c in listed["configs"]) == ["one", "two"] and made[0] in listed["configs"]


@check("PUSH-GET-NOT-FOUND")
async def _(p: Peer) -> None:
    task = await p.task()
    await p.fails("TASK_NOT_FOUND", op.PUSH_GET, {"taskId": task["id"], "id": "gone"})


@check("PUSH-GET-FOREIGN")
async def _(p: Peer) -> None:
    task = await p.task()
    made = await p.call(op.PUSH_CREATE, _config(task))
    stranger, where = p.other(), {"taskId": task["id"]}
    await stranger.fails("TASK_NOT_FOUND", op.PUSH_GET, where | {"id": made["id"]})
    await stranger.fails("TASK_NOT_FOUND", op.PUSH_LIST, where)
    await stranger.fails("TASK_NOT_FOUND", op.PUSH_DELETE, where | {"id": made["id"]})
    await stranger.fails("TASK_NOT_FOUND", op.PUSH_CREATE, _config(task))
    assert await p.call(op.PUSH_GET, where | {"id": made["id"]}) == made


@check("PUSH-DELETE", "PUSH-DELETE-TWICE")
async def _(p: Peer) -> None:
    task = await p.task()
    made = await p.call(op.PUSH_CREATE, _config(task))
    where = {"taskId": task["id"], "id": made["id"]}
    for _ in range(2):
        assert not await p.call(op.PUSH_DELETE, where)
    await p.fails("TASK_NOT_FOUND", op.PUSH_GET, where)
    assert (await p.call(op.PUSH_LIST, {"taskId": task["id"]}))["configs"] == []


# -- card operations
@check("EXTENDED-CARD")
async def _(p: Peer) -> None:
    card = await p.call(op.EXTENDED_CARD, {})
    assert card["name"] == "tck" and card["skills"]
    if p.driver.binding != "grpc":
        assert {i["url"].rstrip("/") for i in card["supportedInterfaces"] if i["protocolBinding"] != "GRPC"} == {
            p.world.gateway
        }


@check("EXTENDED-CARD-AUTHENTICATION")
async def _(p: Peer) -> None:
    if p.token:  # the gateway does not let anybody through to the agent
        path = "/" if p.driver.binding == "jsonrpc" else "/extendedAgentCard"
        refused = await p.world.http.request("POST" if path == "/" else "GET", path, headers={"a2a-version": "1.0"})
        assert refused.status_code == 401 and "www-authenticate" in refused.headers
        return
    try:
        await p.driver.call(op.EXTENDED_CARD, {})
    except Failed as error:
        assert error.kind == "UNAUTHENTICATED"
        assert error.code in (401, "UNAUTHENTICATED", -32000)
    else:
        raise AssertionError("anybody gets the extended card")


@check("EXTENDED-CARD-NOT-CONFIGURED", world="not-configured")
async def _(p: Peer) -> None:
    await p.fails("EXTENDED_AGENT_CARD_NOT_CONFIGURED", op.EXTENDED_CARD, {})


# -- configuration
@check("BLOCKING")
async def _(p: Peer) -> None:
    assert state(await p.task("tck-delayed-complete")) == "TASK_STATE_COMPLETED"
    done = await p.task("tck-artifact-data", configuration={"returnImmediately": False})
    assert state(done) == "TASK_STATE_COMPLETED"
    assert done["artifacts"][0]["parts"][0]["data"] == {"key": "value", "count": 42}


@check("BLOCKING-INTERRUPTED")
async def _(p: Peer) -> None:
    assert state(await p.task("tck-input-required")) == "TASK_STATE_INPUT_REQUIRED"
    assert state(await p.task("tck-auth-required")) == "TASK_STATE_AUTH_REQUIRED"


@check("RETURN-IMMEDIATELY")
async def _(p: Peer) -> None:
    held = await p.hold()
    assert state(held) in ("TASK_STATE_SUBMITTED", "TASK_STATE_WORKING")
    await p.call(op.CANCEL, {"id": held["id"]})


@check("HISTORY-LENGTH", "HISTORY-NONE")
async def _(p: Peer) -> None:
    task = await p.task("tck-input-required")
    await p.task("tck-complete-task", taskId=task["id"])
    whole = (await p.call(op.GET, {"id": task["id"]}))["history"]
    assert len(whole) >= 2
    assert (await p.call(op.GET, {"id": task["id"], "historyLength": 1}))["history"] == whole[-1:]
    assert not (await p.call(op.GET, {"id": task["id"], "historyLength": 0})).get("history")
    assert not (await p.task(configuration={"historyLength": 0})).get("history")
    assert len((await p.task(configuration={"historyLength": 1}))["history"]) <= 1
    assert all(not t.get("history") for t in (await p.call(op.LIST, {"historyLength": 0}))["tasks"])


# -- errors
@check("ERROR-PAYLOAD")
async def _(p: Peer) -> None:
    error = await p.fails("TASK_NOT_FOUND", op.GET, {"id": "gone"})
    assert error.code and "gone" in error.message


BAD: tuple[tuple[str, Json], ...] = (
    (op.SEND, {"message": {"messageId": "m", "role": "ROLE_USER", "parts": []}}),
    (op.SEND, {"message": {"role": "ROLE_USER", "parts": [{"text": "x"}]}}),
    (op.SEND, {"message": {"messageId": "m", "role": "ROLE_AGENT", "parts": [{"text": "x"}]}}),
    (op.SEND, {}),
    (op.LIST, {"pageSize": 101}),
    (op.LIST, {"pageSize": 0}),
    (op.LIST, {"historyLength": -1}),
)


@check("ERROR-VALIDATION", "REQUIRED-FIELDS")
async def _(p: Peer) -> None:
    for operation, params in BAD:
        await p.fails("INVALID_PARAMS", operation, params)
    task = await p.task("tck-artifact-text")
    assert task["id"] and task["status"]["state"] and task["artifacts"][0]["artifactId"]
    assert all(a["parts"] for a in task["artifacts"])
    await p.fails("INVALID_PARAMS", op.PUSH_CREATE, {"taskId": task["id"], "url": "not a url"})
    await p.fails("INVALID_PARAMS", op.GET, {"id": task["id"], "historyLength": -5})


@check("ERROR-NOT-ACCESSIBLE", "SCOPE-EVERY-OPERATION")
async def _(p: Peer) -> None:
    held, stranger = await p.hold(), p.other()
    gone = await stranger.fails("TASK_NOT_FOUND", op.GET, {"id": "gone"})
    for operation in (op.GET, op.CANCEL, op.SUBSCRIBE):
        error = await stranger.fails("TASK_NOT_FOUND", operation, {"id": held["id"]})
        assert error.code == gone.code
    for operation in (op.PUSH_LIST, op.PUSH_CREATE):
        await stranger.fails(
            "TASK_NOT_FOUND", operation, _config(held) if operation == op.PUSH_CREATE else {"taskId": held["id"]}
        )
    await stranger.fails("TASK_NOT_FOUND", op.SEND, _request("tck-complete-task", None, {"taskId": held["id"]}))
    assert state(await p.call(op.GET, {"id": held["id"]})) == "TASK_STATE_WORKING"
    await p.call(op.CANCEL, {"id": held["id"]})


CODES: dict[str, tuple[int, int, str]] = {
    "TASK_NOT_FOUND": (-32001, 404, "NOT_FOUND"),
    "TASK_NOT_CANCELABLE": (-32002, 400, "FAILED_PRECONDITION"),
    "PUSH_NOTIFICATION_NOT_SUPPORTED": (-32003, 400, "FAILED_PRECONDITION"),
    "UNSUPPORTED_OPERATION": (-32004, 400, "FAILED_PRECONDITION"),
    "CONTENT_TYPE_NOT_SUPPORTED": (-32005, 400, "INVALID_ARGUMENT"),
    "INVALID_AGENT_RESPONSE": (-32006, 500, "INTERNAL"),
    "EXTENDED_AGENT_CARD_NOT_CONFIGURED": (-32007, 400, "FAILED_PRECONDITION"),
    "EXTENSION_SUPPORT_REQUIRED": (-32008, 400, "FAILED_PRECONDITION"),
    "VERSION_NOT_SUPPORTED": (-32009, 400, "FAILED_PRECONDITION"),
}


@check("ERROR-MAPPING")
async def _(p: Peer) -> None:
    """The table itself, and that the wire says what it says for errors that one world can give."""
    from quarterdeck.a2atypes import errors

    known = {e.kind: e for e in errors.A2AError.__subclasses__()}
    for kind, codes in CODES.items():
        assert errors.statuses(known[kind]("x")) == codes, kind
    done = await p.task()
    index = ("jsonrpc", "http_json", "grpc").index(p.driver.binding)
    bad = {"parts": [{"raw": "dGNr", "mediaType": "image/png"}]}
    for kind, operation, params in (
        ("TASK_NOT_FOUND", op.GET, {"id": "gone"}),
        ("TASK_NOT_CANCELABLE", op.CANCEL, {"id": done["id"]}),
        ("UNSUPPORTED_OPERATION", op.SUBSCRIBE, {"id": done["id"]}),
        ("CONTENT_TYPE_NOT_SUPPORTED", op.SEND, _request("tck-complete-task", None, bad)),
    ):
        assert (await p.fails(kind, operation, params)).code == CODES[kind][index]


# -- capabilities
@check("CAPABILITY-PUSH", world="no-push")
async def _(p: Peer) -> None:
    task = await p.task()
    where = {"taskId": task["id"]}
    refused = [(op.PUSH_CREATE, _config(task)), (op.PUSH_LIST, where)]
    refused += [(operation, where | {"id": "x"}) for operation in (op.PUSH_GET, op.PUSH_DELETE)]
    for operation, params in refused:
        await p.fails("PUSH_NOTIFICATION_NOT_SUPPORTED", operation, params)
    inline = {"taskPushNotificationConfig": {"url": WEBHOOK}}
    await p.fails("PUSH_NOTIFICATION_NOT_SUPPORTED", op.SEND, _request("tck-complete-task", inline, {}))


@check("CAPABILITY-STREAMING", world="no-streaming")
async def _(p: Peer) -> None:
    task = await p.task()
    await p.fails("UNSUPPORTED_OPERATION", op.STREAM, _request("tck-stream-001", None, {}))
    await p.fails("UNSUPPORTED_OPERATION", op.SUBSCRIBE, {"id": task["id"]})


@check("CAPABILITY-EXTENDED-CARD", world="no-extended")
async def _(p: Peer) -> None:
    await p.fails("UNSUPPORTED_OPERATION", op.EXTENDED_CARD, {})


@check("CAPABILITY-EXTENSION", "EXTENSION-VERSION-REQUIRED", world="extension")
async def _(p: Peer) -> None:
    request = _request("tck-complete-task", None, {})
    await p.fails("EXTENSION_SUPPORT_REQUIRED", op.SEND, request)
    await p.fails("EXTENSION_SUPPORT_REQUIRED", op.STREAM, request)
    await p.fails("EXTENSION_SUPPORT_REQUIRED", op.SEND, request, a2a_extensions=REQUIRED.replace("/v1", "/v2"))
    assert await p.call(op.SEND, request, a2a_extensions=f"https://other/v1, {REQUIRED}")


@check("EXTENSION-FALLBACK")
async def _(p: Peer) -> None:
    assert await p.call(op.SEND, _request("tck-complete-task", None, {}), a2a_extensions=OPTIONAL.replace("/v1", "/v9"))
    last = getattr(p.driver, "last", None)
    if last is not None:
        assert "a2a-extensions" not in last.headers
        await p.call(op.SEND, _request("tck-complete-task", None, {}), a2a_extensions=f"https://other/v1,{OPTIONAL}")
        assert p.driver.last.headers["a2a-extensions"] == OPTIONAL  # type: ignore[attr-defined]


# -- contexts and tasks
@check("CONTEXT-GENERATED", "TASK-ID-UNIQUE")
async def _(p: Peer) -> None:
    first, second = await p.task(), await p.task()
    assert first["contextId"] and second["contextId"] and first["contextId"] != second["contextId"]
    assert first["id"] and first["id"] != second["id"]
    assert (await p.send("tck-message-response"))["message"]["contextId"]


@check("CONTEXT-KEPT")
async def _(p: Peer) -> None:
    mine = f"client-{uuid4()}"
    assert (await p.task(contextId=mine))["contextId"] == mine
    assert (await p.send("tck-message-response", contextId=mine))["message"]["contextId"] == mine
    await p.fails("INVALID_PARAMS", op.SEND, _request("tck-complete-task", None, {"contextId": "x" * 256}))


@check("TASK-ID-UNKNOWN")
async def _(p: Peer) -> None:
    await p.fails("TASK_NOT_FOUND", op.SEND, _request("tck-complete-task", None, {"taskId": "gone"}))


@check("CONTEXT-INFERRED", "INPUT-REQUIRED")
async def _(p: Peer) -> None:
    task = await p.task("tck-input-required")
    assert state(task) == "TASK_STATE_INPUT_REQUIRED"
    done = await p.task("tck-complete-task", taskId=task["id"])
    assert done["id"] == task["id"] and done["contextId"] == task["contextId"]
    assert state(done) == "TASK_STATE_COMPLETED"
    assert done["history"][-1]["contextId"] == task["contextId"]


@check("CONTEXT-MISMATCH")
async def _(p: Peer) -> None:
    task = await p.task("tck-input-required")
    wrong = {"taskId": task["id"], "contextId": "another"}
    await p.fails("INVALID_PARAMS", op.SEND, _request("tck-complete-task", None, wrong))
    assert state(await p.call(op.GET, {"id": task["id"]})) == "TASK_STATE_INPUT_REQUIRED"


# -- streams of one task
@check("EVENT-ORDER")
async def _(p: Peer) -> None:
    events = await p.stream("tck-stream-artifact-chunked")
    kinds = [next(iter(e)) for e in events]
    assert [k for k in kinds[1:] if k != "statusUpdate"] == ["artifactUpdate", "artifactUpdate"]
    assert kinds[0] == "task" and kinds[-1] == "statusUpdate"
    chunks = [e["artifactUpdate"] for e in events if "artifactUpdate" in e]
    assert [c["artifact"]["parts"][0]["text"] for c in chunks] == ["chunk-1 ", "chunk-2"]
    assert not chunks[0].get("append") and not chunks[0].get("lastChunk")
    assert chunks[1]["append"] is True and chunks[1]["lastChunk"] is True
    whole = await p.call(op.GET, {"id": events[0]["task"]["id"]})
    assert [part["text"] for part in whole["artifacts"][0]["parts"]] == ["chunk-1 ", "chunk-2"]


@check("STREAMS-SAME", "STREAMS-INDEPENDENT")
async def _(p: Peer) -> None:
    held = await p.hold()
    streams = [p.driver.stream(op.SUBSCRIBE, {"id": held["id"]}, **p.headers) for _ in range(3)]
    for stream in streams:
        assert (await anext(stream))["task"]["id"] == held["id"]
    await streams[2].aclose()  # type: ignore[attr-defined]  # an async generator
    assert state(await p.call(op.GET, {"id": held["id"]})) == "TASK_STATE_WORKING"
    await p.call(op.CANCEL, {"id": held["id"]})
    first, second = [[e async for e in stream] for stream in streams[:2]]
    assert first == second and state(first[-1]["statusUpdate"]) == "TASK_STATE_CANCELED"


# -- versions
@check("VERSION-SEMANTICS")
async def _(p: Peer) -> None:
    assert state(await p.task()) == "TASK_STATE_COMPLETED"
    if p.driver.binding == "jsonrpc":
        old = {
            "messageId": "tck-complete-task",
            "kind": "message",
            "role": "user",
            "parts": [{"kind": "text", "text": "hi"}],
        }
        task = await p.call("message/send", {"message": old}, a2a_version="0.3")
        assert task["kind"] == "task" and task["status"]["state"] == "completed"
    elif p.driver.binding == "http_json":
        old = {"messageId": "tck-complete-task", "role": "ROLE_USER", "content": [{"text": "hi"}]}
        headers = {k.replace("_", "-"): v for k, v in p.headers.items()}
        answer = await p.world.http.post(
            "/v1/message:send", json={"message": old}, headers=headers | {"a2a-version": "0.3"}
        )
        assert answer.json()["task"]["history"][0]["content"] == [{"text": "hi"}]


@check("VERSION-UNSUPPORTED")
async def _(p: Peer) -> None:
    for version in ("9.9", "0.5", "x"):
        await p.fails("VERSION_NOT_SUPPORTED", op.SEND, _request("tck-complete-task", None, {}), a2a_version=version)
        await p.fails("VERSION_NOT_SUPPORTED", op.GET, {"id": "x"}, a2a_version=version)


@check("VERSION-EMPTY")
async def _(p: Peer) -> None:
    headers = {k.replace("_", "-"): v for k, v in p.headers.items()}
    for version in ({}, {"a2a-version": ""}):
        if p.driver.binding == "jsonrpc":
            body = {"jsonrpc": "2.0", "id": 1, "method": "tasks/get", "params": {"id": "gone"}}
            answer = (await p.world.http.post("/", json=body, headers=headers | version)).json()
            assert answer["error"]["code"] == -32001
        else:
            assert (await p.world.http.get("/v1/tasks/gone", headers=headers | version)).status_code == 404
            refused = await p.world.http.get("/tasks/gone", headers=headers | version)
            assert refused.status_code == 400 and "VERSION_NOT_SUPPORTED" in refused.text


@check("VERSION-PATCH")
async def _(p: Peer) -> None:
    assert await p.call(op.SEND, _request("tck-complete-task", None, {}), a2a_version="1.0.1")


# -- data
@check("DATA-MODEL")
async def _(p: Peer) -> None:
    from a2a.types import a2a_pb2
    from google.protobuf.json_format import ParseDict

    ParseDict(await p.send("tck-artifact-file"), a2a_pb2.SendMessageResponse())
    ParseDict(await p.call(op.LIST, {"includeArtifacts": True}), a2a_pb2.ListTasksResponse())
    for event in await p.stream("tck-stream-artifact-file"):
        ParseDict(event, a2a_pb2.StreamResponse())
    made = await p.call(op.PUSH_CREATE, _config(await p.task()))
    ParseDict(made, a2a_pb2.TaskPushNotificationConfig())


@check("JSON-CAMEL-CASE", "JSON-ENUMS", "TIMESTAMPS")
async def _(p: Peer) -> None:
    task = await p.task("tck-artifact-text")

    def keys(value: Any) -> list[str]:
        if isinstance(value, dict):
            return [*value, *(k for v in value.values() for k in keys(v))]
        return [k for v in value for k in keys(v)] if isinstance(value, list) else []

    assert not [k for k in keys({k: v for k, v in task.items() if k != "metadata"}) if "_" in k]
    assert state(task) == "TASK_STATE_COMPLETED" and task["history"][0]["role"] == "ROLE_USER"
    stamp = task["status"]["timestamp"]
    assert stamp.endswith("Z") and datetime.fromisoformat(stamp.replace("Z", "+00:00")).utcoffset().total_seconds() == 0  # type: ignore[union-attr]


@check("UNKNOWN-FIELDS")
async def _(p: Peer) -> None:
    request = _request("tck-complete-task", {"newInTwo": 1}, {"newInTwo": {"a": 1}}) | {"alsoNew": True}
    assert "task" in await p.call(op.SEND, request)


@check("AUTH-REQUIRED-TASK")
async def _(p: Peer) -> None:
    task = await p.task("tck-auth-required")
    assert state(task) == "TASK_STATE_AUTH_REQUIRED"
    assert task["status"]["message"]["parts"][0]["text"]
    assert state(await p.task("tck-complete-task", taskId=task["id"])) == "TASK_STATE_COMPLETED"


@check("TENANT", world="tenant")
async def _(p: Peer) -> None:
    assert all(i["tenant"] == TENANT for i in p.world.card["supportedInterfaces"])
    sent = await p.call(op.SEND, _request("tck-complete-task", None, {}) | {"tenant": TENANT})
    found = await p.call(op.GET, {"id": sent["task"]["id"], "tenant": TENANT})
    assert found["id"] == sent["task"]["id"]
    await p.fails("INVALID_PARAMS", op.GET, {"id": found["id"], "tenant": "others"})
