"""Tokens: who signed them, for whom, until when; where keys come from and what happens when that is down."""

from __future__ import annotations

import asyncio
import base64
import hmac
from pathlib import Path
from typing import Any

import msgspec
import pytest
from joserfc import jwt as jose
from joserfc.jwk import ECKey, OctKey

from quarterdeck.errors import ConfigError, UpstreamError
from quarterdeck.gateway.policy.jwks import KeyStore, parse_keys
from quarterdeck.gateway.policy.jwt import scopes_of
from quarterdeck.snapshot.policies import Jwt, JwtProvider, Location, Policies

from .rig import (
    ISSUER,
    KEY,
    NOW,
    OTHER,
    RSA,
    Clock,
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


def _part(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def forged(payload: dict[str, Any], algorithm: str, secret: bytes = b"") -> str:
    """A token nobody signed, or one "signed" with a public key as the secret (RFC 8725 §2.1)."""
    signed = f"{_part(msgspec.json.encode({'alg': algorithm, 'kid': 'k1'}))}.{_part(msgspec.json.encode(payload))}"
    mac = hmac.digest(secret, signed.encode(), "sha256") if secret else b""
    return f"{signed}.{_part(mac)}"


def test_a_valid_token_names_the_caller_and_its_claims() -> None:
    call = request(bearer=token(groups=["a"], scope="x y"))
    assert admit_now(chain(jwt=tokens()), call) is None
    assert call.principal.id == "alice@issuer.example.org/realms/demo" and call.principal.username == "alice"
    assert call.principal.claims["groups"] == ["a"] and scopes_of(call.principal.claims) == {"x", "y"}


CLAIMS = {"iss": ISSUER, "sub": "mallory", "aud": "mcp", "exp": NOW + 600}
PUBLIC = KEY.as_pem(private=False)
REFUSED = {
    "nothing": ("", "a bearer token is required"),
    "no jwt": ("abc", "no signed JWT"),
    "five parts": ("a.b.c.d.e", "no signed JWT"),
    "another issuer": (token(iss="https://evil.example.org"), "issuer"),
    "no issuer": (token(iss=None), "issuer"),
    "another audience": (token(aud=["other"]), "audience"),
    "no audience": (token(aud=None), "audience"),
    "expired": (token(exp=NOW - 60), "expired"),
    "not yet": (token(nbf=NOW + 60), "not valid yet"),
    "no expiry": (token(exp=None), "no claim 'exp'"),
    "expiry that is no number": (token(exp="soon"), "claims cannot be read"),
    "another key": (token(OTHER, {"kid": "k1"}), "cannot be verified"),
    "unknown key": (token(OTHER), "unknown key"),
    "alg none": (forged(CLAIMS, "none"), "unknown key"),
    "public key as secret": (forged(CLAIMS, "HS256", PUBLIC), "unknown key"),
    "too long": (token(padding="x" * 20_000), "no signed JWT"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_refused(case: str) -> None:
    given, reason = REFUSED[case]
    refusal = admit_now(chain(jwt=tokens()), request(bearer=given))
    assert refusal is not None and refusal.status == 401 and reason in refusal.message
    challenge = header(refusal, b"www-authenticate")
    assert challenge.startswith("Bearer ") and ("invalid_token" in challenge) == bool(given)


def test_a_bit_changed_anywhere_is_noticed() -> None:
    good = token().encode()
    rules = chain(jwt=tokens())
    for at in range(0, len(good), 7):
        changed = bytearray(good)
        changed[at] ^= 1
        call = request()
        call.headers[b"authorization"] = b"Bearer " + bytes(changed)
        refusal = admit_now(rules, call)
        # the last bits of the last character of base64 carry nothing: such a change makes the same token
        same = at == len(good) - 1
        assert same or (refusal is not None and refusal.status in (400, 401))


@pytest.mark.parametrize(
    "mode,missing,wrong", [("strict", 401, 401), ("optional", None, 401), ("permissive", None, None)]
)
def test_modes(mode: str, missing: int | None, wrong: int | None) -> None:
    rules = chain(jwt=tokens(mode))
    for bearer, expected in (("", missing), (token(OTHER), wrong), (token(), None)):
        refusal = admit_now(rules, request(bearer=bearer, peer=("192.0.2.1", 1)))
        assert (refusal.status if refusal else None) == expected


def test_several_issuers_and_one_issuer_twice() -> None:
    second = provider(issuer="https://two.example.org/", jwks=jwks(OTHER), audiences=())
    other_audience = provider(audiences=("billing",), jwks=jwks(RSA))
    rules = chain(jwt=Jwt((provider(), second, other_audience)))
    for bearer in (token(), token(OTHER, iss="https://two.example.org/", aud=None), token(RSA, aud="billing")):
        assert admit_now(rules, request(bearer=bearer)) is None
    for bearer in (
        token(OTHER),
        token(RSA),
        token(iss="https://two.example.org/"),
        token(iss="https://two.example.org"),
    ):
        refusal = admit_now(rules, request(bearer=bearer))
        assert refusal is not None and refusal.status == 401


@pytest.mark.parametrize(
    "location,make",
    [
        (Location(), lambda t: request(bearer=t)),
        (Location("header", "X-Token", ""), lambda t: request(x_token=t)),
        (Location("header", "x-token", "JWT "), lambda t: request(x_token=f"jwt {t}")),
        (Location("query", "access_token", ""), lambda t: request(target=f"/mcp?a=1&access_token={t}&b=%20")),
        (Location("cookie", "sid", ""), lambda t: request(cookie=f"x=y; sid={t}; z")),
        (Location("expression", "request.headers['x-a'].split(' ')[1]"), lambda t: request(x_a=f"any {t}")),
    ],
    ids=lambda v: v.kind if isinstance(v, Location) else "",
)
def test_where_the_token_is_and_that_it_goes_no_further(location: Location, make: Any) -> None:
    rules = chain(jwt=tokens(location=location))
    call = make(token())
    assert admit_now(rules, call) is None and call.principal.username == "alice"
    sent = rules.outgoing(call, list(call.exchange.headers))
    target = rules.outgoing_target(call, call.exchange.target)
    if location.kind != "expression":
        everything = b"".join(b"%b: %b\n" % h for h in sent) + target
        assert token().split(".")[1].encode() not in everything
    if location.kind == "query":
        assert target == b"/mcp?a=1&b=%20"
    if location.kind == "cookie":
        assert (b"cookie", b"x=y; z") in sent
    elsewhere = admit_now(rules, request("POST", "/other"))
    assert elsewhere is not None and elsewhere.status == 401


def test_a_token_sent_twice_is_refused() -> None:
    rules = chain(jwt=tokens())
    call = request(bearer=token(), repeat=(("authorization", "Bearer other"),))
    refusal = admit_now(rules, call)
    assert refusal is not None and refusal.status == 400


def test_keep_leaves_the_token_in_the_request() -> None:
    rules = chain(jwt=tokens(keep=True))
    bearer = token()
    call = request(bearer=bearer)
    assert admit_now(rules, call) is None
    assert (b"authorization", f"Bearer {bearer}".encode()) in rules.outgoing(call, list(call.exchange.headers))


def test_verified_once_until_it_expires() -> None:
    clock = Clock()
    rules = chain(jwt=tokens(), given=services(clock))
    bearer = token(exp=NOW + 100)
    first, second = request(bearer=bearer), request(bearer=bearer)
    assert admit_now(rules, first) is None and admit_now(rules, second) is None
    assert first.principal is second.principal
    clock.now = NOW + 106  # five seconds of leeway
    refusal = admit_now(rules, request(bearer=bearer))
    assert refusal is not None and "expired" in refusal.message


# -- where keys come from
class Source:
    """A document that changes, and may be down."""

    def __init__(self, *keys: Any) -> None:
        self.keys = keys
        self.down = False
        self.looks = 0

    async def load(self) -> bytes:
        self.looks += 1
        if self.down:
            raise UpstreamError("connection refused")
        return msgspec.json.encode(jwks(*self.keys))


async def test_an_unknown_key_is_looked_for_once_and_then_less_and_less_often() -> None:
    clock, source = Clock(), Source(KEY)
    store = KeyStore("s", source.load, clock=clock)
    assert store.may_search() and await store.search("k1", "ES256")
    assert source.looks == 1
    clock.now += 2
    source.keys = (KEY, OTHER)
    assert store.may_search() and [k.kid for k in await store.search("k2", "ES256")] == ["k2"]
    assert source.looks == 2
    for pause in (2.0, 4.0, 8.0):
        clock.now += 100
        before = source.looks
        store_again = store.may_search()
        assert store_again and not await store.search("k9", "ES256")
        assert source.looks == before + 1 and not store.may_search()
        clock.now += pause - 0.1
        assert not store.may_search() or pause > 64
        clock.now += 0.2
        assert store.may_search()


async def test_keys_stay_while_their_issuer_is_down_and_go_when_it_says_so() -> None:
    clock, source = Clock(), Source(KEY, OTHER)
    store = KeyStore("s", source.load, clock=clock, every=300)
    await store.search("k1", "ES256")
    source.down = True
    clock.now += 301
    store.look_if_due(clock.now)
    store.look_if_due(clock.now)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert source.looks == 2 and store.find("k1", "ES256") and "connection refused" in store.problem
    assert store.generation == 0 and store.next_look > clock.now
    source.down, source.keys = False, (OTHER,)
    clock.now = store.next_look
    store.look_if_due(clock.now)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert not store.find("k1", "ES256") and store.find("k2", "ES256") and store.generation == 1 and not store.problem


async def test_rotation_end_to_end_over_http() -> None:
    """A real issuer: new key found without a restart, removed key ends tokens that were already accepted."""
    clock = Clock()
    keys: list[Any] = [KEY]
    async with Peer(lambda _: json_answer(jwks(*keys))) as issuer:
        fetched = provider(jwks=None, jwks_url=f"{issuer.url}/certs", cache=60.0)
        given = services(clock)
        rules = chain(Policies(jwt=Jwt((fetched,))), given=given)
        assert await admit(rules, request(bearer=token())) is None
        assert admit_now(rules, request(bearer=token())) is None, "no second look for a known key"
        keys[:] = [OTHER]
        clock.now += 5
        assert await admit(rules, request(bearer=token(OTHER))) is None
        refusal = await admit(rules, request(bearer=token()))
        assert refusal is not None and refusal.status == 401
        given.upstreams.close()
    assert [e.raw_path for e in issuer.asked] == [b"/certs", b"/certs"]


async def test_while_keys_were_never_read_callers_are_told_to_come_again() -> None:
    clock = Clock()
    async with Peer(lambda _: (500, [], b"")) as issuer:
        fetched = provider(jwks=None, jwks_url=f"{issuer.url}/certs")
        given = services(clock)
        rules = chain(Policies(jwt=Jwt((fetched,))), given=given)
        refusal = await admit(rules, request(bearer=token()))
        assert refusal is not None and refusal.status == 503 and header(refusal, b"retry-after")
        again = admit_now(rules, request(bearer=token()))
        assert again is not None and again.status == 503 and len(issuer.asked) == 1
        given.upstreams.close()


async def test_keys_of_a_file(tmp_path: Path) -> None:
    path = tmp_path / "jwks.json"
    path.write_bytes(msgspec.json.encode(jwks(KEY)))
    clock = Clock()
    rules = chain(Policies(jwt=Jwt((provider(jwks=None, jwks_file=str(path)),))), given=services(clock))
    assert await admit(rules, request(bearer=token())) is None
    path.unlink()
    clock.now += 1000
    assert await admit(rules, request(bearer=token(exp=clock.now + 5))) is None


async def test_one_store_serves_all_configurations_that_name_a_source() -> None:
    async with Peer(lambda _: json_answer(jwks(KEY))) as issuer:
        given = services()
        fetched = Policies(jwt=Jwt((provider(jwks=None, jwks_url=f"{issuer.url}/certs"),)))
        first, second = chain(fetched, given=given), chain(fetched, given=given)
        assert await admit(first, request(bearer=token())) is None
        assert admit_now(second, request(bearer=token())) is None
        given.upstreams.close()
    assert len(issuer.asked) == 1


def test_only_keys_that_can_verify_are_taken() -> None:
    secret = OctKey.generate_key(256).as_dict()
    encryption = {**KEY.as_dict(private=False), "use": "enc"}
    odd = {**KEY.as_dict(private=False), "alg": "HS256"}
    broken = {"kty": "EC", "crv": "P-256", "x": "AA", "y": "AA"}
    found = parse_keys({"keys": [secret, encryption, odd, broken, "x", RSA.as_dict(private=False)]})
    assert [key.kid for key in found] == ["r1"] and "RS256" in found[0].algorithms
    with pytest.raises(ValueError):
        parse_keys(b"[]")


def test_a_token_without_kid_is_tried_with_every_key_that_fits() -> None:
    both = provider(jwks={"keys": [ECKey.generate_key("P-256").as_dict(private=False), KEY.as_dict(private=False)]})
    bare = jose.encode({"alg": "ES256"}, {**CLAIMS, "sub": "alice"}, KEY)
    assert admit_now(chain(jwt=Jwt((both,))), request(bearer=bare)) is None


def test_an_issuer_without_keys_is_a_configuration_error() -> None:
    with pytest.raises(ConfigError, match="no keys for issuer"):
        chain(jwt=Jwt((JwtProvider(ISSUER),)))
    with pytest.raises(ConfigError, match="must be http"):
        chain(jwt=Jwt((JwtProvider(ISSUER, jwks_url="ftp://x/y"),)))
