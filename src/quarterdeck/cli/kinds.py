"""Names of kinds as people type them, resolved by the server's discovery documents."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from quarterdeck.errors import ConfigError, UsageError
from quarterdeck.kube.client import KubeClient
from quarterdeck.kube.resource import Resource

_AGGREGATED = (
    "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,"
    "application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList,application/json"
)


@dataclass(frozen=True, slots=True)
class Kind:
    """A served kind in one version. ``preferred``: the version of its group that kubectl would take."""

    resource: Resource
    singular: str
    short_names: tuple[str, ...]
    categories: tuple[str, ...]
    verbs: tuple[str, ...]
    preferred: bool

    @property
    def qualified(self) -> str:
        """``pod``, ``agent.kagent.dev``: the prefix of names in messages."""
        singular = self.singular or self.resource.kind.lower()
        return f"{singular}.{self.resource.group}" if self.resource.group else singular


class Kinds:
    """What a server has, in its own order of preference."""

    def __init__(self, kinds: list[Kind]) -> None:
        self.all = kinds

    def find(self, word: str) -> Kind:
        """A plural, singular, short or kind name, with ``.group`` or ``.version.group``. Raises UsageError."""
        name, _, rest = word.lower().partition(".")
        for kind in self.all:
            res = kind.resource
            names = (res.plural, kind.singular, res.kind.lower(), *kind.short_names)
            exact = rest in (f"{res.version}.{res.group}", res.version) and bool(rest)
            if name in names and (exact or (kind.preferred and (not rest or rest == res.group))):
                return kind
        raise UsageError(f'the server doesn\'t have a resource type "{word}"; kinds it has: qd api-resources')

    def expand(self, words: str) -> list[Kind]:
        """A comma list of names, in which a category such as ``all`` stands for its members."""
        found: list[Kind] = []
        for word in words.split(","):
            members = [kind for kind in self.all if word in kind.categories and kind.preferred]
            found += [kind for kind in members or [self.find(word)] if kind not in found]
        return found

    def of(self, api_version: str, kind_name: str) -> Kind:
        """The kind of an object. Raises ConfigError as kubectl words it."""
        for kind in self.all:
            if kind.resource.kind == kind_name and kind.resource.api_version == api_version:
                return kind
        raise ConfigError(
            f'no matches for kind "{kind_name}" in version "{api_version}"; is its CustomResourceDefinition installed?'
        )


async def discover(client: KubeClient) -> Kinds:
    """Everything the server serves, from two aggregated documents (or one by one from a server without them)."""
    kinds: list[Kind] = []
    for root in ("/api", "/apis"):
        document = await client.request("GET", root, accept=_AGGREGATED)
        if document.get("kind") == "APIGroupDiscoveryList":
            for item in document["items"]:
                kinds += _from_group(item)
        else:
            kinds += await _one_by_one(client, root, document)
    return Kinds(kinds)


def _from_group(item: dict[str, Any]) -> list[Kind]:
    group = str(item["metadata"].get("name") or "")
    seen: set[str] = set()
    kinds: list[Kind] = []
    for version in item.get("versions", []):
        fresh: set[str] = set()
        for entry in version.get("resources", []):
            plural = entry["resource"]
            kind = (entry.get("responseKind") or {}).get("kind", "")
            resource = Resource(group, version["version"], kind, plural, entry["scope"] == "Namespaced")
            kinds.append(_kind(resource, entry, entry.get("singularResource", ""), plural not in seen))
            fresh.add(plural)
        seen |= fresh
    return kinds


async def _one_by_one(client: KubeClient, root: str, document: dict[str, Any]) -> list[Kind]:
    kinds: list[Kind] = []
    if root == "/api":
        groups = [("", list(document.get("versions", [])))]
    else:
        groups = [(g["name"], [v["version"] for v in g["versions"]]) for g in document.get("groups", [])]
    for group, versions in groups:
        seen: set[str] = set()
        for version in versions:
            path = f"{root}/{group}/{version}" if group else f"{root}/{version}"
            entries = [e for e in (await client.request("GET", path)).get("resources", []) if "/" not in e["name"]]
            for entry in entries:
                resource = Resource(group, version, entry["kind"], entry["name"], entry["namespaced"])
                kinds.append(_kind(resource, entry, entry.get("singularName", ""), entry["name"] not in seen))
            seen |= {e["name"] for e in entries}
    return kinds


def _kind(resource: Resource, entry: dict[str, Any], singular: str, preferred: bool) -> Kind:
    return Kind(
        resource,
        singular or resource.kind.lower(),
        tuple(entry.get("shortNames") or ()),
        tuple(entry.get("categories") or ()),
        tuple(entry.get("verbs") or ()),
        preferred,
    )
