"""Signatures of Bedrock's requests."""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import sha256
from urllib.parse import quote

from quarterdeck.snapshot import ModelAccess
from quarterdeck.wire import sigv4


def sign(
    access: ModelAccess,
    method: str,
    path: str,
    headers: Mapping[str, str],
    body: bytes,
    now: float,
    *,
    query: str = "",
    service: str = "bedrock",
) -> dict[str, str]:
    """The headers to add to a request with those ``headers`` (``host`` among them). ``path`` as it is sent, encoded;
    ``now`` in seconds since the epoch."""
    keys = sigv4.Keys(access.id, access.secret, access.session)
    canonical = quote(path, safe="/~")  # each segment is encoded once more, which only S3 does without
    digest = sha256(body).hexdigest()
    return sigv4.sign(keys, access.audience, service, method, canonical, query, headers, digest, now)
