"""The condition ``ToolsPinned``: whether a server's tools are those that were approved, and what is odd about them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from quarterdeck.kube.resource import Key, Object
from quarterdeck.snapshot.pins import ServerPins, digest
from quarterdeck.snapshot.scan import scan
from quarterdeck.translate.snapshot import pin_mode

from .context import Context, Verdict

TYPE = "ToolsPinned"
_SHOWN = 5


def verdicts(obj: Object, approved: Mapping[str, str], tools: Sequence[Object]) -> list[Verdict]:
    """Of a server by what it lists: nothing where nothing is pinned and nothing is odd.

    ``approved``: digests by the names of tools.
    """
    mode = pin_mode(obj) or ("enforce" if approved else "off")
    odd = _findings(tools)
    if mode == "off":
        if odd:
            return [Verdict(TYPE, None, "SuspiciousDefinitions", f"Not pinned; look at {odd}")]
        known = any(c.get("type") == TYPE for c in (obj.get("status") or {}).get("conditions") or ())
        return [Verdict(TYPE, None, "NotPinned", "No tool is held to a definition")] if known else []
    differing = {
        str(tool.get("name", "")): "changed" if tool.get("name") in approved else "new"
        for tool in tools
        if approved.get(str(tool.get("name", ""))) != digest(tool)
    }
    if not differing:
        note = f"; look at {odd}" if odd else ""
        return [Verdict(TYPE, True, "Approved", f"All {len(tools)} tools are as they were approved{note}")]
    shown = ", ".join(f"{name} ({state})" for name, state in sorted(differing.items())[:_SHOWN])
    more = f" and {len(differing) - _SHOWN} more" if len(differing) > _SHOWN else ""
    effect = "are neither listed nor called" if mode == "enforce" else "differ from what was approved"
    key = obj["metadata"]
    remedy = f"see: qd tools diff {key['name']} -n {key['namespace']}"
    note = f"; look at {odd}" if odd else ""
    reason = "Quarantined" if mode == "enforce" else "Changed"
    return [Verdict(TYPE, False, reason, f"{shown}{more} {effect}{note}; {remedy}")]


def follower(context: Context, enqueue: Callable[[str, Key], None]) -> Callable[[tuple[ServerPins, ...]], None]:
    """Takes approvals as they change, and has the servers concerned looked at again."""

    def changed(pins: tuple[ServerPins, ...]) -> None:
        now = {(p.kind, p.namespace, p.name): {pin.name: pin.digest for pin in p.tools} for p in pins}
        before, context.pins = context.pins, now
        for slot in {*before, *now}:
            if before.get(slot) != now.get(slot):
                kind, namespace, name = slot
                enqueue(kind.lower(), Key(namespace, name))

    return changed


def _findings(tools: Sequence[Object]) -> str:
    found = [f"{tool.get('name')}: {finding}" for tool in tools for finding in scan(tool)]
    more = f" and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
    return "; ".join(found[:_SHOWN]) + more
