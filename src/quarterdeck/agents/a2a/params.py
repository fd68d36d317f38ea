"""Checks of the members of requests. Each raises InvalidParams with the member's path."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

from quarterdeck.a2atypes import Json
from quarterdeck.a2atypes.errors import InvalidParams

from .types import STATES

PAGE, LARGEST_PAGE = 50, 100
_LONGEST = 255


def text(params: Json, name: str) -> str:
    """A member that must be there."""
    value = params.get(name)
    if not isinstance(value, str) or not value:
        raise InvalidParams(f"{name}: must be a non-empty string")
    return value


def optional_text(params: Json, name: str, longest: int = _LONGEST) -> str:
    value = params.get(name, "")
    if not isinstance(value, str) or len(value) > longest:
        raise InvalidParams(f"{name}: must be a string of at most {longest} characters")
    return value


def configuration(params: Json) -> Json:
    value = params.get("configuration")
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise InvalidParams("configuration: must be an object")
    immediately = value.get("returnImmediately")
    if immediately is not None and not isinstance(immediately, bool):
        raise InvalidParams("configuration.returnImmediately: must be true or false")
    modes = value.get("acceptedOutputModes")
    if modes is not None and (not isinstance(modes, list) or not all(isinstance(mode, str) for mode in modes)):
        raise InvalidParams("configuration.acceptedOutputModes: must be a list of media types")
    return value


def history_length(params: Json) -> int | None:
    value = params.get("historyLength")
    if value is None:
        return None
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise InvalidParams("historyLength: must be a whole number, 0 or more")
    return value


def listing(params: Json) -> tuple[dict[str, Any], int | None, bool]:
    """The query's members, the history length and whether artifacts are wanted (ListTasksRequest)."""
    size = params.get("pageSize")
    if size is None:
        size = PAGE
    if not isinstance(size, int) or isinstance(size, bool) or not 1 <= size <= LARGEST_PAGE:
        raise InvalidParams(f"pageSize: must be between 1 and {LARGEST_PAGE}, got {str(size)[:40]}")
    state = optional_text(params, "status")
    if state and state not in STATES:
        state = f"TASK_STATE_{state.upper().replace('-', '_')}"
    if state == "TASK_STATE_UNSPECIFIED":
        state = ""
    if state and state not in STATES:
        raise InvalidParams(f"status: must be one of {', '.join(sorted(STATES))}")
    artifacts = params.get("includeArtifacts", False)
    if not isinstance(artifacts, bool):
        raise InvalidParams("includeArtifacts: must be true or false")
    query = {
        "context": optional_text(params, "contextId"),
        "state": state,
        "since": _time(params.get("statusTimestampAfter")),
        "size": size,
        "token": optional_text(params, "pageToken", 1024),
    }
    return query, history_length(params), artifacts


def push_config(value: Any, path: str) -> Json:
    """A TaskPushNotificationConfig without its task; the URL itself is judged where it is used."""
    dot = f"{path}." if path else ""
    if not isinstance(value, dict):
        raise InvalidParams(f"{path}: must be an object")
    out: Json = {}
    for name in ("id", "url", "token"):
        found = value.get(name) or ""
        if not isinstance(found, str) or len(found) > 2048:
            raise InvalidParams(f"{dot}{name}: must be a string of at most 2048 characters")
        if found:
            out[name] = found
    try:
        parts = urlsplit(out.get("url", ""))
        wrong = parts.scheme not in ("http", "https") or not parts.hostname
    except ValueError:
        wrong = True
    if wrong:
        raise InvalidParams(f"{dot}url: must be an absolute http or https URL")
    authentication = value.get("authentication")
    if authentication:
        if not isinstance(authentication, dict) or not isinstance(authentication.get("scheme"), str):
            raise InvalidParams(f"{dot}authentication.scheme: must be the name of an HTTP authentication scheme")
        out["authentication"] = {k: authentication[k] for k in ("scheme", "credentials") if authentication.get(k)}
        if not all(isinstance(each, str) and each.isprintable() for each in out["authentication"].values()):
            raise InvalidParams(f"{dot}authentication: must hold printable text")
    if not str(out.get("token", "")).isprintable():
        raise InvalidParams(f"{dot}token: must be printable text")
    return out


def _time(value: Any) -> str:
    """ISO 8601 in UTC with milliseconds."""
    if value is None or value == "":
        return ""
    try:
        moment = datetime.fromisoformat(str(value).replace("Z", "+00:00"))
    except ValueError as error:
        raise InvalidParams("statusTimestampAfter: must be an ISO 8601 time, e.g. 2026-05-26T10:00:00Z") from error
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
