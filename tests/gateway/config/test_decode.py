# ruff: noqa: E501 - messages as they are
"""Problems are told with file, line, path and what to do."""

from __future__ import annotations

import pytest

from quarterdeck.errors import ConfigError

from .conftest import Reader


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("bind: []", "<inline>:1: bind: unknown field; did you mean binds?"),
        ("binds:\n- port: 1\n  listeners:\n  - route: []", "<inline>:4: binds[0].listeners[0].route: unknown field; did you mean routes?"),
        ("binds:\n- port: 1\n  listeners: []\n  frobnicate: 1", "<inline>:4: binds[0].frobnicate: unknown field; known here: listeners, port, tunnelProtocol"),
        ("binds:\n- port: x\n  listeners: []", "<inline>:2: binds[0].port: expected a whole number, found 'x'"),
        ("binds:\n- port: 1.5\n  listeners: []", "<inline>:2: binds[0].port: expected a whole number, found 1.5"),
        ("binds:\n- listeners: []", "<inline>:2: binds[0]: port is required"),
        ("binds: {}", "<inline>:1: binds: expected a list, found a mapping"),
        ("binds: []\nbinds: []", "<inline>:2: binds: given twice"),
        ("binds: 3", "<inline>:1: binds: expected a list, found 3"),
        ("mcp:\n  targets:\n  - name: x\n    stdio:", "<inline>:3: mcp.targets[0]: give exactly one of sse, mcp, stdio, openapi"),
        ("mcp:\n  targets:\n  - name: x\n    stdio: {}", "<inline>:4: mcp.targets[0].stdio: cmd is required"),
        ("mcp:\n  targets: []\n  prefixMode: sometimes", "<inline>:3: mcp.prefixMode: expected one of conditional, always, never, found 'sometimes'"),
        ("[]: 1", "a key must be text"),
        ("", "the file is empty"),
        ("binds: []", "nothing listens: give binds, gateways or mcp"),
    ],
)  # fmt: skip
def test_problems_name_line_path_and_remedy(reader: Reader, text: str, wanted: str) -> None:
    assert wanted in reader.errors(text)


def test_what_variables_hold_is_not_told(reader: Reader) -> None:
    with pytest.raises(ConfigError) as caught:
        reader.load("binds:\n- port: $TOKEN\n  listeners: []", environment={"TOKEN": "s3cret"})
    assert "binds[0].port: expected a whole number, found '$TOKEN'" in str(caught.value)


def test_spelling_of_other_conventions_is_recognised(reader: Reader) -> None:
    found = reader.errors("mcp:\n  targets: []\n  prefix_mode: always\n  StatefulMode: stateful")
    assert "did you mean prefixMode?" in found and "did you mean statefulMode?" in found


def test_every_problem_is_told_at_once(reader: Reader) -> None:
    found = reader.errors("mcp:\n  target: []\n  port: much\nui: 3\n")
    assert [line.split(":")[1] for line in found.splitlines()] == ["2", "3", "4"]


def test_numbers_where_text_is_wanted_are_taken_as_written(reader: Reader) -> None:
    text = (
        "mcp: {targets: [{name: a, stdio: {cmd: c, args: [--port, 8080, 1.50, true, 007], env: {DEBUG: 1, ON: yes}}}]}"
    )
    child = reader.snapshot(text).children[0]
    assert child.args == ("--port", "8080", "1.50", "true", "007")
    assert dict(child.env) == {"DEBUG": "1", "ON": "yes"}


def test_files_are_relative_to_the_working_directory(reader: Reader) -> None:
    reader.file("keys/key", "s3cret\n")
    policies = reader.policies("backendAuth: {key: {file: keys/key}}")
    assert policies.credential is not None and policies.credential.value == "s3cret"
    loaded = reader.load(
        "binds: [{port: 1, listeners: [{routes: [{policies: {backendAuth: {key: {file: keys/key}}}, "
        "backends: [{host: 'b:80'}]}]}]}]"
    )
    assert loaded.files == {reader.folder / "keys/key"}


def test_a_file_that_is_not_there_is_told_with_its_line(reader: Reader) -> None:
    found = reader.refusal("jwtAuth:\n  issuer: i\n  jwks: {file: ./manifests/jwt/pub-key}")
    assert "<inline>:8: binds[0].listeners[0].routes[0].policies.jwtAuth.jwks.file: " in found
    assert "No such file or directory; paths are relative to the working directory" in found


def test_expressions_that_do_not_compile_are_told_with_their_line(reader: Reader) -> None:
    found = reader.refusal("cors: {}\nauthorization:\n  rules:\n  - 'request.path =='\n  - allow: 'nonsense.x'")
    assert "<inline>:9: " in found and "authorization.rules[0]" in found
    assert "<inline>:10: " in found and "authorization.rules[1].allow" in found
