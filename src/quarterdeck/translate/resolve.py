"""Names of Services to ready addresses, and URLs to upstreams, from Services and EndpointSlices alone."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from ipaddress import IPv6Address, ip_address
from socket import inet_aton, inet_ntoa
from urllib.parse import urlsplit

from quarterdeck.errors import ConfigError, RefNotPermitted
from quarterdeck.kube.owner import belongs_to, controller_of
from quarterdeck.kube.resource import Object
from quarterdeck.snapshot import Endpoint

_SERVICE_LABEL = "kubernetes.io/service-name"
_OURS = "kagent.dev/"
_MANAGERS = {"kagent", "kmcp", "quarterdeck"}
_CLOSED = (
    "url {url} leads to a {kind} of another namespace, which is closed to {namespace}; its owner can open an Agent or "
    "a RemoteMCPServer there with spec.allowedNamespaces"
)
_OF_SERVICE, _DASHES = 3, 3
"""Parts of a Service's name in DNS; dashes in an IPv4 address written as a name."""


@dataclass(frozen=True, slots=True)
class Upstream:
    """Where a URL leads. ``service`` is set for in-cluster names; ``endpoints`` are its ready addresses then."""

    host: str
    port: int
    path: str
    tls: bool
    endpoints: tuple[Endpoint, ...]
    service: tuple[str, str] | None = None

    @property
    def authority(self) -> str:
        """Host header: the name as written, with the port unless it is the scheme's own."""
        return self.host if self.port == (443 if self.tls else 80) else f"{self.host}:{self.port}"


def service_name(endpoint_slice: Object) -> str:
    """The Service it belongs to; empty when to none."""
    return (endpoint_slice["metadata"].get("labels") or {}).get(_SERVICE_LABEL) or ""


def addresses(obj: Object) -> list[str]:
    """Where a Service (its ClusterIPs) or an EndpointSlice (its endpoints) can be dialled."""
    spec = obj.get("spec") or {}
    found = {*(spec.get("clusterIPs") or ()), spec.get("clusterIP") or ""} - {"", "None"}
    for endpoint in obj.get("endpoints") or ():
        found.update(endpoint.get("addresses") or ())
    return sorted(found)


def pod_addresses(pod: Object) -> list[str]:
    """The Pod's own addresses while it may serve; none of the machine's (hostNetwork).

    Only a kubelet writes them, so they tell whose an address is where EndpointSlices only claim it.
    """
    status = pod.get("status") or {}
    if status.get("phase") in ("Succeeded", "Failed"):
        return []
    return sorted(_ips(status, "podIP") - _ips(status, "hostIP"))


def _ips(status: Object, name: str) -> set[str]:
    """Both forms of it: ``podIP`` and ``podIPs``."""
    entries: list[Object] = status.get(f"{name}s") or []
    found: list[str | None] = [status.get(name), *(entry.get("ip") for entry in entries)]
    return {ip for ip in found if ip}


def is_workload(pod: Object) -> bool:
    """Whether it says that it is a Pod of an agent, MCP server or model."""
    labels = pod["metadata"].get("labels") or {}
    return labels.get("app.kubernetes.io/managed-by") in _MANAGERS or "kagent" in labels


def closed_addresses(obj: Object) -> list[str]:
    """What only the owner's namespace, and whom the owner lets in, may have called: of a Pod or a Service of ours."""
    if "clusterIP" not in (obj.get("spec") or {}):
        return pod_addresses(obj) if is_workload(obj) else []
    owner = controller_of(obj)
    return addresses(obj) if owner is not None and owner["apiVersion"].startswith(_OURS) else []


