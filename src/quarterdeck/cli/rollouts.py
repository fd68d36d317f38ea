"""The work behind ``qd rollout``: revisions read and written back, progress followed, in kubectl's words."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

from quarterdeck.errors import ConfigError, Conflict, NotFound, TimedOut
from quarterdeck.kube import resource as k
from quarterdeck.kube.client import KubeClient
from quarterdeck.kube.conditions import get_condition
from quarterdeck.kube.template import RESTARTED_AT
from quarterdeck.translate import revision
from quarterdeck.translate.objects import PAUSED
from quarterdeck.translate.revision import CHANGE_CAUSE, Revision

from .kinds import Kind
from .output import formatter, note, to_yaml, without_managed_fields

KINDS = {(res.group, res.kind): res for res in (k.AGENT, k.MCP_SERVER)}
"""What has revisions, in the version they are kept in."""
FIELD_MANAGER = "qd-rollout"
_LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"
_ATTEMPTS = 10
_PAUSE = (0.05, 1.0)
_JSON_PATCH = "application/json-patch+json"
_MERGE_PATCH = "application/merge-patch+json"
Object = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Subject:
    """The object of a command."""

    client: KubeClient
    kind: Kind
    name: str

    @property
    def title(self) -> str:
        return f"{self.kind.qualified}/{self.name}"

    @property
    def resource(self) -> k.Resource:
        return KINDS[self.kind.resource.group, self.kind.resource.kind]

    @property
    def word(self) -> str:
        """``agent``"""
        return self.kind.singular

    @property
    def namespace(self) -> str:
        return self.client.config.namespace

    async def get(self) -> Object:
        found = await self.client.get(self.resource, self.name, self.namespace)
        return {"apiVersion": self.resource.api_version, "kind": self.resource.kind} | found

    async def patch(self, obj: Object, changes: list[Object], *, dry_run: bool) -> None:
        """A JSON patch onto the version that was looked at. Raises Conflict when there is a newer one."""
        version = {"op": "replace", "path": "/metadata/resourceVersion", "value": obj["metadata"]["resourceVersion"]}
        params = {"fieldManager": FIELD_MANAGER} | ({"dryRun": "All"} if dry_run else {})
        path = self.resource.path(self.namespace, self.name)
        await self.client.request(
            "PATCH", path, params=params, body=[version, *changes], content_type=_JSON_PATCH
        )  # fmt: skip

    async def mark(self, values: dict[str, str | None], *, dry_run: bool) -> None:
        """Set annotations, or take them away (None)."""
        params = {"fieldManager": FIELD_MANAGER} | ({"dryRun": "All"} if dry_run else {})
        path, body = self.resource.path(self.namespace, self.name), {"metadata": {"annotations": values}}
        await self.client.request("PATCH", path, params=params, body=body, content_type=_MERGE_PATCH)


def _annotate(obj: Object, values: dict[str, str | None]) -> list[Object]:
    """JSON patch operations that set annotations, or take them away (None)."""
    there: dict[str, str] = obj["metadata"].get("annotations") or {}
    wanted = {**there, **{key: value for key, value in values.items() if value is not None}}
    wanted = {key: value for key, value in wanted.items() if values.get(key, "") is not None}
    if wanted == there:
        return []
    return [{"op": "add", "path": "/metadata/annotations", "value": wanted}]


def _is_paused(obj: Object) -> bool:
    return (obj["metadata"].get("annotations") or {}).get(PAUSED) == "true"


# -- history


async def revisions(subject: Subject, obj: Object) -> list[tuple[Revision, Object]]:
    """The kept revisions with their ControllerRevisions, the current one last."""
    listed = await subject.client.list(
        k.CONTROLLER_REVISION, subject.namespace, label_selector=f"{revision.OWNER}={obj['metadata']['uid']}"
    )
    found = [(revision.read(item), item) for item in listed.items]
    return sorted(found, key=lambda pair: pair[0].number)


async def shown_history(subject: Subject, number: int, output: str) -> str:
    """The list, or with ``number`` the spec of that revision; as a table or text, or in another format."""
    obj = await subject.get()
    kept = await revisions(subject, obj)
    if output == "name":
        return f"{subject.title}\n"
    show = formatter(output)
    if number:
        chosen = next((pair for pair in kept if pair[0].number == number), None)
        if chosen is None:
            raise ConfigError("unable to find the specified revision")
        manifest = _at(obj, chosen[1])
        if show is not None:
            return show(manifest)
        return f"{subject.title} with revision #{number}\nSpec:\n{_indented(to_yaml(manifest['spec']))}\n"
    if show is not None:
        items = [without_managed_fields(item) for _, item in kept]
        return show({"apiVersion": "v1", "items": items, "kind": "List", "metadata": {"resourceVersion": ""}})
    rows = [[str(each.number), each.cause or "<none>"] for each, _ in kept]
    return f"{subject.title} \n{_history_table(rows)}\n"


def _history_table(rows: list[list[str]]) -> str:
    """Two blanks between, as kubectl has them in this table only."""
    width = max(len("REVISION"), *(len(number) for number, _ in rows), 0) + 2 if rows else len("REVISION") + 2
    lines = [("REVISION", "CHANGE-CAUSE"), *((number, cause) for number, cause in rows)]
    return "".join(f"{number.ljust(width)}{cause}\n" for number, cause in lines)


def _indented(text: str) -> str:
    return "".join(f"  {line}\n" for line in text.splitlines())


def _at(obj: Object, kept: Object) -> Object:
    """The manifest of ``obj`` with the spec of a revision."""
    metadata = {key: obj["metadata"][key] for key in ("name", "namespace") if key in obj["metadata"]}
    spec = revision.restored(obj.get("spec") or {}, (kept.get("data") or {}).get("spec") or {})
    return {"apiVersion": obj["apiVersion"], "kind": obj["kind"], "metadata": metadata, "spec": spec}


def _numbered(kept: list[tuple[Revision, Object]], number: int) -> tuple[Revision, Object]:
    for pair in kept:
        if pair[0].number == number:
            return pair
    raise ConfigError(f"unable to find specified revision {number} in history")


# -- changes


async def undo(subject: Subject, number: int, dry_run: bool) -> str:
    """Write the spec of a revision back (0: the previous one); gives what was done."""
    if _LAST_APPLIED in ((await subject.get())["metadata"].get("annotations") or {}):
        note(
            f"Warning: resource {subject.resource.plural}/{subject.name} was previously managed with 'kubectl apply'. "
            f"Rolling back will not update the {_LAST_APPLIED} annotation, which may cause unexpected behavior on "
            "future 'kubectl apply' operations. Consider using 'kubectl apply' with your previous configuration file "
            "instead."
        )
    for attempt in range(1, _ATTEMPTS + 1):
        try:
            return await _undo_once(subject, number, dry_run)
        except Conflict:
            if attempt == _ATTEMPTS:
                raise
            await asyncio.sleep(_PAUSE[0] * attempt)  # status writes come in bursts while something rolls out
    return ""


async def _undo_once(subject: Subject, number: int, dry_run: bool) -> str:
    obj = await subject.get()
    if _is_paused(obj):
        raise ConfigError(
            f"you cannot rollback a paused {subject.word}; resume it first with 'qd rollout resume "
            f"{subject.word}/{subject.name}' and try again"
        )
    chosen, kept = _chosen(subject, obj, await revisions(subject, obj), number)
    spec = revision.restored(obj.get("spec") or {}, (kept.get("data") or {}).get("spec") or {})
    if spec == obj.get("spec"):
        return f"skipped rollback (current spec already matches revision {chosen.number})"
    changes = [{"op": "replace", "path": "/spec", "value": spec}, *_annotate(obj, {CHANGE_CAUSE: chosen.cause})]
    await subject.patch(obj, changes, dry_run=dry_run)
    return "rolled back"


def _chosen(subject: Subject, obj: Object, kept: list[tuple[Revision, Object]], number: int) -> tuple[Revision, Object]:
    """The revision to go back to. A present spec that was never accepted has none: then it is the newest kept one."""
    if number:
        return _numbered(kept, number)
    current = revision.content_hash(obj["kind"], obj.get("spec") or {})
    others = [pair for pair in kept if pair[0].hash != current]
    if not others:
        raise ConfigError(f'no rollout history found for {subject.word} "{subject.name}"')
    return others[-1]


async def pause(subject: Subject, wanted: bool, dry_run: bool) -> None:
    """Raises ConfigError when it already is so."""
    obj = await subject.get()
    if _is_paused(obj) == wanted:
        state = "already paused" if wanted else "not paused"
        raise ConfigError(f'{subject.kind.resource.plural}.{subject.kind.resource.group} "{subject.name}" is {state}')
    await subject.mark({PAUSED: "true" if wanted else None}, dry_run=dry_run)


async def restart(subject: Subject, now: str, dry_run: bool) -> None:
    """``now``: RFC 3339. Raises ConfigError while paused."""
    obj = await subject.get()
    title = f'{subject.kind.resource.plural}.{subject.kind.resource.group} "{subject.name}"'
    if _is_paused(obj):
        raise ConfigError(f"{title} can't restart paused {subject.word} (run rollout resume first)")
    if (obj["metadata"].get("annotations") or {}).get(RESTARTED_AT) == now:
        text = "if restart has already been triggered within the past second, please wait before attempting to trigger"
        raise ConfigError(f"failed to create patch for {subject.name}: {text} another")
    await subject.mark({RESTARTED_AT: now}, dry_run=dry_run)


# -- status


async def follow(subject: Subject, *, watch: bool, limit: float) -> None:
    """Print each new state until the roll-out is finished. Raises TimedOut, or ConfigError when it cannot finish."""
    deadline = asyncio.get_running_loop().time() + limit if limit else None
    pause, last = _PAUSE[0], ""
    while True:
        obj = await subject.get()
        try:
            deployment = await subject.client.get(k.DEPLOYMENT, subject.name, subject.namespace)
        except NotFound:
            deployment = None
        text, finished = progress(subject.word, obj, deployment)
        if text != last:
            print(text, flush=True)
            pause, last = _PAUSE[0], text
        if finished or not watch:
            return
        if deadline is not None and asyncio.get_running_loop().time() + pause > deadline:
            raise TimedOut("timed out waiting for the condition")
        await asyncio.sleep(pause)
        pause = min(pause * 1.5, _PAUSE[1])


def progress(word: str, obj: Object, deployment: Object | None) -> tuple[str, bool]:
    """(what kubectl would say, whether it is finished). Raises ConfigError when it will not finish by itself."""
    metadata, status = obj["metadata"], obj.get("status") or {}
    name = metadata["name"]
    if int(status.get("observedGeneration") or 0) < int(metadata.get("generation") or 0):
        return f"Waiting for {word} spec update to be observed...", False
    for kind in ("Accepted", "Programmed"):
        verdict = get_condition(status.get("conditions"), kind)
        if verdict is not None and verdict.get("status") == "False":
            raise ConfigError(f'{word} "{name}" is not rolled out: {verdict.get("reason")}: {verdict.get("message")}')
    trial = status.get("rollout") or {}
    if trial.get("phase") == "Aborted":
        raise ConfigError(f'{word} "{name}" is not rolled out: {trial.get("message")}')
    if trial.get("phase") in ("Progressing", "Paused", "Promoting"):
        return f'Waiting for {word} "{name}" rollout to finish: {trial.get("message")}', False
    seen = ((deployment or {}).get("status") or {}).get("observedGeneration") or 0
    if deployment is None or int(seen) < int(deployment["metadata"].get("generation") or 0):
        return f"Waiting for {word} spec update to be observed...", False
    return _deployment_progress(word, name, deployment)


def _deployment_progress(word: str, name: str, deployment: Object) -> tuple[str, bool]:
    status, wanted = deployment.get("status") or {}, deployment["spec"].get("replicas", 1)
    progressing = get_condition(status.get("conditions"), "Progressing") or {}
    if progressing.get("reason") == "ProgressDeadlineExceeded":
        raise ConfigError(f'{word} "{name}" exceeded its progress deadline')
    updated, total = int(status.get("updatedReplicas") or 0), int(status.get("replicas") or 0)
    available = int(status.get("availableReplicas") or 0)
    waiting = f'Waiting for {word} "{name}" rollout to finish: '
    if updated < wanted:
        return f"{waiting}{updated} out of {wanted} new replicas have been updated...", False
    if total > updated:
        return f"{waiting}{total - updated} old replicas are pending termination...", False
    if available < updated:
        return f"{waiting}{available} of {updated} updated replicas are available...", False
    return f'{word} "{name}" successfully rolled out', True
