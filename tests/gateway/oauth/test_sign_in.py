"""Users sign in at a server for themselves, and nobody uses another's sign-in."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import msgspec
import pytest
import typer
from typer.testing import CliRunner, Result

from quarterdeck import snapshot as s
from quarterdeck.cli import tokens
from quarterdeck.errors import UsageError
from quarterdeck.snapshot.policies import BackendCredential

from ..conftest import token as workload_token
from .conftest import SERVER, World
from .servers import Browser, code_in, query_of


async def test_the_first_call_asks_for_a_sign_in_and_the_next_carries_the_users_token(world: World) -> None:
    alice = world.person("alice")
    greeting = await alice.begin()
    assert greeting["capabilities"]["tools"] == {"listChanged": True}
    assert await alice.tools() == ["sign_in"]
    url = await alice.url()
    assert url.startswith(world.rig.gateway.endpoints["local"])
    code = await Browser("alice").sign_in(url)
    assert "signed in" in await alice.text("sign_in", code=code)
    assert await alice.text("whoami") == "alice"
    assert await alice.tools() == ["whoami", "write"]
    assert ("oauth/grant", alice.id, "ok") in world.events()
    asked = dict(next(given for path, given in world.issuer.asked if path == "/authorize"))
    assert (asked["resource"], asked["scope"], asked["code_challenge_method"]) == (
        f"{world.server.url}/mcp",
        "read",
        "S256",
    )
    kept = world.rig.gateway._options.data_dir / "user-tokens.bin"
    assert kept.stat().st_mode & 0o077 == 0
    assert b"alice" not in kept.read_bytes()


async def test_two_users_get_different_tokens_and_sessions(world: World) -> None:
    alice, bob = world.person("alice"), world.person("bob")
    for person in (alice, bob):
        await person.begin()
        await person.signed_in()
    assert [await person.text("whoami") for person in (alice, bob, alice)] == ["alice", "bob", "alice"]
    eve = world.person("eve")
    await eve.begin()
    assert (await eve.call("whoami"))["error"]["code"] == -32042
    stolen = {**eve.headers, "mcp-session-id": alice.session}
    answer = await world.rig.request(
        "/mcp", {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "whoami"}},
        listener="web", headers=stolen,
    )  # fmt: skip
    assert answer.status == 404
    await answer.read()


async def test_clients_that_cannot_open_urls_are_told_the_url_and_what_to_do(world: World) -> None:
    alice = world.person("alice", {})
    await alice.begin()
    result = (await alice.call("whoami"))["result"]
    assert result["isError"] is True
    text = result["content"][0]["text"]
    url = text.partition("Open ")[2].partition(" ")[0]
    code = await Browser("alice").sign_in(url)
    assert "call sign_in with it as code" in await alice.text("whoami")
    assert "not the code" in await alice.text("sign_in", code="00000000" if code != "00000000" else "1")
    assert "signed in" in await alice.text("sign_in", code=f"{code[:4]} {code[4:]}")
    assert await alice.text("whoami") == "alice"


async def test_behind_a_prefix_the_tools_of_others_stay(world: World) -> None:
    alice = world.person("alice", path="/many")
    await alice.begin()
    assert await alice.tools() == ["notes_sign_in"]
    code = await Browser("alice").sign_in(await alice.url("notes_whoami"))
    assert "signed in" in await alice.text("notes_sign_in", code=code)
    assert await alice.text("notes_whoami") == "alice"


async def test_a_modern_client_is_asked_by_an_input_required_result(world: World) -> None:
    alice = world.person("alice")
    assert [tool["name"] for tool in (await alice.modern("tools/list"))["result"]["tools"]] == ["sign_in"]
    call: dict[str, Any] = {"name": "whoami", "arguments": {}}
    asked = (await alice.modern("tools/call", call))["result"]
    assert asked["resultType"] == "input_required"
    [(key, question)] = asked["inputRequests"].items()
    assert (question["method"], question["params"]["mode"]) == ("elicitation/create", "url")
    code = await Browser("alice").sign_in(question["params"]["url"])
    again = {**call, "inputResponses": {key: {"action": "accept"}}, "requestState": asked["requestState"]}
    asked = (await alice.modern("tools/call", again))["result"]
    [(key, question)] = asked["inputRequests"].items()
    assert (question["params"]["mode"], list(question["params"]["requestedSchema"]["properties"])) == ("form", ["code"])
    answer = {"action": "accept", "content": {"code": code}}
    again = {**call, "inputResponses": {key: answer}, "requestState": asked["requestState"]}
    result = (await alice.modern("tools/call", again))["result"]
    assert result["content"][0]["text"] == "alice"
    refused = world.person("bob")
    asked = (await refused.modern("tools/call", call))["result"]
    [key] = asked["inputRequests"]
    again = {**call, "inputResponses": {key: {"action": "decline"}}, "requestState": asked["requestState"]}
    assert (await refused.modern("tools/call", again))["result"]["isError"] is True


async def test_an_expired_token_is_refreshed_and_rotated(world: World) -> None:
    alice = world.person("alice")
    await alice.begin()
    await alice.signed_in()
    assert await alice.text("whoami") == "alice"
    first = world.server.seen[-1]
    world.clock.now += 3600 - 30
    assert await alice.text("whoami") == "alice"
    second = world.server.seen[-1]
    world.clock.now += 3600
    assert await alice.text("whoami") == "alice"
    assert len({first, second, world.server.seen[-1]}) == 3
    used = [given["refresh_token"] for path, given in world.issuer.asked if given.get("grant_type") == "refresh_token"]
    assert len(set(used)) == 2
    assert world.issuer.count("/register") == 1


async def test_a_refused_refresh_asks_for_a_sign_in_again(world: World) -> None:
    alice = world.person("alice")
    await alice.begin()
    await alice.signed_in()
    world.issuer.refuses = "invalid_grant"
    world.clock.now += 3600
    assert (await alice.call("whoami"))["error"]["code"] == -32042
    assert ("oauth/refresh", alice.id, "denied") in world.events()
    world.issuer.refuses = ""
    await alice.signed_in()
    assert await alice.text("whoami") == "alice"


async def test_a_token_that_the_server_does_not_take_any_more_is_refreshed_before_it_expires(world: World) -> None:
    alice = world.person("alice")
    await alice.begin()
    await alice.signed_in()
    world.clock.now += 60
    world.issuer.tokens.clear()
    assert await alice.text("whoami") == "alice"


async def test_a_tool_that_needs_more_asks_for_that_and_what_was_granted(world: World) -> None:
    alice = world.person("alice")
    await alice.begin()
    await alice.signed_in()
    error = (await alice.call("write"))["error"]
    assert "allow more: write" in error["message"]
    code = await Browser("alice").sign_in(error["data"]["elicitations"][0]["url"])
    assert "signed in" in await alice.text("sign_in", code=code)
    assert await alice.text("write") == "alice"
    scopes = [given.get("scope") for path, given in world.issuer.asked if path == "/authorize"]
    assert scopes == ["read", "read write"]


async def test_the_state_of_another_sign_in_a_used_one_and_an_altered_one_lead_nowhere(world: World) -> None:
    alice = world.person("alice")
    await alice.begin()
    browser = Browser("alice")
    callback = await browser.grant(await browser.open(await alice.url()))
    state = query_of(callback)["state"]
    flipped = state[:-1] + ("A" if state[-1] != "A" else "B")
    response, _ = await browser.get(callback.replace(state, flipped))
    assert response.status == 400
    response, page = await browser.get(callback)
    assert response.status == 200
    again, _ = await browser.get(callback)
    assert again.status == 400
    assert "signed in" in await alice.text("sign_in", code=code_in(page))


async def test_the_callback_is_refused_in_another_browser_and_after_ten_minutes(world: World) -> None:
    alice = world.person("alice")
    await alice.begin()
    begun, other = Browser("alice"), Browser("alice")
    callback = await begun.grant(await begun.open(await alice.url()))
    response, page = await other.get(callback)
    assert (response.status, "another browser" in page) == (400, True)
    response, _ = await begun.get(callback)
    assert response.status == 400  # the attempt has used it up
    late = Browser("alice")
    url = await alice.url()
    callback = await late.grant(await late.open(url))
    world.clock.now += 601
    response, _ = await late.get(callback)
    assert response.status == 400
    response, page = await late.get(url)
    assert (response.status, "expired" in page) == (400, True)
    assert ("oauth/grant", alice.id, "denied") in world.events()


@pytest.mark.parametrize("iss", ["https://evil.example.org", None])
async def test_an_answer_of_another_issuer_is_refused(world: World, iss: str | None) -> None:
    alice = world.person("alice")
    await alice.begin()
    world.issuer.iss = iss
    browser = Browser("alice")
    response, page = await browser.get(await browser.grant(await browser.open(await alice.url())))
    assert (response.status, "This sign-in was refused" in page) == (400, True)
    assert world.issuer.count("/token") == 0


async def test_who_lures_another_to_her_link_gets_nothing_without_the_code(world: World) -> None:
    eve = world.person("eve")
    await eve.begin()
    victim = Browser("bob")
    code = await victim.sign_in(await eve.url())
    for number in range(5):
        assert "not the code" in await eve.text("sign_in", code=f"{(int(code) + 1 + number) % 10**8:08d}")
    assert "not the code" in await eve.text("sign_in", code=code)  # too late: five were wrong
    assert (await eve.call("whoami"))["error"]["code"] == -32042
    mallory = world.person("mallory")
    await mallory.begin()
    assert "not the code" in await mallory.text("sign_in", code=code)
    assert world.server.seen.count(b"Bearer bob") == 0


async def test_pages_cannot_be_framed_and_a_link_alone_begins_nothing(world: World) -> None:
    alice = world.person("alice")
    await alice.begin()
    url = await alice.url()
    response, page = await Browser("alice").get(url)
    assert response.header(b"x-frame-options") == b"DENY"
    assert b"frame-ancestors 'none'" in (response.header(b"content-security-policy") or b"")
    assert "<script" not in page
    assert alice.id in page
    assert world.issuer.asked == []
    sealed = url.rpartition("=")[2]
    flipped = sealed[:10] + ("A" if sealed[10] != "A" else "B") + sealed[11:]
    response, _ = await Browser("alice").get(url.replace(sealed, flipped))
    assert response.status == 400
    pool = Browser("alice")
    response, _ = await pool._request("POST", url.partition("?")[0], f"t={sealed}&b=x".encode())  # no cookie
    assert response.status == 400


async def test_behind_tls_the_cookie_is_of_this_host_alone(world: World) -> None:
    services = world.rig.gateway.services
    here, services.public_url = world.rig.gateway.endpoints["local"], "https://gw.example/qd"
    alice = world.person("alice")
    await alice.begin()
    url = await alice.url()
    assert url.startswith("https://gw.example/qd/.quarterdeck/oauth/start?t=")
    browser = Browser("alice")
    response, _ = await browser.get(url.replace("https://gw.example/qd", here))
    cookie = (response.header(b"set-cookie") or b"").decode()
    assert cookie.startswith("__Host-qd-sign-in=")
    assert {"Secure", "HttpOnly", "SameSite=Lax", "Path=/"} <= {part.strip() for part in cookie.split(";")}
    location = await browser.open(url.replace("https://gw.example/qd", here))
    assert query_of(location)["redirect_uri"] == "https://gw.example/qd/.quarterdeck/oauth/callback"


async def test_a_revoked_grant_is_over_at_once(world: World) -> None:
    alice, bob = world.person("alice"), world.person("bob")
    for person in (alice, bob):
        await person.begin()
        await person.signed_in()
    listed = await world.rig.request("/user-tokens", method="GET", listener="admin")
    shown = msgspec.json.decode(await listed.read())["tokens"]
    assert [(one["user"], one["server"], one["scope"]) for one in shown] == [
        (alice.id, SERVER, "read"), (bob.id, SERVER, "read"),
    ]  # fmt: skip
    assert "alice-" not in json.dumps(shown)
    path = f"/user-tokens?user={alice.id}&server={SERVER}"
    gone = await world.rig.request(path, method="DELETE", listener="admin")
    assert len(msgspec.json.decode(await gone.read())["revoked"]) == 1
    assert (await alice.call("whoami"))["error"]["code"] == -32042
    assert await bob.text("whoami") == "bob"
    assert ("oauth/revoke", alice.id, "ok") in world.events()
    async with asyncio.timeout(30):
        while not world.issuer.revoked:
            await asyncio.sleep(0.02)
    assert [token.rpartition("-")[0] for token in world.issuer.revoked] == ["r-alice"]  # told to forget it, too


async def test_the_command_line_shows_and_ends_sign_ins(world: World) -> None:
    alice = world.person("alice")
    await alice.begin()
    await alice.signed_in()
    app = typer.Typer()
    tokens.register(app)
    admin = ["--admin", world.rig.gateway.endpoints["admin"]]

    async def run(*arguments: str) -> Result:
        return await asyncio.to_thread(CliRunner().invoke, app, ["tokens", *arguments, *admin])

    lines = (await run("list")).output.splitlines()
    assert lines[0].split() == ["USER", "SERVER", "ISSUER", "SCOPES", "GRANTED", "EXPIRES"]
    assert lines[1].split()[:4] == [alice.id, "file/notes", world.issuer.url, "read"]
    assert json.loads((await run("list", "-o", "json")).output)[0]["server"] == SERVER
    assert isinstance((await run("revoke")).exception, UsageError)
    gone = await run("revoke", "--user", alice.id, "--server", "file/notes")
    assert gone.output == f"{alice.id} is no longer signed in at file/notes\n"
    assert (await alice.call("whoami"))["error"]["code"] == -32042


async def test_streams_are_told_when_a_user_has_signed_in(world: World) -> None:
    alice = world.person("alice")
    await alice.begin()
    headers = {**alice.headers, "mcp-session-id": alice.session, "accept": "text/event-stream"}
    stream = await world.rig.request("/mcp", method="GET", listener="web", headers=headers)
    error = (await alice.call("whoami"))["error"]["data"]["elicitations"][0]
    code = await Browser("alice").sign_in(error["url"])
    await alice.text("sign_in", code=code)
    told = b""
    async for chunk in stream:
        told += chunk
        if b"notifications/tools/list_changed" in told:
            break
    assert b'"notifications/elicitation/complete"' in told
    assert error["elicitationId"].encode() in told
    stream.close()


async def test_no_configured_credential_is_shown_in_a_users_place(world: World) -> None:
    await world.serve(
        headers=(s.HeaderValue("Authorization", "Bearer service-account", secret=True),),
        credential=BackendCredential("key", "service-account"),
    )
    alice = world.person("alice")
    await alice.begin()
    assert (await alice.call("whoami"))["error"]["code"] == -32042
    await alice.signed_in()
    assert await alice.text("whoami") == "alice"
    assert not any(b"service-account" in shown for shown in world.server.seen)


async def test_an_agent_uses_a_users_sign_in_only_on_that_users_behalf(world: World) -> None:
    path, bearer = "/mcp/kagent/notes", workload_token("pod-a")
    acting = world.rig.gateway.approvals.acting
    told = acting.token(world_principal("alice@x"), {}, "kagent/a").decode()
    session = await world.rig.initialize(path, bearer=bearer)

    async def call(tool: str, headers: dict[str, str], **arguments: Any) -> dict[str, Any]:
        fields = {"mcp-session-id": session, "accept": "application/json, text/event-stream", **headers}
        params = {"name": tool, "arguments": arguments}
        return await world.rig.rpc(path, "tools/call", params, bearer=bearer, headers=fields)

    for_alice = {"x-quarterdeck-acting-for": told}
    text = (await call("whoami", for_alice))["result"]["content"][0]["text"]
    code = await Browser("alice").sign_in(text.partition("Open ")[2].partition(" ")[0])
    assert "signed in" in (await call("sign_in", for_alice, code=code))["result"]["content"][0]["text"]
    assert (await call("whoami", for_alice))["result"]["content"][0]["text"] == "alice"
    nobody = await call("whoami", {})
    assert nobody["error"]["data"] == {"reason": "user_required"}
    flipped = told[:20] + ("A" if told[20] != "A" else "B") + told[21:]
    assert (await call("whoami", {"x-quarterdeck-acting-for": flipped}))["error"]["data"] == {"reason": "user_required"}
    for_bob = {"x-quarterdeck-acting-for": acting.token(world_principal("bob@x"), {}, "kagent/a").decode()}
    assert "Open http" in (await call("whoami", for_bob))["result"]["content"][0]["text"]


def world_principal(ident: str) -> Any:
    from quarterdeck.gateway.policy.principal import Principal

    return Principal(ident)


async def test_somebody_without_a_name_is_told_to_authenticate(world: World) -> None:
    session = await world.rig.initialize("/mcp/kagent/notes", listener="local")
    headers = {"mcp-session-id": session}
    answer = await world.rig.rpc(
        "/mcp/kagent/notes", "tools/call", {"name": "whoami"}, listener="local", headers=headers
    )
    assert "authenticate at the gateway" in answer["error"]["message"]


async def test_the_document_that_describes_the_gateway(world: World) -> None:
    base = world.rig.gateway.endpoints["local"]
    response, text = await Browser("x").get(f"{base}/.quarterdeck/oauth/client.json")
    found = json.loads(text)
    assert response.status == 200
    assert found["client_id"] == f"{base}/.quarterdeck/oauth/client.json"
    assert found["redirect_uris"] == [f"{base}/.quarterdeck/oauth/callback"]
