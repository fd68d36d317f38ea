"""Whatever a caller sends, it is let in, refused as the client's error, or asked to come again; nothing else."""

from __future__ import annotations

import base64
import inspect
from contextlib import suppress
from hashlib import sha256
from typing import Any

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from quarterdeck.cel.errors import EvalError
from quarterdeck.gateway.policy.attributes import variables
from quarterdeck.gateway.policy.cors import Origins, parse_origin
from quarterdeck.gateway.policy.expressions import compile_expression
from quarterdeck.gateway.policy.jwks import parse_keys
from quarterdeck.gateway.policy.location import without_cookies, without_parameters
from quarterdeck.gateway.policy.refusal import Refusal
from quarterdeck.gateway.policy.wellknown import parse, registered
from quarterdeck.snapshot.policies import ApiKey, ApiKeys, BasicUsers, Cors, Csrf, Jwt, Location, Policies

from .rig import chain, jwks, provider, request, services, token, tokens

_NAMES = st.sampled_from(["alg", "kid", "iss", "x"])
_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_NAMES, inner, max_size=3),
    max_leaves=6,
)  # fmt: skip
_PART = st.one_of(
    st.binary(max_size=40),
    _JSON.map(lambda v: base64.urlsafe_b64encode(msgspec.json.encode(v)).rstrip(b"=")),
    st.sampled_from([part.encode() for part in token().split(".")]),
)
_CREDENTIAL = st.one_of(
    st.binary(max_size=60),
    st.tuples(st.sampled_from([b"Bearer ", b"bearer", b"Basic ", b""]), st.lists(_PART, max_size=5)).map(
        lambda t: t[0] + b".".join(t[1])
    ),
)
_LOCATIONS = [Location(), Location("query", "t", ""), Location("cookie", "t", ""), Location("header", "x-t", "")]
_CHAINS = [
    *(chain(jwt=tokens(location=location)) for location in _LOCATIONS),
    chain(jwt=Jwt((provider(jwks=jwks()),), "permissive")),
    chain(basic=BasicUsers("alice:{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ=")),
    chain(api_keys=ApiKeys((ApiKey(sha256(b"k").hexdigest()),), "strict", Location("cookie", "t", ""))),
    chain(cors=Cors(("https://*.example",), ("*",)), csrf=Csrf(), open=True),
]


@settings(max_examples=200, deadline=None)
@given(
    credential=_CREDENTIAL,
    other=st.binary(max_size=30),
    which=st.sampled_from(_CHAINS),
    method=st.sampled_from(["GET", "POST", "OPTIONS"]),
)
def test_no_credential_breaks_a_chain(credential: bytes, other: bytes, which: Any, method: str) -> None:
    call = request(method)
    exchange = call.exchange
    exchange.target = b"/mcp?t=" + credential.replace(b"#", b"")
    lines = [
        (b"host", other), (b"authorization", credential), (b"x-t", credential), (b"cookie", b"t=" + credential),
        (b"origin", other), (b"access-control-request-method", other), (b"x-forwarded-for", other),
    ]  # fmt: skip
    exchange.headers[:] = lines
    exchange.context.clear()
    exchange.context.update(lines)
    outcome = which.admit(call)
    if inspect.iscoroutine(outcome):
        outcome.close()
        return
    assert outcome is None or (isinstance(outcome, Refusal) and outcome.status in (200, 400, 401, 403, 503))
    if outcome is None or outcome.body is None:
        for name, value in which.outgoing(call, list(lines)) + (list(outcome.headers) if outcome else []):
            assert name and isinstance(value, bytes)


@settings(max_examples=200, deadline=None)
@given(text=st.text(max_size=60), names=st.frozensets(st.text(min_size=1, max_size=5), max_size=2))
def test_parsers_take_any_text(text: str, names: frozenset[str]) -> None:
    parse(text)
    parse_origin(text)
    Origins((text, "https://*.example")).allows(text)
    raw = text.encode("utf-8")
    left = without_parameters(b"/p?" + raw, names)
    assert left.startswith(b"/p") and without_parameters(left, names) == left
    cookies = without_cookies([(b"cookie", raw)], names)
    assert without_cookies(cookies, names) == cookies


@settings(max_examples=150, deadline=None)
@given(document=_JSON, raw=st.binary(max_size=60))
def test_documents_of_others_are_taken_or_refused(document: Any, raw: bytes) -> None:
    for data in (msgspec.json.encode(document), raw):
        with suppress(ValueError, msgspec.DecodeError):
            parse_keys(data)
        with suppress(ValueError, msgspec.DecodeError):
            registered(data, "id")


_EXPRESSIONS = [
    compile_expression(source, "here")
    for source in (
        'request.headers["x"].split(",").exists(p, p.trim() == "a")', "json(request.body).a.b == 1", "request.path",
        'request.headers["cookie"].cookie("t")', 'request.pathAndQuery.query("q")', "toJson(variables())",
        'request.headers["x"].regexReplace("(a+)b", "$1")', "form.decode(string(request.body))", "source.address",
        "url.decode(request.path)",
        'unvalidatedJwtPayload(request.headers["x"]).sub', "string(base64.decode(string(request.body)))",
    )
]  # fmt: skip


@settings(max_examples=150, deadline=None)
@given(value=st.binary(max_size=60), body=st.binary(max_size=60))
def test_expressions_give_a_value_or_fail(value: bytes, body: bytes) -> None:
    call = request("POST", body=body)
    exchange = call.exchange
    exchange.target = b"/p" + value
    exchange.headers += [(b"x", value), (b"cookie", value), (b"x-y", value), (b"x-y", body)]
    rules = chain(Policies(open=True), given=services(trusted_hops=("127.0.0.0/8",)))
    assert rules.admit(call) is None
    read = variables(exchange.admission)
    for expression in _EXPRESSIONS:
        try:
            expression.evaluate(read)
        except EvalError:
            continue
