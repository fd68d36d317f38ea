"""/etc/hosts of a Pod: its own name, its hostAliases, and the Services, as cluster DNS would answer."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from quarterdeck.kube.resource import Object
from quarterdeck.node.services import ready_addresses

TARGET = "/etc/hosts"
_DOMAIN = "cluster.local"
_HEAD = "127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n"


def hosts_text(pod: Object, ip: str, services: Iterable[tuple[Object, Sequence[Object]]]) -> str:
    """The file for one Pod. A name without namespace is a Service of the Pod's own; of a headless Service every ready
    endpoint is listed."""
    spec, namespace = pod["spec"], pod["metadata"]["namespace"]
    lines = [_HEAD.rstrip(), f"{ip} {spec.get('hostname') or pod['metadata']['name']}"]
    for alias in spec.get("hostAliases") or ():
        lines.append(" ".join([alias["ip"], *(alias.get("hostnames") or ())]))
    for service, slices in sorted(services, key=lambda pair: _key(pair[0])):
        meta, cluster_ip = service["metadata"], service["spec"].get("clusterIP") or ""
        full = f"{meta['name']}.{meta['namespace']}"
        names = [f"{full}.svc.{_DOMAIN}", f"{full}.svc", full]
        if meta["namespace"] == namespace:
            names.append(meta["name"])
        addresses = ready_addresses(slices) if cluster_ip == "None" else [cluster_ip] if cluster_ip else []
        lines += [" ".join([address, *names]) for address in addresses]
    return "\n".join(lines) + "\n"


def write_hosts(path: Path, text: str) -> None:
    """In place: the file is mounted in the Pod, and a new one of that name would not be seen there."""
    if path.exists() and path.read_text() == text:
        return
    path.write_text(text)
    path.chmod(0o644)


def _key(service: Object) -> tuple[str, str]:
    return service["metadata"]["namespace"], service["metadata"]["name"]
