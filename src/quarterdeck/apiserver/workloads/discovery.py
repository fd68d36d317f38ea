"""Which kinds the API server serves now."""

from __future__ import annotations

from dataclasses import dataclass

from quarterdeck import errors
from quarterdeck.kube.client import KubeClient
from quarterdeck.kube.resource import Resource


@dataclass(frozen=True, slots=True)
class Served:
    resource: Resource
    verbs: frozenset[str]


async def served_resources(client: KubeClient) -> tuple[list[Served], list[str]]:
    """All kinds in their group's preferred version, and the group versions that could not be read."""
    found: list[Served] = []
    failed: list[str] = []
    versions = ["v1"]
    groups = await client.request("GET", "/apis")
    for group in groups.get("groups") or ():
        versions.append(group["preferredVersion"]["groupVersion"])
        others = [v["groupVersion"] for v in group.get("versions") or () if v["groupVersion"] != versions[-1]]
        versions.extend(others)
    seen: set[tuple[str, str]] = set()
    for group_version in versions:
        group, _, version = group_version.rpartition("/")
        try:
            path = f"/apis/{group_version}" if group else f"/api/{version}"
            listed = await client.request("GET", path)
        except errors.ApiError:
            failed.append(group_version)
            continue
        for entry in listed.get("resources") or ():
            plural = entry["name"]
            if "/" in plural or (group, plural) in seen:
                continue
            seen.add((group, plural))
            resource = Resource(group, version, entry["kind"], plural, entry["namespaced"])
            found.append(Served(resource, frozenset(entry.get("verbs") or ())))
    return found, failed
