"""Who gets in and who may do what, over HTTP."""

from __future__ import annotations

import base64
import json
from typing import Any

import httpx
import jwt
import pytest

from quarterdeck.apiserver.security.controllers import PLATFORM

RBAC = "/apis/rbac.authorization.k8s.io/v1"
CLOSED = [
    "/api", "/apis", "/api/v1", "/apis/apps/v1", "/openapi/v2", "/openapi/v3", "/metrics", "/", "/api/v1/nodes",
    "/api/v1/namespaces/default/secrets", "/api/v1/namespaces/default/pods/x/log", "/nowhere", "/apis/kagent.dev",
    "/api/v1/namespaces/default/serviceaccounts/default/token", "/api/v1/watch/pods",
]  # fmt: skip


@pytest.mark.parametrize("path", CLOSED)
def test_anonymous_is_refused(api_as: Any, path: str) -> None:
    refused = api_as(token="").refused(403, "GET", path)
    assert "system:anonymous" in refused["message"] and refused["reason"] == "Forbidden"


@pytest.mark.parametrize(
    "path", ["/healthz", "/livez", "/readyz", "/version", "/.well-known/openid-configuration", "/openid/v1/jwks"]
)
def test_what_everybody_may_read(api_as: Any, path: str) -> None:
    assert api_as(token="")("GET", path).status_code == 200


@pytest.mark.parametrize("header", ["Bearer nonsense", "Bearer", "Basic YTpi", "Bearer a.b.c"])
def test_wrong_credentials_are_unauthorized(api_as: Any, header: str) -> None:
    answer = api_as(token="").http.get("/api/v1/namespaces", headers={"authorization": header})
    assert answer.status_code == 401 and answer.json()["reason"] == "Unauthorized"


@pytest.mark.parametrize(
    "headers",
    [
        {"host": "evil.example"}, {"origin": "https://evil.example"}, {"origin": "null"},
        {"sec-fetch-site": "cross-site"}, {"host": "evil.example:8703"},
    ],
)  # fmt: skip
def test_pages_of_other_sites_are_refused(api: Any, headers: dict[str, str]) -> None:
    for path in ("/api/v1/namespaces", "/version"):
        answer = api.http.get(path, headers=headers)
        assert answer.status_code == 403 and answer.json()["kind"] == "Status"


def grant(api: Any, user: str, *rules: dict[str, Any]) -> None:
    name = f"test:{user}"
    api.ok("POST", f"{RBAC}/clusterroles", {"metadata": {"name": name}, "rules": list(rules)})
    binding = {
        "metadata": {"name": name}, "subjects": [{"kind": "User", "name": user, "apiGroup": RBAC.split("/")[2]}],
        "roleRef": {"apiGroup": RBAC.split("/")[2], "kind": "ClusterRole", "name": name},
    }  # fmt: skip
    api.ok("POST", f"{RBAC}/clusterrolebindings", binding)


def rule(verbs: str, resources: str, group: str = "", **more: Any) -> dict[str, Any]:
    return {"verbs": verbs.split(), "apiGroups": [group], "resources": resources.split(), **more}


def test_nobody_hands_out_more_than_they_hold(api: Any, api_as: Any, space: str) -> None:
    all_rbac = rule(
        "create update patch get", "roles rolebindings clusterroles clusterrolebindings", RBAC.split("/")[2]
    )
    grant(api, "climber", all_rbac, rule("get", "pods"))
    climber = api_as("climber")
    roles = f"{RBAC}/namespaces/{space.rpartition('/')[2]}/roles"
    climber.ok("POST", roles, {"metadata": {"name": "mine"}, "rules": [rule("get", "pods")]})
    text = climber.refused(403, "POST", roles, {"metadata": {"name": "more"}, "rules": [rule("get", "secrets")]})[
        "message"
    ]
    assert 'attempting to grant RBAC permissions not currently held:\n{APIGroups:[""], Resources:["secrets"]' in text
    wider = {"rules": [rule("*", "*")]}
    climber.refused(403, "PATCH", f"{roles}/mine", wider, "application/merge-patch+json")
    apply = {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": {"name": "mine"}, **wider}
    climber.refused(
        403, "PATCH", f"{roles}/mine", apply, "application/apply-patch+yaml", fieldManager="x", force="true"
    )
    binding = {
        "metadata": {"name": "admin"}, "subjects": [{"kind": "User", "name": "climber"}],
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"},
    }  # fmt: skip
    climber.refused(403, "POST", f"{RBAC}/clusterrolebindings", binding)


def test_applying_something_new_needs_the_right_to_create(api: Any, api_as: Any, space: str) -> None:
    grant(api, "patcher", rule("patch get", "configmaps"))
    patcher = api_as("patcher")
    body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "new"}, "data": {"a": "1"}}
    ask = ("PATCH", f"{space}/configmaps/new", body, "application/apply-patch+yaml")
    refused = patcher.refused(403, *ask, fieldManager="x")["message"]
    assert 'User "patcher" cannot create resource "configmaps"' in refused
    api.ok("POST", f"{space}/configmaps", {"metadata": {"name": "new"}})
    patcher.ok(*ask, fieldManager="x")


