"""AWS Signature Version 4: https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv.html"""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from datetime import UTC, datetime
from hashlib import sha256
from urllib.parse import quote

from quarterdeck.snapshot import ModelAccess

_ALGORITHM = "AWS4-HMAC-SHA256"


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
    time = datetime.fromtimestamp(now, UTC).strftime("%Y%m%dT%H%M%SZ")
    added = {"x-amz-date": time} | ({"x-amz-security-token": access.session} if access.session else {})
    signed = {name.lower(): " ".join(value.split()) for name, value in (*headers.items(), *added.items())}
    names = ";".join(sorted(signed))
    lines = "".join(f"{name}:{signed[name]}\n" for name in sorted(signed))
    # each segment of the path is encoded once more, which only S3 does without
    canonical = "\n".join((method, quote(path, safe="/~"), query, lines, names, sha256(body).hexdigest()))
    scope = f"{time[:8]}/{access.audience}/{service}/aws4_request"
    text = "\n".join((_ALGORITHM, time, scope, sha256(canonical.encode()).hexdigest()))
    key = f"AWS4{access.secret}".encode()
    for part in (time[:8], access.audience, service, "aws4_request"):
        key = hmac.digest(key, part.encode(), "sha256")
    signature = hmac.digest(key, text.encode(), "sha256").hex()
    credential = f"{access.id}/{scope}"
    added["authorization"] = f"{_ALGORITHM} Credential={credential}, SignedHeaders={names}, Signature={signature}"
    return added
