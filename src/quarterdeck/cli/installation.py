"""The work behind ``qd install`` and ``qd uninstall``: through helm, or by server-side apply and a list of our own.

Without helm the ConfigMap ``quarterdeck-install`` keeps what was applied, so that an upgrade removes what is no longer
part of it and an uninstall finds everything.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from quarterdeck.errors import ConfigError, NotFound, QuarterdeckError, TimedOut, UsageError
from quarterdeck.kube.client import KubeClient
from quarterdeck.kube.config import load_config
from quarterdeck.kube.resource import CONFIG_MAP, CRD, DEPLOYMENT, SECRET, Object
from quarterdeck.resources.crd import PART_OF

from .apply import Options, apply_all
from .chart import Release, folder, load
from .chart.values import Values, merged, parse_sets
from .kinds import Kinds, discover
from .manifests import Manifest, parse
from .output import note, to_yaml

RELEASE = "quarterdeck"
DEFINITIONS = "quarterdeck-crds"
INVENTORY = "quarterdeck-install"
KEEP = "helm.sh/resource-policy"
_RELEASE_NAME = "meta.helm.sh/release-name"
_PAUSE = (0.1, 2.0)


@dataclass(frozen=True, slots=True)
class Plan:
    """What to install where. ``sets`` and ``files`` as helm's ``--set`` and ``-f``."""

    namespace: str
    sets: tuple[str, ...] = ()
    files: tuple[str, ...] = ()
    kubeconfig: str = ""
    context: str = ""
    helm: bool = True
    definitions: bool = True
    """Whether the definitions are ours to install or remove, too."""

    def values(self) -> Values:
        """Files in their order, then ``--set``. Raises ConfigError, UsageError."""
        found: Values = {}
        for file in self.files:
            try:
                content: Any = yaml.safe_load(Path(file).read_text())
            except (OSError, yaml.YAMLError) as error:
                raise ConfigError(f"--values {file}: {error}") from error
            if not isinstance(content, dict | None):
                raise ConfigError(f"--values {file}: must be a mapping")
            found = merged(found, content or {}, keep_nulls=True)
        return merged(found, parse_sets(self.sets), keep_nulls=True)

    def client(self) -> KubeClient:
        """Of the cluster that kubectl would take; never the platform of this machine by itself."""
        config = load_config(self.kubeconfig or None, context=self.context)
        config.user_agent = "qd"
        return KubeClient(config, on_warning=lambda text: note(f"Warning: {text}"))


def rendered(plan: Plan) -> list[Manifest]:
    """Everything in the order to apply it. Raises ConfigError naming the value or template."""
    namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": plan.namespace}}
    found = parse("namespace", to_yaml(namespace))
    if plan.definitions:
        found += load(DEFINITIONS).render(Release(DEFINITIONS, plan.namespace))
    return found + load(RELEASE).render(Release(RELEASE, plan.namespace), plan.values())


def install(plan: Plan, *, dry_run: bool, wait: bool, timeout: float) -> None:
    """Raises QuarterdeckError; TimedOut when not everything is ready in time."""
    asyncio.run(_install(plan, dry_run, wait, timeout))


async def _install(plan: Plan, dry_run: bool, wait: bool, timeout: float) -> None:
    async with plan.client() as client:
        helm = await _helm(client, plan)
        if helm is not None:
            flags = [f"--timeout={timeout:g}s", *(["--wait"] if wait else [])]
            flags = ["--dry-run=client"] if dry_run else flags
            common = ["upgrade", "--install", "--namespace", plan.namespace, "--create-namespace", *flags]
            given = [*(f"--values={file}" for file in plan.files), *(f"--set={text}" for text in plan.sets)]
            if plan.definitions:
                force = [*(["--force-conflicts"] if _applies(helm) else []), *await _adoption(client, plan)]
                _run([helm, *common, *force, DEFINITIONS, str(folder(DEFINITIONS)), *_where(plan)])
            _run([helm, *common, RELEASE, str(folder(RELEASE)), *given, *_where(plan)])
            return
        manifests = rendered(plan)
        options = Options("client" if dry_run else "none", "Strict", force=True, output="")
        good = await apply_all(client, manifests, options, "")
        if not dry_run:
            await _take_stock(client, plan, manifests, prune=good)
        if not good:
            raise QuarterdeckError("not everything was installed; correct what is said above and run it again")
        if dry_run:
            return
        if wait:
            await _rolled_out(client, plan, manifests, timeout)
        print(load(RELEASE).notes(Release(RELEASE, plan.namespace), plan.values()))


