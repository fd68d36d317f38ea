"""Answers in a form that programs read: one JSON document that matches a JSON Schema. Pure."""

from __future__ import annotations

import json
import re
from typing import Any

import jsonschema_rs

from quarterdeck.errors import ConfigError
from quarterdeck.malformed import loads

INVALID = "invalid_output"
_FENCE = re.compile(r"^```[A-Za-z]*\s*\n(.*?)\n?```$", re.DOTALL)
_MOST = 5
"""Problems of an answer that are told."""


class OutputSchema:
    """Raises ConfigError for what is no JSON Schema."""

    def __init__(self, schema: dict[str, Any]) -> None:
        self.schema = schema
        try:
            patterns = jsonschema_rs.FancyRegexOptions(backtrack_limit=100_000)
            self._validator = jsonschema_rs.validator_for(schema, offline=True, pattern_options=patterns)
        except (ValueError, TypeError, jsonschema_rs.ReferencingError) as error:
            raise ConfigError(f"output_schema: is no JSON Schema: {error}") from error

    @property
    def instruction(self) -> str:
        """What the model is told."""
        return (
            "Your last answer must be one JSON document that matches the JSON Schema below, and nothing else: no text "
            f"around it, no code fence.\n{json.dumps(self.schema, ensure_ascii=False)}"
        )

    @property
    def response_format(self) -> dict[str, Any]:
        """As chat completions take it."""
        return {"type": "json_schema", "json_schema": {"name": "answer", "schema": self.schema}}

    def read(self, text: str) -> tuple[Any, str]:
        """The document in an answer, and what is wrong with it; empty when nothing is."""
        try:
            value = loads(_document(text))
        except (ValueError, RecursionError) as error:
            return None, f"it is not one JSON document ({error})"
        found = [f"{_where(error)}: {error.message}" for error in self._validator.iter_errors(value)]
        more = f"; and {len(found) - _MOST} more" if len(found) > _MOST else ""
        return value, "; ".join(found[:_MOST])[:2000] + more

    def again(self, problem: str) -> str:
        """What the model is told about an answer that is not valid."""
        return f"Your answer is not valid: {problem}. Answer again, with the corrected JSON document alone."


def _document(text: str) -> str:
    """The text without a code fence, or without words around one document."""
    text = text.strip()
    fenced = _FENCE.match(text)
    if fenced:
        return fenced[1]
    if text[:1] in ("{", "["):
        return text
    starts = [at for at in (text.find("{"), text.find("[")) if at >= 0]
    end = max(text.rfind("}"), text.rfind("]"))
    return text[min(starts) : end + 1] if starts and end > min(starts) else text


def _where(error: Any) -> str:
    return "/" + "/".join(map(str, error.instance_path))
