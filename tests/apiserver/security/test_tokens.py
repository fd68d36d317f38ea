from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest
from joserfc import jwt
from joserfc.jwk import ECKey, KeySet, OctKey

from quarterdeck.apiserver.security.tokens import AdminToken, ServiceAccountTokens
from quarterdeck.errors import BadRequest, Conflict, Invalid, NotFound, StorageError, Unauthorized
from quarterdeck.kube.resource import NODE, POD, SERVICE_ACCOUNT


class Clock:
    now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def tokens(objects: Any, pki: Any, clock: Clock) -> ServiceAccountTokens:
    objects.put(SERVICE_ACCOUNT, {"metadata": {"name": "agent", "namespace": "ns"}})
    objects.put(NODE, {"metadata": {"name": "n1"}})
    objects.put(
        POD, {"metadata": {"name": "p", "namespace": "ns"}, "spec": {"serviceAccountName": "agent", "nodeName": "n1"}}
    )
    return ServiceAccountTokens(pki.service_account_key, objects, clock=clock)


def bound(**spec: Any) -> dict[str, Any]:
    return {"spec": {"boundObjectRef": {"kind": "Pod", "apiVersion": "v1", "name": "p", "uid": "uid-p"}, **spec}}


def claims_of(token: str) -> dict[str, Any]:
    part = token.split(".")[1]
    return json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))


def test_claims_follow_kubernetes(tokens: ServiceAccountTokens) -> None:
    answer = tokens.request("ns", "agent", bound(audiences=["quarterdeck"], expirationSeconds=600))
    claims = claims_of(answer["status"]["token"])
    assert claims["aud"] == ["quarterdeck"]
    assert claims["sub"] == "system:serviceaccount:ns:agent"
    assert claims["exp"] - claims["iat"] == 600
    assert claims["kubernetes.io"] == {
        "namespace": "ns",
        "serviceaccount": {"name": "agent", "uid": "uid-agent"},
        "pod": {"name": "p", "uid": "uid-p"},
        "node": {"name": "n1", "uid": "uid-n1"},
    }
    user = tokens.verify(answer["status"]["token"], ["quarterdeck"]).user
    assert user.name == "system:serviceaccount:ns:agent"
    assert user.extra["authentication.kubernetes.io/pod-uid"] == ("uid-p",)


def test_the_published_key_verifies_a_token(tokens: ServiceAccountTokens, pki: Any) -> None:
    token = tokens.request("ns", "agent", {})["status"]["token"]
    assert "d" not in pki.jwks()["keys"][0]
    keys = KeySet.import_key_set(pki.jwks())
    assert jwt.decode(token, keys, algorithms=["ES256"]).claims["iss"] == tokens.issuer


def test_a_token_of_another_audience_is_refused(tokens: ServiceAccountTokens) -> None:
    token = tokens.request("ns", "agent", {"spec": {"audiences": ["quarterdeck"]}})["status"]["token"]
    with pytest.raises(Unauthorized, match="audiences"):
        tokens.verify(token)
    assert tokens.verify(token, ["x", "quarterdeck"]).audiences == ("quarterdeck",)


def test_expiry_has_a_small_leeway(tokens: ServiceAccountTokens, clock: Clock) -> None:
    token = tokens.request("ns", "agent", {"spec": {"expirationSeconds": 600}})["status"]["token"]
    clock.now += 605
    tokens.verify(token)
    clock.now += 6
    with pytest.raises(Unauthorized, match="expired"):
        tokens.verify(token)
    clock.now -= 700
    with pytest.raises(Unauthorized, match="not valid yet"):
        tokens.verify(token)


@pytest.mark.parametrize("gone", ["pod", "recreated pod", "account"])
def test_a_token_ends_with_what_it_is_bound_to(tokens: ServiceAccountTokens, objects: Any, gone: str) -> None:
    token = tokens.request("ns", "agent", bound())["status"]["token"]
    tokens.verify(token)  # now in the cache, which must not keep it alive
    if gone == "pod":
        objects.drop(POD, "ns", "p")
    elif gone == "recreated pod":
        objects.put(POD, {"metadata": {"name": "p", "namespace": "ns", "uid": "other"}})
    else:
        objects.drop(SERVICE_ACCOUNT, "ns", "agent")
    with pytest.raises(Unauthorized, match="invalidated"):
        tokens.verify(token)


