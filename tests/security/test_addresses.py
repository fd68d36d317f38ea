"""Lines 3, 6, 20, 28 and 29: where the gateway can be led, from where it can be reached, and what it never fetches."""

from __future__ import annotations

import socket
from typing import Any

import msgspec
import pytest

from gateway.conftest import Rig, snapshot
from gateway.federation.servers import Client, Upstream, ask, behind
from gateway.policy.rig import Peer, json_answer, provider
from quarterdeck import snapshot as s
from quarterdeck.gateway.options import parse
from quarterdeck.snapshot.policies import Jwt, McpAuthentication, Policies
from quarterdeck.wire.client import Pool
from quarterdeck.wire.http import Exchange, Server

from .conftest import bearer, guard, raw, target

OPEN = Policies(open=True)
LIST = b'{"jsonrpc":"2.0","id":1,"method":"tools/list"}'


def remote(host: str, port: int) -> s.McpServer:
    return s.McpServer("kagent", "remote", "RemoteMCPServer", "/mcp", endpoints=(s.Endpoint(host, port),))


# -- 3: SSRF


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::ffff:127.0.0.1", "2130706433", "0x7f.1", "127.1", "0"])
async def test_s03_no_spelling_of_an_address_leads_back_into_the_gateway(bare: Rig, host: str) -> None:
    """A server that is the gateway's own port would make callers the person at this machine."""
    for listener in ("local", "admin", "stats"):
        port = bare.origin(listener)[1]
        bare.gateway.use(snapshot(1, mcp=(remote(host, port),)))
        answer = await bare.rpc("/mcp/kagent/remote", "tools/list", listener="local")
        assert "error" in answer
        text = answer["error"]["message"]
        assert "is this gateway itself" in text or "cannot connect" in text, text


LINK_LOCAL = ["169.254.169.254", "::ffff:169.254.169.254", "2852039166", "0xa9fea9fe", "169.254.43518"]


@pytest.mark.parametrize("host", LINK_LOCAL)
async def test_s03_where_machines_keep_their_metadata_is_not_called(bare: Rig, host: str) -> None:
    """Nobody answers there on this machine, so the rule is asked directly with what a resolver makes of the name."""
    found = {str(entry[4][0]) for entry in socket.getaddrinfo(host, 80, type=socket.SOCK_STREAM)}
    refuse = bare.gateway.upstreams.refuse
    assert found and all("link-local" in refuse(host, address, 80) for address in found)
    assert "link-local" in refuse("x", "fe80::1%eth0", 80) and not refuse("x", "10.0.0.1", 80)


async def test_s03_a_name_that_is_bound_anew_is_judged_by_where_it_leads(bare: Rig, one: Upstream) -> None:
    """DNS rebinding: the address that was connected to decides, so an answer that changes in between gains nothing."""
    world = snapshot(1, mcp=(remote("localhost", one.port),))
    bare.gateway.use(msgspec.structs.replace(world, closed=("127.0.0.1",)))
    answer = await bare.rpc("/mcp/kagent/remote", "tools/list", listener="local")
    assert "is a name for 127.0.0.1" in answer["error"]["message"] and not one.told


async def test_s03_redirects_are_not_followed(bare: Rig, one: Upstream) -> None:
    """Neither those of servers nor those of issuers: behind them could be anything."""
    asked: list[str] = []

    def redirect(exchange: Exchange) -> None:
        asked.append(exchange.path)
        exchange.respond(307, b"", [(b"location", f"http://127.0.0.1:{one.port}/mcp".encode())])

    server = Server(redirect)
    _, port = await server.listen("127.0.0.1", 0)
    bare.gateway.use(snapshot(1, mcp=(remote("127.0.0.1", port),)))
    answer = await bare.rpc("/mcp/kagent/remote", "tools/list", listener="local")
    assert answer["error"]["code"] == 4002 and asked
    issuer = f"http://127.0.0.1:{port}"
    mcp = McpAuthentication(Jwt((provider(issuer=issuer, jwks=None, jwks_url=f"{issuer}/keys"),)), issuer)
    await guard(bare, one, policies=Policies(mcp_authentication=mcp))
    known = await bare.request("/.well-known/oauth-authorization-server/mcp", method="GET", listener="front")
    assert known.status == 502 and await known.read()
    refused = await bare.request("/mcp", {}, listener="front", headers=bearer(iss=issuer))
    assert refused.status == 503 and await refused.read()
    assert "/keys" in asked and any("well-known" in path for path in asked)
    assert not one.told and not one.heads
    await server.stop(0)


