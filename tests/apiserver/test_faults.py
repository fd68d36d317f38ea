"""Whatever is sent, the answer is a Status that says what is wrong, and nothing breaks."""

from __future__ import annotations

import http.client
import json
import ssl
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

MERGE = "application/merge-patch+json"
JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(
        ["metadata", "spec", "data", "name", "labels", "apiVersion", "kind", "containers", "template", "selector",
         "annotations", "finalizers", "ownerReferences", "generateName", "status", "rules", "subjects", "ports"]
    ), inner, max_size=4),
    max_leaves=12,
)  # fmt: skip
PATHS = st.sampled_from([
    "/api/v1/namespaces", "/api/v1/namespaces/default/pods", "/api/v1/namespaces/default/configmaps/x",
    "/api/v1/namespaces/default/services", "/apis/apps/v1/namespaces/default/deployments",
    "/apis/apps/v1/namespaces/default/deployments/x/scale", "/api/v1/namespaces/default/pods/x/binding",
    "/api/v1/namespaces/default/pods/x/eviction", "/api/v1/namespaces/default/events", "/api/v1/nodes",
    "/api/v1/namespaces/default/serviceaccounts/default/token", "/api/v1/namespaces/default/finalize",
    "/apis/rbac.authorization.k8s.io/v1/clusterroles", "/apis/authentication.k8s.io/v1/tokenreviews",
    "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings", "/apis/batch/v1/namespaces/default/cronjobs",
    "/apis/apiextensions.k8s.io/v1/customresourcedefinitions",
    "/apis/policy/v1/namespaces/default/poddisruptionbudgets",
    "/apis/authorization.k8s.io/v1/subjectaccessreviews", "/apis/authorization.k8s.io/v1/selfsubjectrulesreviews",
    "/apis/events.k8s.io/v1/namespaces/default/events", "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices",
    "/apis/autoscaling/v2/namespaces/default/horizontalpodautoscalers", "/api/v1/namespaces/default/secrets",
    "/apis/networking.k8s.io/v1/namespaces/default/ingresses", "/api/v1/namespaces/default/resourcequotas",
    "/apis/coordination.k8s.io/v1/namespaces/default/leases", "/api/v1/namespaces/default/configmaps/fuzz",
])  # fmt: skip
TYPES = st.sampled_from([
    "application/json", MERGE, "application/json-patch+json", "application/strategic-merge-patch+json",
    "application/apply-patch+yaml", "application/yaml", "text/plain", "application/vnd.kubernetes.protobuf", "",
])  # fmt: skip
QUIET = settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))


def check(answer: Any) -> None:
    assert answer.status_code != 500, answer.text
    if answer.status_code >= 400:
        status = answer.json()
        assert (status["kind"], status["apiVersion"], status["status"]) == ("Status", "v1", "Failure")
        assert status["code"] == answer.status_code and status["message"]


@QUIET
@given(method=st.sampled_from(["POST", "PUT", "PATCH", "DELETE", "GET"]), path=PATHS, value=JSON_VALUES, media=TYPES)
def test_any_json_to_any_path(api: Any, method: str, path: str, value: Any, media: str) -> None:
    params = {"dryRun": "All", "fieldManager": "fuzz"}
    check(api.http.request(method, path, content=json.dumps(value), headers={"content-type": media}, params=params))


@QUIET
@given(
    path=PATHS,
    value=st.dictionaries(
        st.sampled_from(
            [
                "spec",
                "data",
                "status",
                "rules",
                "subjects",
                "roleRef",
                "involvedObject",
                "type",
                "ports",
                "endpoints",
                "addressType",
                "target",
                "secrets",
            ]
        ),
        JSON_VALUES,
        min_size=1,
    ),
)
def test_any_content_below_a_good_name(api: Any, path: str, value: Any) -> None:  # fmt: skip
    body = json.dumps({"metadata": {"name": "fuzz.example.com" if "customres" in path else "fuzz"}, **value})
    for validation in ("Strict", "Ignore"):
        params = {"dryRun": "All", "fieldValidation": validation}
        check(api.http.post(path, content=body, headers={"content-type": "application/json"}, params=params))


