"""The same expressions through our CEL and through cel-cpp (cel-expr-python)."""

# ruff: noqa: E501 - tables read best with one case a line
from __future__ import annotations

import functools
from typing import Any

import pytest
from cel_expr_python import cel as oracle
from hypothesis import given, settings
from hypothesis import strategies as st

from quarterdeck import cel

VARIABLES: dict[str, Any] = {
    "s": "héllo",
    "i": 7,
    "b": True,
    "d": 2.5,
    "l": [1, 2, 3],
    "m": {"a": 1, "b": "x", "n": {"c": "d"}},
}
DECLARED = {
    "s": oracle.Type.STRING, "i": oracle.Type.INT, "b": oracle.Type.BOOL, "d": oracle.Type.DOUBLE,
    "l": oracle.Type.List(oracle.Type.INT), "m": oracle.Type.Map(oracle.Type.STRING, oracle.Type.DYN),
}  # fmt: skip


@functools.cache
def environment() -> Any:
    from cel_expr_python.ext import ext_encoders, ext_math, ext_optional, ext_strings

    extensions = [
        ext_strings.ExtStrings(), ext_math.ExtMath(), ext_optional.ExtOptional(), ext_encoders.ExtEncoders(),
    ]  # fmt: skip
    return oracle.NewEnv(variables=DECLARED, extensions=extensions)


def theirs(expression: str) -> str:
    """ "true", "false" or "error" (errors are values there); other results would be a broken table."""
    try:
        value = environment().compile(expression).eval(data=VARIABLES)
    except Exception:  # noqa: BLE001 - every failure of the peer is the outcome "error"
        return "error"
    if value.type() == oracle.Type.BOOL and value.value() is True:
        return "true"
    return "false" if value.type() == oracle.Type.BOOL else "error"


def ours(expression: str) -> str:
    try:
        value = cel.compile(expression).evaluate(VARIABLES)
    except (cel.CompileError, cel.EvalError):
        return "error"
    return "true" if value is True else "false" if value is False else "error"


