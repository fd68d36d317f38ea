"""list: one page of a kind at one resourceVersion, as concatenated bytes when nothing has to be parsed."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any

import msgspec

from quarterdeck.apiserver import tables
from quarterdeck.apiserver.codec import encode
from quarterdeck.apiserver.kinds import Kind
from quarterdeck.apiserver.options import number
from quarterdeck.apiserver.selectors import Selection
from quarterdeck.apiserver.store import Bucket, Entry, Key, Store
from quarterdeck.apiserver.versions import served_bytes, to_served
from quarterdeck.errors import BadRequest, Cause, Expired, GatewayTimeout, Invalid
from quarterdeck.kube.resource import Object

_INCONSISTENT = (
    "The provided continue parameter is too old to display a consistent list result. You can start a new list without "
    "the continue parameter, or use the continue token in this response to retrieve the remainder of the results. "
    "Continuing with the provided token results in an inconsistent list - objects that were created, modified, or "
    "deleted between the time the first chunk was returned and now may show up in the list."
)


@dataclass(frozen=True, slots=True)
class ListQuery:
    """The parameters of a list. ``version`` None means the newest; ``exact`` lists at exactly that version."""

    limit: int = 0
    after: Key | None = None
    version: int | None = None
    exact: bool = False


@dataclass(frozen=True, slots=True)
class Page:
    entries: list[Entry]
    version: int
    token: str = ""
    remaining: int | None = None

    def metadata(self) -> Object:
        made: Object = {"resourceVersion": str(self.version)}
        if self.token:
            made["continue"] = self.token
            if self.remaining is not None:
                made["remainingItemCount"] = self.remaining
        return made


def parse_list(query: Mapping[str, str], visible: int) -> ListQuery:
    """Raises BadRequest, Invalid, or GatewayTimeout for a version that does not exist yet."""
    limit = number(query, "limit") or 0
    token, version = query.get("continue", ""), query.get("resourceVersion", "")
    match = query.get("resourceVersionMatch", "")
    if query.get("sendInitialEvents") is not None:
        text = "Forbidden: sendInitialEvents is forbidden for list"
        raise _option_error("sendInitialEvents", text, "FieldValueForbidden")
    if match:
        _check_match(match, version, token)
    if token:
        if version and version != "0":
            raise BadRequest("specifying resource version is not allowed when using continue")
        at, after = decode_token(token)
        return ListQuery(limit, after, at if at > 0 else None, exact=at > 0)
    if not version or version == "0":
        return ListQuery(limit)
    wanted = parse_version(version)
    check_reached(wanted, visible)
    return ListQuery(limit, None, wanted, exact=match == "Exact")


def parse_version(text: str) -> int:
    if not text.isdigit():
        text_ = f'Invalid value: "{text}": strconv.ParseUint: parsing "{text}": invalid syntax'
        raise _option_error("resourceVersion", text_, "FieldValueInvalid")
    return int(text)


def check_reached(version: int, visible: int) -> None:
    """Raises GatewayTimeout as upstream does for a version from the future."""
    if version > visible:
        cause = Cause("", "Too large resource version", "ResourceVersionTooLarge")
        text = f"Too large resource version: {version}, current: {visible}"
        raise GatewayTimeout(text, causes=(cause,), retry_after=1)


def _check_match(match: str, version: str, token: str) -> None:
    if match not in ("Exact", "NotOlderThan"):
        text = f'Unsupported value: "{match}": supported values: "Exact", "NotOlderThan", ""'
        raise _option_error("resourceVersionMatch", text, "FieldValueNotSupported")
    if token:
        text = "Forbidden: resourceVersionMatch is forbidden when continue is provided"
        raise _option_error("resourceVersionMatch", text, "FieldValueForbidden")
    if not version:
        text = "Forbidden: resourceVersionMatch is forbidden unless resourceVersion is provided"
        raise _option_error("resourceVersionMatch", text, "FieldValueForbidden")
    if match == "Exact" and version == "0":
        text = 'Forbidden: resourceVersionMatch "exact" is forbidden for resourceVersion "0"'
        raise _option_error("resourceVersionMatch", text, "FieldValueForbidden")


def _option_error(field: str, message: str, reason: str) -> Invalid:
    return Invalid(
        f'ListOptions.meta.k8s.io "" is invalid: {field}: {message}', group="meta.k8s.io", kind="ListOptions",
        causes=(Cause(field, message, reason),),
    )  # fmt: skip


def encode_token(version: int, key: Key) -> str:
    raw = encode({"v": "meta.k8s.io/v1", "rv": version, "start": f"{key[0]}/{key[1]}"})
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def decode_token(token: str) -> tuple[int, Key]:
    """(resourceVersion, last key). Raises BadRequest."""
    try:
        value: Any = msgspec.json.decode(base64.urlsafe_b64decode(token + "=" * (-len(token) % 4)))
        namespace, _, name = str(value["start"]).partition("/")
        return int(value["rv"]), (namespace, name)
    except (ValueError, KeyError, TypeError, msgspec.DecodeError) as error:
        raise BadRequest("continue key is not valid: it does not come from a list of this server") from error


def page(store: Store, kind: Kind, namespace: str | None, wanted: Selection, query: ListQuery) -> Page:
    """The objects of one page. Raises Expired when the version of a token is forgotten."""
    bucket = store.bucket(kind.key)
    version = store.visible
    entries: Iterator[Entry]
    if query.exact and query.version is not None:
        version = query.version
        try:
            entries = _at(store, bucket, namespace, version, query.after)
        except Expired as error:
            if query.after is None:
                raise
            raise Expired(_INCONSISTENT, continue_token=encode_token(-1, query.after)) from error
    elif wanted.name and namespace is not None:
        found = bucket.entries.get((namespace, wanted.name))
        entries = iter([found] if found else [])
    else:
        entries = bucket.range(namespace, query.after)
    if not wanted.everything:
        entries = (entry for entry in entries if wanted.matches(entry))
    if not query.limit:
        return Page(list(entries), version)
    chosen = list(islice(entries, query.limit))
    rest = sum(1 for _ in entries)
    if not rest:
        return Page(chosen, version)
    last = chosen[-1]
    remaining = rest if wanted.everything else None
    return Page(chosen, version, encode_token(version, (last.namespace, last.name)), remaining)


def _at(store: Store, bucket: Bucket, namespace: str | None, version: int, after: Key | None) -> Iterator[Entry]:
    changed = store.at_version(bucket, version) if version < store.visible else {}
    if not changed:
        return bucket.range(namespace, after)
    entries: dict[Key, Entry] = {(e.namespace, e.name): e for e in bucket.range(namespace, after)}
    for key, entry in changed.items():
        if (namespace is not None and key[0] != namespace) or (after is not None and key <= after):
            continue
        if entry is None:
            entries.pop(key, None)
        else:
            entries[key] = entry
    return iter([entries[key] for key in sorted(entries)])


def render(kind: Kind, found: Page, shape: str, now: float, include: str) -> bytes:
    """The response body of a list."""
    metadata = found.metadata()
    if shape == "Table":
        items = [to_served(kind, entry) for entry in found.entries]
        return encode(tables.table(kind, items, metadata, now, include))
    if shape in ("PartialObjectMetadataList", "PartialObjectMetadata"):
        partials = [tables.partial(entry.load()) for entry in found.entries]
        head: Object = {"kind": "PartialObjectMetadataList", "apiVersion": "meta.k8s.io/v1", "metadata": metadata}
        return encode({**head, "items": partials})
    start = encode({"kind": kind.list_name, "apiVersion": kind.resource.api_version, "metadata": metadata})
    body = b",".join([served_bytes(kind, entry) for entry in found.entries])
    return b"".join((start[:-1], b',"items":[', body, b"]}\n"))
