"""Names of Services to ready addresses, and URLs to upstreams, from Services and EndpointSlices alone."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from quarterdeck.errors import ConfigError
from quarterdeck.kube.resource import Object
from quarterdeck.snapshot import Endpoint

_SERVICE_LABEL = "kubernetes.io/service-name"


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


@dataclass(slots=True)
class Services:
    """An index over Services and their EndpointSlices."""

    service: Callable[[str, str], Object | None] = lambda namespace, name: None
    slices: Callable[[str, str], Sequence[Object]] = lambda namespace, name: ()
    """Both by namespace and name of the Service."""

    @classmethod
    def of(cls, services: Iterable[Object], slices: Iterable[Object]) -> Services:
        """Of these objects."""
        named = {(s["metadata"]["namespace"], s["metadata"]["name"]): s for s in services}
        parts: dict[tuple[str, str], list[Object]] = {}
        for item in slices:
            if name := service_name(item):
                parts.setdefault((item["metadata"]["namespace"], name), []).append(item)
        return cls(lambda ns, name: named.get((ns, name)), lambda ns, name: parts.get((ns, name), ()))

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
                    found.update((address, int(number)) for address in endpoint.get("addresses") or ())
        return tuple(Endpoint(host, number) for host, number in sorted(found))

    def service_of(self, host: str, namespace: str) -> tuple[str, str] | None:
        """The Service a host name means inside the cluster, from ``namespace``; None for other hosts."""
        parts = host.removesuffix(".").removesuffix(".cluster.local").split(".")
        if len(parts) == 3 and parts[2] == "svc":
            return parts[1], parts[0]
        if len(parts) == 2 and self.service(parts[1], parts[0]) is not None:
            return parts[1], parts[0]
        if len(parts) == 1 and self.service(namespace, parts[0]) is not None:
            return namespace, parts[0]
        return None


def resolve(url: str, services: Services, namespace: str) -> Upstream:
    """Where ``url`` leads, seen from ``namespace``. Raises ConfigError."""
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
    endpoints = services.endpoints(*service, port) if service else (Endpoint(parts.hostname, port),)
    return Upstream(parts.hostname, port, path, tls, endpoints, service)
