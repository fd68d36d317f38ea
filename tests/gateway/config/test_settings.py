"""What a file says about the process."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from quarterdeck.errors import QuarterdeckError, UsageError
from quarterdeck.gateway import logs
from quarterdeck.gateway.audit.options import AuditOptions
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


AUDIT = """
audit:
  file: records.jsonl
  rotate: {size: 100Mi, keep: 3}
  onFailure: drop
  arguments: record
  redact: [/card/number, "*pin*"]
  anchor: https://worm.example.org/anchor
  otlp: http://collector:4318/v1/logs
  http: https://siem.example.org/in
  queue: 500
"""


@pytest.mark.parametrize("compat", ["oct", "now"])
def test_audit(reader: Reader, tmp_path: Path, compat: str, monkeypatch: pytest.MonkeyPatch) -> None:
    file = reader.file("c.yaml", BIND + AUDIT)
    arguments = [f"--file={file}", f"--data-dir={tmp_path}", f"--compat={compat}"]
    options = parse(arguments)
    assert options.audit_file == Path("records.jsonl")
    assert options.audit == AuditOptions(
        on_failure="drop",
        rotate=100 * 2**20,
        keep=3,
        arguments=True,
        redact=("/card/number", "*pin*"),
        anchor="https://worm.example.org/anchor",
        otlp="http://collector:4318/v1/logs",
        http="https://siem.example.org/in",
        queue=500,
    )
    monkeypatch.setenv("QUARTERDECK_GATEWAY_AUDIT_ON_FAILURE", "block")
    options = parse([*arguments, "--audit-queue", "7"])
    assert (options.audit.on_failure, options.audit.queue) == ("block", 7), "variables and flags win"
    file.write_text(BIND + "audit: {}")
    options = parse(arguments)
    assert (options.audit_file, options.audit) == (tmp_path / "audit.jsonl", AuditOptions()), "as without the section"
    file.write_text(BIND + "audit: {file: '-'}")
    assert parse(arguments).audit_file is None


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ("rotate: {size: big}", "audit.rotate.size: must be a size such as 100Mi"),
        ("rotate: {keep: 3}", "audit.rotate: size is required"),
        ("rotate: {size: 1Mi, keep: -1}", "audit.rotate.keep: must not be negative"),
        ("file: '-', rotate: {size: 1Mi}", "audit.rotate: there is no file to rotate"),
        ("file: 'https://x/y'", "audit.file: is a path, - or off; URLs go into otlp or http"),
        ("file: /", "audit.file: '/' must name a file"),
        ("otlp: collector:4318", "audit.otlp: must be an http(s) URL"),
        ("http: ''", "audit.http: is empty; leave it out, or say where"),
        ("anchor: 's3://bucket'", "audit.anchor: 's3://bucket' must name a file or an http(s) URL"),
        ("queue: 0", "audit.queue: must be at least 1"),
        ("redact: ['a,b']", "audit.redact[0]: write one JSON pointer"),
        ("onFailure: stop", "audit.onFailure: expected one of block, drop, found 'stop'"),
        ("arguments: all", "audit.arguments: expected one of hash, record, found 'all'"),
        ("sink: x", "audit.sink: unknown field; known here: anchor, arguments, file"),
    ],
)
def test_audit_that_cannot_be(reader: Reader, body: str, told: str) -> None:
    assert f"<inline>:2: {told}" in reader.errors(BIND + f"audit: {{{body}}}")


def test_tracing(reader: Reader, tmp_path: Path) -> None:
    for body, url, sample in (
        ("otlpEndpoint: 'http://c:4318', otlpProtocol: http", "http://c:4318/v1/traces", 0.0),
        ("otlpEndpoint: 'c:4318', otlpProtocol: http, randomSampling: true", "http://c:4318/v1/traces", 1.0),
        ("otlpEndpoint: 'https://c/x', otlpProtocol: http, randomSampling: '0.25'", "https://c/x", 0.25),
        ("otlpEndpoint: 'http://c', otlpProtocol: http, path: /t, randomSampling: 0.5", "http://c/t", 0.5),
        ("otlpEndpoint: 'http://c:4317'", "", 0.0),
    ):
        file = reader.file("c.yaml", BIND + f"config: {{tracing: {{{body}}}}}")
        for compat in ("oct", "now"):
            options = parse([f"--file={file}", f"--data-dir={tmp_path}", f"--compat={compat}"])
            assert (options.audit.trace, options.audit.sample) == (url, sample), body
    told = reader.load(
        BIND + "config: {tracing: {otlpEndpoint: c, otlpProtocol: http, randomSampling: 'jwt.sub', headers: {a: b}}}"
    )
    assert any("headers: are not sent: write them into the variable" in one for one in told.warnings)
    assert any("randomSampling: is not true, false or a number" in one for one in told.warnings)


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
    assert reader.snapshot(BIND).listeners[0].routes[0].policies.max_body == 4 * 2**20


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
