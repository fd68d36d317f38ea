# ruff: noqa: RUF012 - msgspec copies what stands as a default
"""``audit:``, a section of ours in files of either generation: what ``--audit-*`` say, at the top of the file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal
from urllib.parse import urlsplit

from quarterdeck.errors import UsageError

from ...audit.options import is_url, size, url
from ..fields import Model
from .context import Context

if TYPE_CHECKING:
    from .shared import RawConfig

PATH = ("audit",)


class Rotation(Model):
    """``size`` as ``100Mi``; ``keep``: rotated files that stay."""

    proof: ClassVar[str] = "test_settings.py::test_audit"
    size: str
    keep: int | None = None


class Audit(Model):
    """Where records go, and what happens while they cannot be written. What is left out has the flags' defaults."""

    proof: ClassVar[str] = "test_settings.py::test_audit"
    file: str | None = None
    """A path, ``-`` (standard output) or ``off``."""
    rotate: Rotation | None = None
    on_failure: Literal["block", "drop"] | None = None
    arguments: Literal["hash", "record"] | None = None
    redact: list[str] = []
    anchor: str | None = None
    otlp: str | None = None
    http: str | None = None
    queue: int | None = None


def flags(context: Context, model: Audit | None) -> dict[str, str]:
    """Flag → text. Problems go to the report, each with the line of its field."""
    if model is None:
        return {}
    rotate = model.rotate
    given: dict[str, str | None] = {
        "audit-file": model.file,
        "audit-rotate": None if rotate is None else rotate.size,
        "audit-keep": None if rotate is None or rotate.keep is None else str(rotate.keep),
        "audit-on-failure": model.on_failure,
        "audit-arguments": model.arguments,
        "audit-redact": ",".join(model.redact) or None,
        "audit-anchor": model.anchor,
        "audit-otlp": model.otlp,
        "audit-http": model.http,
        "audit-queue": None if model.queue is None else str(model.queue),
    }
    _check(context, model)
    return {flag: text for flag, text in given.items() if text is not None}


def tracing_flags(context: Context, config: RawConfig | None) -> dict[str, str]:
    """``config.tracing`` as flags. What cannot be sent is a warning: spans are for looking at."""
    tracing = config.tracing if config is not None else None
    path = ("config", "tracing")
    if tracing is None or tracing.otlp_endpoint is None:
        return {}
    if tracing.otlp_protocol == "grpc":
        context.warn((*path, "otlpProtocol"), "spans go over HTTP only: write http, and the port of it (4318)")
        return {}
    if tracing.headers:
        context.warn((*path, "headers"), "are not sent: write them into the variable OTEL_EXPORTER_OTLP_HEADERS")
    share = tracing.random_sampling
    if isinstance(share, str):
        share = _share(share)
    if share is None or not 0 <= share <= 1:
        if tracing.random_sampling is not None:
            context.warn(
                (*path, "randomSampling"), "is not true, false or a number from 0 to 1: no span is sampled here"
            )
        share = 0.0
    address = tracing.otlp_endpoint.rstrip("/")
    where = address if "://" in address else f"http://{address}"
    target = where + (tracing.path or ("" if urlsplit(where).path else "/v1/traces"))
    try:
        url(target, "otlpEndpoint")
    except UsageError as error:
        context.error((*path, "otlpEndpoint"), str(error).partition(": ")[2])
    return {"trace-otlp": target, "trace-sample": str(float(share))}


def _share(text: str) -> float | None:
    try:
        return {"true": 1.0, "false": 0.0}[text] if text in ("true", "false") else float(text)
    except ValueError:
        return None


def _check(context: Context, model: Audit) -> None:
    rotate = model.rotate
    if rotate is not None:
        _try(context, ("rotate", "size"), rotate.size, size)
        if rotate.keep is not None and rotate.keep < 0:
            context.error((*PATH, "rotate", "keep"), "must not be negative")
        if model.file in ("-", "off"):
            context.error((*PATH, "rotate"), f"there is no file to rotate: file is {model.file}")
    for name, text in (("otlp", model.otlp), ("http", model.http), ("anchor", model.anchor), ("file", model.file)):
        if text == "":
            context.error((*PATH, name), "is empty; leave it out, or say where")
        elif text is not None and (is_url(text) or name in ("otlp", "http")):
            if name == "file":
                context.error((*PATH, name), "is a path, - or off; URLs go into otlp or http")
            _try(context, (name,), text, url)
        elif text not in (None, "-", "off") and ("://" in text or Path(text).is_dir()):
            context.error((*PATH, name), f"{text!r} must name a file" + (" or an http(s) URL" * (name == "anchor")))
    if model.queue is not None and model.queue < 1:
        context.error((*PATH, "queue"), "must be at least 1")
    for index, rule in enumerate(model.redact):
        if not rule.strip() or "," in rule:
            context.error((*PATH, "redact", index), "write one JSON pointer (/a/*/b) or key pattern (*pin*) per entry")


def _try(context: Context, steps: tuple[str, ...], text: str, check: Callable[[str, str], object]) -> None:
    try:
        check(text, steps[-1])
    except UsageError as error:
        context.error((*PATH, *steps), str(error).partition(": ")[2])
