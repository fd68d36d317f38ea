"""Sign-ins at a server that a real authorization server (npm ``oidc-provider``) protects."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import urljoin, urlsplit

import msgspec
import pytest
from joserfc import jws, jwt
from joserfc.jwk import KeySet

from quarterdeck.wire.client import Pool

from ..conftest import Rig
from .conftest import World
from .servers import Browser, Issuer, Protected

MODULES = Path(__file__).parents[3] / ".cache/node/node_modules"
NODE = MODULES / "node/bin/node"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not (MODULES / "oidc-provider").is_dir(), reason="npm packages are missing: make setup"),
]


class Provider(Issuer):
    """The provider as the other parts of the rig see it: where it is, and whose tokens are whose."""

    keys: KeySet

    def whose(self, token: str) -> tuple[str, str]:
        claims = jwt.decode(token, self.keys, algorithms=["RS256"]).claims
        return claims["sub"], claims.get("scope", "")


class Checked(Protected):
    """Believes tokens that the provider has signed for it, and no others."""

    def answer(self, exchange: Any) -> Any:
        token = (exchange.header(b"authorization") or b"").decode().removeprefix("Bearer ")
        if token:
            assert isinstance(self.issuer, Provider)
            audience = msgspec.json.decode(jws.extract_compact(token.encode()).payload)["aud"]
            assert audience == f"{self.url}/mcp"
            self.issuer.tokens[token] = self.issuer.whose(token)
        return super().answer(exchange)


class Person(Browser):
    """A browser that follows the provider through its interaction, with cookies."""

    def __init__(self, user: str) -> None:
        super().__init__(user)
        self.jar: dict[str, dict[str, str]] = {}

    async def grant(self, url: str) -> str:
        pool = Pool()
        for _ in range(6):
            parts = urlsplit(url)
            if parts.path.startswith("/.quarterdeck/"):
                return url
            cookies = "; ".join(f"{k}={v}" for k, v in self.jar.setdefault(parts.netloc, {}).items())
            headers = [(b"host", parts.netloc.encode()), (b"x-user", self.user.encode()), (b"cookie", cookies.encode())]
            target = f"{parts.path}?{parts.query}" if parts.query else parts.path
            response = await pool.request("GET", (parts.hostname or "", parts.port or 80, False), target, headers)
            page = (await response.read()).decode()
            for name, value in response.headers:
                if name == b"set-cookie":
                    key, _, cookie = value.decode().partition(";")[0].partition("=")
                    self.jar[parts.netloc][key] = cookie
            location = (response.header(b"location") or b"").decode()
            assert location, page
            url = urljoin(url, location)
        raise AssertionError("the provider sends the browser round and round")


@pytest.fixture
async def world(bare: Rig) -> AsyncIterator[World]:
    node = str(NODE) if NODE.exists() else "node"
    process = await asyncio.create_subprocess_exec(
        node, str(Path(__file__).with_name("idp.mjs")), str(MODULES.parent), stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    provider = Provider()
    provider.url = (await asyncio.wait_for(process.stdout.readline(), 30)).decode().strip()
    parts = urlsplit(provider.url)
    keys = await Pool().request("GET", (parts.hostname or "", parts.port or 80, False), "/jwks")
    provider.keys = KeySet.import_key_set(msgspec.json.decode(await keys.read()))
    clock = bare.gateway.sign_ins.sign_ins.clock
    async with Checked(provider) as server:
        found = World(bare, provider, server, clock)  # type: ignore[arg-type]  # the real time
        await found.serve()
        yield found
    process.kill()
    await process.wait()


async def test_people_sign_in_refresh_and_sign_in_again(world: World) -> None:
    alice, bob = world.person("alice"), world.person("bob")
    for person in (alice, bob):
        await person.begin()
        assert "signed in" in await person.signed_in(Person(person.user))
    assert [await person.text("whoami") for person in (alice, bob)] == ["alice", "bob"]
    first = world.server.seen[-1]
    sign_ins = world.rig.gateway.sign_ins.sign_ins
    now = sign_ins.clock()
    sign_ins.clock = lambda: now + 3590.0
    assert await bob.text("whoami") == "bob"
    second = world.server.seen[-1]
    assert second != first
    sign_ins.clock = lambda: now + 7180.0
    assert await bob.text("whoami") == "bob"  # with the refresh token that came with the second
    assert world.server.seen[-1] != second
    assert [e for e in world.events() if e[0] == "oauth/refresh"] == []