TABLE = r"""
1 + 2 == 3
1 - 2 == -1
2 * 3 == 6
7 / 2 == 3
-7 / 2 == -3
7 % 3 == 1
-7 % 3 == -1
7 % -3 == 1
1 / 0 == 0
1 % 0 == 0
9223372036854775807 + 1 == 0
-9223372036854775808 - 1 == 0
9223372036854775807 * 2 == 0
-(-9223372036854775808) == 0
-9223372036854775808 == -9223372036854775807 - 1
1u + 2u == 3u
1u - 2u == 0u
18446744073709551615u + 1u == 0u
5u / 2u == 2u
5u % 2u == 1u
1.5 + 2.5 == 4.0
1.0 / 0.0 > 1e308
0.0 / 0.0 == 0.0 / 0.0
0.0 / 0.0 != 0.0 / 0.0
-1.5 == 0.0 - 1.5
0x10 == 16
0xFFu == 255u
1e3 == 1000.0
.5 == 0.5
dyn(1) == 1.0
dyn(1) == 1u
dyn(1u) == 1.0
dyn(1) == "1"
dyn(true) == 1
1 < 2
2 < 1
2 <= 2
dyn(1) < 1.5
dyn(1u) < 2
dyn(2.5) > 2u
"a" < "b"
"a" < "B"
"abc" <= "abd"
b"a" < b"b"
false < true
"a" + "b" == "ab"
b"a" + b"b" == b"ab"
[1] + [2] == [1, 2]
"a" == 'a'
'''a'b''' == "a'b"
\"\"\"x\"\"\" == "x"
r"\n" == "\\n"
"\x41\u0042\U00000043\104" == "ABCD"
b"\x41\101" == b"AA"
b"\xff" == b"\377"
"\a\b\f\n\r\t\v\"\'\\\`\?" != ""
"\q" == "q"
[1, 2, 3] == [1, 2, 3]
[1, 2] == [1, 2, 3]
[1] == [1.0]
1 == 1.0
1 != 1u
1 in [1.0]
"a" in ["a", "b"]
"a" == 1
[1, "a"] == [1, "a"]
m.a in l
{"a": 1} == {"a": 1}
{"a": 1, "b": 2} == {"b": 2, "a": 1}
{"a": 1} == {"a": 2}
{1: "a"}[1] == "a"
{true: "a"}[true] == "a"
{true: "a", false: "b"}[false] == "b"
{1u: "a"}[1u] == "a"
{"a": 1, "a": 2}["a"] == 2
{1: "a"}[2] == "a"
[1, 2][0] == 1
[1, 2][2] == 1
[1, 2][-1] == 2
1 in [1, 2]
3 in [1, 2]
"a" in {"a": 1}
"b" in {"a": 1}
dyn(1.0) in [1, 2]
!true
!false
!!true
!(1 == 2)
true && false
true || false
false && (1 / 0 == 0)
(1 / 0 == 0) && false
true || (1 / 0 == 0)
(1 / 0 == 0) || true
(1 / 0 == 0) || false
(1 / 0 == 0) && true
true ? true : false
false ? true : false
true ? true : 1 / 0 == 0
1 > 0 ? 2 > 1 : false
false ? 1 / 0 == 0 : true
true ? false ? true : false : true
has(m.a)
has(m.z)
has(m.n.c)
has(m.z.c)
has({"a": 1}.a)
m.a == 1
m.z == 1
m["b"] == "x"
m.n.c == "d"
m["n"]["c"] == "d"
s == "héllo"
s.size() == 5
size(s) == 5
size(b"abc") == 3
size([1, 2]) == 2
size({"a": 1}) == 1
l.size() == 3
l[i - 6] == 2
b && i == 7
d * 2.0 == 5.0
d * 2 == 5.0
s.startsWith("h")
s.endsWith("lo")
s.contains("él")
s.matches("^h.llo$")
s.matches("l+")
matches(s, "^l")
"aaa".matches("^(a+)+$")
"a\n".matches("^a$")
"1".matches("^\\d$")
"a.b".matches("a\\.b")
"x".matches("(")
[1, 2, 3].all(x, x > 0)
[1, 2, 3].all(x, x > 1)
[].all(x, x > 1)
[1, 2, 3].exists(x, x == 2)
[].exists(x, true)
[1, 2, 3].exists_one(x, x == 2)
[1, 2, 2].exists_one(x, x == 2)
[1, 2, 3].map(x, x * 2) == [2, 4, 6]
[1, 2, 3].map(x, x > 1, x * 2) == [4, 6]
[1, 2, 3].filter(x, x > 1) == [2, 3]
{"a": 1, "b": 2}.all(k, k < "c")
{"a": 1}.exists(k, k == "a")
{"a": 1}.map(k, k) == ["a"]
[1, 0].all(x, 1 / x > 0)
[0, 1].exists(x, 1 / x > 0)
[0, -1].exists(x, 1 / x > 0)
[0, 1].exists_one(x, 1 / x > 0)
[[1], [2]].exists(x, x.exists(y, y == 2))
[1, 2].map(x, [x].map(y, x + y)[0]) == [2, 4]
[1].map(x, x).map(x, x + 1) == [2]
int("12") == 12
int("a") == 12
int(2.9) == 2
int(-2.9) == -2
int(5u) == 5
int(1e30) == 0
int("-9223372036854775808") < 0
uint("12") == 12u
uint(5) == 5u
uint(-1) == 5u
double("1.5") == 1.5
double(2) == 2.0
double("x") == 2.0
string(1) == "1"
string(1u) == "1"
string(1.5) == "1.5"
string(true) == "true"
string(b"abc") == "abc"
string(b"\xff") == "abc"
bytes("abc") == b"abc"
bool("true")
bool("True")
bool("yes")
type(1) == int
type(1u) == uint
type(1.0) == double
type("a") == string
type(b"a") == bytes
type(true) == bool
type([]) == list
type({}) == map
type(null) == null_type
type(int) == type
type(1) == type(2)
null == null
dyn(null) == 1
duration("1h") == duration("60m")
duration("1h30m") > duration("1h")
duration("x") == duration("1s")
duration("1s") + duration("1s") == duration("2s")
duration("1.5s").getMilliseconds() == 500
duration("90s").getMinutes() == 1
duration("1h").getSeconds() == 3600
string(duration("1m30s")) == "90s"
timestamp("2020-01-01T00:00:00Z").getFullYear() == 2020
timestamp("2020-02-03T00:00:00Z").getMonth() == 1
timestamp("2020-02-03T00:00:00Z").getDate() == 3
timestamp("2020-02-03T00:00:00Z").getDayOfMonth() == 2
timestamp("2020-02-03T00:00:00Z").getDayOfWeek() == 1
timestamp("2020-02-03T00:00:00Z").getDayOfYear() == 33
timestamp("2020-02-03T04:05:06.789Z").getHours() == 4
timestamp("2020-02-03T04:05:06.789Z").getMinutes() == 5
timestamp("2020-02-03T04:05:06.789Z").getMilliseconds() == 789
timestamp("2020-02-03T04:05:06Z").getHours("+02:00") == 6
timestamp("2020-02-03T04:05:06+01:00") == timestamp("2020-02-03T03:05:06Z")
timestamp("2020-01-01T00:00:00Z") + duration("24h") == timestamp("2020-01-02T00:00:00Z")
timestamp("2020-01-02T00:00:00Z") - timestamp("2020-01-01T00:00:00Z") == duration("24h")
timestamp("2020-01-02T00:00:00Z") - duration("24h") == timestamp("2020-01-01T00:00:00Z")
timestamp("nope") == timestamp("2020-01-01T00:00:00Z")
timestamp("9999-12-31T23:59:59Z") + duration("24h") > timestamp("2020-01-01T00:00:00Z")
string(timestamp("2020-01-01T00:00:00Z")) == "2020-01-01T00:00:00Z"
int(timestamp("1970-01-01T00:01:00Z")) == 60
"tacocat".charAt(3) == "o"
"abc".charAt(3) == ""
"abc".charAt(4) == ""
"hello mellow".indexOf("ello") == 1
"hello mellow".indexOf("ello", 2) == 7
"hello".indexOf("jello") == -1
"hello mellow".lastIndexOf("ello") == 7
"hello mellow".lastIndexOf("ello", 6) == 1
["a", "b"].join() == "ab"
["a", "b"].join("-") == "a-b"
"TacoCat".lowerAscii() == "tacocat"
"TacoCÆt".upperAscii() == "TACOCÆT"
"hello hello".replace("he", "we") == "wello wello"
"hello hello".replace("he", "we", 1) == "wello hello"
"hello hello".replace("he", "we", 0) == "hello hello"
"a b c".split(" ") == ["a", "b", "c"]
"a b c".split(" ", 2) == ["a", "b c"]
"a b c".split(" ", 0) == []
"abc".split("") == ["a", "b", "c"]
"tacocat".substring(4) == "cat"
"tacocat".substring(0, 4) == "taco"
"tacocat".substring(4, 2) == ""
"  a b ".trim() == "a b"
"gums".reverse() == "smug"
"%d %s".format([1, "a"]) == "1 a"
"%.2f".format([1.234]) == "1.23"
"%x %X".format([255, 255]) == "ff FF"
"%b %o".format([5, 8]) == "101 10"
strings.quote("a\"b\n") == "\"a\\\"b\\n\""
math.greatest(1, 3, 2) == 3
math.least([1, 3, 2]) == 1
math.greatest([]) == 1
math.ceil(1.2) == 2.0
math.floor(-1.2) == -2.0
math.round(1.5) == 2.0
math.round(-1.5) == -2.0
math.trunc(-1.9) == -1.0
math.abs(-5) == 5
math.sign(-5) == -1
math.isNaN(0.0 / 0.0)
math.bitAnd(6, 3) == 2
math.bitOr(4, 1) == 5
math.bitXor(6, 3) == 5
math.bitShiftLeft(1, 4) == 16
math.bitShiftRight(16, 2) == 4
base64.encode(b"hello") == "aGVsbG8="
base64.decode("aGVsbG8=") == b"hello"
base64.decode("aGVsbG8") == b"hello"
optional.of(1).hasValue()
optional.none().hasValue()
optional.of(1).value() == 1
optional.none().orValue(2) == 2
optional.of(1).orValue(2) == 1
m.?a.orValue(5) == 1
m.?z.orValue(5) == 5
m[?"z"].orValue(5) == 5
l[?9].orValue(5) == 5
m.?n.c.orValue("q") == "d"
[?m.?z, ?m.?a] == [1]
{?"a": m.?z} == {}
optional.of(2).optMap(x, x + 1).value() == 3
optional.none().or(optional.of(1)).value() == 1
optional.ofNonZeroValue("").hasValue()
optional.of(1) == optional.of(1)
unknown == 1
foo(1)
1 +
(1 == 1
"a" == "b
1 + "a" == "a"
"a" && true
1 ? true : false
"a" * 2 == "aa"
!1
-"a" == "a"
// a comment
true // comment
"""
EXPRESSIONS = [line.replace('\\"\\"\\"', '"""') for line in TABLE.strip().splitlines() if not line.startswith("//")]