def test_one_named_object_may_be_listed_and_watched(api: Any, api_as: Any, space: str) -> None:
    grant(api, "reader", rule("get list watch", "configmaps", resourceNames=["one"]))
    reader = api_as("reader")
    api.ok("POST", f"{space}/configmaps", {"metadata": {"name": "one"}})
    assert len(reader.ok("GET", f"{space}/configmaps", fieldSelector="metadata.name=one")["items"]) == 1
    with reader.watch(f"{space}/configmaps", fieldSelector="metadata.name=one") as events:
        assert next(events)["type"] == "ADDED"
    reader.refused(403, "GET", f"{space}/configmaps")
    reader.refused(403, "GET", f"{space}/configmaps", fieldSelector="metadata.name=two")
    reader.refused(403, "GET", f"{space}/configmaps", fieldSelector="metadata.name!=one")


def test_impersonation_needs_permission(api: Any, running: Any, api_as: Any) -> None:
    mortal = api_as(token=running.server.authenticator.grant(_user("mortal")))
    assert mortal.http.get("/api/v1/namespaces", headers={"impersonate-user": "admin"}).status_code == 403
    group = {"impersonate-user": "x", "impersonate-group": "system:masters"}
    assert mortal.http.get("/api/v1/namespaces", headers=group).status_code == 403
    assert api.http.get("/api/v1/namespaces", headers=group).status_code == 200
    assert api.http.get("/api/v1/namespaces", headers={"impersonate-group": "x"}).status_code == 400


def _user(name: str, *groups: str) -> Any:
    from quarterdeck.apiserver.security import User

    return User(name, groups)


def test_a_node_touches_only_what_is_its_own(api: Any, running: Any, api_as: Any, space: str) -> None:
    node = api_as(token=running.server.client_config("system:node:n1")["token"])
    node.ok("POST", "/api/v1/nodes", {"metadata": {"name": "n1"}})
    node.refused(403, "POST", "/api/v1/nodes", {"metadata": {"name": "n2"}})
    for name, where in (("mine", "n1"), ("other", "n2")):
        spec = {
            "nodeName": where, "containers": [{"name": "c", "image": "x"}],
            "volumes": [{"name": "v", "secret": {"secretName": f"{name}-secret"}}],
        }  # fmt: skip
        api.ok("POST", f"{space}/pods", {"metadata": {"name": name}, "spec": spec})
        api.ok("POST", f"{space}/secrets", {"metadata": {"name": f"{name}-secret"}})
    status = {"status": {"phase": "Running"}}
    node.ok("PATCH", f"{space}/pods/mine/status", status, "application/merge-patch+json")
    node.refused(403, "PATCH", f"{space}/pods/other/status", status, "application/merge-patch+json")
    node.ok("GET", f"{space}/secrets/mine-secret")
    node.refused(403, "GET", f"{space}/secrets/other-secret")
    node.refused(403, "GET", f"{space}/secrets")
    node.refused(403, "DELETE", f"{space}/pods/other")
    # What a role adds to a node does not lift the restriction: admission sees deletions too.
    grant(api, "system:node:n1", rule("delete", "nodes pods"))
    api.ok("POST", "/api/v1/nodes", {"metadata": {"name": "n3"}})
    assert "not allowed to modify node" in node.refused(403, "DELETE", "/api/v1/nodes/n3")["message"]
    assert "spec.nodeName set to itself" in node.refused(403, "DELETE", f"{space}/pods/other")["message"]
    node.ok("DELETE", f"{space}/pods/mine", gracePeriodSeconds="0")
    node.refused(403, "POST", f"{space}/pods", {"metadata": {"name": "new"}, "spec": spec})