@dataclass(slots=True)
class Services:
    """An index over Services and their EndpointSlices."""

    service: Callable[[str, str], Object | None] = lambda namespace, name: None
    slices: Callable[[str, str], Sequence[Object]] = lambda namespace, name: ()
    """Both by namespace and name of the Service."""
    at: Callable[[str], Sequence[Object]] = lambda address: ()
    """Services and EndpointSlices that an address belongs to."""
    homes: Callable[[str], Collection[str]] = lambda address: ()
    """Namespaces whose agents, MCP servers and models have an address (:func:`closed_addresses`)."""

    @classmethod
    def of(cls, services: Iterable[Object], slices: Iterable[Object], pods: Iterable[Object] = ()) -> Services:
        """Of these objects."""
        named = {(s["metadata"]["namespace"], s["metadata"]["name"]): s for s in services}
        parts: dict[tuple[str, str], list[Object]] = {}
        for item in slices:
            if name := service_name(item):
                parts.setdefault((item["metadata"]["namespace"], name), []).append(item)
        located: dict[str, list[Object]] = {}
        for obj in (*named.values(), *(item for found in parts.values() for item in found)):
            for address in addresses(obj):
                located.setdefault(address, []).append(obj)
        homes: dict[str, set[str]] = {}
        for obj in (*named.values(), *pods):
            for address in closed_addresses(obj):
                homes.setdefault(address, set()).add(obj["metadata"]["namespace"])
        return cls(
            lambda ns, name: named.get((ns, name)),
            lambda ns, name: parts.get((ns, name), ()),
            lambda address: located.get(address, ()),
            lambda address: homes.get(address, ()),
        )

    def open_to(self, address: str, namespace: str) -> bool:
        """Whether an address is no other namespace's workload, whatever an EndpointSlice says."""
        homes = self.homes(address)
        return not homes or namespace in homes

    def own_endpoints(self, owner: Object, port: int | str, suffix: str = "") -> tuple[Endpoint, ...]:
        """:meth:`endpoints` of the Service made for ``owner``; none when another's Service has the name."""
        namespace, name = owner["metadata"]["namespace"], owner["metadata"]["name"] + suffix
        service = self.service(namespace, name)
        if service is None or not belongs_to(service, owner):
            return ()
        return self.endpoints(namespace, name, port)

    def endpoints(self, namespace: str, name: str, port: int | str) -> tuple[Endpoint, ...]:
        """Ready addresses behind ``port`` (number or name) of a Service, sorted; empty when nothing is ready."""
        service = self.service(namespace, name)
        if service is None:
            return ()
        ports = (service.get("spec") or {}).get("ports") or ()
        wanted = next((p for p in ports if port in (p.get("port"), p.get("name"))), None)
        if wanted is None:
            return ()
        found: set[tuple[str, int]] = set()
        for item in self.slices(namespace, name):
            number = next(
                (p.get("port") for p in item.get("ports") or () if (p.get("name") or "") == (wanted.get("name") or "")),
                None,
            )
            if number is None:
                continue
            for endpoint in item.get("endpoints") or ():
                if (endpoint.get("conditions") or {}).get("ready") is not False:
                    listed = endpoint.get("addresses") or ()
                    found.update((address, int(number)) for address in listed if self.open_to(address, namespace))
        return tuple(Endpoint(host, number) for host, number in sorted(found))

    def service_of(self, host: str, namespace: str) -> tuple[str, str] | None:
        """The Service a host name means inside the cluster, from ``namespace``; None for other hosts."""
        parts = _inside(host)
        if len(parts) == 3 and parts[2] == "svc":
            return parts[1], parts[0]
        if len(parts) == 2 and self.service(parts[1], parts[0]) is not None:
            return parts[1], parts[0]
        if len(parts) == 1 and self.service(namespace, parts[0]) is not None:
            return namespace, parts[0]
        return None

    def check_permitted(self, url: str, host: str, service: tuple[str, str] | None, namespace: str) -> None:
        """Raises RefNotPermitted when ``host`` is that of another namespace's agent, MCP server or model.

        Only the gateway may dial those, and it does so for whom their owners allow: a URL is no way around that.
        """
        behind_name, address = _hidden(host)
        services = [found for key in (service, behind_name) if key is not None and (found := self.service(*key))]
        for obj in (*services, *self.at(address)):
            behind = self.service(obj["metadata"]["namespace"], service_name(obj)) if service_name(obj) else obj
            owner = controller_of(behind) if behind is not None else None
            if (
                owner is not None
                and owner["apiVersion"].startswith(_OURS)
                and obj["metadata"]["namespace"] != namespace
            ):
                raise RefNotPermitted(_CLOSED.format(url=repr(url), kind=owner["kind"], namespace=namespace))
        if not self.open_to(address, namespace):
            raise RefNotPermitted(_CLOSED.format(url=repr(url), kind="workload", namespace=namespace))


def _inside(host: str) -> list[str]:
    return host.removesuffix(".").removesuffix(".cluster.local").split(".")


def _hidden(host: str) -> tuple[tuple[str, str] | None, str]:
    """The Service and the address that other spellings stand for: a cluster's DNS has names for single endpoints
    (``10-0-0-1.web.ns.svc``, ``10-0-0-1.ns.pod``), and an address can be written in many ways."""
    parts = _inside(host)
    if len(parts) > _OF_SERVICE and parts[-1] == "svc":
        return (parts[-2], parts[-3]), host
    if len(parts) == _OF_SERVICE and parts[2] == "pod":
        dashed = parts[0]
        host = (
            dashed.replace("-", ".")
            if dashed.count("-") == _DASHES and "--" not in dashed
            else dashed.replace("-", ":")
        )
    try:
        ip = ip_address(host.removesuffix("."))
        return None, str((ip.ipv4_mapped or ip) if isinstance(ip, IPv6Address) else ip)
    except ValueError:
        pass
    try:
        return None, inet_ntoa(inet_aton(host.removesuffix(".")))  # 0x0a000001, 10.1, 012.0.0.1: what libc takes
    except OSError:
        return None, host


def resolve(url: str, services: Services, namespace: str) -> Upstream:
    """Where ``url`` leads, seen from ``namespace``. Raises ConfigError, RefNotPermitted for what is closed to it."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise ConfigError(f"url {url!r} is not valid: {error}") from error
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ConfigError(f"url {url!r} is not valid: write http://HOST[:PORT][/PATH] or https://…")
    tls = parts.scheme == "https"
    port = port or (443 if tls else 80)
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    service = services.service_of(parts.hostname, namespace)
    services.check_permitted(url, parts.hostname, service, namespace)
    endpoints = services.endpoints(*service, port) if service else (Endpoint(parts.hostname, port),)
    return Upstream(parts.hostname, port, path, tls, endpoints, service)
