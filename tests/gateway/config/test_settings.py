"""What a file says about the process."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from quarterdeck.errors import QuarterdeckError, UsageError
from quarterdeck.gateway import logs
from quarterdeck.gateway.options import parse

from .conftest import Reader

BIND = "binds: [{port: 1, listeners: [{routes: [{backends: [{host: 'b:80'}]}]}]}]\n"


@pytest.fixture
def quiet() -> Iterator[None]:
    yield
    logs.reset()
    logging.getLogger(logs.ROOT).setLevel(logging.NOTSET)


def test_addresses(reader: Reader) -> None:
    text = BIND + "config: {adminAddr: 'localhost:15009', statsAddr: '0.0.0.0:15020', readinessAddr: off}"
    for compat in ("oct", "now"):
        found = reader.load(text, compat).settings  # type: ignore[arg-type]
        assert (found.admin, found.stats, found.ready) == ("127.0.0.1:15009", "0.0.0.0:15020", "off")
    assert "unix sockets are not served" in reader.errors(BIND + "config: {adminAddr: 'unix:/x'}")


def test_flags_and_variables_win_over_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reader: Reader) -> None:
    file = reader.file(
        "c.yaml", BIND + "config: {adminAddr: '127.0.0.1:1', statsAddr: '127.0.0.1:2', readinessAddr: off}"
    )
    monkeypatch.setenv("QUARTERDECK_GATEWAY_STATS", "127.0.0.1:22")
    options = parse([f"--file={file}", f"--data-dir={tmp_path}", "--admin", "127.0.0.1:11"])
    assert (options.admin, options.stats, options.ready) == (("127.0.0.1", 11), ("127.0.0.1", 22), None)
    assert options.file is not None and options.file.path == file


def test_one_source_is_enough(reader: Reader) -> None:
    with pytest.raises(UsageError, match="one of --control-plane URL, --config FILE and --file FILE"):
        parse(["--file=x", "--config=y"])
    with pytest.raises(UsageError, match="must be oct"):
        parse(["--file=x", "--compat=old"])
    with pytest.raises(QuarterdeckError, match="No such file"):
        parse([f"--file={reader.folder}/x"])


def test_max_buffer_size(reader: Reader) -> None:
    old = reader.snapshot(BIND + "config: {listener: {maxBufferSize: 1000}}", "oct")
    new = reader.snapshot(BIND + "frontendPolicies: {http: {maxBufferSize: 1000}}")
    for found in (old, new):
        route = found.listeners[0].routes[0]
        assert route.policies.max_body == route.backends[0].policies.max_body == 1000


def test_frontend_tls(reader: Reader) -> None:
    reader.snapshot(BIND + "frontendPolicies: {tls: {minVersion: TLS_V1_2, maxVersion: TLS_V1_3}}")
    assert "TLS 1.2 cannot" in reader.errors(BIND + "frontendPolicies: {tls: {minVersion: TLS_V1_3}}")
    assert "TLS 1.3 cannot" in reader.errors(BIND + "frontendPolicies: {tls: {maxVersion: TLS_V1_2}}")


def test_logging(reader: Reader, quiet: None) -> None:
    found = reader.load(BIND + "config: {logging: {level: [info, 'gateway.mcp=debug'], format: json}}").settings
    assert (found.log_level, found.log_format) == ("info,gateway.mcp=debug", "json")
    logs.configure(found.log_level, "")
    assert logging.getLogger("quarterdeck.gateway.mcp.relay").getEffectiveLevel() == logging.DEBUG
    assert logging.getLogger("quarterdeck.gateway").getEffectiveLevel() == logging.INFO
    assert logs.levels() == "info,gateway.mcp=debug"
    logs.reset()
    assert logs.levels() == "info"


@pytest.mark.parametrize("text", ["", "loud", "gateway=loud", "=debug"])
def test_levels_that_are_none(text: str) -> None:
    with pytest.raises(UsageError, match="trace, debug, info"):
        logs.set_levels(text)


def test_lines_of_json() -> None:
    record = logging.LogRecord("quarterdeck.x", logging.WARNING, "f", 1, "a %s\n", ("b",), None)
    assert logs.JsonLines().format(record).endswith('"level":"warning","scope":"quarterdeck.x","message":"a b\\n"}')
