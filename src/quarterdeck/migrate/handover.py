"""What has to change so that kagent's charts can be uninstalled without taking anybody's objects along."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from quarterdeck import errors
from quarterdeck.controllers.rivals import is_running, product_of
from quarterdeck.kube import resource as k
from quarterdeck.kube.client import KubeClient
from quarterdeck.kube.resource import Object, Resource
from quarterdeck.resources.crd import KINDS, PART_OF

from .release import MANAGED_BY, POLICY, RELEASE_NAME, RELEASE_NAMESPACE, SELECTOR, Release, decode, encode

GROUP = "kagent.dev"
_RESOURCES: dict[str, Resource] = {
    **{kind.kind: Resource(GROUP, next(v.name for v in kind.versions if v.storage), kind.kind, kind.plural)
       for kind in KINDS},
    "Secret": k.SECRET,
    "ConfigMap": k.CONFIG_MAP,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Target:
    """The Helm release that is to own the definitions."""

    name: str
    namespace: str


@dataclass(frozen=True, slots=True)
class Change:
    """One merge patch, and what it means in a sentence."""

    resource: Resource
    namespace: str
    name: str
    patch: Object
    says: str

    async def make(self, client: KubeClient) -> bool:
        """Whether the object was there. Raises Conflict when it changed since it was looked at."""
        try:
            await client.patch(self.resource, self.name, self.patch, self.namespace or None, field_manager="qd-migrate")
        except errors.NotFound:
            return False
        return True


@dataclass(slots=True)
class Survey:
    """What was found in the cluster."""

    definitions: list[Object] = field(default_factory=list[Object])
    releases: list[Release] = field(default_factory=list[Release])
    """Of kagent's and kmcp's charts, all revisions."""
    owned: list[Object] = field(default_factory=list[Object])
    """Objects of these releases that are to outlive them and still say that they belong to them."""
    running: list[Object] = field(default_factory=list[Object])
    """Deployments that run kagent's or kmcp's controller."""


async def survey(client: KubeClient) -> Survey:
    """Look at everything. Raises ConfigError for a release that cannot be read, Forbidden without the rights."""
    found = Survey()
    for definition in (await client.list(k.CRD)).items:
        if definition["spec"]["group"] == GROUP:
            found.definitions.append(definition)
    for secret in (await client.list(k.SECRET, label_selector=SELECTOR)).items:
        if secret.get("type") == "helm.sh/release.v1":
            release = decode(secret)
            if any(_is_kagents(document) for document in release.documents):
                found.releases.append(release)
    for release in found.releases:
        if release.current:
            for document in kept(release):
                await _look_up(client, release, document, found)
    found.running = [d for d in (await client.list(k.DEPLOYMENT)).items if product_of(d) and is_running(d)]
    return found


def _is_kagents(document: Object) -> bool:
    """Whether a document shows that a release is of kagent's or kmcp's charts, and not of somebody's agents."""
    if document.get("kind") == "Deployment":
        return bool(product_of(document))
    return _defines(document) and not _is_ours(document)


def _defines(document: Object) -> bool:
    return document.get("kind") == "CustomResourceDefinition" and document["spec"].get("group") == GROUP


def _is_ours(definition: Object) -> bool:
    return PART_OF.items() <= (definition["metadata"].get("labels") or {}).items()


def plan(found: Survey, target: Target) -> list[Change]:
    """All changes that are due, in an order in which each may be the last one made; none when nothing is due."""
    changes: list[Change] = []
    for release in found.releases:
        changes += _keep_in(release)
    for definition in found.definitions:
        changes += _hand_over(definition, target)
    return changes + [_let_go(obj) for obj in found.owned]


def kept(release: Release) -> list[Object]:
    """Objects of a release that outlive it: all of group kagent.dev, and the Secrets and ConfigMaps these name."""
    documents = release.documents
    chosen = [d for d in documents if _defines(d) or str(d.get("apiVersion", "")).startswith(f"{GROUP}/")]
    named = {text for document in chosen if not _defines(document) for text in _texts(document.get("spec"))}
    return chosen + [d for d in documents if d["kind"] in ("Secret", "ConfigMap") and d["metadata"]["name"] in named]


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from _texts(item)
    elif isinstance(value, list):
        for item in value:
            yield from _texts(item)


def _identity(document: Object) -> tuple[str, str, str]:
    metadata = document["metadata"]
    return document["kind"], str(metadata.get("namespace") or ""), metadata["name"]


def _keep_in(release: Release) -> list[Change]:
    chosen = {_identity(document) for document in kept(release)}
    payload = release.keeping(lambda document: _identity(document) in chosen)
    if payload is None:
        return []
    metadata = release.secret["metadata"]
    patch = {"metadata": {"resourceVersion": metadata["resourceVersion"]}, "data": {"release": encode(payload)}}
    says = f"`helm uninstall {release.name}` will keep {_counted(kept(release))} (revision {payload.get('version')})"
    return [Change(k.SECRET, metadata["namespace"], metadata["name"], patch, says)]


def _counted(documents: Sequence[Object]) -> str:
    counts: dict[str, int] = {}
    for document in documents:
        counts[document["kind"]] = counts.get(document["kind"], 0) + 1
    return ", ".join(f"{count} {kind}{'s' if count > 1 else ''}" for kind, count in sorted(counts.items()))


def _hand_over(definition: Object, target: Target) -> list[Change]:
    """A definition is kept, and the next `helm install` of ours finds it to be its own."""
    metadata = definition["metadata"]
    annotations = {POLICY: "keep", RELEASE_NAME: target.name, RELEASE_NAMESPACE: target.namespace}
    labels = {MANAGED_BY: "Helm"}
    if (
        annotations.items() <= (metadata.get("annotations") or {}).items()
        and labels.items() <= (metadata.get("labels") or {}).items()
    ):
        return []
    owner = (metadata.get("annotations") or {}).get(RELEASE_NAME)
    says = f"is kept, and handed from release {owner} to" if owner else "is kept, and belongs to"
    patch = {"metadata": {"annotations": annotations, "labels": labels}}
    words = f"CustomResourceDefinition {metadata['name']} {says} release {target.namespace}/{target.name}"
    return [Change(k.CRD, "", metadata["name"], patch, words)]


async def _look_up(client: KubeClient, release: Release, document: Object, found: Survey) -> None:
    resource = _RESOURCES.get(document["kind"])
    if resource is None:
        return
    namespace = str(document["metadata"].get("namespace") or release.namespace)
    try:
        live = await client.get(resource, document["metadata"]["name"], namespace)
    except errors.NotFound:
        return
    if (live["metadata"].get("annotations") or {}).get(RELEASE_NAME) == release.name:
        found.owned.append({"apiVersion": resource.api_version, "kind": resource.kind} | live)


def _let_go(obj: Object) -> Change:
    """A kept object no longer says that it belongs to the release that goes: it is its users' own."""
    metadata = obj["metadata"]
    annotations: Object = {POLICY: "keep", RELEASE_NAME: None, RELEASE_NAMESPACE: None}
    patch = {"metadata": {"annotations": annotations, "labels": {MANAGED_BY: None}}}
    says = f"{obj['kind']} {metadata['namespace']}/{metadata['name']} no longer belongs to Helm"
    return Change(_RESOURCES[obj["kind"]], metadata["namespace"], metadata["name"], patch, says)
