"""agentgateway's functions and variables."""

# ruff: noqa: E501 - tables read best with one thing a line

from __future__ import annotations

from typing import Any

import pytest
from cel_expr_python import cel as oracle
from cel_expr_python.ext import ext_strings
from hypothesis import given, settings
from hypothesis import strategies as st

from quarterdeck.cel.errors import EvalError
from quarterdeck.gateway.policy.attributes import variables
from quarterdeck.gateway.policy.expressions import (
    as_bytes,
    as_text,
    compile_expression,
    on_any_test_of_either,
    on_either_name,
)
from quarterdeck.gateway.policy.principal import Principal

from .rig import chain, request

FUNCTIONS = [
    ('json("{\\"a\\": [1, true]}").a[0] == 1', True),
    ('json(b"[1]")[0] == 1', True),
    ('toJson({"hello": "world"}) == "{\\"hello\\":\\"world\\"}"', True),
    ('json("{").x', EvalError),
    ('{"a": 2}.with(b, b.a + b.a) == 4', True),
    ('{"a": 1, "b": 2}.mapValues(v, v * 2) == {"a": 2, "b": 4}', True),
    ('{"a": 1, "b": 2}.filterKeys(k, k == "a") == {"a": 1}', True),
    ('{"a": 1, "b": 2}.removeKeys(k, k == "b") == {"a": 1}', True),
    ('{"a": 2, "k": "v"}.merge({"a": 3}) == {"a": 3, "k": "v"}', True),
    ('flattenRecursive({"a": {"b": 1}, "c": [2]}) == {"a.b": 1, "c.0": 2}', True),
    ('flatten({"a": {"b": 1}}) == {"a": {"b": 1}}', True),
    ('base64.encode("hello") == "aGVsbG8="', True),
    ('string(base64.decode("aGVsbG8=")) == "hello"', True),
    ('url.encode("a b/c") == "a%20b%2Fc" && url.decode("a%20b") == "a b"', True),
    ('form.decode("a=1&b=x+y") == {"a": "1", "b": "x y"}', True),
    ('form.encode({"a": "x y"}) == "a=x+y"', True),
    ('sha256.encode("x") == "2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881"', True),
    ('sha1.encode("x").size() == 40 && md5.encode("x").size() == 32', True),
    ("random() >= 0.0 && random() < 1.0", True),
    ("uuid().size() == 36 && uuid() != uuid()", True),
    ('default(jwt.nope, "fallback") == "fallback"', True),
    ('default(jwt.sub, "fallback") == "alice"', True),
    ("default(jwt.nope, null) == null", True),
    ('coalesce(jwt.nope, null, "x") == "x"', True),
    ("default(jwt.nope, jwt.never)", EvalError),
    ('"/id/1234/data".regexReplace("/id/[0-9]*/", "/id/{id}/") == "/id/{id}/data"', True),
    ('"ab12".regexReplace("([a-z]+)([0-9]+)", "$2-${1}$$") == "12-ab$"', True),
    ("fail()", EvalError),
    ('fail("no")', EvalError),
    ("true || fail()", True),
    ('"prefix-x".stripPrefix("prefix-") == "x" && "x.json".stripSuffix(".json") == "x"', True),
    ("max(1, 3, 2) == 3 && min([2, 1]) == 1", True),
    ('unvalidatedJwtPayload("e30.eyJzdWIiOiJ4In0.c2ln").sub == "x"', True),
    ('unvalidatedJwtPayload("nope")', EvalError),
    ('cidr("10.0.0.0/8").containsIP(source.address)', True),
    ('request.headers["X-One"] == "1" && request.headers["x-one"] == "1"', True),
    ('"x-none" in request.headers', False),
    ('has(request.headers.host)', True),
    ('request.headers["x-many"] == ["a", "b"]', True),
    ('request.headers["x-many"].join("+") == "a+b"', True),
    ('request.headers["x-one"].raw() == ["1"] && request.headers["x-one"].redacted() == "<redacted>"', True),
    ('request.headers["x-none"] == "1"', EvalError),
    ('request.headers["cookie"].cookie("sid") == "42"', True),
    ('request.headers["cookie"].cookie("none")', EvalError),
    ('request.pathAndQuery.query("q") == "a b"', True),
    ('request.pathAndQuery.setQuery("q", "c") == "/api/v1?z=1&q=c"', True),
    ('request.pathAndQuery.addQuery("n", "1") == "/api/v1?q=a+b&z=1&n=1"', True),
    ('request.method == "POST" && request.path == "/api/v1" && request.host == "gw.example.org"', True),
    ('request.scheme == "http" && request.uri == "http://gw.example.org/api/v1?q=a%20b&z=1"', True),
    ('request.version == "HTTP/1.1" && request.startTime <= request.endTime', True),
    ('json(request.body).n == 7', True),
    ('source.address == "10.1.2.3" && source.port == 4711', True),
    ("source.identity.namespace == 'x'", EvalError),
    ('jwt.sub == "alice" && "admin" in jwt.groups', True),
    ("apiKey.key == 'x'", EvalError),
    ("has(apiKey.key)", EvalError),
    ("basicAuth.username == 'x'", EvalError),
    ("llm.requestModel == 'x'", EvalError),
    ("variables().jwt.sub == 'alice'", True),
    ('"request" in variables()', True),
    ('backend.protocol == "mcp"', True),
]  # fmt: skip


