from __future__ import annotations

import copy
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quarterdeck.apiserver.admission import AdmissionAttributes, AdmissionChain, format_quantity, parse_quantity
from quarterdeck.apiserver.security.identity import User
from quarterdeck.errors import Forbidden
from quarterdeck.kube.resource import (
    CONFIG_MAP,
    DEPLOYMENT,
    LIMIT_RANGE,
    NAMESPACE,
    POD,
    RESOURCE_QUOTA,
    SERVICE_ACCOUNT,
    Resource,
)

ALICE = User("alice", ("system:authenticated",))


class Hooks:
    def __init__(self) -> None:
        self.written: list[dict[str, Any]] = []

    def resource_of(self, group: str, plural: str) -> Resource | None:
        return {("", "configmaps"): CONFIG_MAP, ("apps", "deployments"): DEPLOYMENT}.get((group, plural))

    async def write_quota_status(self, quota: dict[str, Any], status: dict[str, Any]) -> None:
        self.written.append(status)


def pod(name: str = "p", **spec: Any) -> dict[str, Any]:
    return {"metadata": {"name": name, "namespace": "ns"}, "spec": {"containers": [{"name": "c"}], **spec}}


def create(obj: dict[str, Any], resource: Resource = POD, user: User = ALICE) -> AdmissionAttributes:
    return AdmissionAttributes(user, "CREATE", resource, obj, namespace="ns", name=obj["metadata"]["name"])


@pytest.fixture
def hooks() -> Hooks:
    return Hooks()


@pytest.fixture
def chain(objects: Any, hooks: Hooks) -> AdmissionChain:
    objects.put(NAMESPACE, {"metadata": {"name": "ns"}})
    objects.put(SERVICE_ACCOUNT, {"metadata": {"name": "default", "namespace": "ns"}})
    return AdmissionChain(objects, hooks)


async def test_a_pod_gets_its_account_and_token(chain: AdmissionChain) -> None:
    obj = pod(initContainers=[{"name": "i"}])
    await chain.admit(create(obj))
    spec = obj["spec"]
    assert spec["serviceAccountName"] == spec["serviceAccount"] == "default"
    name = spec["volumes"][0]["name"]
    assert name.startswith("kube-api-access-") and len(name) == len("kube-api-access-") + 5
    assert [list(s) for s in spec["volumes"][0]["projected"]["sources"]] == [
        ["serviceAccountToken"], ["configMap"], ["downwardAPI"],
    ]  # fmt: skip
    mount = {"name": name, "readOnly": True, "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount"}
    assert spec["containers"][0]["volumeMounts"] == spec["initContainers"][0]["volumeMounts"] == [mount]
    assert spec["priority"] == 0
    again = copy.deepcopy(obj)
    await chain.admit(create(again))
    assert again == obj


async def test_a_pod_that_wants_no_token_gets_none(chain: AdmissionChain) -> None:
    obj = pod(automountServiceAccountToken=False)
    await chain.admit(create(obj))
    assert "volumes" not in obj["spec"]


async def test_a_missing_account_is_named(chain: AdmissionChain) -> None:
    with pytest.raises(Forbidden) as caught:
        await chain.admit(create(pod(serviceAccountName="x")))
    text = 'pods "p" is forbidden: error looking up service account ns/x: serviceaccount "x" not found'
    assert str(caught.value) == text


async def test_limit_range(chain: AdmissionChain, objects: Any) -> None:
    item = {"type": "Container", "default": {"cpu": "500m"}, "defaultRequest": {"cpu": "100m"}, "max": {"cpu": "1"},
            "min": {"cpu": "50m"}}  # fmt: skip
    objects.put(LIMIT_RANGE, {"metadata": {"name": "l", "namespace": "ns"}, "spec": {"limits": [item]}})
    obj = pod()
    await chain.admit(create(obj))
    assert obj["spec"]["containers"][0]["resources"] == {"limits": {"cpu": "500m"}, "requests": {"cpu": "100m"}}
    await chain.validate(create(obj))
    obj["spec"]["containers"][0]["resources"]["limits"]["cpu"] = "2"
    with pytest.raises(Forbidden) as caught:
        await chain.validate(create(obj))
    assert str(caught.value) == 'pods "p" is forbidden: maximum cpu usage per Container is 1, but limit is 2'


def quota(objects: Any, **hard: str) -> None:
    spec = {"hard": {k.replace("__", "/").replace("_", "."): v for k, v in hard.items()}}
    objects.put(RESOURCE_QUOTA, {"metadata": {"name": "q", "namespace": "ns"}, "spec": spec})


