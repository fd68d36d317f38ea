"""API keys, passwords, certificates, and several of them on one route."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
from base64 import b64encode
from hashlib import sha256
from typing import Any

import bcrypt
import pytest

from quarterdeck.errors import ConfigError
from quarterdeck.gateway.policy.htpasswd import check, check_user, parse_htpasswd
from quarterdeck.snapshot.policies import ApiKey, ApiKeys, Authorization, BasicUsers, CelRule, Location, Policies

from .rig import Clock, admit, admit_now, chain, header, request, services, token, tokens


def keys(mode: Any = "strict", **changes: Any) -> ApiKeys:
    key = ApiKey(sha256(b"k-123").hexdigest(), {"name": "ci", "team": "infra"})
    return ApiKeys((key,), **{"mode": mode, **changes})


def basic(name: str = "alice", password: str = "secret") -> str:
    return "Basic " + b64encode(f"{name}:{password}".encode()).decode()


def test_api_keys_are_known_by_their_hash() -> None:
    rules = chain(api_keys=keys(), authorization=(Authorization((CelRule("allow", 'apiKey.team == "infra"'),)),))
    call = request(bearer="k-123")
    assert admit_now(rules, call) is None
    assert call.principal.username == "ci" and call.principal.id.startswith("ci@apikey-")
    assert str(call.principal.api_key["key"]) == "<redacted>" and "k-123" not in repr(call.principal)
    for wrong in ("", "k-12", "k-1234"):
        refusal = admit_now(rules, request(bearer=wrong))
        assert refusal is not None and refusal.status == 401
    assert not any(name == b"authorization" for name, _ in rules.outgoing(call, list(call.exchange.headers)))


def test_api_keys_elsewhere_and_their_modes() -> None:
    place = Location("header", "x-api-key", "")
    for mode, missing, wrong in (("strict", 401, 401), ("optional", None, 401), ("permissive", None, None)):
        rules = chain(api_keys=keys(mode, location=place))
        for call, expected in (
            (request(), missing),
            (request(x_api_key="no"), wrong),
            (request(x_api_key="k-123"), None),
        ):
            refusal = admit_now(rules, call)
            assert (refusal.status if refusal else None) == expected, mode


PASSWORDS = {
    "bcrypt": bcrypt.hashpw(b"secret", bcrypt.gensalt(4, prefix=b"2a")).decode().replace("$2a$", "$2y$"),
    "sha": "{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ=",
}


@pytest.mark.parametrize("kind", ["bcrypt", "sha", "-apr1", "-5", "-6"])
def test_password_files_as_htpasswd_and_openssl_write_them(kind: str) -> None:
    hashed = PASSWORDS.get(kind, "")
    if not hashed:
        if shutil.which("openssl") is None:
            pytest.skip("no openssl")
        run = subprocess.run(["openssl", "passwd", kind, "secret"], capture_output=True, text=True, check=True)
        hashed = run.stdout.strip()
    users = parse_htpasswd(f"# people\n\nalice:{hashed}\n", "here")
    assert check_user(users, "alice", b"secret")
    assert not check_user(users, "alice", b"secreT") and not check_user(users, "bob", b"secret")


@pytest.mark.parametrize(
    "text,problem",
    [
        ("alice", "not NAME:HASH"),
        ("a:plain", "no supported kind"),
        ("a:$6$rounds=999999999$x$y", "no supported kind"),
        ("a:$1$x$y", "kind"),
    ],
)
def test_lines_that_cannot_be_used_are_errors(text: str, problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        chain(basic=BasicUsers(text))


def test_sha_crypt_with_rounds_of_its_own() -> None:
    # Drepper's test vector
    vector = (
        "$6$rounds=10000$saltstringsaltst$OW1/O6BYHV6BcXZu8QVeXbDWra3Oeqh0sbHbbMCVNSnCM/"
        "UrjmM0Dp8vOuZeHBy/YTBmSK6H9qs/y3RnOaw5v."
    )
    assert check(b"Hello world!", vector) and not check(b"Hello world?", vector)


async def test_basic_authentication_asks_remembers_and_forgets() -> None:
    clock = Clock()
    rules = chain(basic=BasicUsers(f"alice:{PASSWORDS['sha']}", realm='A "realm"'), given=services(clock))
    refusal = admit_now(rules, request())
    assert refusal is not None and refusal.status == 401
    assert header(refusal, b"www-authenticate") == 'Basic realm="A \'realm\'", charset="UTF-8"'
    call = request(authorization=basic())
    assert await admit(rules, call) is None and call.principal.username == "alice"
    assert admit_now(rules, request(authorization=basic())) is None, "remembered: nothing to wait for"
    clock.now += 301
    assert asyncio.iscoroutine(waiting := rules.admit(request(authorization=basic())))
    assert await waiting is None
    for wrong in (basic(password="no"), basic("bob"), "Basic !!!", "Basic " + b64encode(b"nocolon").decode()):
        refusal = await admit(rules, request(authorization=wrong))
        assert refusal is not None and refusal.status == 401


async def test_too_many_sign_ins_at_once_are_told_to_come_again() -> None:
    rules = chain(basic=BasicUsers(f"alice:{PASSWORDS['sha']}"))
    waiting = [rules.admit(request(authorization=basic(password=str(n)))) for n in range(40)]
    running = [asyncio.ensure_future(w) for w in waiting if asyncio.iscoroutine(w)]
    outcomes = await asyncio.gather(*running)
    assert all(o is not None and o.status in (401, 503) for o in outcomes)
    late = [asyncio.ensure_future(admit(rules, request(authorization=basic(password=f"x{n}")))) for n in range(40)]
    assert {o.status for o in await asyncio.gather(*late) if o is not None} == {401, 503}


CERTIFICATE = {
    "subject": ((("countryName", "CH"),), (("organizationName", "Example"),), (("commonName", "robot"),)),
    "issuer": ((("commonName", "ca"),),),
    "subjectAltName": (("DNS", "robot.example"), ("URI", "spiffe://example.org/ns/prod/sa/robot")),
}


def test_a_client_certificate_names_the_caller() -> None:
    condition = 'source.subjectCn == "robot" && source.identity.namespace == "prod"'
    condition += ' && "robot.example" in source.subjectAltNames'
    rules = chain(authorization=(Authorization((CelRule("allow", condition),)),))
    call = request(peer=("192.0.2.1", 1), certificate=CERTIFICATE)
    assert admit_now(rules, call) is None
    assert call.principal.id == "C=CH,O=Example,CN=robot@certificate" and call.principal.username == "robot"


def test_all_kinds_on_a_route_are_looked_at() -> None:
    both = chain(jwt=tokens(), api_keys=keys(location=Location("header", "x-api-key", "")))
    call = request(bearer=token(), x_api_key="k-123")
    assert admit_now(both, call) is None
    assert call.principal.id.startswith("alice@") and call.principal.api_key["team"] == "infra"
    assert admit_now(both, request(bearer=token())) is not None
    assert admit_now(both, request(x_api_key="k-123")) is not None


def test_one_of_several_is_a_rule_over_optional_ones() -> None:
    rule = CelRule("require", "has(jwt.sub) || has(apiKey.key)")
    policies = Policies(
        jwt=tokens("optional"),
        api_keys=keys("optional", location=Location("header", "x-api-key", "")),
        authorization=(Authorization((rule,)),),
    )
    rules = chain(policies)
    assert admit_now(rules, request(bearer=token())) is None
    assert admit_now(rules, request(x_api_key="k-123")) is None
    refusal = admit_now(rules, request())
    assert refusal is not None and refusal.status == 403