def values() -> Any:
    call = request(
        "POST", "/api/v1?q=a%20b&z=1", peer=("10.1.2.3", 4711), body=b'{"n": 7}', x_one="1", cookie="sid=42; y=z",
        repeat=(("x-many", "a"), ("x-many", "b")),
    )  # fmt: skip
    rules = chain(open=True)
    assert rules.admit(call) is None
    call.exchange.admission.principal = Principal("a", claims={"sub": "alice", "groups": ["admin"]})
    return variables(call.exchange.admission)


@pytest.mark.parametrize("expression,expected", FUNCTIONS, ids=[f for f, _ in FUNCTIONS])
def test_functions_and_variables(expression: str, expected: Any) -> None:
    program = compile_expression(expression, "here")
    if isinstance(expected, type):
        with pytest.raises(EvalError):
            program.evaluate(values())
    else:
        assert program.evaluate(values()) is expected


@pytest.mark.parametrize(
    "expression,body,token",
    [
        ("request.headers['x'] == 'y'", False, False),
        ("json(request.body).x == 1", True, False),
        ("has(request.body)", True, False),
        ("request['body'] == b''", True, False),
        ("toJson(request)", True, False),
        ("variables().x", True, True),
        ("jwt.sub == 'x'", False, False),
        ("jwt.rawToken.unredacted()", False, True),
        ("toJson(jwt)", False, True),
    ],
)
def test_what_an_expression_reads_is_known_beforehand(expression: str, body: bool, token: bool) -> None:
    found = compile_expression(expression, "here")
    assert (found.reads_body, found.reads_token) == (body, token)


def test_bodies_beyond_the_limit_cannot_be_read_but_the_rest_can() -> None:
    call = request("POST", body=b"x" * (2 * 1024 * 1024 + 1))
    assert chain(open=True).admit(call) is None
    read = variables(call.exchange.admission)
    with pytest.raises(EvalError):
        compile_expression("request.body.size() > 0", "here").evaluate(read)
    assert compile_expression("request.method == 'POST'", "here").evaluate(read) is True


def test_values_as_headers_and_bodies() -> None:
    cases: list[tuple[Any, str]] = [
        ("x", "x"),
        (True, "true"),
        (3, "3"),
        (2.0, "2"),
        (b"ab", "ab"),
        ([1, "a"], '[1,"a"]'),
    ]
    for value, text in cases:
        assert as_text(value) == text and as_bytes(value) == text.encode()
    with pytest.raises(EvalError):
        as_text(None)


