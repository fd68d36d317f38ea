"""Lines 2, 3 and 16 where the gateway itself is the client of an authorization server (``auth: oauth``).

What else is tried there (other issuers, used and altered states, lured victims, framed pages) is in
``tests/gateway/oauth/test_sign_in.py``.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

import pytest

from gateway.oauth.conftest import World
from gateway.oauth.servers import Browser, query_of
from quarterdeck.gateway.oauth import challenge
from quarterdeck.wire.client import Response


async def begun(world: World, browser: Browser) -> tuple[Response, str]:
    """What the question's button gives: the answer to it, and its page."""
    alice = world.person("alice")
    await alice.begin()
    url = await alice.url()
    first, page = await browser.get(url)
    assert first.status == 200, page
    fields = (
        page.partition('name="t" value="')[2].partition('"')[0],
        page.partition('name="b" value="')[2].partition('"')[0],
    )
    return await browser._request("POST", url.partition("?")[0], f"t={fields[0]}&b={fields[1]}".encode())  # pyright: ignore


@pytest.mark.parametrize(
    "changes",
    [
        {"authorization_endpoint": "javascript:alert(1)"},
        {"authorization_endpoint": "data:text/html,<script>"},
        {"authorization_endpoint": "file:///etc/passwd"},
        {"authorization_endpoint": "http://evil.example/authorize"},
        {"authorization_endpoint": "//evil.example"},
        {"authorization_endpoint": "https://evil.example\\@127.0.0.1/"},
        {"authorization_endpoint": 5},
        {"code_challenge_methods_supported": ["plain"]},
        {"issuer": "http://127.0.0.1:1"},
    ],
)
async def test_s16_nobody_is_sent_to_an_address_that_is_no_authorization_server(world: World, changes: Any) -> None:
    world.issuer.more = changes
    browser = Browser("alice")
    response, page = await begun(world, browser)
    assert response.status == 502 and response.header(b"location") is None, page
    assert "href" not in page and "<script" not in page
    assert not world.issuer.count("/authorize")


@pytest.mark.parametrize("listener", ["admin", "local"])
async def test_s03_a_token_endpoint_is_no_port_of_the_gateway(world: World, listener: str) -> None:
    """What authorization servers say of themselves leads nowhere that a caller could not have asked for."""
    host, port, _ = world.rig.origin(listener)
    world.issuer.more = {"token_endpoint": f"http://{host}:{port}/revocations"}
    browser = Browser("alice")
    response, _ = await begun(world, browser)
    if response.status == 303:
        location = (response.header(b"location") or b"").decode()
        response, page = await browser.get(await browser.grant(location))
        assert response.status == 502 and "gateway itself" in page
    assert response.status == 502 and not world.rig.gateway.revocations.all()


async def test_s02_consent_comes_first_and_is_for_one_browser_and_one_sign_in(world: World) -> None:
    browser = Browser("alice")
    response, _ = await begun(world, browser)
    location = (response.header(b"location") or b"").decode()
    asked = query_of(location)
    assert asked["redirect_uri"] == f"{_base(location, asked)}" and asked["code_challenge_method"] == "S256"
    callback = await browser.grant(location)
    stranger = Browser("eve")
    refused, _ = await stranger.get(callback)
    assert refused.status == 400, "a state is no consent: the browser that gave it is asked for"
    late, _ = await browser.get(callback)
    assert late.status == 400, "and it is used up"
    assert not world.issuer.count("/token")
    for page in (refused, late):
        assert page.header(b"x-frame-options") == b"DENY"
        assert b"frame-ancestors 'none'" in (page.header(b"content-security-policy") or b"")


def _base(location: str, asked: dict[str, str]) -> str:
    """The one redirect_uri of the gateway: its own callback, without anything of the request's."""
    parts = urlsplit(asked["redirect_uri"])
    assert parts.path.endswith("/callback") and not parts.query and not parts.fragment, location
    return asked["redirect_uri"]


@pytest.mark.timeout(20)
def test_s27_a_servers_challenge_cannot_hold_the_gateway() -> None:
    """It is read in the event loop, for as many answers as a server gives: in time that its length bounds."""
    for value in (b"Bearer " + b" " * 8000 + b"=", b"Bearer " + b",  " * 2700, b'Bearer a="' + b"\\x" * 4000):
        for _ in range(200):
            challenge.read(401, [(b"www-authenticate", value)])
