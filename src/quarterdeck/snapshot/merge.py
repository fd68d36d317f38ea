"""Rules of several attachment points become those that apply: gateway, listener, route, backend, target."""

from __future__ import annotations

from typing import Any

import msgspec

from .policies import HeaderModifier, Policies

_NONE = Policies()
_CONCATENATED = ("authorization", "mcp_authorization")
_SEQUENTIAL = ("request_headers", "response_headers")


def merged(outer: Policies, inner: Policies) -> Policies:
    """What applies where ``inner`` is attached below ``outer``.

    The inner one wins field by field. Authorization sets add up: any deny denies, all requires, allows or-ed. Header
    modifiers are applied one after the other, the outer one first.
    """
    changes: dict[str, Any] = {}
    for field in Policies.__struct_fields__:
        theirs, ours = getattr(outer, field), getattr(inner, field)
        if theirs == getattr(_NONE, field):
            continue
        if field in _CONCATENATED:
            changes[field] = theirs + ours
        elif ours == getattr(_NONE, field):
            changes[field] = theirs
        elif field in _SEQUENTIAL:
            changes[field] = _then(theirs, ours)
    return msgspec.structs.replace(inner, **changes) if changes else inner


def _then(first: HeaderModifier, second: HeaderModifier) -> HeaderModifier:
    """One modifier with the effect of both: what the second sets or removes, the first need not touch."""
    replaced = {name.lower() for name, _ in second.set} | {name.lower() for name in second.remove}
    written = replaced | {name.lower() for name, _ in second.add}
    return HeaderModifier(
        add=tuple(h for h in first.add if h[0].lower() not in replaced) + second.add,
        set=tuple(h for h in first.set if h[0].lower() not in replaced) + second.set,
        remove=tuple(n for n in first.remove if n.lower() not in written) + second.remove,
    )