async def test_s03_metadata_and_keys_come_from_no_port_of_the_gateway(bare: Rig, one: Upstream) -> None:
    host, port, _ = bare.origin("admin")
    issuer = f"http://{host}:{port}"
    mcp = McpAuthentication(Jwt((provider(issuer=issuer, jwks=None, jwks_url=f"{issuer}/config_dump"),)), issuer)
    await guard(bare, one, policies=Policies(mcp_authentication=mcp))
    response = await bare.request("/.well-known/oauth-authorization-server/mcp", method="GET", listener="front")
    assert response.status == 502 and b"is this gateway itself" in await response.read()
    refused = await bare.request("/mcp", {}, listener="front", headers=bearer(iss=issuer))
    assert refused.status == 503 and await refused.read()


# -- 6: DNS rebinding


@pytest.mark.parametrize(
    ("lines", "status"),
    [
        ([(b"host", b"evil.example")], 403),
        ([(b"host", b"evil.example:8701")], 403),
        ([(b"host", b"localhost.evil.example")], 403),
        ([(b"host", b"127.0.0.1.nip.io")], 403),
        ([(b"host", b"localhost"), (b"origin", b"http://evil.example")], 403),
        ([(b"host", b"localhost"), (b"origin", b"null")], 403),
        ([(b"host", b"localhost"), (b"origin", b"http://localhost.evil.example")], 403),
        ([(b"host", b"localhost"), (b"origin", b"file://")], 403),
        ([(b"host", b"localhost"), (b"sec-fetch-site", b"cross-site")], 403),
        ([(b"host", b"localhost"), (b"sec-fetch-site", b"same-site")], 403),
        ([(b"host", b"evil.example"), (b"host", b"localhost")], 400),
        ([(b"host", b"localhost"), (b"origin", b"http://evil.example"), (b"origin", b"http://localhost")], 400),
    ],
)
async def test_s06_a_page_of_elsewhere_does_not_act_as_the_person_at_this_machine(
    bare: Rig, one: Upstream, lines: list[tuple[bytes, bytes]], status: int
) -> None:
    world = snapshot(1, mcp=(remote("127.0.0.1", one.port),))
    bare.gateway.use(world)
    json = [(b"content-type", b"application/json")]
    for path in ("/mcp", "/mcp/kagent/remote"):
        response = await bare.pool.request("POST", bare.origin("local"), path, [*lines, *json], LIST)
        assert response.status == status and await response.read()
    await guard(bare, one, policies=Policies())
    pool = Pool()
    response = await pool.request("POST", bare.origin("front"), "/mcp", [*lines, *json], LIST)
    assert 400 <= response.status < 500 and await response.read()
    pool.close()
    assert not one.told


