"""Headers of a user's request that an agent passes on to its tools (``allowedHeaders``): told to the agent under names
that nobody takes for the gateway's own, and given by it to the gateway again with the calls of those tools.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

PREFIX = b"x-quarterdeck-forward-"
_NEVER = frozenset({"authorization", "cookie", "proxy-authorization", "x-user-id", "host", "content-length"})
"""What callers show to the gateway, and what frames a message."""
_LONGEST = 4096


def lines(names: Iterable[str], headers: Mapping[bytes, bytes]) -> bytes:
    """Header lines for the agent; ``names`` in lower case. An agent that was told passes on what it was told."""
    found: list[bytes] = []
    for name in names:
        if name in _NEVER or name.startswith("x-quarterdeck-"):
            continue
        key = name.encode("latin-1", "ignore")
        value = headers.get(PREFIX + key) or headers.get(key)
        if value is not None and len(value) <= _LONGEST:
            found.append(b"%b%b: %b\r\n" % (PREFIX, key, value))
    return b"".join(found)
