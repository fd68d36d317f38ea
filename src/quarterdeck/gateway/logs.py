"""Levels and form of the log, at the start and at run time."""

from __future__ import annotations

import logging
from datetime import UTC, datetime

import msgspec

from quarterdeck.errors import UsageError

ROOT = "quarterdeck"
LEVELS = {"trace": "DEBUG", "debug": "DEBUG", "info": "INFO", "warn": "WARNING", "warning": "WARNING",
          "error": "ERROR", "off": "CRITICAL"}  # fmt: skip
"""agentgateway's words, and Python's."""


class JsonLines(logging.Formatter):
    """One JSON object a line."""

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "scope": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            line["error"] = self.formatException(record.exc_info)
        return msgspec.json.encode(line).decode()


def configure(levels: str, form: str) -> None:
    """``levels`` as :func:`set_levels` takes them, ``form`` "json" or "text"; empty: as it is. Raises UsageError."""
    if levels:
        set_levels(levels)
    if form == "json":
        for handler in logging.getLogger().handlers:
            handler.setFormatter(JsonLines())


def set_levels(text: str) -> None:
    """``debug`` for all, ``gateway.mcp=debug,gateway=info`` for some (``:`` does, too). Raises UsageError."""
    for name, level in parse_levels(text):
        logging.getLogger(name).setLevel(level)


def parse_levels(text: str) -> list[tuple[str, str]]:
    """Loggers and their levels, as :func:`set_levels` is given them. Raises UsageError."""
    wanted: list[tuple[str, str]] = []
    for part in filter(None, (part.strip() for part in text.split(","))):
        name, sign, word = part.replace("::", ".").replace(":", "=").rpartition("=")
        level = LEVELS.get(word.lower())
        if level is None or (sign and not name):
            raise UsageError(f"{part!r} must be LEVEL or NAME=LEVEL with one of {', '.join(LEVELS)}")
        wanted.append((_scope(name), level))
    if not wanted:
        raise UsageError(f"level must be one of {', '.join(LEVELS)}, or NAME=LEVEL,…")
    return wanted


def reset() -> None:
    """Back to what the start set for all."""
    for name in _named():
        logging.getLogger(name).setLevel(logging.NOTSET)


def levels() -> str:
    """``info``, and what differs from it: ``info,gateway.mcp=debug``."""
    base = _word(logging.getLogger(ROOT).getEffectiveLevel())
    own = [f"{name.removeprefix(ROOT + '.')}={_word(logging.getLogger(name).level)}" for name in _named()]
    return ",".join([base, *own])


def _named() -> list[str]:
    known = logging.root.manager.loggerDict
    return sorted(
        name
        for name, logger in known.items()
        if name.startswith(f"{ROOT}.") and isinstance(logger, logging.Logger) and logger.level != logging.NOTSET
    )


def _scope(name: str) -> str:
    name = name.removeprefix("agentgateway.").strip()
    if name in ("", ROOT, "agentgateway"):
        return ROOT
    return name if name.startswith(f"{ROOT}.") else f"{ROOT}.{name}"


def _word(level: int) -> str:
    return logging.getLevelName(level).lower()
