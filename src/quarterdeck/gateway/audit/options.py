"""What is recorded, and where it goes: ``--audit-*``, ``--access-log`` and ``--trace-*``."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from quarterdeck.errors import UsageError
from quarterdeck.telemetry.audit import OnFailure

_UNITS = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30}


@dataclass(frozen=True, slots=True)
class AuditOptions:
    """Besides the file itself (``Options.audit_file``)."""

    on_failure: OnFailure = "block"
    """What happens while records cannot be written: calls are refused (503), or go on unrecorded."""
    rotate: int = 0
    """Bytes after which the file is rotated; 0: never."""
    keep: int = 10
    """Rotated files that are kept."""
    arguments: bool = False
    """Whether arguments are recorded, redacted, besides their hash."""
    redact: tuple[str, ...] = ()
    """JSON pointers (``/a/*/b``) and key patterns (``*secret*``) of what is never recorded."""
    anchor: str = ""
    """File or URL that takes checkpoints, besides the control plane."""
    otlp: str = ""
    """``http(s)://host:4318/v1/logs``: a copy of each record as OTLP/HTTP (JSON)."""
    http: str = ""
    """A copy of each record as NDJSON by POST."""
    queue: int = 50_000
    """Records an export may be behind."""
    access_log: str = ""
    """File for agentgateway's access log; ``-`` is standard output."""
    trace: str = ""
    """``http(s)://host:4318/v1/traces``."""
    sample: float = 0.0
    """Share of the calls without a sampled parent that get a span."""


def add_flags(flag: Callable[[str, str, str], None]) -> None:
    """``flag(name, default, text)`` adds one."""
    flag("audit-on-failure", "block", "while records cannot be written: block (503) or drop")
    flag("audit-rotate", "0", "size at which the audit file is rotated, e.g. 100Mi; 0: never")
    flag("audit-keep", "10", "rotated audit files that are kept")
    flag("audit-arguments", "hash", "hash, or record: the redacted arguments, too")
    flag("audit-redact", "", "comma-separated JSON pointers (/a/*/b) and key patterns (*pin*) never recorded")
    flag("audit-anchor", "", "file or URL for signed checkpoints of the audit chain, besides the control plane")
    flag("audit-otlp", "", "URL (…/v1/logs) for a copy of the records as OTLP/HTTP")
    flag("audit-http", "", "URL for a copy of the records as NDJSON")
    flag("audit-queue", "50000", "records a copy may be behind before --audit-on-failure applies")
    flag("access-log", "", "file for an access log with agentgateway's names; '-' is standard output")
    flag("trace-otlp", "", "URL (…/v1/traces) for spans as OTLP/HTTP")
    flag("trace-sample", "0", "share of the calls that get a span, 0 to 1; callers' sampled traces always do")


def from_flags(given: Namespace) -> AuditOptions:
    """Raises UsageError naming the flag."""
    if given.audit_on_failure not in ("block", "drop"):
        raise UsageError(f"--audit-on-failure={given.audit_on_failure}: must be block or drop")
    if given.audit_arguments not in ("hash", "record"):
        raise UsageError(f"--audit-arguments={given.audit_arguments}: must be hash or record")
    if given.trace_otlp and not 0.0 <= _number(given.trace_sample, "--trace-sample") <= 1.0:
        raise UsageError(f"--trace-sample={given.trace_sample}: must be between 0 and 1")
    return AuditOptions(
        on_failure=given.audit_on_failure,
        rotate=size(given.audit_rotate, "--audit-rotate"),
        keep=int(_number(given.audit_keep, "--audit-keep")),
        arguments=given.audit_arguments == "record",
        redact=tuple(part.strip() for part in given.audit_redact.split(",") if part.strip()),
        anchor=given.audit_anchor,
        otlp=url(given.audit_otlp, "--audit-otlp"),
        http=url(given.audit_http, "--audit-http"),
        queue=max(1, int(_number(given.audit_queue, "--audit-queue"))),
        access_log=given.access_log,
        trace=url(given.trace_otlp, "--trace-otlp"),
        sample=_number(given.trace_sample, "--trace-sample"),
    )


def size(text: str, flag: str) -> int:
    """Bytes: ``4096``, ``100Mi``, ``1G``. Raises UsageError."""
    digits = text.rstrip("kKMGi")
    unit = _UNITS.get(text[len(digits) :])
    if unit is None or not digits.isdigit():
        raise UsageError(f"{flag}={text}: must be a size such as 100Mi")
    return int(digits) * unit


def is_url(text: str) -> bool:
    return text.startswith(("http://", "https://"))


def path_of(text: str) -> Path | None:
    """A file option; ``-`` is standard output (None)."""
    return None if text == "-" else Path(text)


def url(text: str, flag: str) -> str:
    """Empty, or an http(s) URL. Raises UsageError."""
    if text and (not is_url(text) or not urlsplit(text).hostname):
        raise UsageError(f"{flag}={text}: must be an http(s) URL")
    return text


def _number(text: str, flag: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise UsageError(f"{flag}={text}: must be a number") from None
