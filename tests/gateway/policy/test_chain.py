"""The order of rules, what each answers, and what changes on the way to the backend and back."""

from __future__ import annotations

import asyncio
from typing import Any
from urllib.parse import parse_qsl

import msgspec
import pytest

from quarterdeck.gateway.http.call import RouteRef
from quarterdeck.gateway.policy.authorizer import Decision
from quarterdeck.gateway.policy.chain import Chain, chain_for, mcp_chain
from quarterdeck.gateway.policy.refusal import Refusal
from quarterdeck.snapshot.policies import (
    Authorization,
    BackendCredential,
    CelRule,
    Cors,
    Csrf,
    ExtAuth,
    Jwt,
    Location,
    OAuthClient,
    Policies,
    Transform,
    Transformation,
)
from quarterdeck.wire.http import Exchange

from .rig import (
    Peer,
    admit,
    admit_now,
    chain,
    header,
    json_answer,
    jwks,
    provider,
    request,
    services,
    token,
    tokens,
)

FAR = ("192.0.2.7", 4000)


def allow(*expressions: str) -> tuple[Authorization, ...]:
    return (Authorization(tuple(CelRule("allow", e) for e in expressions)),)


# -- callers without a credential
@pytest.mark.parametrize(
    "options,refused",
    [
        ({"host": "127.0.0.1:8080"}, ""),
        ({"host": "[::1]:8080"}, ""),
        ({"host": "evil.example"}, "localhost"),  # a name bound to this machine by somebody else
        ({"host": "localhost", "peer": FAR}, "--allow-anonymous"),
        ({"host": "localhost", "origin": "https://evil.example"}, "web origin"),
        ({"host": "localhost:8080", "origin": "http://localhost:5173"}, ""),
        ({"host": "localhost", "sec_fetch_site": "cross-site"}, "other sites"),
        ({"host": "evil.example", "sec_fetch_site": "same-origin"}, "localhost"),
        ({"host": "evil.example", "origin": "http://evil.example"}, "localhost"),
    ],
)
def test_a_route_without_credentials_is_for_this_machine(options: dict[str, Any], refused: str) -> None:
    call = request("POST", **options)
    refusal = admit_now(chain(), call)
    if refused:
        assert refusal is not None and refusal.status == 403 and refused in refusal.message
    else:
        assert refusal is None and call.principal.anonymous


def test_a_host_name_of_the_configuration_is_as_good_as_localhost() -> None:
    for origin, status in (("", None), ("http://gw.example.org", None), ("https://evil.example", 403)):
        call = request("POST", **({"origin": origin} if origin else {}))
        call.exchange.route = RouteRef(named=True)
        refusal = admit_now(chain(), call)
        assert (refusal.status if refusal else None) == status
    plain = request("POST")
    plain.kind = "http"
    assert admit_now(chain(), plain) is None, "services behind plain routes have hosts of their own"
    page = request("POST", sec_fetch_site="same-origin")
    page.kind = "http"
    assert admit_now(chain(), page) is not None


def test_open_routes_are_for_everybody() -> None:
    call = request(peer=FAR)
    assert admit_now(chain(open=True), call) is None and call.principal.anonymous


def test_forwarded_callers_are_not_of_this_machine() -> None:
    given = services(trusted_hops=("127.0.0.0/8", "10.0.0.0/8"))
    rules = chain(given=given)
    assert admit_now(rules, request(host="localhost")) is None
    refusal = admit_now(rules, request(host="localhost", x_forwarded_for="203.0.113.9, 10.1.1.1"))
    assert refusal is not None and refusal.status == 403
    call = request(x_forwarded_for="6.6.6.6, 203.0.113.9, 10.1.1.1", x_forwarded_proto="https")
    admit_now(chain(given=given, open=True), call)
    assert call.exchange.admission.client_address == "203.0.113.9" and call.exchange.admission.secure
    spoofed = request(peer=FAR, x_forwarded_for="127.0.0.1", x_forwarded_proto="https")
    admit_now(chain(given=given, open=True), spoofed)
    assert spoofed.exchange.admission.client_address == FAR[0] and not spoofed.exchange.admission.secure


