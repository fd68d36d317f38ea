"""Triggers as gateways and people ask for them, and what their conditions say."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import httpx
import msgspec
import pytest

from quarterdeck.errors import Forbidden, Unauthorized
from quarterdeck.kube import resource as k
from quarterdeck.server.database import Database
from quarterdeck.server.http import Router
from quarterdeck.server.identity import Caller, Identity
from quarterdeck.server.management import failure
from quarterdeck.server.triggers_api import TriggersApi
from quarterdeck.snapshot.hooks import Forwarded
from quarterdeck.wire.http import Server
from support.trigger_world import USER, Clock, Controller

GATEWAY = "quarterdeck-system/quarterdeck"
HOOK = {"webhook": {"github": {"secretRef": {"name": "hook", "key": "key"}}}}


class Who:
    """``root`` may do everything in kagent, ``reader`` may look; ``gateway`` is the gateway."""

    async def gateway(self, authorization: str, namespace: str, name: str) -> tuple[str, str]:
        if authorization != "Bearer gateway":
            raise Forbidden("not that gateway")
        return f"{namespace}/{name}", "pod"

    async def person(self, authorization: str, verb: str, resource: str, namespace: str = "") -> Caller:
        name = authorization.removeprefix("Bearer ")
        if name not in ("root", "reader"):
            raise Unauthorized("who?")
        if resource != "triggers" or namespace != "kagent" or (name == "reader" and verb not in ("get", "list")):
            raise Forbidden(f"{name} cannot {verb} {resource} in {namespace or 'all namespaces'}")
        return Caller(name, (), None)


@dataclass
class Rig:
    one: Controller
    url: str

    async def ask(self, method: str, path: str, body: Any = None, token: str = "root") -> tuple[int, Any]:
        async with httpx.AsyncClient(trust_env=False) as client:
            headers = {"authorization": f"Bearer {token}"}
            answer = await client.request(method, self.url + path, json=body, headers=headers)
        return answer.status_code, answer.json()

    async def hook(
        self,
        body: bytes = b"{}",
        name: str = "kagent/t",
        gateway: str = GATEWAY,
        token: str = "gateway",
        **headers: str,
    ) -> dict[str, Any]:
        signature = "sha256=" + hmac.new(b"sesame", body, hashlib.sha256).hexdigest()
        said = {"x-github-event": "push", "x-hub-signature-256": signature} | headers
        sent = msgspec.to_builtins(Forwarded(gateway, said, body))
        status, told = await self.ask("POST", f"/v1/hooks/{name}", sent, token)
        return told if status == 200 else {"refused": status}


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Rig]:
    database = await Database.open(str(tmp_path / "server.db"))
    one = Controller(database, Clock())
    api = TriggersApi(one.triggers, one.engine, cast(Identity, Who()), lambda name: name == GATEWAY, one.registry)
    server = Server(Router(api.routes(), failure).handle, name="api")
    _, port = await server.listen("127.0.0.1", 0)
    yield Rig(one, f"http://127.0.0.1:{port}")
    await server.stop(0)
    await database.close()


async def test_requests_come_from_gateways_and_are_proved_by_the_triggers_secret(rig: Rig) -> None:
    rig.one.trigger(**HOOK, rateLimit={"runs": 2, "per": "1m"})
    rig.one.trigger("clock", cron={"schedule": "0 0 * * *"})
    started = await rig.hook(b'{"n": 1}')
    assert (started["status"], started["outcome"]) == (202, "Started")
    assert (await rig.hook(b'{"n": 1}'))["outcome"] == "Duplicate"
    assert (await rig.hook(b'{"n": 2}', **{"x-hub-signature-256": "sha256=" + "0" * 64}))["status"] == 401
    assert (await rig.hook(b'{"n": 2}', **{"x-github-event": "ping"}))["outcome"] == "Ignored"
    assert (await rig.hook(b"{"))["status"] == 400
    assert (await rig.hook(name="kagent/clock"))["status"] == (await rig.hook(name="kagent/x"))["status"] == 404
    assert await rig.hook(token="root") == {"refused": 403}
    assert await rig.hook(gateway="other/gateway") == {"refused": 403}
    await rig.hook(b'{"n": 3}')
    limited = await rig.hook(b'{"n": 4}')
    assert (limited["status"], limited["outcome"], limited["retryAfter"]) == (429, "Limited", 60)
    rig.one.api.allowed.clear()
    rig.one.clock.now += 61
    refused = await rig.hook(b'{"n": 5}')
    assert refused["status"] == 503 and USER not in str(refused), "senders are not told who may what"
    assert len(await rig.one.all()) == 2
    text = rig.one.registry.render().decode()
    assert 'quarterdeck_trigger_requests_refused_total{trigger="kagent/t",status="401"} 1' in text


async def test_people_see_and_try_what_they_may(rig: Rig) -> None:
    rig.one.trigger(**HOOK, message="look at {{ body.n }}", when="body.n > 1")
    rig.one.trigger("clock", cron={"schedule": "0 13 * * *"})
    rig.one.trigger("broken", cron={"schedule": "x"})
    status, found = await rig.ask("GET", "/v1/triggers?namespace=kagent", token="reader")
    assert status == 200 and [each["name"] for each in found["triggers"]] == ["clock", "t"]
    assert found["triggers"][0]["nextFiring"] == "2026-06-01T13:00:00Z"
    assert (await rig.ask("GET", "/v1/triggers", token="reader"))[0] == 403
    assert (await rig.ask("GET", "/v1/triggers?namespace=kagent", token="nobody"))[0] == 401

    one = "/v1/triggers/kagent/t"
    status, told = await rig.ask("POST", f"{one}/test", {"payload": {"n": 2}}, "reader")
    assert (status, told["outcome"], told["run"], told["user"]) == (200, "Started", "", USER)
    assert told["message"].startswith("look at 2\n") and await rig.one.all() == []
    assert (await rig.ask("POST", f"{one}/test", {"payload": {"n": 1}}))[1]["outcome"] == "Filtered"
    assert (await rig.ask("POST", f"{one}/test", {"payload": {"n": 2}, "fire": True}, "reader"))[0] == 403
    status, told = await rig.ask("POST", f"{one}/test", {"payload": {"n": 2}, "fire": True})
    assert status == 201 and told["run"] == (await rig.one.all())[0]["id"]
    assert (await rig.ask("POST", f"{one}/test", {"headers": []}))[0] == 400
    assert (await rig.ask("POST", "/v1/triggers/kagent/none/test", {}))[0] == 404
    assert (await rig.ask("GET", "/v1/triggers/other/t/firings"))[0] == 403
    _, found = await rig.ask("GET", f"{one}/firings?limit=5", token="reader")
    assert [(f["source"], f["outcome"], f["state"]) for f in found["firings"]] == [("manual", "Started", "pending")]
    assert (await rig.ask("GET", f"{one}/firings?limit=x"))[0] == 400


async def test_a_rehearsal_says_what_its_source_would_not_take(rig: Rig) -> None:
    reference = {"secretRef": {"name": "hook", "key": "key"}}
    rig.one.trigger("pages", alertmanager={"bearer": reference, "labels": {"severity": "page"}})
    rig.one.trigger("issues", webhook={"github": reference | {"events": ["issues"]}})
    rig.one.trigger("pods", kubernetesEvents={"kinds": ["Pod"]})

    async def tried(name: str, payload: Any, **more: Any) -> tuple[int, str]:
        status, told = await rig.ask("POST", f"/v1/triggers/kagent/{name}/test", {"payload": payload} | more)
        return status, told["outcome"] if status == 200 else told["error"]["message"]

    group = {"version": "4", "groupKey": "g", "status": "firing", "commonLabels": {"severity": "page"}, "alerts": []}
    assert await tried("pages", group) == (200, "Started")
    assert await tried("pages", group | {"status": "resolved"}) == (200, "Ignored")
    assert await tried("pages", group | {"commonLabels": {}}) == (200, "Ignored")
    assert await tried("issues", {}, headers={"X-GitHub-Event": "issues"}) == (200, "Started")
    assert await tried("issues", {}, headers={"X-GitHub-Event": "push"}) == (200, "Ignored")
    assert await tried("issues", {}) == (200, "Ignored")
    assert await tried("pages", []) == (400, "the body is no message of Alertmanager's webhook: it is no JSON object")
    assert await tried("pods", {"metadata": 1}) == (400, "payload: metadata must be an object, as an Event has it")
    assert (await tried("pods", {"involvedObject": "web-1"}))[0] == (await tried("pods", 1))[0] == 400
    for name, example in (("pages", "Alertmanager"), ("issues", "a body"), ("pods", '"involvedObject"')):
        status, said = await tried(name, None)
        assert status == 400 and example in said and "--data" in said, name
    deep: Any = 1
    for _ in range(700):
        deep = [deep]
    assert await tried("issues", deep) == (400, "payload: is nested too deeply")


# -- conditions


def conditions(status: dict[str, Any]) -> dict[str, tuple[str, str, str]]:
    return {one["type"]: (one["status"], one["reason"], one["message"]) for one in status["conditions"]}


async def test_conditions_say_whether_it_can_fire(rig: Rig) -> None:
    one = rig.one
    one.trigger(cron={"schedule": "0 13 * * *"})
    status = await one.status()
    assert conditions(status)["Ready"] == ("True", "Ready", "The trigger fires")
    assert (status["nextFiringTime"], status["source"]) == ("2026-06-01T13:00:00Z", "cron")
    one.trigger(**HOOK)
    status = await one.status()
    assert conditions(status)["Ready"][0] == "True" and status["path"] == "/hooks/kagent/t"
    for spec, kind, reason, text in (
        ({"cron": {"schedule": "x"}}, "Accepted", "InvalidTrigger", "must have 5 fields"),
        ({"cron": {"schedule": "@daily"}, "message": "{{"}, "Accepted", "InvalidTrigger", "has no }}"),
        ({"cron": {"schedule": "@daily"}, "agent": "none"}, "ResolvedRefs", "RefNotFound", "Agent kagent/none"),
        ({"cron": {"schedule": "@daily"}, "serviceAccountName": "x"}, "ResolvedRefs", "RefNotFound", "ServiceAccount"),
        ({"cron": {"schedule": "@daily"}, "suspend": True}, "Ready", "Suspended", "nothing is started"),
        ({"webhook": {"bearer": {"secretRef": {"name": "none", "key": "k"}}}}, "ResolvedRefs", "RefNotFound", "none"),
        (
            {"webhook": {"bearer": {"secretRef": {"name": "hook", "key": "k"}}}},
            "ResolvedRefs",
            "RefNotFound",
            "key 'k'",
        ),
        (
            {"mcpResources": {"server": {"name": "m"}, "uris": ["a"]}},
            "ResolvedRefs",
            "RefNotFound",
            "MCPServer kagent/m",
        ),
    ):
        one.trigger(**spec)
        found = conditions(await one.status())
        assert found[kind][:2] == ("False", reason) and text in found[kind][2], found
        assert found["Ready"][0] == "False"
    one.put(k.MCP_SERVER, "m", {})
    assert conditions(await one.status())["Ready"][1] == "ServerNotGranted"
    for names, reason in ((["add"], "ServerNotGranted"), ([], "Ready")):
        tools = [{"mcpServer": {"name": "m", "toolNames": names}}]
        one.put(k.AGENT, "helper", {"type": "Declarative", "declarative": {"tools": tools}})
        assert conditions(await one.status())["Ready"][1] == reason
    one.trigger(cron={"schedule": "@daily"})
    one.api.allowed.clear()
    one.clock.now += 60
    found = conditions(await one.status())
    assert found["Authorized"][:2] == ("False", "IdentityNotAllowed") and USER in found["Authorized"][2]


def test_the_controller_is_woken_by_what_a_trigger_names(rig: Rig) -> None:
    one = rig.one
    one.trigger(**HOOK)
    one.trigger("other", cron={"schedule": "@daily"}, agent="else")
    maps = {res.kind: fn for res, fn in one.controller.maps}
    for kind, name, keys in (("Secret", "hook", ["t"]), ("Secret", "x", []), ("Agent", "else", ["other"]),
                             ("ServiceAccount", "starter", ["t", "other"])):  # fmt: skip
        obj = {"metadata": {"namespace": "kagent", "name": name}}
        assert [key.name for key in maps[kind](obj)] == keys
        assert list(maps[kind]({"metadata": {"namespace": "other", "name": name}})) == []
