"""Whether an agent's ``outputSchema`` is a JSON Schema: better said in a condition than by each run."""

from __future__ import annotations

from typing import Any

from quarterdeck.errors import ConfigError


def check(schema: dict[str, Any] | None) -> None:
    """Raises ConfigError with what is wrong. References may only lead into the schema itself."""
    if schema is None:
        return
    import jsonschema_rs  # a large library: only processes that use schemas hold it in memory

    try:
        jsonschema_rs.validator_for(schema, offline=True)
    except (ValueError, TypeError, jsonschema_rs.ReferencingError) as error:
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ConfigError(f"spec.declarative.outputSchema is no JSON Schema: {first}; correct it") from error
