"""Signatures of GET requests without a body, as S3 wants them (docs: sig-v4-authenticating-requests)."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from datetime import datetime
from urllib.parse import quote

from quarterdeck.wire.sigv4 import Keys, sign

_EMPTY = hashlib.sha256(b"").hexdigest()


def query_string(query: Mapping[str, str]) -> str:
    """Sorted and encoded as the signature wants it; what is sent must be the same."""
    return "&".join(f"{quote(name, safe='-_.~')}={quote(value, safe='-_.~')}" for name, value in sorted(query.items()))


def path_of(key: str) -> str:
    """An object's key as a URL path."""
    return "/" + quote(key, safe="/-_.~")


def signed(host: str, path: str, query: Mapping[str, str], keys: Keys, region: str, now: datetime) -> dict[str, str]:
    """The headers of a GET of ``https://host{path}?{query_string(query)}``; ``path`` is encoded, ``now`` is aware."""
    headers = {"host": host, "x-amz-content-sha256": _EMPTY}
    return headers | sign(keys, region, "s3", "GET", path, query_string(query), headers, _EMPTY, now.timestamp())
