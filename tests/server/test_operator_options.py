"""Flags and variables of the operator; tests/charts checks that the chart uses them as they are."""

from __future__ import annotations

import pytest

from quarterdeck.errors import UsageError
from quarterdeck.server.operator_options import parse

NEEDED = {"POD_NAMESPACE": "qs", "QUARTERDECK_DATABASE_URL": "postgresql://u:secret@h/d", "POD_IP": "10.1.2.3"}


def test_defaults_come_from_the_pod() -> None:
    options = parse([], NEEDED | {"POD_NAME": "quarterdeck-controller-x"})
    assert (options.namespace, options.api, options.kagent) == ("qs", ("10.1.2.3", 8700), ("10.1.2.3", 8083))
    assert options.identity.startswith("quarterdeck-controller-x_")
    assert options.identity != parse([], NEEDED | {"POD_NAME": "quarterdeck-controller-x"}).identity
    assert options.controllers.kagent_url == "http://kagent-controller.qs:8083"
    assert options.default_model == {"provider": "Scripted", "model": "scripted"}
    assert "secret" not in repr(options)


def test_flags_win_over_variables() -> None:
    env = NEEDED | {"QUARTERDECK_WATCH_NAMESPACES": "a", "QUARTERDECK_IMAGE": "x:1"}
    options = parse(["--watch-namespaces=c, b,c", "--webhook=off", "--api=[::1]:1"], env)
    assert options.controllers.watch_namespaces == ("b", "c")
    assert (options.webhook, options.api, options.controllers.image) == (None, ("::1", 1), "x:1")


def test_agents_get_the_tracing_settings_but_no_credentials_of_it() -> None:
    env = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4317", "OTEL_EXPORTER_OTLP_HEADERS": "api-key=abc"}
    assert parse([], NEEDED | env).controllers.environment == (("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c:4317"),)


@pytest.mark.parametrize(
    ("flags", "env", "words"),
    [
        ([], NEEDED | {"QUARTERDECK_DATABASE_URL": ""}, "--database-url"),
        (["--default-model={"], NEEDED, "not JSON"),
        (["--default-model={}"], NEEDED, "spec of a ModelConfig"),
        (["--discovery-interval=often"], NEEDED, "--discovery-interval"),
        (["--drain=-1"], NEEDED, "--drain"),
        (["--api=nowhere"], NEEDED, "HOST:PORT"),
        (["--network-policies=maybe"], NEEDED, "--network-policies"),
        (["--byo-relay=none"], NEEDED, "--byo-relay"),
    ],
)
def test_what_cannot_be_meant_is_named(flags: list[str], env: dict[str, str], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        parse(flags, env)
