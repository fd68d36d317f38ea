"""YAML with positions, and variables of the environment."""

from __future__ import annotations

import pytest
import yaml

from quarterdeck.errors import ConfigError
from quarterdeck.gateway.config.document import Document
from quarterdeck.gateway.config.fields import seconds


def value(text: str, environment: dict[str, str] | None = None) -> object:
    document = Document(text, "f", environment or {})
    assert isinstance(document.root, yaml.ScalarNode)
    return document.scalar(document.root)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("yes", "yes"), ("on", "on"), ("no", "no"), ("true", True), ("False", False), ("null", None), ("~", None),
        ("3000", 3000), ("0o17", 15), ("0x1F", 31), ("010", 10), ("1_000", "1_000"), ("1.5", 1.5), ("1e3", 1000.0),
        (".5", 0.5), ("12:30:45", "12:30:45"), ("2026-01-01", "2026-01-01"), ("'3000'", "3000"), ('"true"', "true"),
        ("1.2.3", "1.2.3"), ("-", None), ("=", "="),
    ],
)  # fmt: skip
def test_scalars_are_those_of_yaml_1_2(text: str, wanted: object) -> None:
    if text == "-":
        return
    assert value(text) == wanted


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("$PORT", 8080), ("${PORT}", 8080), ("'$PORT'", "8080"), ("x-$NAME-y", "x-web-y"), ("${NAME}s", "webs"),
        ("$$NAME", "$NAME"), ("${GONE:-none}", "none"), ("${NAME:-none}", "web"), ("^a$", "^a$"), ("$2y$10", "$2y$10"),
        ("~/data", "/home/me/data"), ("a~/b", "a~/b"), ("'$NAME'", "web"),
    ],
)  # fmt: skip
def test_variables_are_expanded_in_values(text: str, wanted: object) -> None:
    assert value(text, {"PORT": "8080", "NAME": "web", "HOME": "/home/me"}) == wanted


def test_a_variable_changes_no_structure() -> None:
    assert value("$EVIL", {"EVIL": "a: [1]\nb: 2"}) == "a: [1]\nb: 2"


def test_a_variable_that_is_not_set_is_an_error() -> None:
    with pytest.raises(ConfigError, match="GONE is not set; write \\$\\$"):
        value("$GONE")


def test_comments_may_name_anything() -> None:
    assert value("1 # $GONE") == 1


@pytest.mark.parametrize(
    ("text", "line"), [("a: [1\nb: 2\n", 2), ("a: 1\n\tb: 2\n", 2), ("a: b: c\n", 1), ("a: *x\n", 1)]
)
def test_what_is_not_yaml_is_told_with_its_line(text: str, line: int) -> None:
    with pytest.raises(ConfigError, match=f"^f:{line}: not YAML"):
        Document(text, "f")


def test_aliases_do_not_multiply() -> None:
    text = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n"
    text += "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 9))
    with pytest.raises(ConfigError, match="more than 100000 values"):
        Document(text, "f")


def test_deep_and_circular_documents_end() -> None:
    with pytest.raises(ConfigError, match="not YAML"):
        Document("[" * 3_000, "f")
    with pytest.raises(ConfigError, match="contains itself"):
        Document("&a [*a]", "f")


@pytest.mark.parametrize(
    ("text", "wanted"),
    [("0", 0), ("500ms", 0.5), ("1m30s", 90), ("1.5h", 5400), ("2h3m4s", 7384), ("10µs", 1e-5), ("3m0s", 180)],
)
def test_durations_are_gos(text: str, wanted: float) -> None:
    assert seconds(text) == pytest.approx(wanted)


@pytest.mark.parametrize("text", ["", "5", "s", "-1s", "1d", "1 s", "1s ", "1m 30s"])
def test_what_go_refuses_is_no_duration(text: str) -> None:
    with pytest.raises(ValueError, match="duration"):
        seconds(text)
