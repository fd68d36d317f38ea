"""The Pod's own token on what it sends to gateway and control plane, for programs that know no tokens.

Images of kagent's SDKs call ``kagent-controller`` with no credential, and a client of OpenAI's API sends whatever key
it was given. A Pod annotated ``quarterdeck.dev/workload-token: "true"`` has it put on by its relay: the token for
audience ``quarterdeck`` that is projected into one of the Pod's volumes anyway.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path

from quarterdeck.kube.resource import Object

ANNOTATION = "quarterdeck.dev/workload-token"
AUDIENCE = "quarterdeck"
_LARGEST = 16 * 1024
_TOKEN = re.compile(r"[A-Za-z0-9._~+/=-]+")

ReadToken = Callable[[], str]
"""The token as it is now; empty where there is none."""


def wants_token(pod: Object) -> bool:
    return (pod["metadata"].get("annotations") or {}).get(ANNOTATION) == "true"


def token_reader(pod: Object, volumes: Path) -> ReadToken | None:
    """Reads the Pod's token below ``volumes``; None where it wants none, or has none for us."""
    if not wants_token(pod):
        return None
    for volume in pod["spec"].get("volumes") or ():
        for source in (volume.get("projected") or {}).get("sources") or ():
            token = source.get("serviceAccountToken") or {}
            if token.get("audience") == AUDIENCE:
                root, name = volumes / volume["name"], str(token["path"])
                return lambda: read_token(root, name)
    return None


def read_token(root: Path, name: str) -> str:
    """Nothing outside of the volume is read, and nothing that is no token taken: a container may write to volumes."""
    try:
        path = (root / name).resolve()
        if not path.is_relative_to(root.resolve()):
            return ""
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except (OSError, RuntimeError):
        return ""
    try:
        text = os.read(handle, _LARGEST).decode("ascii", "replace").strip()
    except OSError:
        return ""
    finally:
        os.close(handle)
    return text if _TOKEN.fullmatch(text) else ""


def with_token(head: bytes, token: str) -> bytes:
    """A request's head with this token instead of any other credential."""
    line, *headers = head.removesuffix(b"\r\n\r\n").split(b"\r\n")
    kept = [header for header in headers if not header.lower().startswith(b"authorization:")]
    return b"\r\n".join([line, *kept, b"Authorization: Bearer " + token.encode(), b"", b""])
