from __future__ import annotations

import datetime as dt
import ssl
from pathlib import Path
from typing import Any

import pytest

from quarterdeck.apiserver.security import (
    AdminToken,
    Authenticator,
    Authorizer,
    SecretCipher,
    ServiceAccountTokens,
    User,
    bootstrap_policy,
    check_browser,
    ensure_pki,
    kubeconfig_token,
    self_subject_access_review,
    self_subject_rules_review,
    subject_access_review,
    token_review,
    write_kubeconfig,
)
from quarterdeck.errors import BadRequest, Forbidden, Invalid, StorageError, Unauthorized
from quarterdeck.kube.resource import ROLE_BINDING, SERVICE_ACCOUNT
from quarterdeck.wire.client import Pool
from quarterdeck.wire.http import Exchange, Server


class Asked:
    def __init__(self, *headers: tuple[bytes, bytes], certificate: dict[str, object] | None = None) -> None:
        self.headers = list(headers)
        self.peer_certificate = certificate

    def header(self, name: bytes) -> bytes | None:
        return next((v for k, v in self.headers if k == name), None)


@pytest.fixture
def security(objects: Any, pki: Any, tmp_path: Path) -> tuple[Authenticator, ServiceAccountTokens, str, Authorizer]:
    for resource, obj in bootstrap_policy():
        objects.put(resource, obj)
    objects.put(SERVICE_ACCOUNT, {"metadata": {"name": "agent", "namespace": "ns"}})
    tokens = ServiceAccountTokens(pki.service_account_key, objects)
    admin = AdminToken(tmp_path / "admin")
    secret = admin.renew()
    authorizer = Authorizer(objects, lambda: objects.version)
    return Authenticator(tokens, admin, authorizer), tokens, secret, authorizer


def bearer(token: str) -> tuple[bytes, bytes]:
    return b"authorization", f"Bearer {token}".encode()


async def test_who_is_who(security: Any) -> None:
    authenticator, tokens, admin, _ = security
    assert (await authenticator.authenticate(Asked())).name == "system:anonymous"
    assert "system:masters" in (await authenticator.authenticate(Asked(bearer(admin)))).groups
    token = tokens.request("ns", "agent", {})["status"]["token"]
    user = await authenticator.authenticate(Asked(bearer(token)))
    assert user.groups == ("system:serviceaccounts", "system:serviceaccounts:ns", "system:authenticated")
    node = authenticator.grant(User("system:node:n", ("system:nodes",)))
    assert (await authenticator.authenticate(Asked(bearer(node)))).groups == ("system:nodes", "system:authenticated")
    for bad in ("Bearer x", "Bearer ", "Basic YTpi", f"Bearer {token}x", "bearer"):
        with pytest.raises(Unauthorized, match=r"^Unauthorized$"):
            await authenticator.authenticate(Asked((b"authorization", bad.encode())))


async def test_impersonation(security: Any) -> None:
    authenticator, tokens, admin, _ = security
    user = await authenticator.authenticate(
        Asked(bearer(admin), (b"impersonate-user", b"bob"), (b"impersonate-group", b"dev"),
              (b"impersonate-uid", b"7"), (b"impersonate-extra-acme.com%2Fproject", b"x"))
    )  # fmt: skip
    assert user == User("bob", ("dev", "system:authenticated"), "7", {"acme.com/project": ("x",)})
    as_account = Asked(bearer(admin), (b"impersonate-user", b"system:serviceaccount:ns:agent"))
    assert "system:serviceaccounts:ns" in (await authenticator.authenticate(as_account)).groups
    token = tokens.request("ns", "agent", {})["status"]["token"]
    with pytest.raises(Forbidden, match='cannot impersonate resource "users" in API group "" at the cluster scope'):
        await authenticator.authenticate(Asked(bearer(token), (b"impersonate-user", b"bob")))
    with pytest.raises(Forbidden):
        await authenticator.authenticate(Asked((b"impersonate-user", b"bob")))
    with pytest.raises(BadRequest):
        await authenticator.authenticate(Asked(bearer(admin), (b"impersonate-group", b"dev")))


async def test_client_certificate_over_real_tls(security: Any, pki: Any) -> None:
    authenticator = security[0]

    async def handle(exchange: Exchange) -> None:
        user = await authenticator.authenticate(exchange)
        exchange.respond(200, f"{user.name} {','.join(user.groups)}".encode())

    server = Server(handle)
    _, port = await server.listen("127.0.0.1", 0, tls=pki.serving_context())
    client = ssl.create_default_context(cadata=pki.ca_pem.decode())
    pair = pki.node_pair("n1")
    client.load_cert_chain(pair.certificate, pair.key)
    bare = ssl.create_default_context(cadata=pki.ca_pem.decode())
    for context, name in ((client, b"system:node:n1 system:nodes,system:authenticated"), (bare, b"system:anonymous ")):
        pool = Pool(tls=context)
        response = await pool.request("GET", ("127.0.0.1", port, True), "/")
        assert (await response.read()).startswith(name)
        pool.close()
    await server.stop(0)