def test_tampering_is_noticed(tokens: ServiceAccountTokens, pki: Any) -> None:
    token = tokens.request("ns", "agent", {})["status"]["token"]
    head, body, signature = token.split(".")
    claims = claims_of(token)
    claims["sub"] = "system:serviceaccount:kube-system:admin"
    forged_body = base64.urlsafe_b64encode(json.dumps(claims).encode()).rstrip(b"=").decode()
    none_head = base64.urlsafe_b64encode(b'{"alg":"none"}').rstrip(b"=").decode()
    public_pem = pki.service_account_key.as_pem(private=False)
    confused = jwt.encode({"alg": "HS256"}, claims_of(token), OctKey.import_key(base64.b64encode(public_pem)))
    other = jwt.encode({"alg": "ES256"}, claims_of(token), ECKey.generate_key("P-256"))
    flipped = ("A" if signature[5] != "A" else "B").join((signature[:5], signature[6:]))
    for bad in (
        f"{head}.{forged_body}.{signature}", f"{head}.{body}.{flipped}", f"{head}.{body}.", f"{none_head}.{body}.",
        confused, other, "a.b.c", "..", "", token + "A" * 20_000, "é.é.é",
    ):  # fmt: skip
        with pytest.raises(Unauthorized):
            tokens.verify(bad)


def test_a_signed_token_with_a_foreign_subject_is_refused(tokens: ServiceAccountTokens, pki: Any) -> None:
    claims = claims_of(tokens.request("ns", "agent", {})["status"]["token"])
    for change in ({"sub": "system:serviceaccount:ns:other"}, {"iss": "https://elsewhere"}, {"kubernetes.io": {}}):
        token = jwt.encode({"alg": "ES256"}, {**claims, **change}, pki.service_account_key)
        with pytest.raises(Unauthorized):
            tokens.verify(token)


@pytest.mark.parametrize(
    ("name", "spec", "error", "text"),
    [
        ("none", {}, NotFound, 'serviceaccounts "none" not found'),
        ("agent", {"expirationSeconds": 599}, Invalid, "may not specify a duration less than 10 minutes"),
        ("agent", {"expirationSeconds": 1 << 33}, Invalid, "larger than 2"),
        ("agent", {"boundObjectRef": {"kind": "Pod", "name": "q"}}, NotFound, 'pods "q" not found'),
        ("agent", {"boundObjectRef": {"kind": "Pod", "name": "p", "uid": "x"}}, Conflict, "UID in record"),
        ("agent", {"boundObjectRef": {"kind": "Job", "name": "p"}}, BadRequest, "cannot bind token"),
    ],
)
def test_requests_that_are_refused(
    tokens: ServiceAccountTokens, name: str, spec: dict[str, Any], error: type[Exception], text: str
) -> None:
    with pytest.raises(error, match=text):
        tokens.request("ns", name, {"spec": spec})


def test_a_pod_of_another_account_cannot_be_bound(tokens: ServiceAccountTokens, objects: Any) -> None:
    objects.put(SERVICE_ACCOUNT, {"metadata": {"name": "b", "namespace": "ns"}})
    with pytest.raises(BadRequest, match="different serviceaccount"):
        tokens.request("ns", "b", bound())


def test_the_admin_token_is_not_kept_in_clear(tmp_path: Path) -> None:
    path = tmp_path / "pki" / "admin-token.sha256"
    admin = AdminToken(path)
    assert not admin.exists and not admin.matches("")
    token = admin.renew()
    assert token.encode() not in path.read_bytes()
    assert path.stat().st_mode & 0o777 == 0o600
    assert AdminToken(path).matches(token) and not AdminToken(path).matches(token + "x")
    path.write_bytes(b"short")
    with pytest.raises(StorageError, match=r"admin-token\.sha256"):
        AdminToken(path)
