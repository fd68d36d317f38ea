"""The conversion webhook's own certificates: made, renewed and replaced so that a client never meets an unknown one.

State is one value, :class:`Material`, kept in a Secret that all replicas share; :func:`advance` is the next step from
it. An authority is replaced in this order, each step visible to everybody before the next: the new authority joins the
bundle, the bundle is in the definitions, the serving certificate comes from the new authority, the old one expires.
Only the newest authority's key is kept: the older one has nothing left to sign.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import datetime as dt
import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

AUTHORITY_LIFE = dt.timedelta(days=365)
SERVING_LIFE = dt.timedelta(days=90)
OVERLAP = dt.timedelta(hours=1)
"""How long a new authority is in the bundle before it signs: API servers and replicas have seen it by then."""
_BACKDATE = dt.timedelta(minutes=10)
_PEM = re.compile(rb"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----\n?", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Material:
    """All PEM: trusted authorities (oldest first), the newest one's key, the serving certificate and its key."""

    authorities: tuple[bytes, ...]
    authority_key: bytes
    certificate: bytes
    key: bytes

    @property
    def bundle(self) -> bytes:
        """What clients trust; the ``caBundle`` of a definition."""
        return b"".join(self.authorities)


def initial(names: tuple[str, ...], now: dt.datetime) -> Material:
    """A new authority and a certificate for ``names`` (DNS names or addresses)."""
    authority, key = _authority(now)
    return _issued(Material((authority,), key, b"", b""), names, now)


def advance(material: Material, names: tuple[str, ...], now: dt.datetime, published: bool) -> Material:
    """The next step; the argument itself when nothing is due.

    ``published``: every client has ``material.bundle``. Renewal starts when a third of a certificate's life is left;
    a serving certificate about to end is replaced even if the bundle could not be published.
    """
    alive = tuple(pem for pem in material.authorities if _end(pem) > now)
    if alive != material.authorities and alive:
        material = replace(material, authorities=alive)
    newest = x509.load_pem_x509_certificate(material.authorities[-1])
    if now >= _renewal(newest):
        authority, key = _authority(now)
        material = replace(material, authorities=(*alive, authority), authority_key=key)
        newest, published = x509.load_pem_x509_certificate(authority), False
    serving = x509.load_pem_x509_certificate(material.certificate)
    current = _issued_by(serving, newest)
    if current and _names(serving) == set(names) and now < _renewal(serving):
        return material
    seen = published and now >= newest.not_valid_before_utc + _BACKDATE + OVERLAP
    ends = now >= serving.not_valid_after_utc - (serving.not_valid_after_utc - serving.not_valid_before_utc) / 10
    return _issued(material, names, now) if current or seen or ends else material


def encode(material: Material) -> dict[str, str]:
    """As the data of a ``kubernetes.io/tls`` Secret."""
    parts = {
        "ca.crt": material.bundle,
        "ca.key": material.authority_key,
        "tls.crt": material.certificate,
        "tls.key": material.key,
    }
    return {name: base64.b64encode(value).decode() for name, value in parts.items()}


def decode(data: Mapping[str, str]) -> Material:
    """The inverse of :func:`encode`. Raises ValueError when something is missing, unreadable or does not fit."""
    try:
        raw = {name: base64.b64decode(data[name]) for name in ("ca.crt", "ca.key", "tls.crt", "tls.key")}
    except (KeyError, binascii.Error) as error:
        raise ValueError(f"the Secret's data is incomplete: {error}") from error
    material = Material(tuple(_PEM.findall(raw["ca.crt"])), raw["ca.key"], raw["tls.crt"], raw["tls.key"])
    if not material.authorities:
        raise ValueError("ca.crt holds no certificate")
    for pem, key in ((material.authorities[-1], material.authority_key), (material.certificate, material.key)):
        if x509.load_pem_x509_certificate(pem).public_key() != _key(key).public_key():
            raise ValueError("a certificate and its key do not belong together")
    return material


def _authority(now: dt.datetime) -> tuple[bytes, bytes]:
    key = ec.generate_private_key(ec.SECP256R1())
    name = _subject(f"quarterdeck-webhook-ca-{now:%Y%m%d%H%M%S}")
    builder = _certificate(name, name, key.public_key(), now, now + AUTHORITY_LIFE)
    certificate = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True).sign(
        key, hashes.SHA256()
    )
    return _pem(certificate), _key_pem(key)


def _issued(material: Material, names: tuple[str, ...], now: dt.datetime) -> Material:
    issuer, issuer_key = x509.load_pem_x509_certificate(material.authorities[-1]), _key(material.authority_key)
    key = ec.generate_private_key(ec.SECP256R1())
    end = min(now + SERVING_LIFE, issuer.not_valid_after_utc)
    builder = _certificate(_subject(names[0][:64]), issuer.subject, key.public_key(), now, end)
    builder = (
        builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectAlternativeName([_general_name(name) for name in names]), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), critical=False)
    )
    certificate = builder.sign(issuer_key, hashes.SHA256())
    return replace(material, certificate=_pem(certificate), key=_key_pem(key))


def _certificate(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, now: dt.datetime, end: dt.datetime
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _BACKDATE)
        .not_valid_after(end)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _renewal(certificate: x509.Certificate) -> dt.datetime:
    life = certificate.not_valid_after_utc - certificate.not_valid_before_utc
    return certificate.not_valid_after_utc - life / 3


def _end(pem: bytes) -> dt.datetime:
    return x509.load_pem_x509_certificate(pem).not_valid_after_utc


def _issued_by(certificate: x509.Certificate, authority: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(authority)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


def _names(certificate: x509.Certificate) -> set[str]:
    found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return {str(name.value) for name in found}


def _general_name(name: str) -> x509.GeneralName:
    with contextlib.suppress(ValueError):
        return x509.IPAddress(ipaddress.ip_address(name))
    return x509.DNSName(name)


def _subject(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _key(pem: bytes) -> ec.EllipticCurvePrivateKey:
    key = serialization.load_pem_private_key(pem, None)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise ValueError("not an ECDSA key")
    return key


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
