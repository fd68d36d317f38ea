"""Lines 1, 2, 12, 13, 16, 17 and 18: whose tokens count, where they go, and who hands them out."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable
from hashlib import sha256
from typing import Any
from urllib.parse import parse_qs, urlsplit

import msgspec
import pytest

from gateway.conftest import Rig, grant, snapshot, token
from gateway.federation.servers import Upstream
from gateway.policy.rig import ISSUER, Peer, json_answer, provider
from gateway.policy.rig import token as person
from gateway.routes.certs import Authority
from quarterdeck import snapshot as s
from quarterdeck.snapshot import routing as r
from quarterdeck.snapshot.policies import (
    ApiKey,
    ApiKeys,
    Authorization,
    BasicUsers,
    CelRule,
    Jwt,
    Location,
    McpAuthentication,
    Policies,
)
from quarterdeck.wire.client import Pool
from quarterdeck.wire.tls import client_context

from .conftest import FOREVER, bearer, guard, heard, older

PATH = "/mcp/kagent/one"


def world(one: Upstream) -> s.Snapshot:
    server = s.McpServer("kagent", "one", "MCPServer", "/mcp", endpoints=(s.Endpoint("127.0.0.1", one.port),))
    return snapshot(one.port, mcp=(server,), policies=(s.AgentPolicy("kagent", "b", (grant(name="one"),)),))


async def test_s01_a_workloads_token_stays_at_the_gateway(bare: Rig, one: Upstream) -> None:
    bare.gateway.use(world(one))
    secret = token("pod-b")
    tricks = {f"x-quarterdeck-forward-{name}": secret for name in ("authorization", "x-key", "cookie")}
    tricks |= {"proxy-authorization": f"Bearer {secret}", "x-forwarded-authorization": secret, "cookie": f"t={secret}"}
    for path in (PATH, "/mcp"):
        session = await bare.initialize(path, bearer=secret, headers=dict(tricks))
        headers = {**tricks, "mcp-session-id": session}
        for method in ("tools/list", "tools/call", "prompts/list", "resources/list", "ping"):
            name = "echo" if path == PATH else "one_echo"
            await bare.rpc(path, method, {"name": name, "arguments": {}}, bearer=secret, headers=headers)
        stream = await bare.request(path, method="GET", bearer=secret, headers=headers)
        stream.close()
    assert len(one.heads) > 8 and secret.encode() not in heard(one)
    assert not any(b"authorization" in head or b"cookie" in head for head in one.heads)


PLACES: list[tuple[Callable[[str], Policies], Callable[[str], tuple[str, dict[str, str]]]]] = [
    (lambda _: Policies(jwt=Jwt((provider(),))), lambda t: ("/", {"authorization": f"Bearer {t}"})),
    (lambda _: Policies(jwt=Jwt((provider(),), location=Location("cookie", "t", ""))),
     lambda t: ("/", {"cookie": f"a=1; t={t}; b=2"})),
    (lambda _: Policies(jwt=Jwt((provider(),), location=Location("query", "t", ""))), lambda t: (f"/?a=1&t={t}", {})),
    (lambda _: Policies(jwt=Jwt((provider(),), location=Location("header", "x-token", ""))),
     lambda t: ("/", {"x-token": t})),
    (lambda t: Policies(api_keys=ApiKeys((ApiKey(sha256(t.encode()).hexdigest()),), "strict")),
     lambda t: ("/", {"authorization": f"Bearer {t}"})),
    (lambda t: Policies(basic=BasicUsers("alice:{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ=")),
     lambda _: ("/", {"authorization": "Basic " + b64encode(b"alice:secret").decode()})),
]  # fmt: skip


@pytest.mark.parametrize("place", range(len(PLACES)))
async def test_s01_a_persons_credential_stays_at_the_gateway(front: Any, start: Any, place: int) -> None:
    from gateway.routes.conftest import route, seen

    policies, send = PLACES[place]
    secret = person(exp=FOREVER)
    given = policies(secret)
    service = await start()
    await front.serve(front.listener(route(service.to(policies=given), policies=given)))
    target, headers = send(secret)
    found = await seen(await front.ask(target, headers=headers))
    assert secret not in str(found) and "YWxpY2U6c2VjcmV0" not in str(found)
    refused = await front.ask("/")
    assert refused.status == 401 and await refused.read() and len(service.seen) == 1


@pytest.mark.parametrize("audience", ["other", ["a", "b"], "", [], "mcp2", "MCP", None])
async def test_s01_a_token_of_another_audience_is_refused(bare: Rig, one: Upstream, audience: Any) -> None:
    await guard(bare, one)
    response = await bare.request("/mcp", {}, listener="front", headers=bearer(aud=audience))
    assert response.status == 401 and await response.read()
    bare.gateway.use(world(one))
    workload = {} if audience is None else {"aud": audience}
    response = await bare.request(
        PATH, {}, bearer=token("pod-b", **workload) if workload else bearer()["authorization"][7:]
    )
    assert response.status == 401 and await response.read()
    assert not one.told


# -- the authorization server that the gateway stands in for


def shared_client(issuer: str, **more: Any) -> Policies:
    jwt = Jwt((provider(issuer=issuer),))
    return Policies(mcp_authentication=McpAuthentication(jwt, issuer, client_id="shared", **more))


def metadata(issuer: Callable[[], str], **changes: Any) -> Callable[[Any], Any]:
    """What an authorization server answers to everything."""

    def answer(_: Any) -> Any:
        base = issuer()
        return json_answer({
            "issuer": base, "authorization_endpoint": f"{base}/authorize", "token_endpoint": f"{base}/token",
            "jwks_uri": f"{base}/keys", "registration_endpoint": f"{base}/register", **changes,
        })  # fmt: skip

    return answer


async def test_s02_a_shared_client_id_gives_codes_to_nobody(bare: Rig, one: Upstream) -> None:
    """Entra ID: everybody has one client id. An attacker's redirect_uri reaches the server that knows better."""
    issuer = "https://login.microsoftonline.com/tenant/v2.0"
    await guard(bare, one, policies=shared_client(issuer, provider="entra"))
    base = "/.well-known/oauth-authorization-server/mcp"
    evil = "https://evil.example/cb"
    registered = await bare.request(f"{base}/client-registration", {"redirect_uris": [evil]}, listener="front")
    assert msgspec.json.decode(await registered.read())["client_id"] == "shared"
    asked = f"response_type=code&client_id=shared&redirect_uri={evil}&state=s1&code_challenge=c"
    gone = await bare.request(f"{base}/authorize?{asked}", method="GET", listener="front")
    location = urlsplit((gone.header(b"location") or b"").decode())
    assert gone.status == 302 and location.hostname == "login.microsoftonline.com"
    query = parse_qs(location.query)
    assert (query["redirect_uri"], query["state"], query["client_id"]) == ([evil], ["s1"], ["shared"])
    for response in (registered, gone):
        assert response.header(b"set-cookie") is None, "no consent is remembered that could be used again"
    back = await bare.request("/mcp/callback?code=c&state=s1", method="GET", listener="front")
    assert back.status == 401, "there is no address here that codes come to"