def test_a_listeners_chain_leaves_the_caller_to_the_route() -> None:
    listener = Chain(Policies(cors=Cors(("*",))), services(), where="listener/x", final=False)
    call = request(peer=FAR)
    assert admit_now(listener, call) is None
    refusal = admit_now(chain(), call)
    assert refusal is not None and refusal.status == 403
    gate = Chain(Policies(jwt=tokens()), services(), where="listener/x", final=False)
    call = request(peer=FAR, bearer=token())
    assert admit_now(gate, call) is None and admit_now(chain(), call) is None
    assert call.principal.username == "alice"
    assert not any(name == b"authorization" for name, _ in chain().outgoing(call, list(call.exchange.headers)))


def test_a_workload_shows_its_service_account_token_and_the_backend_does_not_see_it() -> None:
    from quarterdeck.gateway.policy.authentication import Authenticator

    from ..conftest import snapshot
    from ..conftest import token as workload_token

    identities = msgspec.structs.replace(snapshot(1).identities, anonymous_local=False)
    authenticator = Authenticator(identities)
    rules = Chain(Policies(), services(), where="r", authenticator=authenticator)
    call = request(peer=FAR, bearer=workload_token())
    assert admit_now(rules, call) is None and call.principal.agent == "kagent/a"
    assert not any(name == b"authorization" for name, _ in rules.outgoing(call, list(call.exchange.headers)))
    foreign = request(bearer="a-token-for-the-backend", host="localhost")
    refusal = admit_now(rules, foreign)
    assert refusal is not None and refusal.status == 403, "where agents run, an address of this machine proves nothing"
    rules = Chain(Policies(open=True), services(), where="r", authenticator=authenticator)
    foreign = request(bearer="a-token-for-the-backend", host="localhost")
    assert admit_now(rules, foreign) is None and foreign.principal.anonymous
    assert (b"authorization", b"Bearer a-token-for-the-backend") in rules.outgoing(
        foreign, list(foreign.exchange.headers)
    )


def test_an_agent_stays_one_where_a_route_takes_tokens_of_its_issuer() -> None:
    from quarterdeck.gateway.policy.authentication import Authenticator

    from ..conftest import ISSUER as WORKLOADS
    from ..conftest import KEY as WORKLOAD_KEY
    from ..conftest import snapshot
    from ..conftest import token as workload_token

    authenticator = Authenticator(snapshot(1).identities)
    issuer = provider(issuer=WORKLOADS, audiences=(), jwks=jwks(WORKLOAD_KEY))
    rules = Chain(Policies(jwt=Jwt((issuer, provider()))), services(), where="r", authenticator=authenticator)
    call = request(bearer=workload_token())
    assert admit_now(rules, call) is None and call.principal.agent == "kagent/a"
    assert call.principal.claims["iss"] == WORKLOADS
    pretender = request(bearer=token(**{"kubernetes.io": {"pod": {"uid": "pod-a"}}}))
    assert admit_now(rules, pretender) is None and not pretender.principal.agent


# -- order
class _Revoked:
    active = True

    def refusal(self, principal: Any, headers: Any) -> Decision | None:
        return Decision("deny", "revoked/user/alice", "revoked") if principal.username == "alice" else None


def test_steps_come_in_order() -> None:
    limited: list[str] = []

    def limits(policies: Policies, where: str) -> Any:
        def check(call: Any) -> Refusal | None:
            limited.append(call.principal.id)
            return Refusal(429, "slow down") if call.headers.get(b"x-much") else None

        return check

    rules = chain(
        cors=Cors(("https://app.example",), ("GET",)),
        csrf=Csrf(),
        jwt=tokens(),
        authorization=allow('request.path == "/ok"'),
        given=services(limits=limits),
    )
    page = {"origin": "https://app.example"}
    preflight = admit_now(rules, request("OPTIONS", **page, access_control_request_method="GET"))
    assert preflight is not None and preflight.outcome == "ok" and preflight.status == 200
    statuses = [
        admit_now(rules, request("POST", "/no", origin="https://evil.example")),
        admit_now(rules, request("GET", "/no")),
        admit_now(rules, request("GET", "/no", bearer=token())),
        admit_now(rules, request("GET", "/ok", bearer=token(), x_much="1")),
        admit_now(rules, request("GET", "/ok", bearer=token())),
    ]
    assert [s.status if s else None for s in statuses] == [403, 401, 403, 429, None]
    assert [s.rule for s in statuses if s][:3] == ["csrf", "route/demo/jwt", "route/demo/authorization/default"]
    assert len(limited) == 2 and limited[0].startswith("alice@")


