"""What each namespace has from the start: the ``default`` ServiceAccount and the ``kube-root-ca.crt`` ConfigMap."""

from __future__ import annotations

from quarterdeck import errors
from quarterdeck.kube.controller import DONE, Controller, ControllerSet, Result
from quarterdeck.kube.resource import CONFIG_MAP, NAMESPACE, SERVICE_ACCOUNT, Key, Object

ROOT_CA = "kube-root-ca.crt"
_DESCRIPTION = (
    "Contains a CA bundle that can be used to verify the kube-apiserver when using internal endpoints such as the "
    "internal service IP or kubernetes.default.svc. No other usage is guaranteed across distributions of Kubernetes "
    "clusters."
)


class ServiceAccounts:
    """``ca_pem`` empty: no ConfigMap is published."""

    def __init__(self, controllers: ControllerSet, ca_pem: str) -> None:
        self._client = controllers.client
        self._ca_pem = ca_pem
        self._namespaces = controllers.informer(NAMESPACE)
        self._accounts = controllers.informer(SERVICE_ACCOUNT)
        self._config_maps = controllers.informer(CONFIG_MAP, field_selector=f"metadata.name={ROOT_CA}")
        self._config_maps.on_change(lambda _, old, new: self._touch(controllers, old or new))
        maps = [(SERVICE_ACCOUNT, _namespace_of)]
        controllers.add(Controller("serviceaccount", NAMESPACE, self.reconcile, maps=maps))

    def _touch(self, controllers: ControllerSet, obj: Object | None) -> None:
        if obj is not None:
            for key in _namespace_of(obj):
                controllers.enqueue("serviceaccount", key)

    async def reconcile(self, key: Key) -> Result:
        namespace = self._namespaces.get(None, key.name)
        if namespace is None or "deletionTimestamp" in namespace["metadata"]:
            return DONE
        try:
            if self._accounts.get(key.name, "default") is None:
                await self._create_account(key.name)
            if self._ca_pem:
                await self._publish(key.name)
        except errors.Forbidden as error:
            if not error.causes or error.causes[0].reason != "NamespaceTerminating":
                raise
        return DONE

    async def _create_account(self, namespace: str) -> None:
        account = {
            "apiVersion": "v1",
            "kind": "ServiceAccount",
            "metadata": {"name": "default", "namespace": namespace},
        }
        try:
            self._accounts.observe(await self._client.create(SERVICE_ACCOUNT, account))
        except errors.AlreadyExists:
            return

    async def _publish(self, namespace: str) -> None:
        data = {"ca.crt": self._ca_pem}
        live = self._config_maps.get(namespace, ROOT_CA)
        if live is not None and live.get("data") == data:
            return
        annotations = {"kubernetes.io/description": _DESCRIPTION}
        wanted: Object = {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": ROOT_CA, "namespace": namespace, "annotations": annotations},
            "data": data,
        }
        if live is None:
            try:
                self._config_maps.observe(await self._client.create(CONFIG_MAP, wanted))
            except errors.AlreadyExists:
                return
        else:
            body = {"data": data, "metadata": {"annotations": annotations}}
            self._config_maps.observe(await self._client.patch(CONFIG_MAP, ROOT_CA, body, namespace))


def _namespace_of(obj: Object) -> list[Key]:
    return [Key("", obj["metadata"]["namespace"])] if obj["metadata"]["name"] in ("default", ROOT_CA) else []
