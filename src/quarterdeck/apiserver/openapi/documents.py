"""The OpenAPI v3 index, one v3 document per group and version, and the single v2 document. All JSON."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import msgspec

import quarterdeck

from .paths import paths
from .schemas import ServedKind, components, is_builtin

_V3 = "#/components/schemas/"
_V2 = "#/definitions/"
_KEPT = 32  # documents; the largest (core/v1) is about half a megabyte

_documents: dict[str, bytes] = {}


def _place(group: str, version: str) -> str:
    return f"apis/{group}/{version}" if group else f"api/{version}"


def _of(kinds: Sequence[ServedKind], group: str, version: str) -> list[ServedKind]:
    return [kind for kind in kinds if (kind.resource.group, kind.resource.version) == (group, version)]


def _digest(kinds: Sequence[ServedKind]) -> str:
    """Changes when a document over ``kinds`` would; found without building one."""
    digest = hashlib.sha256(quarterdeck.__version__.encode())
    for kind in sorted(kinds, key=lambda item: (item.resource.api_version, item.resource.kind)):
        digest.update(f"{kind.resource}{kind.list_name}{sorted(kind.subresources)}".encode())
        if not is_builtin(kind):
            digest.update(msgspec.json.encode(kind.schema.root.raw))
    return digest.hexdigest()[:32].upper()


def v3_index(kinds: Sequence[ServedKind]) -> bytes:
    """``/openapi/v3``: where each group and version's document is; the hash makes the URL cacheable for ever."""
    places = sorted({(kind.resource.group, kind.resource.version) for kind in kinds})
    found: dict[str, Any] = {}
    for group, version in places:
        place = _place(group, version)
        found[place] = {"serverRelativeURL": f"/openapi/v3/{place}?hash={_digest(_of(kinds, group, version))}"}
    return msgspec.json.encode({"paths": found})


def v3_document(group: str, version: str, kinds: Sequence[ServedKind]) -> bytes:
    """``/openapi/v3/apis/{group}/{version}``: paths and schemas of that group and version among ``kinds``."""
    served = _of(kinds, group, version)
    key = f"v3/{_place(group, version)}/{_digest(served)}"
    document = _documents.get(key)
    if document is None:
        content = {
            "openapi": "3.0.0",
            "info": {"title": "Kubernetes", "version": quarterdeck.__version__},
            "paths": paths(served, _V3, "v3"),
            "components": {"schemas": components(served, _V3)},
        }
        document = _keep(key, msgspec.json.encode(content))
    return document


def v2_document(kinds: Sequence[ServedKind]) -> bytes:
    """``/openapi/v2``: everything in one Swagger document, as JSON."""
    key = f"v2/{_digest(kinds)}"
    document = _documents.get(key)
    if document is None:
        content = {
            "swagger": "2.0",
            "info": {"title": "Kubernetes", "version": quarterdeck.__version__},
            "paths": paths(list(kinds), _V2, "v2"),
            "definitions": components(list(kinds), _V2),
        }
        document = _keep(key, msgspec.json.encode(content))
    return document


def v2_protobuf() -> bytes:
    """``/openapi/v2`` for kubectl, which takes protobuf only (gnostic's openapi.v2.Document) and asks for it when the
    v3 documents do not know a kind. Title and version only: it then goes on to say that there is no such kind.
    """

    def field(number: int, content: bytes) -> bytes:
        assert len(content) < 128  # one byte of length
        return bytes((number << 3 | 2, len(content))) + content

    info = field(1, b"Kubernetes") + field(2, quarterdeck.__version__.encode())
    return field(1, b"2.0") + field(2, info)


def _keep(key: str, document: bytes) -> bytes:
    while len(_documents) >= _KEPT:
        del _documents[next(iter(_documents))]
    _documents[key] = document
    return document
