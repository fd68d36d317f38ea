"""OTLP/HTTP with JSON bodies (opentelemetry-proto 1.x: ids in hex, 64-bit numbers as strings)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

from quarterdeck import __version__

Value = str | int | float | bool
_SCOPE = {"name": "quarterdeck.gateway", "version": __version__}
_INFO, _WARN = 9, 13


def attributes(pairs: Iterable[tuple[str, Value]]) -> list[dict[str, Any]]:
    return [{"key": key, "value": _value(value)} for key, value in pairs]


def logs(lines: list[bytes], resource: list[dict[str, Any]]) -> bytes:
    """An ExportLogsServiceRequest: the body of each log record is the audit line, so that it can be verified."""
    records = [_log(line) for line in lines]
    scope = {"scope": _SCOPE, "logRecords": records}
    return msgspec.json.encode({"resourceLogs": [{"resource": {"attributes": resource}, "scopeLogs": [scope]}]})


def traces(spans: list[bytes], resource: list[dict[str, Any]], by: str = "quarterdeck.gateway") -> bytes:
    """An ExportTraceServiceRequest of spans that are JSON already. ``by`` is the instrumentation scope."""
    scope = {"scope": {"name": by, "version": __version__}, "spans": [msgspec.Raw(span) for span in spans]}
    return msgspec.json.encode({"resourceSpans": [{"resource": {"attributes": resource}, "scopeSpans": [scope]}]})


def _log(line: bytes) -> dict[str, Any]:
    record: dict[str, Any] = msgspec.json.decode(line)
    named = ("principal", "agent", "kind", "server", "tool", "method", "decision", "rule", "outcome", "status")
    allowed = record["decision"] == "allow"
    return {
        "timeUnixNano": str(int(record["ts"] * 1e9)),
        "severityNumber": _INFO if allowed else _WARN,
        "severityText": "INFO" if allowed else "WARN",
        "body": {"stringValue": line.rstrip(b"\n").decode()},
        "attributes": attributes((f"quarterdeck.audit.{name}", record[name]) for name in named if record[name] != ""),
        **({"traceId": record["traceId"]} if record["traceId"] else {}),
    }


def _value(value: Value) -> dict[str, Any]:
    if isinstance(value, bool):
        return {"boolValue": value}
    if isinstance(value, int):
        return {"intValue": str(value)}
    return {"doubleValue": value} if isinstance(value, float) else {"stringValue": value}