async def test_quota_counts_what_is_stored_and_what_is_on_its_way(
    chain: AdmissionChain, objects: Any, hooks: Hooks
) -> None:
    quota(objects, count__configmaps="2")
    objects.put(CONFIG_MAP, {"metadata": {"name": "a", "namespace": "ns"}})
    second = create({"metadata": {"name": "b", "namespace": "ns"}}, CONFIG_MAP)
    await chain.validate(second)
    assert hooks.written == [{"hard": {"count/configmaps": "2"}, "used": {"count/configmaps": "2"}}]
    third = create({"metadata": {"name": "c", "namespace": "ns"}}, CONFIG_MAP)
    with pytest.raises(Forbidden) as caught:
        await chain.validate(third)
    assert str(caught.value) == (
        'configmaps "c" is forbidden: exceeded quota: q, requested: count/configmaps=1, used: count/configmaps=2, '
        "limited: count/configmaps=2"
    )
    chain.release(second)  # its write failed: the place is free again
    await chain.validate(third)
    objects.put(CONFIG_MAP, third.obj)
    with pytest.raises(Forbidden):
        await chain.validate(second)


async def test_compute_quota(chain: AdmissionChain, objects: Any) -> None:
    quota(objects, requests_memory="1Gi", pods="5")
    with pytest.raises(Forbidden, match=r"failed quota: q: must specify requests\.memory for: c"):
        await chain.validate(create(pod()))
    sized = {"name": "c", "resources": {"requests": {"memory": "600Mi"}}}
    objects.put(POD, pod("one", containers=[sized]))
    with pytest.raises(Forbidden) as caught:
        await chain.validate(create(pod("two", containers=[sized])))
    text = (
        "exceeded quota: q, requested: requests.memory=600Mi, used: requests.memory=600Mi, limited: requests.memory=1Gi"
    )
    assert str(caught.value).endswith(text)
    objects.put(POD, {**pod("one", containers=[sized]), "status": {"phase": "Succeeded"}})
    await chain.validate(create(pod("two", containers=[sized])))


@pytest.mark.parametrize(
    ("level", "spec", "text"),
    [
        ("baseline", {"hostNetwork": True}, "host namespaces (hostNetwork=true)"),
        ("baseline", {"containers": [{"name": "c", "securityContext": {"privileged": True}}]},
         'privileged (container "c" must not set securityContext.privileged=true)'),
        ("baseline", {"volumes": [{"name": "h", "hostPath": {"path": "/"}}]}, 'hostPath volumes (volume "h")'),
        ("restricted", {}, 'allowPrivilegeEscalation != false (container "c" must set '
         "securityContext.allowPrivilegeEscalation=false), unrestricted capabilities (container \"c\" must set "
         'securityContext.capabilities.drop=["ALL"]), runAsNonRoot != true (pod or container "c" must set '
         'securityContext.runAsNonRoot=true), seccompProfile (pod or container "c" must set '
         'securityContext.seccompProfile.type to "RuntimeDefault" or "Localhost")'),
    ],
)  # fmt: skip
async def test_pod_security(chain: AdmissionChain, objects: Any, level: str, spec: dict[str, Any], text: str) -> None:
    labels = {"pod-security.kubernetes.io/enforce": level, "pod-security.kubernetes.io/warn": "restricted"}
    objects.put(NAMESPACE, {"metadata": {"name": "ns", "labels": labels}})
    with pytest.raises(Forbidden) as caught:
        await chain.validate(create(pod(**spec)))
    assert str(caught.value) == f'pods "p" is forbidden: violates PodSecurity "{level}:latest": {text}'
    a = create({"metadata": {"name": "d", "namespace": "ns"}, "spec": {"template": pod(**spec)}}, DEPLOYMENT)
    await chain.validate(a)
    assert a.warnings[0].startswith('would violate PodSecurity "restricted:latest": ')


async def test_a_hardened_pod_passes_restricted(chain: AdmissionChain, objects: Any) -> None:
    objects.put(NAMESPACE, {"metadata": {"name": "ns", "labels": {"pod-security.kubernetes.io/enforce": "restricted"}}})
    context = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}, "runAsNonRoot": True,
               "seccompProfile": {"type": "RuntimeDefault"}}  # fmt: skip
    await chain.validate(create(pod(containers=[{"name": "c", "securityContext": context}])))


async def test_a_node_creates_no_ordinary_pods(chain: AdmissionChain) -> None:
    node = User("system:node:n1", ("system:nodes",))
    with pytest.raises(Forbidden, match="can only create mirror pods"):
        await chain.validate(create(pod(nodeName="n1"), user=node))


@pytest.mark.parametrize(
    ("text", "value"),
    [("500m", Fraction(1, 2)), ("1Gi", Fraction(2**30)), ("1e3", Fraction(1000)), ("1.5", Fraction(3, 2)),
     ("2E", Fraction(2 * 10**18)),
     (3, Fraction(3)), ("100n", Fraction(1, 10**7))],
)  # fmt: skip
def test_quantities(text: Any, value: Fraction) -> None:
    assert parse_quantity(text) == value


@pytest.mark.parametrize("text", ["", "abc", "1Q", "1 Gi", "--1", "."])
def test_what_is_no_quantity(text: str) -> None:
    with pytest.raises(ValueError, match="quantit"):
        parse_quantity(text)


@given(st.integers(0, 10**15), st.sampled_from(["", "m", "Ki", "Mi", "k", "M"]))
def test_formatting_keeps_the_value(number: int, suffix: str) -> None:
    text = f"{number}{suffix}"
    assert parse_quantity(format_quantity(parse_quantity(text), text)) == parse_quantity(text)
