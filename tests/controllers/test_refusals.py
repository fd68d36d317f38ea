"""Words of kube-apiserver, as recorded, and what they are called."""

from __future__ import annotations

import pytest

from quarterdeck.controllers.discovery import Found
from quarterdeck.controllers.refusals import refusal, refused_pods
from quarterdeck.errors import ApiError, Forbidden, Invalid, NameConflict, TooLarge

QUOTA = 'pods "a-7d9f8b6c5-x2k4p" is forbidden: exceeded quota: q, requested: pods=1, used: pods=5, limited: pods=5'
SAID = [
    (Forbidden('deployments.apps "a" is forbidden: exceeded quota: q, requested: count/deployments.apps=1'),
     "QuotaExceeded"),
    (Forbidden('pods "a" is forbidden: failed quota: q: must specify limits.cpu for: kagent'), "QuotaExceeded"),
    (Forbidden('secrets "a" is forbidden: unable to create new content in namespace t because it is being terminated'),
     "NamespaceTerminating"),
    (Forbidden('pods "a" is forbidden: violates PodSecurity "restricted:latest": runAsNonRoot != true'),
     "AdmissionDenied"),
    (Forbidden('admission webhook "policy.example.com" denied the request: no'), "AdmissionDenied"),
    (Invalid("deployments.apps \"a\" is forbidden: ValidatingAdmissionPolicy 'p' with binding 'b' denied request: no"),
     "AdmissionDenied"),
    (Forbidden('deployments.apps "a" is forbidden: User "system:serviceaccount:qs:c" cannot patch resource '
               '"deployments" in API group "apps" in the namespace "t"'), "NotAuthorized"),
    (Forbidden('pods "a" is forbidden: maximum cpu usage per Container is 100m, but limit is 2'), "LimitRangeViolated"),
    (Forbidden("something of somebody's own"), "AdmissionDenied"),
    (Invalid('Deployment.apps "a" is invalid: spec.template.spec.volumes[0].name: Invalid value'), "InvalidObject"),
    (Invalid('Secret "a" is invalid: data: Too long: may not be more than 1048576 bytes'), "ConfigTooLarge"),
    (TooLarge("Request entity too large: limit is 3145728"), "ConfigTooLarge"),
    (ApiError("etcdserver: request is too large", code=500), "ConfigTooLarge"),
    (ApiError("Internal error occurred", code=500), "DeploymentFailed"),
]  # fmt: skip


@pytest.mark.parametrize(("error", "reason"), SAID, ids=lambda value: str(value)[:40])
def test_a_refused_write_has_a_reason_the_servers_words_and_a_next_step(error: ApiError, reason: str) -> None:
    found, message = refusal(error, "t")
    assert found == reason
    assert message.startswith(str(error))
    if reason not in ("InvalidObject", "DeploymentFailed"):
        assert "; " in message.removeprefix(str(error)), "what to do"
    if reason == "QuotaExceeded":
        assert message.endswith("`kubectl describe quota -n t`")


def test_our_own_errors_keep_their_reason() -> None:
    assert refusal(NameConflict("taken"), "t") == ("NameConflict", "taken")


def test_the_name_of_a_refused_pod_changes_nothing() -> None:
    other = QUOTA.replace("x2k4p", "9m3zz")
    assert refused_pods(QUOTA, "t") == refused_pods(other, "t")
    reason, message = refused_pods(QUOTA, "t")
    assert reason == "QuotaExceeded"
    assert message.startswith("Pods cannot be created: pods is forbidden: exceeded quota: q, ")
    account = 'pods "a-1-b" is forbidden: error looking up service account t/x: serviceaccount "x" not found'
    assert refused_pods(account, "t")[0] == "ServiceAccountNotFound"
    assert refused_pods("no words we know", "t")[0] == "FailedCreate"


def test_a_status_holds_the_tools_of_a_server_with_thousands() -> None:
    few = Found([{"name": "b", "description": "x" * 5000}, {"name": "a"}])
    assert [(t["name"], len(t["description"])) for t in few.listed()] == [("a", 0), ("b", 2048)]
    assert few.summary() == "Discovered 2 tools"
    many = Found([{"name": f"tool-{n:05}", "description": "d" * 2000} for n in range(4000)])
    assert [len(many.listed()), len(many.listed()[0]["description"])] == [4000, 64], "descriptions go first"
    endless = Found([{"name": f"{'n' * 100}-{n:06}"} for n in range(20_000)])
    shown = len(endless.listed())
    assert 3000 < shown < 4500
    assert endless.summary() == f"Discovered 20000 tools; the status lists {shown} of them"
    assert len(endless.names) == 20_000