def test_the_kill_switch_ends_it_right_after_authentication() -> None:
    rules = chain(jwt=tokens(), given=services(revocations=_Revoked()))
    refusal = admit_now(rules, request(bearer=token()))
    assert refusal is not None and (refusal.status, refusal.rule) == (403, "revoked/user/alice")
    assert admit_now(rules, request(bearer=token(sub="bob"))) is None


def test_rules_that_do_not_compile_close_the_route() -> None:
    broken = Policies(open=True, authorization=allow("request.pth == 'x'"))
    closed = chain_for(broken, services(), where="route/x")
    refusal = admit_now(closed, request())
    assert refusal is not None and refusal.status == 500
    assert not closed.decide(request(), "tools/call", "x").allow


# -- CORS and CSRF
CORS = Cors(("https://*.example.org", "http://localhost:3000"), ("GET", "POST"), ("x-a", "x-b"), ("x-c",), True, 600)


@pytest.mark.parametrize(
    "origin,allowed",
    [
        ("https://app.example.org", True), ("https://a.b.example.org", True), ("https://example.org", False),
        ("http://app.example.org", False), ("https://app.example.org:8443", False), ("http://localhost:3000", True),
        ("https://app.example.org.evil.com", False), ("null", False), ("https://*.example.org", False),
    ],
)  # fmt: skip
def test_which_origins_may_read(origin: str, allowed: bool) -> None:
    rules = chain(cors=CORS, open=True)
    preflight = admit_now(rules, request("OPTIONS", origin=origin, access_control_request_method="POST"))
    assert preflight is not None and preflight.status == 200
    assert header(preflight, b"access-control-allow-origin") == (origin if allowed else "")
    if allowed:
        assert header(preflight, b"access-control-allow-methods") == "GET, POST"
        assert header(preflight, b"access-control-allow-headers") == "x-a, x-b"
        assert header(preflight, b"access-control-max-age") == "600"
        assert header(preflight, b"access-control-allow-credentials") == "true"
    call = request("GET", origin=origin)
    assert admit_now(rules, call) is None
    answer = dict(rules.incoming(call, 200, [(b"content-type", b"text/plain")]))
    assert answer.get(b"access-control-allow-origin", b"").decode() == (origin if allowed else "")
    assert answer[b"vary"] == b"Origin"


def test_wildcards_echo_what_was_asked_for() -> None:
    rules = chain(cors=Cors(("*",), ("*",), ("*",)))
    asked = {"access_control_request_method": "PUT", "access_control_request_headers": "x-1, x-2"}
    preflight = admit_now(rules, request("OPTIONS", origin="https://any.example", **asked))
    assert preflight is not None
    assert header(preflight, b"access-control-allow-methods") == "PUT"
    assert header(preflight, b"access-control-allow-headers") == "x-1, x-2"


@pytest.mark.parametrize(
    "headers,refused",
    [
        ({}, False),
        ({"sec_fetch_site": "same-origin"}, False),
        ({"sec_fetch_site": "none"}, False),
        ({"sec_fetch_site": "cross-site"}, True),
        ({"sec_fetch_site": "same-site", "origin": "https://other.example"}, True),
        ({"sec_fetch_site": "cross-site", "origin": "https://trusted.example"}, False),
        ({"origin": "https://gw.example.org"}, False),
        ({"origin": "https://evil.example"}, True),
        ({"origin": "https://trusted.example"}, False),
        ({"origin": "null"}, True),
    ],
)
def test_csrf(headers: dict[str, str], refused: bool) -> None:
    rules = chain(csrf=Csrf(("https://trusted.example",)), open=True)
    refusal = admit_now(rules, request("POST", **headers))
    assert (refusal is not None) is refused and (refusal is None or refusal.status == 403)
    assert admit_now(rules, request("GET", **headers)) is None


# -- the external authorizer
def ext(url: str, **changes: Any) -> Policies:
    return Policies(open=True, ext_auth=ExtAuth(url, **changes))


