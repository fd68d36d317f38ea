"""Values that the models take and that would mean nothing: told where they stand instead of when they are used."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from ...policy.cors import parse_origin
from ..document import Path_
from .context import Context

_LABEL = r"[A-Za-z0-9_]([A-Za-z0-9_-]*[A-Za-z0-9_])?"
_HOST = re.compile(rf"(\*\.)?{_LABEL}(\.{_LABEL})*\.?|[0-9a-fA-F:.\[\]]+")
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")


def status(context: Context, path: Path_, number: int) -> None:
    if not 200 <= number <= 599:
        context.error(path, f"{number} is no status of an answer; use 200 to 599")


def hosts(context: Context, path: Path_, names: Sequence[str]) -> None:
    for index, name in enumerate(names):
        host(context, (*path, index), name)


def host(context: Context, path: Path_, name: str) -> None:
    if not _HOST.fullmatch(name):
        context.error(path, f"{name!r} is no host name; write web.example.org or *.example.org, without a port")


def origins(context: Context, path: Path_, texts: Sequence[str]) -> None:
    for index, text in enumerate(texts):
        if text != "*" and parse_origin(text) is None:
            context.error((*path, index), f"{text!r} is no origin; write https://HOST[:PORT], or *")


def method(context: Context, path: Path_, text: str) -> None:
    if not _TOKEN.fullmatch(text):
        context.error(path, f"{text!r} is no HTTP method")


def headers(context: Context, path: Path_, given: Mapping[str, str]) -> None:
    for name, value in given.items():
        if not _TOKEN.fullmatch(name):
            context.error((*path, name), f"{name!r} is no name of a header")
        elif any(c in value for c in "\r\n\0"):
            context.error((*path, name), "holds a line break")


def absolute(context: Context, path: Path_, text: str | None) -> None:
    if text is not None and not text.startswith("/"):
        context.error(path, f"{text!r} must begin with /")