RULES = [  # as people write them; what both evaluators make of them
    'jwt.sub == "alice"', 'jwt.sub != "alice"', 'jwt.nope == "x"', "has(jwt.sub)", "has(jwt.nope)", '"admin" in jwt.groups',
    'jwt.groups.exists(g, g.startsWith("ad"))', 'jwt.groups.all(g, g == "admin")', "jwt.nested.roles.size() == 2",
    '"b" in jwt.nested.roles', 'jwt["sub"] == "alice"', "jwt.exp > 100", "jwt.exp > 100.5", "jwt.admin", "!jwt.admin",
    "jwt.admin && jwt.nope", "jwt.admin || jwt.nope", 'jwt.admin ? jwt.sub == "alice" : false', "jwt.sub", "jwt.exp == '100'",
    'mcp.tool.name == "echo"', 'mcp.tool.name in ["echo", "add"]', "mcp.tool.name in []", 'mcp.tool.name.matches("^e.h")',
    'mcp.tool.name.contains("ch") && mcp.tool.target == "demo"', 'mcp.prompt.name == "x"', "has(mcp.prompt.name)",
    '!has(mcp.prompt) && mcp.tool.name == "echo"', 'mcp.tool.name + "x" == "echox"', "mcp.tool.name.size() < 10",
    'request.method == "POST" && request.path.startsWith("/mcp")', 'request.headers["x-team"] == "infra"',
    'request.headers["x-none"] == "infra"', '"x-none" in request.headers', 'request.headers.size() > 0',
    'request.headers["x-team"].lowerAscii() == "infra"', 'request.path.split("/")[1] == "mcp"', "request.path.size() / 0 == 1",
    'source.address.startsWith("10.")', "source.port == 4711", "source.port > 1024 && source.port < 65536", "true", "false",
]  # fmt: skip


@pytest.mark.parametrize("rule", RULES)
def test_usual_rules_agree_with_the_oracle(rule: str) -> None:
    data: dict[str, Any] = {
        "jwt": {
            "sub": "alice",
            "groups": ["admin", "dev"],
            "nested": {"roles": ["a", "b"]},
            "exp": 1000,
            "admin": True,
        },
        "mcp": {"tool": {"name": "echo", "target": "demo"}},
        "request": {"method": "POST", "path": "/mcp/x", "headers": {"x-team": "Infra", "host": "h"}},
        "source": {"address": "10.0.0.1", "port": 4711},
    }
    dyn = oracle.Type.Map(oracle.Type.STRING, oracle.Type.DYN)
    environment = oracle.NewEnv(variables={name: dyn for name in data}, extensions=[ext_strings.ExtStrings()])
    try:
        value = environment.compile(rule).eval(data=data)
        theirs: Any = value.value() if value.type() == oracle.Type.BOOL else None
    except Exception:  # noqa: BLE001 - every failure of the peer is the outcome "not a truth"
        theirs = None
    try:
        ours: Any = compile_expression(rule, "here").evaluate(data)
    except EvalError:
        ours = None
    assert (ours if isinstance(ours, bool) else None) is theirs


_names = st.sampled_from(["get", "time_get", "x", "time_"])
_tests = st.one_of(
    _names.map(lambda n: f'mcp.tool.name == "{n}"'),
    _names.map(lambda n: f'mcp.tool.name != "{n}"'),
    _names.map(lambda n: f'mcp.tool.name in ["{n}", "y"]'),
    _names.map(lambda n: f'mcp.tool.name.startsWith("{n}")'),
    st.sampled_from(['jwt.sub == "alice"', "true", "false"]),
)
_rules = st.recursive(
    _tests,
    lambda below: st.one_of(
        st.tuples(below, st.sampled_from(["&&", "||"]), below).map(lambda t: f"({t[0]} {t[1]} {t[2]})"),
        below.map(lambda t: f"!({t})"),
        st.tuples(below, below, below).map(lambda t: f"({t[0]} ? {t[1]} : {t[2]})"),
    ),
    max_leaves=5,
)


@settings(max_examples=150, deadline=None)
@given(rule=_rules, name=_names)
def test_where_both_names_are_one_the_rewritten_rule_is_the_rule_and_the_oracle_agrees(rule: str, name: str) -> None:
    data: dict[str, Any] = {"mcp": {"tool": {"name": name, "exposedName": name}}, "jwt": {"sub": "alice"}}
    plain = compile_expression(rule, "here").evaluate(data)
    assert compile_expression(rule, "here", on_either_name).evaluate(data) is plain
    assert compile_expression(rule, "here", on_any_test_of_either).evaluate(data) is plain
    dyn = oracle.Type.Map(oracle.Type.STRING, oracle.Type.DYN)
    environment = oracle.NewEnv(variables={"mcp": dyn, "jwt": dyn})
    assert environment.compile(rule).eval(data=data).value() is plain
