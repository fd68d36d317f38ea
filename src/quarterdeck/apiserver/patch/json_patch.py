"""RFC 6902 JSON patch with the error texts of the library the API server uses (evanphx/json-patch)."""

from __future__ import annotations

from typing import Any

from quarterdeck.errors import BadRequest, Invalid

MAX_OPERATIONS = 10_000
_UNREQUESTED = "the server rejected our request due to an error in our request"


class _Missing(Exception):
    """The path of an operation does not lead anywhere in the document."""


def json_patch(doc: Any, ops: Any) -> Any:
    """Apply the operations in order to a copy of ``doc``.

    Raises BadRequest for a malformed patch and Invalid (422) for one that does not fit the document, a failed ``test``
    included.
    """
    if not isinstance(ops, list) or not all(isinstance(op, dict) for op in ops):
        raise BadRequest("error decoding patch: json: cannot unmarshal into Go value of type jsonpatch.Patch")
    if len(ops) > MAX_OPERATIONS:
        raise BadRequest(f"the allowed maximum operations in a JSON patch is {MAX_OPERATIONS}, got {len(ops)}")
    result = copy_json(doc)
    for op in ops:
        result = _apply(result, op)
    return result


def copy_json(value: Any) -> Any:
    """A deep copy of JSON data (several times quicker than ``copy.deepcopy``)."""
    if isinstance(value, dict):
        return {key: copy_json(item) for key, item in value.items()}
    if isinstance(value, list):
        return [copy_json(item) for item in value]
    return value


def same_json(left: Any, right: Any) -> bool:
    """Equality of JSON values: ``true`` is not ``1``."""
    if isinstance(left, bool) or isinstance(right, bool):
        return left is right
    if isinstance(left, dict):
        if not isinstance(right, dict) or left.keys() != right.keys():
            return False
        return all(same_json(value, right[key]) for key, value in left.items())
    if isinstance(left, list):
        return isinstance(right, list) and len(left) == len(right) and all(map(same_json, left, right))
    return bool(left == right)


def _tokens(pointer: Any, op: str) -> list[str]:
    if not isinstance(pointer, str):
        raise BadRequest(f"error decoding patch: operation {op!r} has no path")
    if pointer and not pointer.startswith("/"):
        raise _rejected(f"{op} operation does not apply: doc is missing path: {pointer}: missing value")
    return [token.replace("~1", "/").replace("~0", "~") for token in pointer.split("/")[1:]]


def _rejected(message: str) -> Invalid:
    return Invalid(f"{_UNREQUESTED}: {message}")


def _apply(doc: Any, op: dict[str, Any]) -> Any:
    name = op.get("op")
    if name not in ("add", "remove", "replace", "move", "copy", "test"):
        raise BadRequest(f"Unexpected kind: {name}")
    path = op.get("path")
    tokens = _tokens(path, name)
    if name in ("add", "replace", "test") and "value" not in op:
        if name != "test":
            raise _rejected(f"{name} operation does not apply: missing value for path {path}")
        op = {**op, "value": None}
    try:
        if name == "test":
            return _test(doc, tokens, op["value"], path)
        if name == "remove":
            return _remove(doc, tokens)[0]
        if name == "add":
            return _add(doc, tokens, copy_json(op["value"]))
        if name == "replace":
            _get(doc, tokens)
            return _replace(doc, tokens, copy_json(op["value"]))
        source = _tokens(op.get("from"), name)
        if name == "copy":
            return _add(doc, tokens, copy_json(_get(doc, source)))
        if tokens[: len(source)] == source and len(tokens) > len(source):
            raise _rejected(f"move operation does not apply: {path} lies inside {op.get('from')}")
        doc, moved = _remove(doc, source)
        return _add(doc, tokens, moved)
    except _Missing as error:
        raise _rejected(f"{name} operation does not apply: {_where(name, path)}: {error}") from None


def _where(name: str, path: Any) -> str:
    if name == "remove":
        return f"unable to remove nonexistent key: {path}"
    return f"doc is missing path: {path}"


def _index(container: list[Any], key: str, *, adding: bool) -> int:
    if key == "-" and adding:
        return len(container)
    digits = key[1:] if key.startswith("-") else key
    if not digits.isdigit() or (len(digits) > 1 and digits[0] == "0"):
        raise _Missing(f'strconv.Atoi: parsing "{key}": invalid syntax')
    index = int(key)
    limit = len(container) + (1 if adding else 0)
    if index < 0:  # the library's extension: counted from the end
        index += limit
    if not 0 <= index < limit:
        raise _Missing(f"Unable to access invalid index: {key}: invalid index referenced")
    return index


def _step(container: Any, token: str) -> Any:
    if isinstance(container, dict):
        if token not in container:
            raise _Missing("missing value")
        return container[token]
    if isinstance(container, list):
        return container[_index(container, token, adding=False)]
    raise _Missing("missing value")


def _get(doc: Any, tokens: list[str]) -> Any:
    for token in tokens:
        doc = _step(doc, token)
    return doc


def _add(doc: Any, tokens: list[str], value: Any) -> Any:
    if not tokens:
        return value
    parent = _get(doc, tokens[:-1])
    if isinstance(parent, dict):
        parent[tokens[-1]] = value
    elif isinstance(parent, list):
        parent.insert(_index(parent, tokens[-1], adding=True), value)
    else:
        raise _Missing("missing value")
    return doc


def _replace(doc: Any, tokens: list[str], value: Any) -> Any:
    if not tokens:
        return value
    parent = _get(doc, tokens[:-1])
    if isinstance(parent, list):
        parent[_index(parent, tokens[-1], adding=False)] = value
    else:
        parent[tokens[-1]] = value
    return doc


def _remove(doc: Any, tokens: list[str]) -> tuple[Any, Any]:
    if not tokens:
        return None, doc
    parent = _get(doc, tokens[:-1])
    removed = _step(parent, tokens[-1])
    if isinstance(parent, list):
        del parent[_index(parent, tokens[-1], adding=False)]
    else:
        del parent[tokens[-1]]
    return doc, removed


def _test(doc: Any, tokens: list[str], value: Any, path: Any) -> Any:
    try:
        found = _get(doc, tokens)
    except _Missing:
        if value is None:
            return doc
        raise
    if not same_json(found, value):
        raise _rejected(f"testing value {path} failed: test failed")
    return doc
