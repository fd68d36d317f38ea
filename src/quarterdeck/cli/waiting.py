"""The work behind ``qd wait``."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any, Literal

from quarterdeck.errors import NotFound, TimedOut, UsageError
from quarterdeck.kube.client import KubeClient

from .kinds import Kind

_LONGEST_PAUSE = 0.5


@dataclass(frozen=True, slots=True)
class Goal:
    """What is waited for; ``name`` is the condition's type or the JSONPath, ``value`` what it must be."""

    what: Literal["condition", "delete", "create", "jsonpath"]
    name: str = ""
    value: str = ""

    @classmethod
    def parse(cls, text: str) -> Goal:
        """As kubectl's ``--for``. Raises UsageError."""
        what, _, rest = text.partition("=")
        if text == "delete":
            return cls("delete")
        if text == "create":
            return cls("create")
        if what == "condition" and rest:
            name, _, value = rest.partition("=")
            return cls("condition", name, value or "True")
        if what == "jsonpath" and rest:
            path, _, value = rest.strip("'").rpartition("}=") if "}=" in rest else (rest.strip("'"), "", "")
            return cls("jsonpath", path + ("}" if "}=" in rest else ""), value.strip("'"))
        raise UsageError(f"--for={text}: must be condition=TYPE[=VALUE], delete, create or jsonpath={{PATH}}[=VALUE]")

    def reached(self, obj: dict[str, Any] | None) -> bool:
        """``obj`` is None when it does not exist."""
        if self.what == "delete":
            return obj is None
        if obj is None:
            return False
        if self.what == "condition":
            conditions: list[dict[str, Any]] = (obj.get("status") or {}).get("conditions") or []
            generation = obj["metadata"].get("generation", 0)
            return any(
                c.get("type", "").lower() == self.name.lower()
                and c.get("status", "").lower() == self.value.lower()
                and c.get("observedGeneration", generation) >= generation
                for c in conditions
            )
        if self.what == "jsonpath":
            from quarterdeck.apiserver.crd.jsonpath import evaluate, text_of

            found = [text_of(value) for value in evaluate(self.name, obj)]
            return self.value in found if self.value else bool(found)
        return True


async def until(client: KubeClient, wanted: list[tuple[Kind, str]], goal: Goal, limit: float) -> None:
    """Wait for all, saying of each when it is there. Raises TimedOut with the last state, NotFound."""
    deadline = asyncio.get_running_loop().time() + limit
    for kind, name in wanted:
        pause = 0.02
        while not goal.reached(obj := await _find(client, kind, name)):
            if obj is None and goal.what != "create":
                raise NotFound(f'{kind.resource.plural} "{name}" not found')
            if asyncio.get_running_loop().time() + pause > deadline:
                raise TimedOut(f"timed out waiting for the condition on {kind.qualified}/{name}{_state(obj)}")
            await asyncio.sleep(pause)
            pause = min(pause * 1.5, _LONGEST_PAUSE)
        print(f"{kind.qualified}/{name} {'deleted' if goal.what == 'delete' else 'condition met'}", flush=True)


async def _find(client: KubeClient, kind: Kind, name: str) -> dict[str, Any] | None:
    try:
        return await client.get(kind.resource, name, client.config.namespace if kind.resource.namespaced else None)
    except NotFound:
        return None


def _state(obj: dict[str, Any] | None) -> str:
    """The conditions that are not True, so that a person sees what it hangs on."""
    conditions: list[dict[str, Any]] = ((obj or {}).get("status") or {}).get("conditions") or []
    open_ones = [f"{c.get('type')}: {c.get('reason', '')} {c.get('message', '')}".strip() for c in conditions
                 if c.get("status") != "True"]  # fmt: skip
    return f" ({'; '.join(open_ones)})" if open_ones else ""