def uninstall(plan: Plan, *, dry_run: bool, timeout: float) -> None:
    """Raises NotFound when nothing of ours is there."""
    asyncio.run(_uninstall(plan, dry_run, timeout))


async def _uninstall(plan: Plan, dry_run: bool, timeout: float) -> None:
    async with plan.client() as client:
        inventory = await _inventory(client, plan)
        if inventory is None:
            helm = await _helm(client, plan)
            if helm is None or not await _helm_release(client, plan):
                raise NotFound(f"Quarterdeck is not installed in namespace {plan.namespace}; name another with -n")
            for release in (RELEASE, *([DEFINITIONS] if plan.definitions else ())):
                flags = ["--dry-run"] if dry_run else ["--wait", f"--timeout={timeout:g}s"]
                _run([helm, "uninstall", release, "--namespace", plan.namespace, *flags, *_where(plan)])
        else:
            kept = [entry for entry in reversed(inventory) if not entry.get("keep")]
            async with asyncio.timeout(timeout):
                await _delete(client, kept, dry_run)
            if not dry_run:
                await client.delete(CONFIG_MAP, INVENTORY, plan.namespace)
        if plan.definitions:
            crds = [_entry(m.body) for m in load(DEFINITIONS).render(Release(DEFINITIONS, plan.namespace))]
            await _delete(client, crds, dry_run)


async def _helm(client: KubeClient, plan: Plan) -> str | None:
    """The helm to use; None for our own way. Raises UsageError when helm is needed and missing."""
    helm = shutil.which("helm") if plan.helm else None
    if await _inventory(client, plan) is not None:
        return None
    if helm is None and await _helm_release(client, plan):
        raise UsageError(f"release {RELEASE} in {plan.namespace} was installed by helm; put helm on PATH to change it")
    return helm


async def _helm_release(client: KubeClient, plan: Plan) -> bool:
    selector = f"owner=helm,name={RELEASE}"
    return bool((await client.list(SECRET, plan.namespace, label_selector=selector, metadata_only=True)).items)


def _where(plan: Plan) -> list[str]:
    return [
        *(["--kubeconfig", plan.kubeconfig] if plan.kubeconfig else []),
        *(["--kube-context", plan.context] if plan.context else []),
    ]


def _run(command: list[str]) -> None:
    """Helm with its own output. Raises QuarterdeckError with its exit code."""
    done = subprocess.run(command, env=os.environ)
    if done.returncode:
        raise QuarterdeckError(f"{' '.join(command[:3])} … ended with exit code {done.returncode}")


async def _adoption(client: KubeClient, plan: Plan) -> list[str]:
    """Helm's flag to take over definitions that outlived an installation of ours without helm; none where another
    release has any of them (``qd migrate kagent`` hands those over)."""
    ours = {m.body["metadata"]["name"] for m in load(DEFINITIONS).render(Release(DEFINITIONS, plan.namespace))}
    there = [crd["metadata"] for crd in (await client.list(CRD, metadata_only=True)).items]
    there = [metadata for metadata in there if metadata["name"] in ours]
    releases = {(metadata.get("annotations") or {}).get(_RELEASE_NAME) for metadata in there}
    left = any(
        PART_OF.items() <= (metadata.get("labels") or {}).items()
        for metadata in there
        if _RELEASE_NAME not in (metadata.get("annotations") or {})
    )
    return ["--take-ownership"] if left and releases <= {None, DEFINITIONS} else []


def _applies(helm: str) -> bool:
    """Whether that helm writes by server-side apply (4 does): definitions that outlived an installation without helm
    have fields of ours, which a newer chart has to be able to change."""
    said = subprocess.run([helm, "version", "--template={{.Version}}"], capture_output=True, text=True).stdout
    return not said.startswith(("v2.", "v3."))


