"""Certificates of listeners and authorities of clients (gateway_types.go, GatewayTLSConfig)."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from .objects import compiled, verdict


def pair(name: str = "a.example") -> tuple[str, str]:
    """PEM of a certificate and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime(2026, 1, 1, tzinfo=UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now)
        .not_valid_after(now + timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return certificate.public_bytes(Encoding.PEM).decode(), private.decode()


def secret(chain: str, key: str, namespace: str = "infra", name: str = "cert") -> str:
    metadata = {"name": name, "namespace": namespace}
    return yaml.safe_dump({"kind": "Secret", "metadata": metadata, "stringData": {"tls.crt": chain, "tls.key": key}})


def gateway(*refs: dict[str, str], **spec: object) -> str:
    listener = {"name": "tls", "port": 443, "protocol": "HTTPS", "tls": {"certificateRefs": list(refs)}}
    body = {"gatewayClassName": "quarterdeck", "listeners": [listener]} | spec
    return yaml.safe_dump({"kind": "Gateway", "metadata": {"name": "gw", "namespace": "infra"}, "spec": body})


GRANT = """
kind: ReferenceGrant
metadata: {name: g, namespace: other}
spec: {from: [{group: gateway.networking.k8s.io, kind: Gateway, namespace: infra}], to: [{group: '', kind: Secret}]}
"""
FIRST, SECOND = pair(), pair()


@pytest.mark.parametrize(
    ("refs", "texts", "reason", "served"),
    [
        ([{"name": "cert"}], [secret(*FIRST)], "ResolvedRefs", 1),
        ([{"name": "cert"}], [secret(FIRST[0], SECOND[1])], "InvalidCertificateRef", 0),
        ([{"name": "cert"}], [secret("Hello", FIRST[1])], "InvalidCertificateRef", 0),
        ([{"name": "cert"}], [secret(FIRST[0], "")], "InvalidCertificateRef", 0),
        ([{"name": "cert"}, {"name": "none"}], [secret(*FIRST)], "InvalidCertificateRef", 1),
        ([{"name": "cert", "namespace": "other"}], [secret(*FIRST, namespace="other")], "RefNotPermitted", 0),
        ([{"name": "cert", "namespace": "other"}], [secret(*FIRST, namespace="other"), GRANT], "ResolvedRefs", 1),
    ],
)
def test_certificates(refs: list[dict[str, str]], texts: list[str], reason: str, served: int) -> None:
    """A listener is served while one of its certificates is good; every bad one is told."""
    result = compiled(gateway(*refs), *texts)
    (listener,) = result.statuses.gateways["infra", "gw"].listeners
    assert verdict(listener.verdicts, "ResolvedRefs")[1] == reason
    found = result.gateways["infra", "gw"].listeners
    assert [len(each.certificates) for each in found] == ([served] if served else [])
    if served:
        assert (found[0].protocol, found[0].port, found[0].public_port) == ("HTTPS", 8443, 443)


def frontend(name: str, mode: str = "AllowValidOnly", kind: str = "ConfigMap") -> dict[str, object]:
    ref = {"group": "", "kind": kind, "name": name}
    return {"frontend": {"default": {"validation": {"mode": mode, "caCertificateRefs": [ref]}}}}


@pytest.mark.parametrize(
    ("tls", "reason"),
    [
        (frontend("ca"), "ResolvedRefs"),
        (frontend("none"), "InvalidCACertificateRef"),
        (frontend("broken"), "InvalidCACertificateRef"),
        (frontend("ca", kind="Secret"), "InvalidCACertificateKind"),
        (frontend("ca", mode="AllowInsecureFallback"), "InvalidCACertificateRef"),
    ],
)
def test_who_must_show_a_certificate_is_never_let_in_without(tls: dict[str, object], reason: str) -> None:
    ca = yaml.safe_dump(
        {"kind": "ConfigMap", "metadata": {"name": "ca", "namespace": "infra"}, "data": {"ca.crt": FIRST[0]}}
    )
    bad = "kind: ConfigMap\nmetadata: {name: broken, namespace: infra}\ndata: {ca.crt: Hello}"
    result = compiled(gateway({"name": "cert"}, tls=tls), secret(*FIRST), ca, bad)
    (listener,) = result.statuses.gateways["infra", "gw"].listeners
    assert verdict(listener.verdicts, "ResolvedRefs")[1] == reason
    accepted = ("True", "Accepted") if reason == "ResolvedRefs" else ("False", "NoValidCACertificate")
    assert verdict(listener.verdicts, "Accepted") == accepted
    served = result.gateways["infra", "gw"].listeners
    assert [each.client_ca for each in served] == ([FIRST[0]] if reason == "ResolvedRefs" else [])
