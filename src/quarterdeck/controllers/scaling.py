"""Who decides how many Pods an owned Deployment has: an autoscaler, whoever insists, else the resource.

A number that somebody else writes into the Deployment is put back once, with an Event that says what to scale instead.
Written again, it is left alone until the resource asks for another number: two that correct each other would never end.
That is written on the Deployment, so that the next leader, too, leaves it alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from quarterdeck.kube import resource as k
from quarterdeck.kube.owner import belongs_to
from quarterdeck.kube.resource import Object

from .context import Context
from .rollout import release_replicas

LEFT = "quarterdeck.dev/replicas-left-at"
"""Annotation of a Deployment whose number is left alone: the resource's own number when that began."""
Decider = Literal["resource", "autoscaler", "somebody"]


def decider(context: Context, owner: Object, wanted: int) -> Decider:
    """Of the Deployment made for ``owner``, which asks for ``wanted`` Pods."""
    namespace, name, uid = (owner["metadata"][key] for key in ("namespace", "name", "uid"))
    if context.autoscaled(namespace, name):
        context.put_back.pop(uid, None)
        return "autoscaler"
    live = context.get(k.DEPLOYMENT, namespace, name)
    if live is None or not belongs_to(live, owner):
        return "resource"
    mark = _mark(live)
    if mark is not None:
        return "somebody" if mark == str(wanted) else "resource"
    resting = {0} if (owner.get("spec") or {}).get("scaleToZero") else set[int]()
    replicas = int((live.get("spec") or {}).get("replicas", 1))
    again = context.put_back.get(uid) == wanted and replicas not in {wanted, *resting}
    return "somebody" if again else "resource"


async def let_go(
    context: Context, owner: Object, objects: Sequence[Object], decider: Decider, wanted: int
) -> list[Object]:
    """``objects`` as they are to be applied where ``decider`` is not the resource: those carry no replicas then.

    Raises Conflict when the Deployment changes at the same time.
    """
    if decider == "somebody":
        return _left_alone(context, owner, objects, wanted)
    if decider == "autoscaler":
        await release_replicas(context, owner, objects)
    return list(objects)


def _left_alone(context: Context, owner: Object, objects: Sequence[Object], wanted: int) -> list[Object]:
    """With the annotation on the Deployment; told once."""
    namespace, name, kind = owner["metadata"]["namespace"], owner["metadata"]["name"], owner["kind"]
    live = context.get(k.DEPLOYMENT, namespace, name)
    if live is not None and _mark(live) is None:
        replicas = int((live.get("spec") or {}).get("replicas", 1))
        context.event(
            owner, "Normal", "ReplicasReleased",
            f"Deployment {name} was scaled again after it had been put back: its {replicas} Pods are left alone until "
            f"spec.replicas of the {kind} is no longer {wanted}; `kubectl scale {kind.lower()} {name} --replicas=N`",
        )  # fmt: skip
    return [_marked(obj, wanted) if (obj["kind"], obj["metadata"]["name"]) == ("Deployment", name) else obj
            for obj in objects]  # fmt: skip


def _mark(deployment: Object) -> str | None:
    return (deployment["metadata"].get("annotations") or {}).get(LEFT)


def _marked(deployment: Object, wanted: int) -> Object:
    metadata = deployment["metadata"]
    annotations = {**(metadata.get("annotations") or {}), LEFT: str(wanted)}
    return deployment | {"metadata": metadata | {"annotations": annotations}}
