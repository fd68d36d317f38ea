"""Storage migration: every object of a kind rewritten in the version that is stored now, then the others forgotten.

The API server converts what it stores only when something is written, so each object is written as it is; it notices
that its bytes change and nothing else does. A version may be dropped from ``status.storedVersions`` once no object is
stored in it any more, and only then can a later definition leave it out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from quarterdeck import errors
from quarterdeck.kube import resource as k
from quarterdeck.kube.client import KubeClient
from quarterdeck.kube.resource import Object, Resource
from quarterdeck.resources.crd import KINDS, PART_OF

_CONVERTED = {f"{kind.plural}.{kind.group}" for kind in KINDS if len(kind.versions) > 1}


@dataclass(frozen=True, slots=True)
class Rewrite:
    """One kind with objects that may be stored in older versions."""

    definition: Object
    stored: str
    """The version to have all objects in."""
    older: tuple[str, ...]
    obstacle: str
    """Why they cannot be rewritten now, with the next step; empty when they can."""

    @property
    def name(self) -> str:
        return self.definition["metadata"]["name"]

    @property
    def resource(self) -> Resource:
        spec = self.definition["spec"]
        return Resource(
            spec["group"], self.stored, spec["names"]["kind"], spec["names"]["plural"], spec["scope"] == "Namespaced"
        )


def due(definitions: list[Object]) -> list[Rewrite]:
    """The kinds of which older versions may still be stored."""
    found: list[Rewrite] = []
    for definition in definitions:
        stored = next(version["name"] for version in definition["spec"]["versions"] if version["storage"])
        listed = (definition.get("status") or {}).get("storedVersions") or [stored]
        older = tuple(version for version in listed if version != stored)
        if older:
            found.append(Rewrite(definition, stored, older, _obstacle(definition)))
    return found


def _obstacle(definition: Object) -> str:
    """Rewriting through a definition that only changes apiVersion would drop what the older shape alone can say."""
    metadata, conversion = definition["metadata"], definition["spec"].get("conversion") or {}
    if metadata["name"] not in _CONVERTED:
        return ""
    if not PART_OF.items() <= (metadata.get("labels") or {}).items():
        return (
            "the definition is still kagent's, which converts nothing: install quarterdeck-crds and quarterdeck first"
        )
    client: dict[str, Any] = (conversion.get("webhook") or {}).get("clientConfig") or {}
    if conversion.get("strategy") != "Webhook" or not client.get("caBundle"):
        return "no conversion webhook is set up yet: start Quarterdeck's control plane (helm install quarterdeck) first"
    return ""


async def rewrite(client: KubeClient, due: Rewrite) -> int:
    """Rewrite all objects and forget the older versions; the number of objects.

    Raises ApiError: nothing is forgotten then, and the next attempt begins anew. An object that somebody else writes or
    deletes meanwhile is in the stored version, or gone, without us.
    """
    objects = (await client.list(due.resource)).items
    for obj in objects:
        typed = {"apiVersion": due.resource.api_version, "kind": due.resource.kind} | obj
        try:
            await client.replace(due.resource, typed)
        except (errors.Conflict, errors.NotFound):
            continue
    newest = await client.get(k.CRD, due.name)
    if newest["spec"]["versions"] != due.definition["spec"]["versions"]:
        raise errors.Conflict(
            f"CustomResourceDefinition {due.name} changed while its objects were rewritten; run again"
        )
    patch = {
        "metadata": {"resourceVersion": newest["metadata"]["resourceVersion"]},
        "status": {"storedVersions": [due.stored]},
    }
    await client.patch(k.CRD, due.name, patch, subresource="status", field_manager="qd-migrate")
    return len(objects)
