"""Finding out what protects a server, and what must not be believed about it."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from quarterdeck.errors import UpstreamError
from quarterdeck.gateway.oauth import challenge, discovery, flow, registration
from quarterdeck.gateway.oauth.challenge import Challenge
from quarterdeck.gateway.oauth.discovery import Found, Server
from quarterdeck.gateway.oauth.guard import GuardedFetcher
from quarterdeck.gateway.oauth.registration import Identity
from quarterdeck.gateway.oauth.token_endpoint import Client
from quarterdeck.gateway.policy.fetch import Answer
from quarterdeck.gateway.upstream import Upstreams
from quarterdeck.snapshot.sign_in import SignIn
from quarterdeck.wire.http import Server as WebServer

MCP = "https://notes.example/a/mcp"
ISSUER = "https://id.example/t1"


class Web(GuardedFetcher):
    """A web of documents by URL; what is not there is 404. Which URLs may be asked is decided as ever."""

    def __init__(self, pages: dict[str, Any], *named: str) -> None:
        super().__init__(frozenset({"notes.example", *named}), Upstreams().refuse)
        self.pages = pages
        self.asked: list[str] = []

    async def request(self, method: str, url: str, headers: Any = (), body: bytes = b"", **_: Any) -> Answer:
        self.asked.append(url)
        page = self.pages.get(url)
        if isinstance(page, int):
            return Answer(page, [], b"")
        return Answer(404 if page is None else 200, [], msgspec.json.encode(page))


def server(issuer: str = ISSUER, **changes: Any) -> dict[str, Any]:
    found = {
        "issuer": issuer, "authorization_endpoint": f"{issuer}/authorize", "token_endpoint": f"{issuer}/token",
        "code_challenge_methods_supported": ["S256"],
    }  # fmt: skip
    return found | changes


def resource(**changes: Any) -> dict[str, Any]:
    return {"resource": MCP, "authorization_servers": [ISSUER], **changes}


OAUTH = "https://id.example/.well-known/oauth-authorization-server/t1"
WELL_KNOWN = "https://notes.example/.well-known/oauth-protected-resource"


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (b'Bearer realm="x", scope="a b", resource_metadata="https://h/m"', ("", "a b", "https://h/m")),
        (b'Basic realm="x", Bearer error="insufficient_scope", scope=w', ("insufficient_scope", "w", "")),
        (b'bearer error="a\\"b"', ('a"b', "", "")),
        (b"Basic abc==", ("", "", "")),
        (b"Bearer", ("", "", "")),
        (b'Bearer scope="a", DPoP scope="b"', ("", "a", "")),
        (b'\xff\xfe,,,="', ("", "", "")),
    ],
)
def test_challenges(header: bytes, expected: tuple[str, str, str]) -> None:
    found = challenge.read(401, [(b"www-authenticate", header)])
    assert (found.error, found.scope, found.resource_metadata) == expected


@pytest.mark.parametrize(
    ("pages", "told"),
    [
        ({"https://notes.example/meta": resource(), OAUTH: server()}, "https://notes.example/meta"),
        ({f"{WELL_KNOWN}/a/mcp": resource(), OAUTH: server()}, ""),
        ({WELL_KNOWN: resource(resource="https://notes.example"), OAUTH: server()}, ""),
        ({WELL_KNOWN: resource(), "https://id.example/.well-known/openid-configuration/t1": server()}, ""),
        ({WELL_KNOWN: resource(), "https://id.example/t1/.well-known/openid-configuration": server()}, ""),
    ],
)
async def test_metadata_is_found_at_each_of_its_places(pages: dict[str, Any], told: str) -> None:
    found = await discovery.find(Web(pages), MCP, Challenge(resource_metadata=told))
    assert found.server.issuer == ISSUER


async def test_without_resource_metadata_the_origin_is_the_authorization_server() -> None:
    origin = "https://notes.example"
    found = await discovery.find(
        Web({f"{origin}/.well-known/oauth-authorization-server": server(origin)}), MCP, Challenge()
    )
    assert found.server.token_endpoint == f"{origin}/token"
    plain = await discovery.find(Web({}), MCP, Challenge())
    assert (plain.server.authorization_endpoint, plain.resource) == (f"{origin}/authorize", MCP)


@pytest.mark.parametrize(
    ("pages", "problem"),
    [
        ({WELL_KNOWN: resource(resource="https://evil.example/mcp"), OAUTH: server()}, "another resource"),
        ({WELL_KNOWN: resource(resource="https://notes.example/a/mc"), OAUTH: server()}, "another resource"),
        ({WELL_KNOWN: resource(resource="http://notes.example/a/mcp"), OAUTH: server()}, "another resource"),
        ({WELL_KNOWN: resource(authorization_servers=[]), OAUTH: server()}, "names no authorization server"),
        ({WELL_KNOWN: resource(), OAUTH: server("https://evil.example")}, "whose metadata is of"),
        ({WELL_KNOWN: resource(), OAUTH: server(f"{ISSUER}/")}, "whose metadata is of"),
        ({WELL_KNOWN: resource(), OAUTH: server(token_endpoint="")}, "without a token endpoint"),
        ({WELL_KNOWN: resource(), OAUTH: server(token_endpoint="http://id.example/token")}, "not https"),
        ({WELL_KNOWN: resource(), OAUTH: server(authorization_endpoint="javascript:alert(1)")}, "must be http"),
        ({WELL_KNOWN: resource(authorization_servers=["http://id.example"])}, "not https"),
        ({WELL_KNOWN: resource(authorization_servers=["file:///etc/passwd"])}, "must be http"),
        ({WELL_KNOWN: 503, OAUTH: server()}, "cannot be had now"),
        ({WELL_KNOWN: resource()}, "publishes no metadata"),
        ({WELL_KNOWN: resource(scopes_supported=["s"] * 65), OAUTH: server()}, "more than 64"),
    ],
)
async def test_what_must_not_be_believed(pages: dict[str, Any], problem: str) -> None:
    with pytest.raises(UpstreamError, match=problem):
        await discovery.find(Web(pages), MCP, Challenge())


async def test_a_metadata_url_of_the_challenge_may_not_lead_to_plain_http() -> None:
    web = Web({})
    with pytest.raises(UpstreamError, match="not https"):
        await discovery.find(web, MCP, Challenge(resource_metadata="http://169.254.169.254/latest"))
    assert web.asked == []


async def test_the_configured_issuer_must_be_one_that_the_server_names() -> None:
    pages = {WELL_KNOWN: resource(authorization_servers=["https://other.example", ISSUER]), OAUTH: server()}
    assert (await discovery.find(Web(pages), MCP, Challenge(), ISSUER)).server.issuer == ISSUER
    with pytest.raises(UpstreamError, match="does not name https://mine"):
        await discovery.find(Web(pages), MCP, Challenge(), "https://mine.example")


async def test_private_addresses_are_reached_only_by_names_of_the_configuration() -> None:
    web = WebServer(lambda exchange: exchange.respond(200, b"{}"))
    _, port = await web.listen("127.0.0.1", 0)
    refuse = Upstreams().refuse
    try:
        with pytest.raises(UpstreamError, match="not public"):
            await GuardedFetcher(frozenset(), refuse).request("GET", f"http://localhost:{port}/")
        with pytest.raises(UpstreamError, match="not public"):
            await GuardedFetcher(frozenset({"other"}), refuse).request("GET", f"http://127.0.0.1:{port}/")
        answer = await GuardedFetcher(frozenset({"localhost"}), refuse).request("GET", f"http://localhost:{port}/")
        assert answer.status == 200
    finally:
        await web.stop(0)


FOUND = Found(MCP, Server(ISSUER, f"{ISSUER}/a", f"{ISSUER}/t", code_challenge_methods_supported=("S256",)), ("r", "w"))


@pytest.mark.parametrize("methods", [None, (), ("plain",)])
def test_a_server_without_pkce_is_refused(methods: Any) -> None:
    weak = msgspec.structs.replace(FOUND.server, code_challenge_methods_supported=methods)
    with pytest.raises(UpstreamError, match="PKCE"):
        flow.begin(Found(MCP, weak), Client("c"), "https://gw/cb", "")


@pytest.mark.parametrize(
    ("told", "configured", "knows", "before", "expected"),
    [
        (Challenge(scope="x"), ("c",), (), (), "x"),
        (Challenge(), ("c",), (), (), "c"),
        (Challenge(), (), (), (), "r w"),
        (Challenge(403, "insufficient_scope", "x"), (), (), ("r", "x"), "r x"),
        (Challenge(), (), ("offline_access",), (), "r w offline_access"),
    ],
)
def test_scopes(told: Challenge, configured: Any, knows: Any, before: Any, expected: str) -> None:
    found = Found(MCP, msgspec.structs.replace(FOUND.server, scopes_supported=knows or None), FOUND.scopes)
    assert flow.scope_for(found, SignIn(MCP, scopes=configured), told, before) == expected


def test_no_scope_is_asked_for_where_none_is_known() -> None:
    assert flow.scope_for(Found(MCP, FOUND.server), SignIn(MCP), Challenge()) == ""


def test_clients_in_their_order() -> None:
    cimd = msgspec.structs.replace(FOUND.server, client_id_metadata_document_supported=True)
    ours = Identity("https://gw.example/cb", metadata_url="https://gw.example/client.json")
    assert registration.configured(SignIn(MCP, "id", "s"), cimd) == Client("id", "s", "client_secret_basic", "", ISSUER)
    with pytest.raises(UpstreamError, match="is one of https://other"):
        registration.configured(SignIn(MCP, "id", issuer="https://other.example"), cimd)
    assert registration.documented(ours, cimd) == Client(ours.metadata_url, method="none", issuer=ISSUER)
    assert registration.documented(ours, FOUND.server) is None
    assert (
        registration.documented(Identity("http://localhost/cb", metadata_url="http://localhost/c.json"), cimd) is None
    )


async def test_registration_says_what_kind_of_client_it_is_and_where_there_is_none_what_to_do() -> None:
    assert Identity("https://gw.example/cb").application_type == "web"
    assert Identity("http://127.0.0.1:8701/cb").application_type == "native"
    with pytest.raises(UpstreamError, match="register one with the redirect URI"):
        await registration.register(Web({}), FOUND.server, Identity("https://gw.example/cb"))


def test_a_step_up_that_would_change_nothing_is_not_asked_for() -> None:
    from quarterdeck.gateway.oauth.protected import Protected

    protected = Protected(SignIn(MCP), Web({}), Identity("https://gw/cb"), None)  # type: ignore[arg-type]  # not used
    protected.check(Challenge(403, "insufficient_scope", "x"), ("r",))
    with pytest.raises(UpstreamError, match="asking again would change nothing"):
        protected.check(Challenge(403, "insufficient_scope", "x"), ("r", "x"))
