"""Copies of the records, access log and spans: to a collector on a port, and what happens while it is down."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from quarterdeck.errors import UpstreamError, UsageError
from quarterdeck.gateway.audit.accesslog import line
from quarterdeck.gateway.audit.arguments import REDACTED, Redaction
from quarterdeck.gateway.audit.delivery import Exporter
from quarterdeck.gateway.audit.options import size
from quarterdeck.gateway.options import parse
from quarterdeck.telemetry.audit import verify
from quarterdeck.wire.http import Exchange, Server

from ..conftest import snapshot, token
from .test_written_first import PATH, Make, gateway

__all__ = ["gateway"]
CALL = {"name": "echo", "arguments": {"text": "x"}}


class Collector:
    """Takes POSTs and keeps them by path."""

    def __init__(self) -> None:
        self.bodies: dict[str, list[bytes]] = {}
        self.headers: list[dict[bytes, bytes]] = []
        self.status = 200
        self.url = ""
        self.came = asyncio.Event()

    def handle(self, exchange: Exchange) -> None:
        self.headers.append(dict(exchange.headers))
        if self.status == 200:
            self.bodies.setdefault(exchange.path, []).append(exchange.body)
            self.came.set()
        exchange.respond(self.status, b"{}")


@pytest.fixture
async def collector() -> AsyncIterator[Collector]:
    made = Collector()
    server = Server(made.handle)
    host, port = await server.listen("127.0.0.1", 0)
    made.url = f"http://{host}:{port}"
    yield made
    await server.stop(0)


async def test_records_are_copied_as_otlp_and_ndjson(
    gateway: Make, collector: Collector, peer: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "x-key=a%20b")
    async with gateway(otlp=f"{collector.url}/v1/logs", http=f"{collector.url}/audit") as rig:
        rig.gateway.use(snapshot(peer))
        await rig.rpc(PATH, "tools/call", CALL, bearer=token("pod-c"))
    copy = tmp_path / "copy.jsonl"
    copy.write_bytes(b"".join(collector.bodies["/audit"]))
    assert copy.read_bytes() == rig.audit_file.read_bytes() and verify(copy).ok
    [request] = [msgspec.json.decode(body) for body in collector.bodies["/v1/logs"]]
    [resource] = request["resourceLogs"]
    assert {"key": "service.name", "value": {"stringValue": "quarterdeck-gateway"}} in resource["resource"][
        "attributes"
    ]
    [record] = resource["scopeLogs"][0]["logRecords"]
    assert record["body"]["stringValue"] + "\n" == copy.read_text()
    assert record["severityText"] == "WARN" and len(record["traceId"]) == 32
    assert {"key": "quarterdeck.audit.status", "value": {"intValue": "200"}} in record["attributes"]
    assert collector.headers[0][b"x-key"] == b"a b"


async def test_a_collector_that_is_down_blocks_when_the_queue_is_full(
    gateway: Make, collector: Collector, peer: int
) -> None:
    collector.status = 503
    async with gateway(http=f"{collector.url}/audit", queue=2) as rig:
        rig.gateway.use(snapshot(peer))
        answers = [(await rig.request(PATH, b"{}", listener="local")).status for _ in range(3)]
        assert answers == [400, 400, 503]
        assert len(rig.audit_file.read_bytes().splitlines()) == 2
        collector.status = 200
        async with asyncio.timeout(30):
            while (await rig.request(PATH, b"{}", listener="local")).status == 503:
                await asyncio.sleep(0.05)
    assert verify(rig.audit_file).ok


async def test_on_request_a_full_queue_drops_and_counts(gateway: Make, collector: Collector, peer: int) -> None:
    collector.status = 503
    async with gateway(http=f"{collector.url}/audit", queue=2, on_failure="drop") as rig:
        rig.gateway.use(snapshot(peer))
        for _ in range(4):
            assert (await rig.request(PATH, b"{}", listener="local")).status == 400
        host, port = rig.gateway.endpoints["stats"].removeprefix("http://").split(":")
        metrics = await (await rig.pool.request("GET", (host, int(port), False), "/metrics")).read()
        assert b"quarterdeck_audit_lost_total 2" in metrics
        assert b'quarterdeck_audit_export_waiting{sink="http"} 2' in metrics
        collector.status = 200


async def test_a_batch_is_sent_until_it_is_taken_in_order() -> None:
    taken: list[bytes] = []
    failures = iter([True, True, False, False])
    pauses: list[float] = []

    async def post(body: bytes) -> None:
        if next(failures):
            raise UpstreamError("down")
        taken.append(body)

    async def pause(seconds: float) -> None:
        pauses.append(seconds)

    exporter = Exporter(post, b"".join, limit=10, on_error=lambda _: None, sleep=pause)
    running = asyncio.create_task(exporter.run())
    exporter.offer([b"1", b"2"])
    async with asyncio.timeout(30):
        while exporter.waiting:
            await asyncio.sleep(0)
    exporter.offer([b"3"])
    async with asyncio.timeout(30):
        while exporter.waiting:
            await asyncio.sleep(0)
    running.cancel()
    assert taken == [b"12", b"3"] and pauses == [0.5, 1.0] and exporter.sent == 3


async def test_spans_follow_the_callers_decision(gateway: Make, collector: Collector, peer: int) -> None:
    parent = "00-" + "a" * 32 + "-" + "b" * 16
    async with gateway(trace=f"{collector.url}/v1/traces", sample=0.0) as rig:
        rig.gateway.use(snapshot(peer))
        for flags in ("00", "01"):
            headers = {"traceparent": f"{parent}-{flags}"}
            await rig.rpc(PATH, "tools/call", CALL, bearer=token("pod-c"), headers=headers)
        await rig.rpc(PATH, "tools/call", CALL, bearer=token("pod-c"))
    spans = [
        span
        for body in collector.bodies["/v1/traces"]
        for span in msgspec.json.decode(body)["resourceSpans"][0]["scopeSpans"][0]["spans"]
    ]
    [span] = spans
    assert (span["traceId"], span["parentSpanId"], span["name"]) == ("a" * 32, "b" * 16, "tools/call echo")
    assert int(span["endTimeUnixNano"]) >= int(span["startTimeUnixNano"])
    attributes = {pair["key"]: next(iter(pair["value"].values())) for pair in span["attributes"]}
    assert attributes["mcp.method.name"] == "tools/call" and attributes["gen_ai.tool.name"] == "echo"
    assert attributes["http.status"] == "200" and attributes["mcp.target"] == "kagent/peer"


async def test_all_are_sampled_on_request(gateway: Make, collector: Collector, peer: int) -> None:
    async with gateway(trace=f"{collector.url}/v1/traces", sample=1.0) as rig:
        rig.gateway.use(snapshot(peer))
        await rig.rpc(PATH, "tools/call", CALL, bearer=token("pod-c"))
    [body] = collector.bodies["/v1/traces"]
    span = msgspec.json.decode(body)["resourceSpans"][0]["scopeSpans"][0]["spans"][0]
    assert span["status"]["code"] == 2 and "not granted" in span["status"]["message"]


async def test_the_access_log_has_agentgateways_form(gateway: Make, tmp_path: Path, peer: int) -> None:
    log = tmp_path / "access.log"
    async with gateway(access_log=str(log)) as rig:
        rig.gateway.use(snapshot(peer))
        session = await rig.initialize(PATH, listener="local")
        await rig.rpc(PATH, "tools/call", CALL, listener="local", headers={"mcp-session-id": session})
        await (await rig.request(PATH, b"{}")).read()
    *_, called, refused = log.read_text().splitlines()
    assert re.match(
        r"\d{4}-\d\d-\d\dT[\d:.]+Z info request gateway=quarterdeck-system/quarterdeck listener=local ", called
    )
    for part in (
        "src.identity=anonymous@local", "http.method=POST", f"http.path={PATH}", "http.status=200", "protocol=mcp",
        "mcp.method.name=tools/call", "mcp.target=kagent/peer", "mcp.resource.type=tool", "gen_ai.tool.name=echo",
    ):  # fmt: skip
        assert f" {part} " in called
    assert re.search(r" duration=\d+ms$", called)
    assert "http.status=401" in refused and 'error="a bearer token is required"' in refused


def test_what_callers_choose_cannot_forge_a_line() -> None:
    text = line(0.0, [("http.path", "/a\nforged \x1b[31m"), ("error", 'say "no"')], 0.0125)
    assert text.count("\n") == 1 and "\x1b" not in text
    assert r'http.path="/a\nforged \x1b[31m" error="say \"no\""' in text and text.endswith("duration=12ms\n")


@pytest.mark.parametrize(
    ("rule", "arguments", "expected"),
    [
        ("/a/b", {"a": {"b": 1, "c": 2}}, {"a": {"b": REDACTED, "c": 2}}),
        ("/a/*/b", {"a": [{"b": 1}, {"c": 2}]}, {"a": [{"b": REDACTED}, {"c": 2}]}),
        ("/a", {"a": {"b": 1}, "b": {"a": 1}}, {"a": REDACTED, "b": {"a": 1}}),
        ("/x~1y/m~0n", {"x/y": {"m~n": 1}}, {"x/y": {"m~n": REDACTED}}),
        ("*ssn*", {"p": [{"mySSN": 1, "name": "n"}]}, {"p": [{"mySSN": REDACTED, "name": "n"}]}),
        ("", {"Authorization": "x", "q": "z"}, {"Authorization": REDACTED, "q": "z"}),
        ("", {"access_token": "y", "API-Key": "z"}, {"access_token": REDACTED, "API-Key": REDACTED}),
    ],
)  # fmt: skip
def test_redaction(rule: str, arguments: Any, expected: Any) -> None:
    recorded = Redaction([rule] if rule else []).recorded(msgspec.json.encode(arguments))
    assert msgspec.json.decode(recorded) == expected


def test_arguments_that_are_too_long_or_too_deep_are_not_recorded() -> None:
    redaction = Redaction()
    assert msgspec.json.decode(redaction.recorded(msgspec.json.encode({"a": "x" * 20_000}))) == "<20008 bytes>"
    assert REDACTED.encode() in bytes(redaction.recorded(b'{"a":' * 100 + b"1" + b"}" * 100))
    assert bytes(redaction.recorded(b'{"a":"\xff"}')) == b'"<no JSON>"'


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["--audit-on-failure=maybe"], "block or drop"), (["--audit-rotate=10X"], "100Mi"),
        (["--audit-arguments=all"], "hash or record"), (["--audit-otlp=collector:4318"], "must be an http"),
        (["--trace-otlp=http://c/v1/traces", "--trace-sample=2"], "between 0 and 1"), (["--audit-keep=x"], "a number"),
    ],
)  # fmt: skip
def test_flags_that_make_no_sense(flags: list[str], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        parse(["--config=x", *flags])


def test_flags(tmp_path: Path) -> None:
    options = parse(["--config=x", "--audit-rotate=100Mi", "--audit-redact=/a, *b*", "--audit-arguments=record"])
    assert (options.audit.rotate, options.audit.redact, options.audit.arguments) == (100 * 2**20, ("/a", "*b*"), True)
    assert size("1G", "f") == 10**9
    assert parse(["--config=x", "--audit-file=-"]).audit_file is None
