"""How a new template reaches the Pods: paused roll-outs, restarts, and replicas released to an autoscaler.

All three are set on the Agent or MCPServer (or, an autoscaler, on its Deployment); the Deployment follows.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from quarterdeck.kube import resource as k
from quarterdeck.kube.apply import APPLIED_HASH, with_applied_hash
from quarterdeck.kube.resource import Object
from quarterdeck.kube.template import RESTARTED_AT, foreign_template_fields, with_restart
from quarterdeck.translate.objects import PAUSED

from .context import COMPONENT, Context, Verdict

HANDOVER = f"{COMPONENT}-handover"
"""Field manager that holds ``replicas`` between our letting go and the autoscaler's first write."""
_CONFIGURATION = ("Secret", "ConfigMap")
_CONDITION = "RolloutPaused"
"""Not "Paused": that one says that another controller has the resources (rivals.py)."""


def is_paused(owner: Object) -> bool:
    return (owner["metadata"].get("annotations") or {}).get(PAUSED) == "true"


def steered(context: Context, owner: Object, objects: Sequence[Object]) -> list[Object]:
    """``objects`` as they are to be applied: with the restart stamp and, while paused, without new configuration.

    A paused Deployment gets its new template and does not roll it out; the configuration its Pods mount stays what the
    running ones were started with.
    """
    paused = is_paused(owner)
    out: list[Object] = []
    for desired in objects:
        metadata = desired["metadata"]
        if paused and desired["kind"] in _CONFIGURATION:
            res = k.SECRET if desired["kind"] == "Secret" else k.CONFIG_MAP
            if context.get(res, metadata["namespace"], metadata["name"]) is not None:
                continue
        if desired["kind"] == "Deployment":
            live = context.get(k.DEPLOYMENT, metadata["namespace"], metadata["name"])
            spec = desired["spec"] | {"template": _stamped(owner, desired["spec"]["template"], live)}
            desired = desired | {"spec": spec | {"paused": True} if paused else spec}
        out.append(desired)
    return out


def _stamped(owner: Object, template: Object, live: Object | None) -> Object:
    """The template with the newer of the owner's restart stamp and that of the running template.

    Whoever restarts the Deployment itself is not overruled, and a stamp that is taken off the owner restarts nothing.
    """
    running: Object = ((live or {}).get("spec") or {}).get("template") or {}
    wanted = (owner["metadata"].get("annotations") or {}).get(RESTARTED_AT)
    there = ((running.get("metadata") or {}).get("annotations") or {}).get(RESTARTED_AT)
    if wanted is None or (there is not None and _time(there) > _time(wanted)):
        # what another manager holds stays without us; what we asked for earlier goes unless we ask again
        return template if live is None or _foreign_stamp(live) else with_restart(template, running)
    return with_restart(template, {"metadata": {"annotations": {RESTARTED_AT: wanted}}})


def _foreign_stamp(live: Object) -> bool:
    """Whether another manager than us owns the restart stamp of a cached Deployment."""
    for entry in foreign_template_fields(live["metadata"].get("managedFields") or []):
        fields = entry["fieldsV1"]["f:spec"]["f:template"].get("f:metadata") or {}
        if f"f:{RESTARTED_AT}" in (fields.get("f:annotations") or {}):
            return True
    return False


def _time(text: str) -> datetime:
    """A stamp as kubectl writes it (RFC 3339, any offset); one that cannot be read is older than all others."""
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        return datetime.min.replace(tzinfo=UTC)
    return found if found.tzinfo is not None else found.replace(tzinfo=UTC)


def verdicts(owner: Object) -> list[Verdict]:
    """The RolloutPaused condition: there while paused, and afterwards to say that it is over."""
    if is_paused(owner):
        name = f"{owner['kind'].lower()}/{owner['metadata']['name']}"
        text = f"changes are accepted and not rolled out; `qd rollout resume {name}` rolls them out"
        return [Verdict(_CONDITION, True, "Paused", text)]
    conditions = (owner.get("status") or {}).get("conditions") or ()
    if any(c.get("type") == _CONDITION for c in conditions):
        return [Verdict(_CONDITION, False, "Resumed", "changes are rolled out", quiet=True)]
    return []


async def release_replicas(context: Context, owner: Object, objects: Sequence[Object]) -> None:
    """Let go of the Deployment's ``replicas`` without changing the number, for an autoscaler that owns it from now on.

    Server-side apply would reset a field whose only manager stops asking for it, so another manager holds the present
    number until the autoscaler's first write takes it over. ``objects`` carry no replicas. Raises Conflict when the
    Deployment changes at the same time.
    """
    for desired in objects:
        metadata = desired["metadata"]
        live = context.get(k.DEPLOYMENT, metadata["namespace"], metadata["name"])
        if desired["kind"] != "Deployment" or live is None or "replicas" in desired["spec"]:
            continue  # a canary's number is ours
        wanted = with_applied_hash(desired)["metadata"]["annotations"][APPLIED_HASH]
        if (live["metadata"].get("annotations") or {}).get(APPLIED_HASH) == wanted:
            continue
        client = context.set.client
        newest = await client.get(k.DEPLOYMENT, metadata["name"], metadata["namespace"])
        if _replica_managers(newest) != {(COMPONENT, "Apply")}:
            continue
        kept = {key: newest["metadata"][key] for key in ("name", "namespace", "resourceVersion")}
        body = {"metadata": kept, "spec": {"replicas": newest["spec"]["replicas"]}}
        context.set.informer(k.DEPLOYMENT).observe(
            await client.apply(k.DEPLOYMENT, body, field_manager=HANDOVER, force=False)
        )
        context.event(
            owner, "Normal", "ReplicasReleased",
            f"a HorizontalPodAutoscaler scales Deployment {metadata['name']}: spec.replicas of the {owner['kind']} has "
            f"no effect while it does; let it scale {owner['kind']} {owner['metadata']['name']} to have both agree",
        )  # fmt: skip


def _replica_managers(deployment: Object) -> set[tuple[str, str]]:
    """(manager, operation) of all who own ``replicas``."""
    return {
        (entry.get("manager", ""), entry.get("operation", ""))
        for entry in deployment["metadata"].get("managedFields") or ()
        if "f:replicas" in ((entry.get("fieldsV1") or {}).get("f:spec") or {})
    }
