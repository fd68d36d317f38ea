"""AWS Signature Version 4 for GET requests without a body, as S3 wants it (docs: sig-v4-authenticating-requests)."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from urllib.parse import quote

_EMPTY = hashlib.sha256(b"").hexdigest()


@dataclass(frozen=True, slots=True)
class Keys:
    """Access keys; ``token`` belongs to temporary ones."""

    access: str
    secret: str = field(repr=False)
    token: str = field(default="", repr=False)


def query_string(query: Mapping[str, str]) -> str:
    """Sorted and encoded as the signature wants it; what is sent must be the same."""
    return "&".join(f"{quote(name, safe='-_.~')}={quote(value, safe='-_.~')}" for name, value in sorted(query.items()))


def path_of(key: str) -> str:
    """An object's key as a URL path."""
    return "/" + quote(key, safe="/-_.~")


def signed(
    host: str, path: str, query: Mapping[str, str], keys: Keys, region: str, now: datetime, service: str = "s3"
) -> dict[str, str]:
    """The headers of a GET of ``https://host{path}?{query_string(query)}``; ``path`` is encoded, ``now`` is UTC."""
    stamp, day = now.strftime("%Y%m%dT%H%M%SZ"), now.strftime("%Y%m%d")
    headers = {"host": host, "x-amz-content-sha256": _EMPTY, "x-amz-date": stamp}
    if keys.token:
        headers["x-amz-security-token"] = keys.token
    names = ";".join(sorted(headers))
    lines = "".join(f"{name}:{headers[name]}\n" for name in sorted(headers))
    request = f"GET\n{path}\n{query_string(query)}\n{lines}\n{names}\n{_EMPTY}"
    scope = f"{day}/{region}/{service}/aws4_request"
    text = f"AWS4-HMAC-SHA256\n{stamp}\n{scope}\n{hashlib.sha256(request.encode()).hexdigest()}"
    key = f"AWS4{keys.secret}".encode()
    for part in (day, region, service, "aws4_request"):
        key = hmac.digest(key, part.encode(), "sha256")
    signature = hmac.digest(key, text.encode(), "sha256").hex()
    headers["authorization"] = (
        f"AWS4-HMAC-SHA256 Credential={keys.access}/{scope}, SignedHeaders={names}, Signature={signature}"
    )
    return headers