@pytest.mark.parametrize(
    "uri",
    ["javascript:alert(1)", "data:text/html,x", "file:///etc/passwd", "http://evil.example/cb", "https://a/cb#f",
     "https://u:p@a/cb", "//evil.example", "", 5, " https://a/cb", "vbscript:x"],
)  # fmt: skip
async def test_s18_a_shared_client_is_not_registered_for_addresses_that_are_no_clients(
    bare: Rig, one: Upstream, uri: Any
) -> None:
    await guard(bare, one, policies=shared_client(ISSUER, provider="okta"))
    where = "/.well-known/oauth-authorization-server/mcp/client-registration"
    good = ["https://app.example/cb", "http://localhost:3030/cb", "http://127.0.0.1/cb", "cursor://callback"]
    refused = await bare.request(where, {"redirect_uris": [*good, uri]}, listener="front")
    assert refused.status == 400 and b"redirect" in await refused.read()
    taken = await bare.request(where, {"redirect_uris": good}, listener="front")
    assert taken.status == 201 and msgspec.json.decode(await taken.read())["redirect_uris"] == good


@pytest.mark.parametrize(
    "changes",
    [{"authorization_endpoint": "javascript:alert(1)"}, {"token_endpoint": "file:///etc/passwd"},
     {"authorization_endpoint": "data:text/html,x"}, {"registration_endpoint": "vbscript:x"},
     {"authorization_endpoint": True}, {"jwks_uri": "JavaScript:x"}, {"revocation_endpoint": "ftp://h/x"}],
)  # fmt: skip
async def test_s16_metadata_that_leads_nowhere_good_is_not_passed_on(bare: Rig, one: Upstream, changes: Any) -> None:
    async with Peer(lambda e: metadata(lambda: peer.url, **changes)(e)) as peer:
        await guard(bare, one, policies=shared_client(peer.url))
        response = await bare.request("/.well-known/oauth-authorization-server/mcp", method="GET", listener="front")
        assert response.status == 502
        text = await response.read()
        assert b"is no http(s) URL" in text and not any(str(value).encode() in text for value in changes.values())


