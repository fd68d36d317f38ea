"""The work behind ``qd delete``."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from quarterdeck.errors import NotFound, TimedOut, UsageError
from quarterdeck.kube.client import KubeClient

from .apply import CASCADES, Cascade, scope_of
from .durations import seconds
from .get import parse_targets
from .kinds import Kind, Kinds, discover
from .manifests import read
from .output import note


@dataclass(frozen=True, slots=True)
class Removal:
    """What was asked for; ``words`` are KIND NAME… or KIND/NAME…."""

    words: list[str]
    files: list[str]
    recursive: bool
    namespace: str
    all_namespaces: bool
    selector: str
    every: bool
    wait: bool
    timeout: str
    cascade: str
    grace_period: int
    ignore_not_found: bool
    output: str


Victim = tuple[Kind, str | None, str]
"""Kind, namespace, name."""


async def remove(client: KubeClient, removal: Removal) -> bool:
    """Delete, say so, and wait until all is gone. False when something was not found."""
    if removal.cascade not in CASCADES:
        raise UsageError(f"--cascade={removal.cascade}: must be background, foreground or orphan")
    limit = seconds(removal.timeout, "--timeout")
    kinds = await discover(client)
    victims = await _victims(client, kinds, removal)
    if not victims:
        print("No resources found")
        return True
    good = True
    gone: list[tuple[Victim, str]] = []
    for victim in victims:
        uid = await _delete_one(client, victim, removal, CASCADES[removal.cascade])
        if uid is None:
            good &= removal.ignore_not_found
        else:
            gone.append((victim, uid))
    if removal.wait:
        await _wait(client, gone, limit)
    return good


async def _delete_one(client: KubeClient, victim: Victim, removal: Removal, propagation: Cascade) -> str | None:
    """The uid of what was deleted; None when it was not there."""
    kind, namespace, name = victim
    try:
        uid = str((await client.get(kind.resource, name, namespace))["metadata"].get("uid", ""))
        grace = removal.grace_period if removal.grace_period >= 0 else None
        await client.delete(kind.resource, name, namespace, propagation=propagation, grace_seconds=grace)
    except NotFound as error:
        if not removal.ignore_not_found:
            note(f"Error from server (NotFound): {error}")
        return None
    if removal.output == "name":
        print(f"{kind.qualified}/{name}", flush=True)
    else:
        print(f'{kind.qualified} "{name}" deleted' + (f" from {namespace} namespace" if namespace else ""), flush=True)
    return uid


async def _victims(client: KubeClient, kinds: Kinds, removal: Removal) -> list[Victim]:
    victims: list[Victim] = []
    if removal.files:
        for manifest in reversed(read(removal.files, recursive=removal.recursive)):
            kind = kinds.of(manifest.body["apiVersion"], manifest.body["kind"])
            victims.append((kind, scope_of(client, kind, manifest, removal.namespace), manifest.name))
        return victims
    if not removal.words:
        raise UsageError("say what to delete: KIND NAME, KIND/NAME or -f FILE")
    for kind, names in parse_targets(kinds, removal.words[0], removal.words[1:]):
        scope = client.config.namespace if kind.resource.namespaced else None
        if names:
            victims += [(kind, scope, name) for name in names]
        elif removal.selector or removal.every:
            listed = await client.list(
                kind.resource, None if removal.all_namespaces else scope, label_selector=removal.selector,
                metadata_only=True,
            )  # fmt: skip
            victims += [(kind, o["metadata"].get("namespace"), o["metadata"]["name"]) for o in listed.items]
        else:
            raise UsageError("resource(s) were provided, but no name was specified; name them, or use -l or --all")
    return victims


async def _wait(client: KubeClient, gone: list[tuple[Victim, str]], limit: float) -> None:
    try:
        async with asyncio.timeout(limit or None):
            for (kind, namespace, name), uid in gone:
                delay = 0.02
                while await _exists(client, kind, namespace, name, uid):
                    await asyncio.sleep(delay)
                    delay = min(delay * 1.5, 1.0)
    except TimeoutError:
        raise TimedOut(
            f"not everything was gone within {limit:g} s; finalizers may hold it: qd get … -o yaml"
        ) from None


async def _exists(client: KubeClient, kind: Kind, namespace: str | None, name: str, uid: str) -> bool:
    try:
        found = await client.get(kind.resource, name, namespace)
    except NotFound:
        return False
    return str(found["metadata"].get("uid", "")) == uid