def test_reviews(security: Any, objects: Any) -> None:
    authenticator, tokens, _, authorizer = security
    subjects = [{"kind": "User", "name": "bob"}]
    binding = {"metadata": {"name": "b", "namespace": "ns"}, "roleRef": {"kind": "ClusterRole", "name": "view"}}
    objects.put(ROLE_BINDING, {**binding, "subjects": subjects})
    ask = {"spec": {"user": "bob", "resourceAttributes": {"verb": "get", "resource": "pods", "namespace": "ns"}}}
    assert subject_access_review(ask, authorizer)["status"]["allowed"] is True
    own = {"spec": {"nonResourceAttributes": {"verb": "get", "path": "/metrics"}}}
    assert self_subject_access_review(User("bob"), own, authorizer)["status"]["allowed"] is False
    with pytest.raises(Invalid):
        self_subject_access_review(User("bob"), {"spec": {}}, authorizer)
    status = self_subject_rules_review(User("bob"), {"spec": {"namespace": "ns"}}, authorizer)["status"]
    assert any("pods" in r["resources"] for r in status["resourceRules"])
    token = tokens.request("ns", "agent", {"spec": {"audiences": ["quarterdeck"]}})["status"]["token"]
    good = token_review({"spec": {"token": token, "audiences": ["quarterdeck", "z"]}}, authenticator)["status"]
    assert good["authenticated"] and good["audiences"] == ["quarterdeck"]
    bad = token_review({"spec": {"token": token}}, authenticator)["status"]
    assert "authenticated" not in bad and "audiences" in bad["error"]


@pytest.mark.parametrize(
    ("host", "origin", "site", "allowed"),
    [
        (b"127.0.0.1:8703", None, None, True), (b"[::1]:8703", None, None, True), (None, None, None, True),
        (b"evil.example:8703", None, None, False), (b"127.0.0.1.evil.example", None, None, False),
        (b"localhost", b"https://localhost:8700", b"same-site", True), (b"localhost", b"https://evil", None, False),
        (b"localhost", b"null", None, False), (b"localhost", None, b"cross-site", False),
        (b"localhost", None, b"none", True),
    ],
)  # fmt: skip
def test_browser_checks(host: bytes | None, origin: bytes | None, site: bytes | None, allowed: bool) -> None:
    if allowed:
        check_browser(host, origin, site)
    else:
        with pytest.raises(Forbidden):
            check_browser(host, origin, site)


def test_secrets_at_rest(tmp_path: Path) -> None:
    path = tmp_path / "pki" / "encryption.key"
    cipher = SecretCipher(path)
    stored = cipher.encrypt(b"hunter2", b"secrets/ns/a")
    assert b"hunter2" not in stored and path.stat().st_mode & 0o777 == 0o600
    assert SecretCipher(path).decrypt(stored, b"secrets/ns/a") == b"hunter2"
    cipher.rotate()
    assert cipher.decrypt(stored, b"secrets/ns/a") == b"hunter2" and cipher.needs_rewrite(stored)
    for bad, aad in (
        (stored, b"secrets/ns/b"),
        (stored[:-1] + bytes([stored[-1] ^ 1]), b"secrets/ns/a"),
        (stored[:15], b"x"),
        (b"{}", b"x"),
    ):
        with pytest.raises(StorageError):
            cipher.decrypt(bad, aad)
    with pytest.raises(StorageError, match="original key file"):
        SecretCipher(tmp_path / "other.key").decrypt(stored, b"secrets/ns/a")
    path.write_bytes(b"half")
    with pytest.raises(StorageError, match=r"encryption\.key"):
        SecretCipher(path)


def test_certificates_are_kept_renewed_and_checked(tmp_path: Path) -> None:
    first = ensure_pki(tmp_path)
    serving = first.serving_pair()
    before = serving.certificate.read_bytes()
    assert all(f.stat().st_mode & 0o777 == 0o600 for f in (tmp_path / "pki").iterdir())
    assert (tmp_path / "pki").stat().st_mode & 0o777 == 0o700
    again = ensure_pki(tmp_path)
    assert again.ca_pem == first.ca_pem and again.jwks() == first.jwks()
    assert again.serving_pair().certificate.read_bytes() == before
    later = ensure_pki(tmp_path, now=dt.datetime.now(dt.UTC) + dt.timedelta(days=330))
    renewed = later.serving_pair().certificate.read_bytes()
    assert renewed != before and later.ca_pem == first.ca_pem
    assert ensure_pki(tmp_path, ["qd.local"]).serving_pair().certificate.read_bytes() != renewed
    for name in ("ca.crt", "ca.key", "sa.key"):
        path = tmp_path / "pki" / name
        good = path.read_bytes()
        path.write_bytes(good[: len(good) // 2])
        with pytest.raises(StorageError, match=name.replace(".", r"\.")):
            ensure_pki(tmp_path)
        path.write_bytes(good)


def test_kubeconfig(tmp_path: Path) -> None:
    path = tmp_path / "kubeconfig"
    assert kubeconfig_token(path) is None
    write_kubeconfig(path, "https://127.0.0.1:1", b"PEM", "tok")
    assert path.stat().st_mode & 0o777 == 0o600 and kubeconfig_token(path) == "tok"
    path.write_text("a: [")
    with pytest.raises(StorageError, match="kubeconfig"):
        kubeconfig_token(path)