@pytest.mark.parametrize("suffix", ["/", "/x", "?a", "%2f"])
async def test_s17_metadata_of_another_issuer_is_not_passed_on(bare: Rig, one: Upstream, suffix: str) -> None:
    async with Peer(lambda e: metadata(lambda: peer.url + suffix)(e)) as peer:
        await guard(bare, one, policies=shared_client(peer.url))
        response = await bare.request("/.well-known/oauth-authorization-server/mcp", method="GET", listener="front")
        assert response.status == 502 and b"another issuer" in await response.read()


@pytest.mark.parametrize(
    "issuer", [ISSUER + "/", ISSUER.upper(), ISSUER.replace("https", "http"), "", None, 5, [ISSUER]]
)
async def test_s17_a_token_of_an_issuer_that_is_nearly_ours_is_refused(bare: Rig, one: Upstream, issuer: Any) -> None:
    await guard(bare, one)
    response = await bare.request("/mcp", {}, listener="front", headers=bearer(iss=issuer))
    assert response.status == 401 and await response.read() and not one.told


# -- rights


async def test_s12_what_nobody_granted_is_denied(bare: Rig, one: Upstream) -> None:
    bare.gateway.use(world(one))
    for pod, method in (("pod-a", "initialize"), ("pod-c", "tools/list"), ("pod-a", "tools/call")):
        answer = await bare.rpc(PATH, method, {"name": "echo"}, bearer=token(pod))
        assert answer["error"]["code"] == 4003, "other agents of the same ServiceAccount have no part in b's grant"
    rules = (Authorization((CelRule("allow", 'mcp.tool.name == "echo" && "tools" in jwt.scope.split(" ")'),)),)
    await guard(bare, one, policies=Policies(jwt=Jwt((provider(),)), mcp_authorization=rules))
    headers = bearer(scope="tools")
    session = await bare.initialize("/mcp", listener="front", headers=headers)
    assert "result" in await older(bare, session, "tools/call", headers, name="echo", arguments={})
    calls = len(one.requests("tools/call"))
    for held in ({"scope": "*"}, {"scope": "tools2"}, {"scope": ["other"]}, {}):
        lesser = bearer(**held)
        refused = await older(bare, session, "tools/call", lesser, name="echo", arguments={})
        assert "error" in refused, held
        assert refused["error"]["message"] == "Unknown tool: echo", "decided again for each call of the session"
    assert len(one.requests("tools/call")) == calls


async def test_s12_a_step_up_asks_for_what_is_missing_and_nothing_else(bare: Rig, one: Upstream) -> None:
    mcp = McpAuthentication(
        Jwt((provider(),)), ISSUER, scopes=("use",), tool_scopes={"echo": ("write",)},
        resource_metadata={"scopesSupported": ["use", "write", "admin"]},
    )  # fmt: skip
    await guard(bare, one, policies=Policies(mcp_authentication=mcp))
    headers = bearer(scope="use")
    session = await bare.initialize("/mcp", listener="front", headers=headers)
    body = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "echo", "arguments": {}}}
    for scope, asked in (("use", 'scope="write"'), ("write", 'scope="use"'), ("*", 'scope="use"'), ("", 'scope="use"')):
        sent = {**bearer(scope=scope), "mcp-session-id": session}
        response = await bare.request("/mcp", body, listener="front", headers=sent)
        challenge = (response.header(b"www-authenticate") or b"").decode()
        assert response.status == 403 and 'error="insufficient_scope"' in challenge and asked in challenge
        assert "admin" not in challenge and "*" not in challenge and await response.read()
    assert not one.requests("tools/call")