async def test_the_authorizer_is_asked_with_what_it_needs_and_its_headers_go_on() -> None:
    def answer(exchange: Exchange) -> tuple[int, list[tuple[bytes, bytes]], bytes]:
        return 200, [(b"x-user", b"alice"), (b"x-other", b"no")], b'{"team": "infra"}'

    async with Peer(answer) as peer:
        given = services()
        rules = chain(
            ext(
                f"{peer.url}/check",
                copy_headers=("X-User", "X-Admin"),
                add_headers=(("x-path", "request.path"), ("x-none", "jwt.sub")),
                metadata=(("team", "json(response.body).team"),),
            ),
            given=given,
        )
        call = request("POST", "/a/b?c=d", authorization="Bearer t", cookie="s=1", x_admin="yes", body=b"hello")
        assert await admit(rules, call) is None
        given.upstreams.close()
    asked = peer.asked[0]
    assert (asked.method, asked.target, asked.body) == ("POST", b"/check/a/b?c=d", b"")
    told = dict(asked.headers)
    assert told[b"authorization"] == b"Bearer t" and told[b"cookie"] == b"s=1" and told[b"x-path"] == b"/a/b"
    assert told[b"x-forwarded-method"] == b"POST" and b"x-none" not in told and b"x-admin" not in told
    sent = rules.outgoing(call, list(call.exchange.headers))
    assert (b"x-user", b"alice") in sent
    assert not any(name in (b"x-admin", b"x-other") for name, _ in sent), "only the authorizer may say x-admin"
    assert rules.outgoing_lines(call) == b"x-user: alice\r\n"
    assert call.exchange.admission.extauthz == {"team": "infra"}


@pytest.mark.parametrize(
    "status,answered", [(401, 401), (403, 403), (404, 404), (302, 302), (500, 418), (503, 418), (100_000, 418)]
)
async def test_what_a_refusing_or_broken_authorizer_means(status: int, answered: int) -> None:
    headers = [(b"www-authenticate", b"Basic"), (b"location", b"https://login.example/"), (b"x-secret", b"1")]
    async with Peer(lambda _: (status if status < 1000 else 200, headers, b"no")) as peer:
        given = services()
        url = peer.url if status < 1000 else "http://127.0.0.1:1"
        refusal = await admit(chain(ext(url, deny_status=418, timeout=2.0), given=given), request())
        assert refusal is not None and refusal.status == answered
        if status < 500:
            assert header(refusal, b"location") and not header(refusal, b"x-secret") and refusal.body == b"no"
        fails_open = await admit(chain(ext(url, fail_open=True, timeout=2.0), given=given), request())
        assert (fails_open is None) is (answered == 418)
        given.upstreams.close()


