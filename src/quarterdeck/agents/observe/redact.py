"""What is said in a run, without what the rules, or the names of members, say is secret.

The rules are those of the gateway's audit (``gateway/audit/arguments.py``): JSON pointers into the arguments or the
result of a call, and patterns of keys. ``QUARTERDECK_REDACT`` lists them for agent hosts and the control plane.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from quarterdeck.gateway.audit.arguments import Redaction
from quarterdeck.malformed import MALFORMED
from quarterdeck.telemetry.environment import REDACT

_SAID = ("arguments", "args", "result", "response", "data")
"""Members that hold what somebody said: JSON of its own, or a text of JSON."""


class Redactor:
    """``rules`` besides the names that are secret always."""

    def __init__(self, rules: Iterable[str] = ()) -> None:
        self._rules = Redaction(rules)

    def value(self, value: Any) -> Any:
        """JSON data; texts in it that are JSON are looked into."""
        return self.text(value) if isinstance(value, str) else self._texts(self._rules.clean(value))

    def text(self, text: str) -> str:
        """A text that is JSON as JSON without secrets, any other as it is."""
        if text[:1] not in ("{", "["):
            return text
        try:
            return msgspec.json.encode(self._texts(self._rules.clean(msgspec.json.decode(text)))).decode()
        except MALFORMED:
            return text

    def _texts(self, value: Any) -> Any:
        if isinstance(value, dict):
            return {key: self._texts(item) for key, item in value.items()}
        if isinstance(value, list):
            return [self._texts(item) for item in value]
        return self.text(value) if isinstance(value, str) else value

    def data(self, data: Any) -> Any:
        """An event's data, or a list of messages: texts of JSON and arguments in it are looked into."""
        if isinstance(data, Mapping):
            members: Mapping[str, Any] = data
            return {key: self.value(item) if key in _SAID else self.data(item) for key, item in members.items()}
        if isinstance(data, list):
            items: list[Any] = data
            return [self.data(item) for item in items]
        return self.text(data) if isinstance(data, str) else data


def configured() -> Redactor:
    """By the environment."""
    return Redactor(rule.strip() for rule in os.environ.get(REDACT, "").split(",") if rule.strip())