def test_the_table_is_long_enough_and_not_mostly_errors():
    assert len(EXPRESSIONS) >= 200
    assert sum(theirs(expression) == "error" for expression in EXPRESSIONS) < len(EXPRESSIONS) / 4


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_agrees(expression: str):
    assert ours(expression) == theirs(expression)


_numbers = st.one_of(
    st.integers(-5, 5).map(str), st.integers(0, 5).map(lambda n: f"{n}u"), st.sampled_from(["1.5", "0.0", "-2.0", "d", "i"]),
    st.sampled_from(["9223372036854775807", "-9223372036854775808", "18446744073709551615u"]),
)  # fmt: skip
_arith = st.recursive(
    _numbers.map(lambda text: f"dyn({text})"),
    lambda below: st.tuples(below, st.sampled_from(["+", "-", "*", "/", "%"]), below).map(lambda t: f"({t[0]} {t[1]} {t[2]})"),
    max_leaves=4,
)  # fmt: skip
_terms = st.one_of(
    st.sampled_from(["true", "false", "b", "m.z == 1", 'm.b == "x"', "has(m.a)", "dyn(1) == dyn('a')", "l.exists(x, x == 2)", "dyn(3) && true"]),
    st.tuples(_arith, st.sampled_from(["==", "!=", "<", "<=", ">", ">="]), _arith).map(" ".join),
)  # fmt: skip
_logic = st.recursive(
    _terms,
    lambda below: st.one_of(
        st.tuples(below, st.sampled_from(["&&", "||"]), below).map(lambda t: f"({t[0]} {t[1]} {t[2]})"),
        below.map(lambda t: f"!({t})"),
        st.tuples(below, below, below).map(lambda t: f"({t[0]} ? {t[1]} : {t[2]})"),
    ),
    max_leaves=6,
)  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(expression=_logic)
def test_generated_expressions_agree(expression: str):
    assert ours(expression) == theirs(expression)