@QUIET
@given(path=PATHS, value=JSON_VALUES, media=TYPES, cut=st.integers(0, 60))
def test_truncated_and_random_bodies(api: Any, path: str, value: Any, media: str, cut: int) -> None:
    body = json.dumps(value).encode()[:-cut] + b"\xff" * (cut % 2)
    check(api.http.post(path, content=body, headers={"content-type": media}, params={"dryRun": "All"}))


@QUIET
@given(
    method=st.sampled_from(["GET", "HEAD", "POST", "PUT", "OPTIONS", "TRACE", "DELETE"]),
    parts=st.lists(st.sampled_from(["api", "apis", "v1", "apps", "namespaces", "pods", "default", "%2e%2e", "%00", "é",
                                    "watch", "status", "openapi", "v3", "x%2Fy", ""]), max_size=8),
)  # fmt: skip
def test_any_path_and_method(api: Any, method: str, parts: list[str]) -> None:
    answer = api.http.request(
        method,
        ("/" + "/".join(parts)).replace("//", "/").replace("//", "/").replace("//", "/"),
        params={"timeoutSeconds": "1", "dryRun": "All"},
    )
    if method == "HEAD":
        assert answer.status_code != 500
    else:
        check(answer)


@QUIET
@given(value=st.dictionaries(st.sampled_from(["metadata", "data", "binaryData", "immutable", "kind"]), JSON_VALUES))
@pytest.mark.parametrize("media", [MERGE, "application/strategic-merge-patch+json", "application/apply-patch+yaml"])
def test_any_patch_of_what_exists(api: Any, media: str, value: Any) -> None:
    api("POST", "/api/v1/namespaces/default/configmaps", {"metadata": {"name": "fuzz"}})
    params = {"dryRun": "All", "fieldManager": "fuzz"}
    path = "/api/v1/namespaces/default/configmaps/fuzz"
    check(api.http.patch(path, content=json.dumps(value), headers={"content-type": media}, params=params))


def test_a_body_over_3_mib_is_refused_as_a_status(api: Any, space: str) -> None:
    big = {"metadata": {"name": "big"}, "data": {"a": "x" * (3 * 1024 * 1024)}}
    status = api.refused(413, "POST", f"{space}/configmaps", big)
    assert status["reason"] == "RequestEntityTooLarge" and "3145728" in status["message"]


def test_what_is_not_http_is_told_so(running: Any) -> None:
    context = ssl.create_default_context(cadata=running.server.ca_pem.decode())
    host, _, port = running.server.url.removeprefix("https://").partition(":")
    connection = http.client.HTTPSConnection(host, int(port), context=context, timeout=60)
    connection.connect()
    connection.sock.sendall(b"NONSENSE\r\n\r\n")
    answer = http.client.HTTPResponse(connection.sock)
    answer.begin()
    assert answer.status == 400 and json.loads(answer.read())["reason"] == "BadRequest"


@pytest.mark.parametrize(
    ("method", "path", "code"),
    [
        ("GET", "/api/v1/nothing", 404), ("GET", "/apis/none.example/v1/things", 404), ("GET", "/nowhere", 404),
        ("POST", "/version", 405), ("PUT", "/api/v1/namespaces", 405), ("POST", "/api/v1/namespaces/default", 405),
        ("GET", "/api/v1/namespaces/default/pods/x/nothing", 404), ("GET", "/apis/apps/v2", 404),
        ("GET", "/api/v1/namespaces/default/pods/x/binding", 405), ("POST", "/api/v1/pods", 405),
        ("GET", "/api/v1/namespaces/default/pods/x/eviction", 405), ("DELETE", "/api/v1/pods", 405),
        ("GET", "/api/v1/namespaces/default/serviceaccounts/default/token", 405),
        ("DELETE", "/api/v1/namespaces/default/pods/x/status", 405), ("GET", "/openapi/v3/apis/none/v1", 404),
    ],
)  # fmt: skip
def test_what_is_not_there(api: Any, method: str, path: str, code: int) -> None:
    api.refused(code, method, path)


def test_media_types(api: Any, space: str) -> None:
    assert api.http.get(f"{space}/configmaps", headers={"accept": "image/png"}).status_code == 406
    status = api.refused(415, "POST", f"{space}/configmaps", "x", "text/plain")
    assert "accepted media types include" in status["message"]
    status = api.refused(415, "PATCH", f"{space}/configmaps/x", "{}", "application/json")
    assert "application/strategic-merge-patch+json" in status["message"]