def test_s06_ports_are_this_machines_unless_told_otherwise(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("POD_IP", raising=False)
    given = parse([f"--config={tmp_path}/c.json"])
    for address in (given.local, given.workloads, given.stats, given.ready, given.admin):
        assert address is not None and address[0] == "127.0.0.1"
    assert given.bind == "127.0.0.1"


# -- 20: shadow servers


async def test_s20_only_what_is_registered_is_reached(bare: Rig, one: Upstream, two: Upstream) -> None:
    """``two`` runs and nobody registered it: no path, host or form of a request leads there."""
    bare.gateway.use(snapshot(1, mcp=(remote("127.0.0.1", one.port), target("hidden", two.port))))
    for path in (
        "/mcp/kagent/two", "/mcp/ns/hidden", "/mcp/ns/target.hidden", "/mcp/kagent/../ns/hidden",
        "/mcp/kagent/remote/..",
        "/mcp/kagent%2Fremote", f"/mcp/127.0.0.1:{two.port}", f"//127.0.0.1:{two.port}/mcp",
    ):  # fmt: skip
        response = await bare.request(path, LIST, listener="local")
        assert response.status == 404 and await response.read(), path
    there = b"127.0.0.1:%d" % two.port
    for line in (
        b"POST http://%b/mcp HTTP/1.1\r\nhost: %b" % (there, there),
        b"CONNECT %b HTTP/1.1\r\nhost: %b" % (there, there),
        b"POST /mcp/kagent/two HTTP/1.1\r\nhost: localhost\r\nx-forwarded-host: %b" % there,
        b"POST http://%b/mcp/kagent/remote HTTP/1.1\r\nhost: localhost" % there,
    ):  # fmt: skip
        head = line + b"\r\ncontent-type: application/json\r\nconnection: close\r\ncontent-length: %d\r\n\r\n" % len(
            LIST
        )
        answer = await raw(bare, head + LIST, "local")
        assert answer.split(b" ")[1][:1] == b"4", answer
    assert not two.told and not two.heads


async def test_s20_a_server_that_is_gone_is_gone_for_open_sessions(bare: Rig, one: Upstream, two: Upstream) -> None:
    await guard(bare, one, two, policies=OPEN)
    client = Client(bare)
    await client.initialize()
    assert "result" in await client.call("tools/call", name="two_echo", arguments={})
    await guard(bare, one, policies=OPEN, prefix="always")
    calls = len(two.requests("tools/call"))
    answer = await client.call("tools/call", name="two_echo", arguments={})
    assert answer["error"]["message"] == "Unknown tool: two_echo" and len(two.requests("tools/call")) == calls


# -- 28 and 29: what is named in definitions and results


def poisoned(base: str) -> dict[str, Any]:
    return {
        "name": "echo", "description": "Says it.", "icons": [{"src": f"{base}/icon.png"}, {"src": "data:image/png,x"}],
        "inputSchema": {"$schema": f"{base}/dialect", "type": "object",
                        "properties": {"a": {"$ref": f"{base}/a.json"}}},
        "outputSchema": {"$ref": f"{base}/out.json#/x"},
        "_meta": {"ui": {"resourceUri": "ui://one/page", "csp": {"connectDomains": ["https://a.example"]}}},
    }  # fmt: skip


async def test_s28_external_references_are_passed_on_and_never_fetched(bare: Rig, one: Upstream, new: Upstream) -> None:
    async with Peer(lambda e: json_answer({"type": "string"})) as evil:
        one.tools, new.tools = [poisoned(evil.url)], [poisoned(evil.url)]
        await guard(bare, one, new, policies=OPEN)
        client = Client(bare)
        await client.initialize()
        listed = [
            (await client.call("tools/list"))["result"]["tools"],
            (await ask(bare, "tools/list"))["result"]["tools"],
        ]
        for tools in listed:
            assert [tool["inputSchema"] for tool in tools] == [poisoned(evil.url)["inputSchema"]] * 2
        for name in ("one_echo", "new_echo"):
            assert "result" in await client.call("tools/call", name=name, arguments={"a": 1})
            assert "result" in await ask(bare, "tools/call", name=name, arguments={"a": 1})
        document = {
            "openapi": "3.1.0",
            "paths": {
                "/x": {"post": {
                    "operationId": "x", "parameters": [{"$ref": f"{evil.url}/p.json"}],
                    "requestBody": {"content": {"application/json": {"schema": {"$ref": f"{evil.url}/s.json"}}}},
                }},
                "/y": {"$ref": f"{evil.url}/path.json"},
            },
        }  # fmt: skip
        server = msgspec.structs.replace(target("api", one.port), path="", openapi=document)
        await guard(bare, server, policies=OPEN)
        await client.initialize()
        assert [tool["name"] for tool in (await client.call("tools/list"))["result"]["tools"]] == ["x"]
        await client.call("tools/call", name="x", arguments={"body": 1})
        assert not evil.asked


async def test_s29_icons_and_apps_arrive_as_their_server_made_them(bare: Rig, one: Upstream, new: Upstream) -> None:
    async with Peer(lambda e: json_answer({})) as evil:
        tool = poisoned(evil.url)
        for upstream in (one, new):
            upstream.tools = [tool]
            await guard(bare, upstream, policies=OPEN)
            client = Client(bare)
            await client.initialize()
            for answer in (await client.call("tools/list"), await ask(bare, "tools/list")):
                (shown,) = answer["result"]["tools"]
                assert shown["_meta"] == tool["_meta"] and shown["icons"] == tool["icons"]
        bare.gateway.use(behind(one, new))
        answer = await ask(bare, "tools/list")
        for shown in answer["result"]["tools"]:
            assert shown["_meta"]["ui"]["csp"] == tool["_meta"]["ui"]["csp"] and shown["icons"] == tool["icons"]
            assert shown["_meta"]["ui"]["resourceUri"].startswith("ui://"), "only the owner is added to it"
        assert not evil.asked
