"""Rules of both generations, and which name of a tool they are about."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quarterdeck.errors import ConfigError
from quarterdeck.gateway.policy.rules import Rules
from quarterdeck.snapshot.policies import Authorization, CelRule

from .rig import admit_now, chain, request

ALLOW, DENY, REQUIRE = "allow", "deny", "require"


def rules(*given: tuple[str, str], strict: bool = False) -> Rules:
    return Rules((Authorization(tuple(CelRule(e, x) for e, x in given), strict=strict),), "r")  # type: ignore[arg-type]


FAILS = "jwt.missing == 'x'"
CASES: list[tuple[list[tuple[str, str]], bool, bool]] = [
    # rules, allowed now, allowed when strict (October 2025)
    ([], True, True),
    ([(ALLOW, "true")], True, True),
    ([(ALLOW, "false")], False, False),
    ([(DENY, "true")], False, False),
    ([(DENY, "false")], True, False),
    ([(REQUIRE, "true")], True, True),
    ([(REQUIRE, "false")], False, False),
    ([(ALLOW, "true"), (DENY, "true")], False, False),
    ([(ALLOW, "true"), (DENY, "false")], True, True),
    ([(ALLOW, "true"), (REQUIRE, "false")], False, False),
    ([(ALLOW, "false"), (REQUIRE, "true")], False, False),
    ([(ALLOW, "false"), (ALLOW, "true")], True, True),
    ([(ALLOW, FAILS)], False, False),
    ([(ALLOW, FAILS), (ALLOW, "true")], True, True),
    ([(REQUIRE, FAILS)], False, False),
    ([(DENY, FAILS)], True, False),
    ([(DENY, FAILS), (ALLOW, "true")], True, False),
    ([(ALLOW, "'true'")], False, False),
    ([(DENY, "1")], True, False),
    ([(REQUIRE, "jwt.sub")], False, False),
]


@pytest.mark.parametrize("given,now,strict", CASES, ids=lambda v: str(v)[:60])
def test_order_of_effects(given: list[tuple[str, str]], now: bool, strict: bool) -> None:
    values = {"jwt": {"sub": "alice"}}
    assert rules(*given).decide(values).allow is now
    assert rules(*given, strict=True).decide(values).allow is strict


def test_nobody_gets_round_a_denial_by_making_it_costly() -> None:
    costly = {"jwt": {"l": list(range(2000))}}
    deny = "jwt.l.exists(a, jwt.l.exists(b, a + b == 100000)) || jwt.evil"
    assert not rules((DENY, deny)).decide(costly).allow
    call = request("POST", body=b'{"evil": true}' + b" " * (2 * 1024 * 1024))
    on_body = chain(open=True, authorization=(Authorization((CelRule("deny", "json(request.body).evil || false"),)),))
    refusal = admit_now(on_body, call)
    assert refusal is not None and refusal.status == 403
    assert admit_now(on_body, request("POST", body=b'{"evil": false}')) is None


def test_sets_of_several_attachment_points() -> None:
    def both(first: Authorization, second: Authorization) -> bool:
        return Rules((first, second), "r").decide({}).allow

    allow, deny = Authorization((CelRule("allow", "true"),)), Authorization((CelRule("deny", "true"),))
    never, require = Authorization((CelRule("allow", "false"),)), Authorization((CelRule("require", "false"),))
    assert both(allow, never) and both(never, allow)
    assert not both(allow, deny) and not both(require, allow)
    assert both(Authorization((CelRule("deny", "false"),), strict=True), allow)
    assert not both(Authorization((CelRule("deny", "false"),), strict=True), Authorization(()))


def test_decisions_name_the_rule_and_its_attachment() -> None:
    found = Rules((Authorization((CelRule("deny", "true"),), where="policy/ns/p"),), "r").decide({})
    assert found.rule == "policy/ns/p/deny/0" and not found.allow


@pytest.mark.parametrize(
    "rule,upstream,exposed,allowed",
    [
        ('mcp.tool.name == "get"', "get", "time_get", True),
        ('mcp.tool.name == "time_get"', "get", "time_get", True),
        ('"time_get" == mcp.tool.name', "get", "time_get", True),
        ('mcp.tool.name in ["time_get"]', "get", "time_get", True),
        ('mcp.tool.name.startsWith("time_")', "get", "time_get", False),
        ('mcp.tool.name.startsWith("ge")', "get", "time_get", True),
        ('mcp.tool.name != "time_get"', "get", "time_get", False),
        ('!(mcp.tool.name in ["time_get"])', "get", "time_get", False),
        ('mcp.tool.name == "time_get" && mcp.tool.target == "other"', "get", "time_get", False),
        ('mcp.tool.target == "time"', "get", "time_get", True),
        ('["time_get"].exists(n, n == mcp.tool.name)', "get", "time_get", False),
    ],
)
def test_an_allow_may_name_the_exposed_name_literally(rule: str, upstream: str, exposed: str, allowed: bool) -> None:
    assert rules((ALLOW, rule)).decide_named({}, "tools/call", upstream, exposed, "time").allow is allowed


@pytest.mark.parametrize(
    "rule,denied",
    [
        ('mcp.tool.name == "get"', True),
        ('mcp.tool.name == "time_get"', True),
        ('mcp.tool.name.startsWith("time_")', True),
        ('mcp.tool.name.matches("^time_.*")', True),
        ('mcp.tool.name.contains("me_g")', True),
        ('mcp.tool.name in ["time_get"]', True),
        ('!(mcp.tool.name in ["get"])', False),  # what agentgateway lets through, we do, too
        ('mcp.tool.name != "time_get"', True),  # and what it denies we deny
        ('mcp.tool.name == "other"', False),
    ],
)
def test_a_deny_matches_on_either_name(rule: str, denied: bool) -> None:
    assert rules((DENY, rule)).decide_named({}, "tools/call", "get", "time_get", "time").allow is not denied


def test_prompts_and_resources_are_not_tools() -> None:
    only_tools = rules((ALLOW, 'mcp.tool.name == "x"'))
    assert not only_tools.decide_named({}, "prompts/get", "x").allow
    assert not only_tools.decide_named({}, "resources/read", "x").allow
    assert only_tools.decide_named({}, "tools/list", "").allow
    assert (
        rules((ALLOW, 'mcp.resource.name.startsWith("file:///")')).decide_named({}, "resources/read", "file:///a").allow
    )


@pytest.mark.parametrize(
    "expression,hint",
    [
        ("requst.path == 'x'", "request"),
        ("request.pth == 'x'", "path"),
        ("mcp.tol.name == 'x'", "tool"),
        ("1 +", "1 +"),
    ],
)
def test_a_rule_that_cannot_be_is_an_error_with_a_hint(expression: str, hint: str) -> None:
    with pytest.raises(ConfigError, match="r/allow/0") as caught:
        rules((ALLOW, expression))
    assert hint in str(caught.value)


_effects = st.sampled_from([ALLOW, DENY, REQUIRE])
_outcomes = st.sampled_from(["true", "false", FAILS])


@settings(deadline=None)
@given(st.lists(st.tuples(_effects, _outcomes), max_size=5), st.booleans())
def test_any_set_decides_as_the_text_says(given: list[tuple[str, str]], strict: bool) -> None:
    def value(expression: str) -> Any:
        return {"true": True, "false": False}.get(expression)

    def expected() -> bool:
        if not given:
            return True
        for effect, x in given:
            if effect == DENY and (value(x) is True or (value(x) is None and strict)):
                return False
        if any(e == REQUIRE and value(x) is not True for e, x in given):
            return False
        allows = [x for e, x in given if e == ALLOW]
        if allows:
            return any(value(x) is True for x in allows)
        return not strict or any(e == REQUIRE for e, _ in given)

    assert rules(*given, strict=strict).decide({"jwt": {}}).allow is expected()
