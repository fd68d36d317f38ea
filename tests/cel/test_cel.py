"""What the oracle does not have: Kubernetes' libraries, limits, references, positions."""

# ruff: noqa: E501 - tables read best with one case a line
from __future__ import annotations

from typing import Any

import pytest

from quarterdeck import cel
from quarterdeck.cel import types


@pytest.mark.parametrize(
    "expression",
    [
        "[1, 2, 3].isSorted() && !['b', 'a'].isSorted()",
        "[1, 2, 3].sum() == 6 && [].sum() == 0 && [1.5, 2.0].sum() == 3.5",
        "[3, 1, 2].min() == 1 && ['a', 'c'].max() == 'c'",
        "[1, 2, 1].indexOf(1) == 0 && [1, 2, 1].lastIndexOf(1) == 2 && [1].indexOf(9) == -1",
        "'abc 123 45'.find('[0-9]+') == '123' && 'a1b2'.findAll('[0-9]') == ['1', '2'] && 'a1b2'.findAll('[0-9]', 1) == ['1']",
        "url('https://user@example.com:80/a%20b?x=1&x=2').getHost() == 'example.com:80'",
        "url('https://[::1]:80/').getHostname() == '::1' && url('https://h:80/').getPort() == '80'",
        "url('https://h/p?x=1&x=2').getQuery() == {'x': ['1', '2']} && isURL('/abs') && !isURL('../rel')",
        "quantity('1.5Gi').isGreaterThan(quantity('1500M')) && quantity('100m').add(quantity('900m')).asInteger() == 1",
        "isQuantity('1Ki') && !isQuantity('1 Ki') && quantity('1k').compareTo(quantity('1000')) == 0 && quantity('50k').sign() == 1",
        "ip('127.0.0.1').isLoopback() && ip('::1').family() == 6 && isIP('1.2.3.4') && !isIP('1.2.3')",
        "cidr('10.0.0.0/8').containsIP('10.1.2.3') && !cidr('10.0.0.0/8').containsIP(ip('11.0.0.1'))",
        "cidr('10.0.0.0/8').containsCIDR('10.1.0.0/16') && cidr('10.1.2.3/8').masked() == cidr('10.0.0.0/8')",
        "!format.dns1123Label().validate('my-label').hasValue() && format.dns1123Label().validate('No').hasValue()",
        "format.named('uuid').value().validate('nope').hasValue() && !format.named('nothing').hasValue()",
        "sets.contains([1, 2], [1]) && sets.equivalent([1, 1], [1]) && !sets.intersects([1], [2])",
        "{'a': 1, 'b': 2}.transformMap(k, v, v * 2) == {'a': 2, 'b': 4} && [1, 2].transformList(i, v, i + v) == [1, 3]",
        "[1, 2].all(i, v, i < v) && {'a': 1}.exists(k, v, k == 'a' && v == 1) && [5, 6].existsOne(i, v, v == 6)",
        "cel.bind(x, [1, 2], x + x == [1, 2, 1, 2])",
        "[3, 1].sort() == [1, 3] && [1, 1].distinct() == [1] && [1, 2, 3].slice(1, 2) == [2] && lists.range(2) == [0, 1]",
        "'[[:alpha:]]'.size() > 0 && 'b'.matches('^[[:alpha:]]$') && 'a.b'.matches(r'\\Qa.b\\E') && 'x-y'.matches(r'^[\\w-.]+$')",
        "m.`a-b/c` == 1",
    ],
)  # fmt: skip
def test_is_true(expression: str):
    assert cel.compile(expression).evaluate({"m": {"a-b/c": 1}}) is True


@pytest.mark.parametrize(
    ("expression", "position", "message"),
    [
        ("a && foo == 1", 5, "undeclared reference to 'foo'"),
        ("a && bar(a)", 5, "undeclared reference to 'bar'"),
        ("a == ", 5, "Syntax error"),
        ("o.missing", 1, "undefined field 'missing'"),
        ("o.n + 'x'", 4, "found no matching overload for '_+_' applied to '(int, string)'"),
        ("o.n.matches('(')", 3, "found no matching overload"),
        ("'a'.matches('(')", 3, "invalid regular expression"),
        ("(" * 500 + "a" + ")" * 500, 50, "recursion limit"),
        ("package", 0, "reserved identifier"),
    ],
)
def test_compile_errors_name_the_position(expression: str, position: int, message: str):
    declared = {"a": types.BOOL, "o": types.object_of({"n": types.INT})}
    with pytest.raises(cel.CompileError) as caught:
        cel.compile(expression, declared)
    assert message in str(caught.value)
    assert abs(caught.value.position - position) <= 1


def test_references_are_the_paths_read():
    program = cel.compile('mcp.tool.name == "x" && jwt.sub == "y" && request.headers["a"] == "b" && l.all(v, v.q == z)')
    assert program.references == {("mcp", "tool", "name"), ("jwt", "sub"), ("request", "headers"), ("l",), ("z",)}


def test_budget_and_sizes():
    small = cel.Limits(steps=100)
    many = {"l": list(range(50))}
    with pytest.raises(cel.BudgetExceeded, match="evaluation budget exceeded"):
        cel.compile("l.exists(x, l.exists(y, x + y < 0)) || true", None, small).evaluate(many)
    assert cel.compile("l.all(x, x >= 0)", None, small).evaluate(many) is True
    doubling = "'aaaaaaaaaaaaaaaa'"
    for name in "bcdefghijklmnopqrs":
        doubling = f"cel.bind({name}, {doubling}, {name} + {name})"
    with pytest.raises(cel.EvalError):
        cel.compile(f"size({doubling}) > 0", None, cel.Limits(steps=5000)).evaluate({})
    with pytest.raises(cel.CompileError):
        cel.compile("a + " * 40_000 + "a")
    with pytest.raises(cel.CompileError, match="nodes"):
        cel.compile("[" + "1," * 5000 + "1]")


def test_catastrophic_patterns_take_linear_time():
    text: dict[str, Any] = {"s": "a" * 50_000 + "b"}
    assert cel.compile("s.matches('^(a+)+$')").evaluate(text) is False
    with pytest.raises(cel.EvalError, match="repeats a repeated group"):
        cel.compile("s.find('(a+)+$')").evaluate(text)


def test_a_program_can_be_used_again_and_inside_itself():
    program = cel.compile("l.map(x, x + n)")
    assert program.evaluate({"l": [1], "n": 1}) == [2]
    assert program.evaluate({"l": [1], "n": 2}) == [3]


@pytest.mark.parametrize(
    "call",
    ["s.family()", "n.getHost()", "math.abs(s)", "math.sqrt(s)", "[m, m].sort()", "n.isSorted()", "s.masked()", "m.size(1)",
     "timestamp(s)", "duration(s)", "'%d'.format(n)", "t.getHours(n)", "quantity(n)", "lists.range(s)", "n.value()"],
)  # fmt: skip
def test_wrong_types_at_run_time_are_evaluation_errors(call: str):
    now = cel.Timestamp.parse("2026-01-01T00:00:00Z")
    with pytest.raises((cel.EvalError, cel.CompileError)):
        cel.compile(call).evaluate({"s": "x", "n": 1, "m": {"a": 1}, "t": now})


@pytest.mark.parametrize(
    "source", ["1" * 5000, "0x" + "f" * 5000, "'\\", r'"\ud800"', "\x00", "a.", "[?", "{?", "a[?", "-", "has(a)"]
)
def test_odd_sources_are_compile_errors(source: str):
    with pytest.raises(cel.CompileError):
        cel.compile(source)