ANYTHING = [
    ("POST", "/mcp"), ("GET", "/mcp"), ("DELETE", "/mcp"), ("POST", PATH), ("GET", PATH), ("DELETE", PATH),
    ("PUT", PATH), ("GET", "/sse"), ("GET", f"{PATH}/sse"), ("POST", "/a2a/kagent/x"),
    ("GET", "/a2a/kagent/x/.well-known/agent-card.json"),
    ("GET", "/a2a/kagent/x/extendedAgentCard"), ("POST", "/llm/kagent/m/v1/chat/completions"), ("GET", "/v1/models"),
    ("GET", "/"), ("GET", "/healthz/ready"), ("GET", "/metrics"), ("GET", "/config_dump"), ("POST", "/revocations"),
    ("POST", "/logging"), ("OPTIONS", "/mcp"), ("GET", "/.well-known/oauth-protected-resource"), ("HEAD", "/mcp"),
]  # fmt: skip


async def test_s13_every_path_of_a_guarded_port_needs_a_token(bare: Rig, one: Upstream) -> None:
    agent = s.Agent("kagent", "x", (s.Endpoint("127.0.0.1", one.port),))
    bare.gateway.use(msgspec.structs.replace(world(one), agents=(agent,)))
    upgrade = {
        "connection": "upgrade",
        "upgrade": "websocket",
        "sec-websocket-version": "13",
        "sec-websocket-key": "eA==",
    }
    for headers in ({}, {"authorization": "Bearer "}, {"authorization": "Basic YTpi"}, {"x-user-id": "admin"}, upgrade):
        for method, path in ANYTHING:
            response = await bare.request(path, {}, method=method, headers=headers)
            await response.read()
            assert response.status == 401, f"{method} {path} with {headers} gave {response.status}"
            assert (response.header(b"www-authenticate") or b"").startswith(b"Bearer")
    assert not one.told and not one.heads


async def test_s13_every_path_of_a_guarded_route_needs_a_token(bare: Rig, one: Upstream) -> None:
    mcp = McpAuthentication(Jwt((provider(),)), ISSUER)
    await guard(bare, one, policies=Policies(mcp_authentication=mcp))
    for method, path in ANYTHING:
        if method != "OPTIONS" and not path.startswith("/.well-known"):
            response = await bare.request(path, {}, method=method, listener="front")
            await response.read()
            assert response.status == 401, f"{method} {path} gave {response.status}"
    assert not one.told and not one.heads


async def test_s13_the_operators_ports_are_not_those_of_callers(bare: Rig, one: Upstream) -> None:
    bare.gateway.use(world(one))
    for path in ("/config_dump", "/revocations", "/logging", "/breakers", "/tools/kagent/one", "/metrics"):
        for listener, bearing in (("workloads", token("pod-b")), ("local", None)):
            response = await bare.request(path, method="GET", listener=listener, bearer=bearing)
            assert response.status == 404 and await response.read()


@pytest.mark.parametrize("shown", [{}, {"x-key": "wrong"}])
async def test_s13_what_is_known_of_a_head_is_not_believed_of_another_certificate(
    bare: Rig, one: Upstream, shown: dict[str, str]
) -> None:
    """Two people send the very same bytes over connections of their own: the certificate tells them apart."""
    authority = Authority("people")
    chain, key = authority.sign("localhost")
    policies = Policies(api_keys=ApiKeys((ApiKey("0" * 64),), "permissive", Location("header", "x-key", "")))
    await guard(bare, one, policies=policies)
    (listener,) = bare.gateway.snapshot.listeners
    secured: dict[str, Any] = {"protocol": "HTTPS", "certificates": (r.Certificate(chain, key),)}
    listener = msgspec.structs.replace(listener, client_ca=authority.pem, **secured)
    bare.gateway.use(msgspec.structs.replace(bare.gateway.snapshot, version="tls", listeners=(listener,)))
    await bare.gateway.listeners.settled()
    port = int(bare.gateway.endpoints["front"].rpartition(":")[2])
    call = b'{"jsonrpc":"2.0","id":1,"method":"ping"}'
    lines = [(b"host", b"localhost"), (b"content-type", b"application/json")]
    lines += [(name.encode(), value.encode()) for name, value in shown.items()]
    for name in ("alice", "eve", "alice", "eve"):
        mine = client_context(ca_pem=authority.pem, certificate=(pair := authority.sign(name))[0], key=pair[1])
        pool = Pool(tls=mine, server_hostname="localhost")
        for _ in range(3):
            await (await pool.request("POST", ("127.0.0.1", port, True), "/mcp", lines, call)).read()
        pool.close()
        named = [record["principal"] for record in bare.records()[-3:]]
        assert all(f"CN={name}" in each for each in named), named
