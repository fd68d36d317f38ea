"""Service names as Pods may use them: to the gateway and the control plane only, fail closed."""

from __future__ import annotations

from collections.abc import Mapping

from quarterdeck.errors import ApiError, Denied, NotFound, QuarterdeckError
from quarterdeck.kube.client import KubeClient
from quarterdeck.kube.resource import ENDPOINT_SLICE, SERVICE, Object

Allowed = Mapping[tuple[str, str], frozenset[str] | None]
"""(namespace, Service) → the names of its ports that Pods may dial; None: all of them."""

DEFAULT_ALLOWED: Allowed = {
    ("quarterdeck-system", "quarterdeck-gateway"): frozenset({"workloads"}),
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
        try:
            service = await self._client.get(SERVICE, name, namespace)
        except NotFound as error:
            if not certain:
                return None
            raise Denied(f"{host}: there is no Service {name} in namespace {namespace}", "no-such-service") from error
        except (ApiError, QuarterdeckError) as error:
            raise Denied(f"{host}: Services cannot be read at the moment: {error}", "services-unreadable") from error
        return await self._endpoints(service, host, port)

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
        return [
            (str(address), int(p["port"]))
            for each in slices.items
            for p in each.get("ports") or ()
            if (p.get("name") or "") == (declared.get("name") or "")
            for endpoint in each.get("endpoints") or ()
            if (endpoint.get("conditions") or {}).get("ready", True) is not False
            for address in endpoint.get("addresses") or ()
        ]
