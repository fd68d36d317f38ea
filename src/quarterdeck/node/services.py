"""Service names as Pods may use them: to the gateway and the control plane only, fail closed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from quarterdeck.errors import Denied, QuarterdeckError
from quarterdeck.kube.client import KubeClient
from quarterdeck.kube.resource import ENDPOINT_SLICE, SERVICE, Object

Allowed = Mapping[tuple[str, str], frozenset[str] | None]
"""(namespace, Service) → the names of its ports that Pods may dial; None: all of them."""

_OURS = frozenset({"quarterdeck-gateway", "kagent-controller"})
"""Services that Pods show their workload token."""
DEFAULT_ALLOWED: Allowed = {
    ("quarterdeck-system", "quarterdeck-gateway"): frozenset({"workloads"}),
    ("quarterdeck-system", "kagent-controller"): frozenset({"kagent"}),
    ("default", "kubernetes"): None,
}
"""The gateway's listener for people trusts its loopback peers, so Pods get the one for workloads only."""


def split_host(host: str) -> tuple[str, str, bool] | None:
    """(Service, namespace, the name can mean nothing else); None for what is no Service name.

    ``a.b`` may be a Service or a public name such as ``github.com``; with ``.svc`` there is no doubt.
    """
    bare = host.removesuffix(".cluster.local")
    service = bare.removesuffix(".svc")
    parts = service.split(".")
    if len(parts) != 2 or not all(parts):
        return None
    return parts[0], parts[1], service != bare or bare != host


def takes_token(host: str) -> bool:
    """Whether a host, which the proxy let through, is the gateway or the control plane of this installation."""
    found = split_host(host)
    return found is not None and (found[1], found[0]) in DEFAULT_ALLOWED and found[0] in _OURS


class ServiceNames:
    """Resolves for the egress proxy; see :data:`quarterdeck.node.egress.Resolve`."""

    def __init__(self, client: KubeClient, allowed: Allowed) -> None:
        self._client = client
        self._allowed = allowed

    async def resolve(self, host: str, port: int) -> list[tuple[str, int]] | None:
        """Where to dial; None when this is no Service. Raises Denied for other Services and when the API does not
        answer: a name that might be a Service is never looked up elsewhere then."""
        split = split_host(host)
        if split is None:
            return None
        name, namespace, certain = split
        try:  # list, not get: that is what kube-proxy's identity may do
            found = await self._client.list(SERVICE, namespace, field_selector=f"metadata.name={name}")
        except QuarterdeckError as error:
            raise Denied(f"{host}: Services cannot be read at the moment: {error}", "services-unreadable") from error
        if found.items:
            return await self._endpoints(found.items[0], host, port)
        if certain or (namespace, name) in self._allowed:  # those get tokens: nobody else's DNS says where they are
            raise Denied(f"{host}: there is no Service {name} in namespace {namespace}", "no-such-service")
        return None

    async def _endpoints(self, service: Object, host: str, port: int) -> list[tuple[str, int]]:
        meta = service["metadata"]
        key = (meta["namespace"], meta["name"])
        declared = next((p for p in service["spec"].get("ports") or () if int(p["port"]) == port), None)
        if key not in self._allowed:
            raise Denied(f"{host}: Pods reach other workloads through the gateway only", "service-not-gateway")
        names = self._allowed[key]
        if declared is None or (names is not None and declared.get("name", "") not in names):
            raise Denied(f"{host}:{port}: this port of the Service is not for Pods", "service-port")
        try:
            slices = await self._client.list(
                ENDPOINT_SLICE, key[0], label_selector=f"kubernetes.io/service-name={key[1]}"
            )
        except QuarterdeckError as error:
            raise Denied(f"{host}: endpoints cannot be read at the moment: {error}", "services-unreadable") from error
        return port_endpoints(slices.items, declared.get("name") or "")


def port_endpoints(slices: Sequence[Object], port_name: str) -> list[tuple[str, int]]:
    """(address, port) of the endpoints that serve the Service port of that name."""
    found: list[tuple[str, int]] = []
    for each in slices:
        numbers = [int(p["port"]) for p in each.get("ports") or () if (p.get("name") or "") == port_name]
        found += [(address, number) for number in numbers for address in _serving(each, slices)]
    return found


def ready_addresses(slices: Sequence[Object]) -> list[str]:
    """The endpoints' addresses, each once."""
    return list(dict.fromkeys(address for each in slices for address in _serving(each, slices)))


def _serving(piece: Object, slices: Sequence[Object]) -> Iterator[str]:
    """Ready endpoints; where a Service has none, those that still serve while they terminate (KEP-1669)."""
    any_ready = any(_condition(e, "ready") for s in slices for e in s.get("endpoints") or ())
    for endpoint in piece.get("endpoints") or ():
        if _condition(endpoint, "ready") or (
            not any_ready and _condition(endpoint, "serving") and _condition(endpoint, "terminating", default=False)
        ):
            yield from endpoint.get("addresses") or ()


def _condition(endpoint: Object, name: str, *, default: bool = True) -> bool:
    """A condition that is not given is unknown, which counts as ready and serving (discovery/v1)."""
    value = (endpoint.get("conditions") or {}).get(name)
    return default if value is None else bool(value)