@pytest.mark.parametrize(
    ("user", "method", "path"),
    [
        ("system:kube-controller-manager", "POST", "/api/v1/namespaces/default/secrets"),
        ("system:kube-controller-manager", "POST", f"{RBAC}/clusterrolebindings"),
        ("system:kube-controller-manager", "PUT", "/apis/apps/v1/namespaces/default/deployments/x"),
        ("quarterdeck-controller", "DELETE", "/api/v1/namespaces/default/pods/x"),
        ("quarterdeck-controller", "GET", "/api/v1/nodes"),
        ("quarterdeck-controller", "POST", "/api/v1/namespaces/default/pods"),
        ("quarterdeck-controller", "GET", f"{RBAC}/clusterroles"),
        ("quarterdeck-controller", "POST", "/api/v1/namespaces/default/serviceaccounts/x/token"),
        ("quarterdeck-controller", "GET", "/api/v1/namespaces/default/pods/x/exec"),
        ("quarterdeck-server", "GET", "/api/v1/namespaces/default/secrets"),
        ("quarterdeck-server", "POST", "/api/v1/namespaces"),
        ("somebody", "GET", "/api/v1/namespaces"),
    ],
)
def test_the_platforms_own_identities_have_no_more_than_they_use(
    running: Any, api_as: Any, user: str, method: str, path: str
) -> None:
    caller = api_as(token=running.server.client_config(user)["token"])
    refused = caller.refused(403, method, path, {} if method in ("POST", "PUT") else None)
    assert f'User "{user}" cannot' in refused["message"]


def test_each_platform_identity_is_bound_to_its_role(api: Any) -> None:
    for policy in PLATFORM:
        role = api.ok("GET", f"{RBAC}/clusterroles/{policy.name}")
        assert role["rules"] == [r.to_object() for r in policy.rules]
        assert api.ok("GET", f"{RBAC}/clusterrolebindings/{policy.name}")["subjects"][0]["name"] == policy.user


def test_service_account_tokens_verify_with_an_independent_library(api: Any, api_as: Any, space: str) -> None:
    request = {"spec": {"audiences": ["me"], "expirationSeconds": 600}}
    made = api.ok("POST", f"{space}/serviceaccounts/default/token", request)
    token = made["status"]["token"]
    public = api_as(token="")
    found = public.ok("GET", "/.well-known/openid-configuration")
    keys = jwt.PyJWKSet.from_dict(public.ok("GET", httpx.URL(found["jwks_uri"]).path))
    key = next(k for k in keys.keys if k.key_id == jwt.get_unverified_header(token)["kid"])
    claims = jwt.decode(
        token, key.key, algorithms=found["id_token_signing_alg_values_supported"], audience="me", issuer=found["issuer"]
    )
    namespace = space.rpartition("/")[2]
    assert claims["sub"] == f"system:serviceaccount:{namespace}:default"
    assert claims["kubernetes.io"]["namespace"] == namespace
    with pytest.raises(jwt.InvalidAudienceError):
        jwt.decode(token, key.key, algorithms=["RS256", "ES256"], audience="you")
    assert api_as(token=token)("GET", "/api/v1/namespaces").status_code == 401  # not for this server
    own = api.ok("POST", f"{space}/serviceaccounts/default/token", {"spec": {}})["status"]["token"]
    assert api_as(token=own)("GET", "/api/v1/namespaces").status_code == 403
    head, body, signature = own.split(".")
    claims = json.loads(base64.urlsafe_b64decode(body + "=="))
    forged = base64.urlsafe_b64encode(json.dumps({**claims, "sub": "system:admin"}).encode()).rstrip(b"=").decode()
    assert api_as(token=f"{head}.{forged}.{signature}")("GET", "/version").status_code == 401


def test_the_unix_socket_asks_for_a_token_too(running: Any) -> None:
    transport = httpx.HTTPTransport(uds=str(running.server.unix_socket))
    with httpx.Client(transport=transport, base_url="http://localhost") as http:
        assert http.get("/api/v1/namespaces").status_code == 403
        bearer = {"authorization": f"Bearer {running.server.admin_token}"}
        assert http.get("/api/v1/namespaces", headers=bearer).json()["kind"] == "NamespaceList"