async def _inventory(client: KubeClient, plan: Plan) -> list[Object] | None:
    try:
        found = await client.get(CONFIG_MAP, INVENTORY, plan.namespace)
    except NotFound:
        return None
    return json.loads((found.get("data") or {}).get("objects") or "[]")


def _entry(body: Object) -> Object:
    metadata = body["metadata"]
    entry = {"apiVersion": body["apiVersion"], "kind": body["kind"], "name": metadata["name"]}
    if metadata.get("namespace"):
        entry["namespace"] = metadata["namespace"]
    kept = (metadata.get("annotations") or {}).get(KEEP) == "keep" or body["kind"] == "Namespace"
    return entry | ({"keep": True} if kept else {})


async def _take_stock(client: KubeClient, plan: Plan, manifests: list[Manifest], *, prune: bool) -> None:
    """Note what there is now; with ``prune`` first remove what an earlier installation had and this one has not."""
    now = [_entry(manifest.body) for manifest in manifests]
    names = {_name(entry) for entry in now}
    before = [entry for entry in await _inventory(client, plan) or [] if _name(entry) not in names]
    if prune:
        await _delete(client, [entry for entry in reversed(before) if not entry.get("keep")], dry_run=False)
        before = []
    body = {"metadata": {"name": INVENTORY, "namespace": plan.namespace}, "data": {"objects": json.dumps(before + now)}}
    await client.apply(CONFIG_MAP, body, field_manager="qd")


def _name(entry: Object) -> tuple[str, ...]:
    return tuple(str(entry.get(key, "")) for key in ("apiVersion", "kind", "namespace", "name"))


async def _delete(client: KubeClient, entries: list[Object], dry_run: bool) -> None:
    """Delete and wait until each is gone."""
    kinds: Kinds | None = await discover(client) if entries else None
    for entry in entries:
        assert kinds is not None
        kind = kinds.of(entry["apiVersion"], entry["kind"])
        namespace = entry.get("namespace")
        if not dry_run:
            try:
                await client.delete(kind.resource, entry["name"], namespace, propagation="Background")
            except NotFound:
                continue
            delay, limit = _PAUSE
            while await _exists(client, kind.resource, entry["name"], namespace):
                await asyncio.sleep(delay)
                delay = min(delay * 1.5, limit)
        print(f'{kind.qualified} "{entry["name"]}" deleted{" (dry run)" if dry_run else ""}', flush=True)


async def _exists(client: KubeClient, resource: Any, name: str, namespace: str | None) -> bool:
    try:
        await client.get(resource, name, namespace)
    except NotFound:
        return False
    return True


async def _rolled_out(client: KubeClient, plan: Plan, manifests: list[Manifest], timeout: float) -> None:
    """Until the Deployments have all their Pods, of the newest template. Raises TimedOut with what is missing."""
    open_ones = {m.name for m in manifests if m.body["kind"] == "Deployment"}
    delay, limit = _PAUSE
    try:
        async with asyncio.timeout(timeout):
            while open_ones:
                for name in sorted(open_ones):
                    if _complete(await client.get(DEPLOYMENT, name, plan.namespace)):
                        open_ones.discard(name)
                        print(f"deployment.apps/{name} is ready", flush=True)
                await asyncio.sleep(delay)
                delay = min(delay * 1.5, limit)
    except TimeoutError:
        names = ", ".join(sorted(open_ones))
        raise TimedOut(
            f"not ready within {timeout:g} s: Deployment {names}; see: kubectl -n {plan.namespace} get pods,events"
        ) from None


def _complete(deployment: Object) -> bool:
    spec, status = deployment["spec"], deployment.get("status") or {}
    wanted = spec.get("replicas", 1)
    seen = status.get("observedGeneration", 0) >= deployment["metadata"].get("generation", 1)
    counts = (status.get("updatedReplicas", 0), status.get("availableReplicas", 0), status.get("replicas", 0))
    return seen and all(count == wanted for count in counts)
