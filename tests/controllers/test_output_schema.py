from __future__ import annotations

import pytest

from quarterdeck.controllers.output_schema import check
from quarterdeck.errors import ConfigError


def test_what_is_no_schema_is_said_in_the_condition() -> None:
    check(None)
    check({"type": "object", "properties": {"a": {"$ref": "#/$defs/a"}}, "$defs": {"a": {"type": "string"}}})
    for schema in ({"type": "objekt"}, {"properties": []}, {"$ref": "https://example.com/other.json"}):
        with pytest.raises(ConfigError, match=r"spec.declarative.outputSchema is no JSON Schema: "):
            check(schema)