async def test_a_slow_authorizer_refuses_in_time() -> None:
    silent = asyncio.Event()

    async def never(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await silent.wait()
        writer.close()

    server = await asyncio.start_server(never, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    refusal = await admit(chain(ext(f"http://127.0.0.1:{port}", timeout=0.05)), request())
    assert refusal is not None and refusal.status == 403
    silent.set()
    server.close()


async def test_the_authorizer_may_read_the_start_of_the_body_and_send_people_to_sign_in() -> None:
    async with Peer(lambda e: (200 if e.body == b"0123456789" else 401, [], b"")) as peer:
        given = services()
        rules = chain(ext(peer.url, body=10, partial=True, redirect='"/login?to=" + request.path'), given=given)
        assert rules.needs_body
        assert await admit(rules, request("POST", body=b"0123456789abc")) is None
        refusal = await admit(rules, request("POST", "/x", body=b"other"))
        assert refusal is not None and refusal.status == 302 and header(refusal, b"location") == "/login?to=/x"
        strict = chain(ext(peer.url, body=10), given=given)
        refusal = await admit(strict, request("POST", body=b"0123456789abc"))
        assert refusal is not None and refusal.status == 413
        given.upstreams.close()


# -- transformations
def test_headers_paths_and_bodies_are_computed() -> None:
    change = Transform(
        add=(("x-add", '"1"'),),
        set=(
            ("x-user", "jwt.sub"),
            ("x-missing", "jwt.nope"),
            (":path", '"/new" + request.path'),
            (":authority", '"inner"'),
        ),
        remove=("X-Secret",),
        body='{"wrapped": json(request.body)}',
    )
    rules = chain(jwt=tokens(), transformation=Transformation(change))
    call = request(
        "POST", "/p", bearer=token(), x_user="root", x_missing="spoofed", x_secret="1", x_add="0", body=b'{"n":1}'
    )
    assert admit_now(rules, call) is None
    sent = rules.outgoing(call, list(call.exchange.headers))
    values = {name: [v for n, v in sent if n == name] for name, _ in sent}
    assert values[b"x-user"] == [b"alice"] and values[b"x-add"] == [b"0", b"1"] and values[b"host"] == [b"inner"]
    assert b"x-missing" not in values and b"x-secret" not in values and b"authorization" not in values
    assert rules.outgoing_target(call, b"/p") == b"/new/p"
    assert msgspec.json.decode(rules.request_body(call, call.exchange.body)) == {"wrapped": {"n": 1}}
    assert b"x-user: alice\r\n" in rules.outgoing_lines(call)


def test_responses_too() -> None:
    change = Transform(
        set=(("x-code", "string(response.code)"), ("x-was", "response.headers['server']")),
        remove=("server",),
        body='toJson({"user": jwt.sub, "data": json(response.body)})',
    )
    rules = chain(jwt=tokens(), transformation=Transformation(None, change))
    call = request(bearer=token())
    assert admit_now(rules, call) is None
    assert rules.edits_response and rules.buffers_response
    headers = rules.incoming(call, 201, [(b"server", b"x/1"), (b"x-code", b"0")])
    assert sorted(headers) == [(b"x-code", b"201"), (b"x-was", b"x/1")]
    assert msgspec.json.decode(rules.response_body(call, 201, headers, b"[1]")) == {"user": "alice", "data": [1]}
    assert rules.response_body(call, 201, headers, b"no json") == b"no json"


def test_a_value_cannot_break_the_framing() -> None:
    change = Transform(set=(("x-a", 'request.headers["x-in"] + "\\r\\nx-evil: 1"'),))
    rules = chain(transformation=Transformation(change), open=True)
    call = request(x_in="v")
    assert admit_now(rules, call) is None
    assert not any(name == b"x-a" for name, _ in rules.outgoing(call, []))


@pytest.mark.parametrize("name", ["transfer-encoding", "Content-Length", "bad name", ":status", ""])
def test_headers_that_frame_the_message_are_not_for_rules(name: str) -> None:
    closed = chain_for(
        Policies(transformation=Transformation(Transform(set=((name, "'x'"),)))), services(), where="route/x"
    )
    refusal = admit_now(closed, request())
    assert refusal is not None and refusal.status == 500


# -- credentials for backends
def test_the_callers_token_goes_on_only_where_told_to() -> None:
    call = request(bearer=token())
    headers = list(call.exchange.headers)
    stripped = chain(jwt=tokens())
    assert admit_now(stripped, call) is None
    assert not any(n == b"authorization" for n, _ in stripped.outgoing(call, headers))
    assert stripped.outgoing_lines(call) == b""
    passing = chain(
        jwt=tokens(), credential=BackendCredential("passthrough", location=Location("header", "x-token", ""))
    )
    call = request(bearer=token())
    assert admit_now(passing, call) is None
    sent = passing.outgoing(call, headers)
    assert any(n == b"x-token" for n, _ in sent) and not any(n == b"authorization" for n, _ in sent)
    keyed = chain(jwt=tokens(), credential=BackendCredential("key", " s3cret\n"))
    call = request(bearer=token())
    assert admit_now(keyed, call) is None
    assert [v for n, v in keyed.outgoing(call, headers) if n == b"authorization"] == [b"Bearer s3cret"]
    assert keyed.outgoing_lines(call) == b"authorization: Bearer s3cret\r\n"


async def test_client_credentials_are_fetched_once_and_again_before_they_end() -> None:
    issued: list[bytes] = []

    def answer(exchange: Exchange) -> Any:
        issued.append(exchange.body)
        return json_answer({"access_token": f"t{len(issued)}", "token_type": "Bearer", "expires_in": 100})

    async with Peer(answer) as issuer:
        from .rig import Clock

        clock = Clock()
        given = services(clock)
        client = OAuthClient(f"{issuer.url}/token", "me", "pass:word", ("a", "b"), ("aud",))
        policies = Policies(open=True, credential=BackendCredential("client_credentials", oauth=client))
        first, second = chain(policies, given=given), chain(policies, given=given)
        calls = [request() for _ in range(3)]
        assert await asyncio.gather(*(admit(first, call) for call in calls)) == [None, None, None]
        assert {first.outgoing_lines(call) for call in calls} == {b"authorization: Bearer t1\r\n"}
        assert admit_now(second, request()) is None, "one store for all routes of this client"
        clock.now += 71
        call = request()
        assert await admit(first, call) is None and first.outgoing_lines(call) == b"authorization: Bearer t2\r\n"
        given.upstreams.close()
    assert len(issued) == 2 and b"grant_type=client_credentials" in issued[0] and b"scope=a+b" in issued[0]
    assert dict(issuer.asked[0].headers)[b"authorization"].startswith(b"Basic ")


async def test_a_users_token_is_exchanged_for_one_of_the_backend() -> None:
    def answer(exchange: Exchange) -> Any:
        form = dict(pair.split(b"=", 1) for pair in exchange.body.split(b"&"))
        if form[b"grant_type"] != b"urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Atoken-exchange":
            return json_answer({"error": "unsupported_grant_type"}, 400)
        return json_answer({"access_token": "for-" + str(hash(form[b"subject_token"])), "expires_in": 100})

    async with Peer(answer) as issuer:
        given = services()
        credential = BackendCredential("token_exchange", oauth=OAuthClient(f"{issuer.url}/t", "me", audiences=("b",)))
        rules = chain(Policies(jwt=tokens("optional"), credential=credential), given=given)
        alice, bob, again = request(bearer=token()), request(bearer=token(sub="bob")), request(bearer=token())
        again.headers[b"authorization"] = alice.headers[b"authorization"]
        for call in (alice, bob, again):
            assert await admit(rules, call) is None
        lines = [rules.outgoing_lines(call) for call in (alice, bob, again)]
        assert lines[0] == lines[2] != lines[1] and len(issuer.asked) == 2
        refusal = admit_now(rules, request())
        assert refusal is not None and refusal.status == 401
        given.upstreams.close()


async def test_cross_app_access_asks_the_identity_provider_first() -> None:
    """ID-JAG (draft-ietf-oauth-identity-assertion-authz-grant): exchange at one, assertion at the other."""

    def form(exchange: Exchange) -> dict[str, str]:
        return dict(parse_qsl(exchange.body.decode()))

    def identify(exchange: Exchange) -> Any:
        asked = form(exchange)
        assert asked["requested_token_type"] == "urn:ietf:params:oauth:token-type:id-jag"
        assert asked["subject_token_type"] == "urn:ietf:params:oauth:token-type:id_token"
        assert asked["audience"] == "https://resource-as.example"
        return json_answer(
            {"access_token": f"jag-{asked['subject_token'][-5:]}", "token_type": "N_A", "expires_in": 60}
        )

    def grant(exchange: Exchange) -> Any:
        asked = form(exchange)
        assert asked["grant_type"] == "urn:ietf:params:oauth:grant-type:jwt-bearer"
        return json_answer({"access_token": f"for-{asked['assertion']}", "expires_in": 100})

    async with Peer(identify) as provider_peer, Peer(grant) as server:
        given = services()
        first = OAuthClient(
            f"{provider_peer.url}/token",
            "gw",
            "s1",
            audiences=("https://resource-as.example",),
            requested_token_type="urn:ietf:params:oauth:token-type:id-jag",
            subject_token_type="urn:ietf:params:oauth:token-type:id_token",
        )
        second = OAuthClient(f"{server.url}/token", "gw", "s2", ("read",), grant="jwt_bearer", assertion=first)
        rules = chain(jwt=tokens(), credential=BackendCredential("token_exchange", oauth=second), given=given)
        bearer = token()
        call = request(bearer=bearer)
        assert await admit(rules, call) is None
        assert rules.outgoing_lines(call) == f"authorization: Bearer for-jag-{bearer[-5:]}\r\n".encode()
        assert admit_now(rules, request(bearer=bearer)) is None
        given.upstreams.close()
    assert len(provider_peer.asked) == len(server.asked) == 1


async def test_no_token_no_request() -> None:
    async with Peer(lambda _: json_answer({"error": "invalid_client"}, 401)) as issuer:
        given = services()
        credential = BackendCredential("client_credentials", oauth=OAuthClient(issuer.url, "me"))
        refusal = await admit(chain(open=True, credential=credential, given=given), request())
        assert refusal is not None and refusal.status == 502 and "invalid_client" in refusal.message
        given.upstreams.close()


# -- targets of MCP backends
def test_targets_without_rules_of_their_own_have_no_chain() -> None:
    assert mcp_chain(Policies(jwt=tokens()), services(), "t") is None
    rules = mcp_chain(Policies(mcp_authorization=allow('jwt.sub == "alice" && mcp.tool.name == "a"')), services(), "t")
    assert rules is not None
    route = chain(jwt=tokens())
    call = request(bearer=token())
    assert admit_now(route, call) is None
    assert rules.decide(call, "tools/call", "a", "t_a").allow and not rules.decide(call, "tools/call", "b", "t_b").allow
    assert rules.decide(call, "tools/list", "").allow
