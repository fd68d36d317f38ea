"""The platform's own certificate authority, its certificates, and the ServiceAccount signing key.

Everything lives in ``<data dir>/pki``, 0600. Keys are ECDSA P-256 and tokens are signed with ES256: all consumers of
these tokens (our API server, gateway and management API; any OIDC library) verify it, a key costs well under a
millisecond where RSA-2048 takes a tenth of a second or more of the start, and signing a token is twenty times cheaper.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import ipaddress
import ssl
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from joserfc.jwk import ECKey

from quarterdeck.errors import StorageError

from .files import private_dir, read_private, write_private
from .identity import MASTERS, NODE_PREFIX, NODES

_CA_LIFE = dt.timedelta(days=3650)
_LEAF_LIFE = dt.timedelta(days=365)
_RENEW_BEFORE = dt.timedelta(days=60)
_BACKDATE = dt.timedelta(minutes=10)
_SERVING_NAMES = (
    "localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc",
    "kubernetes.default.svc.cluster.local", "127.0.0.1", "::1",
)  # fmt: skip
KUBELET_CLIENT = "kube-apiserver-kubelet-client"
ADMIN_NAME = "kubernetes-admin"


@dataclass(frozen=True, slots=True)
class KeyPair:
    """Paths of a certificate and its key, both PEM and 0600."""

    certificate: Path
    key: Path


class Pki:
    """Issues and keeps certificates. Made by :func:`ensure_pki`."""

    def __init__(self, directory: Path, hosts: Collection[str], now: dt.datetime) -> None:
        self.directory = private_dir(directory)
        self.ca_path = directory / "ca.crt"
        self._hosts = tuple(dict.fromkeys((*_SERVING_NAMES, *hosts)))
        self._now = now
        self._ca_key, self._ca = self._ensure_ca()
        self.service_account_key = self._ensure_service_account_key()

    @property
    def ca_pem(self) -> bytes:
        return self._ca.public_bytes(serialization.Encoding.PEM)

    def serving_pair(self) -> KeyPair:
        """The API server's serving certificate; renewed when it nears its end or its names changed."""
        return self._ensure_leaf("apiserver", "kube-apiserver", (), self._hosts)

    def serving_context(self) -> ssl.SSLContext:
        """TLS for the HTTPS listener; a client certificate is optional and must come from our CA."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        pair = self.serving_pair()
        context.load_cert_chain(pair.certificate, pair.key)
        context.load_verify_locations(cadata=self.ca_pem.decode())
        context.verify_mode = ssl.CERT_OPTIONAL
        return context

    def client_pair(self, file: str, name: str, groups: Collection[str] = ()) -> KeyPair:
        """A client certificate: ``name`` is the user (CN), ``groups`` its groups (O); kept as ``<file>.crt/.key``."""
        return self._ensure_leaf(file, name, groups, ())

    def kubelet_client_pair(self) -> KeyPair:
        """How the API server presents itself to kubelets."""
        return self.client_pair("apiserver-kubelet-client", KUBELET_CLIENT, (MASTERS,))

    def kubelet_client_context(self) -> ssl.SSLContext:
        """TLS for connections to kubelets. The chain is verified; names are not, as nodes are dialled by address."""
        pair = self.kubelet_client_pair()
        context = ssl.create_default_context(cadata=self.ca_pem.decode())
        context.check_hostname = False
        context.load_cert_chain(pair.certificate, pair.key)
        return context

    def node_pair(self, node: str) -> KeyPair:
        """The node's identity towards the API server: ``system:node:<name>`` in group ``system:nodes``."""
        return self.client_pair(f"node-{node}", f"{NODE_PREFIX}{node}", (NODES,))

    def node_serving_pair(self, node: str, hosts: Collection[str] = ()) -> KeyPair:
        """The serving certificate of a node's kubelet API."""
        names = tuple(dict.fromkeys((node, "localhost", "127.0.0.1", "::1", *hosts)))
        return self._ensure_leaf(f"node-{node}-serving", f"{NODE_PREFIX}{node}", (NODES,), names)

    def jwks(self) -> dict[str, list[dict[str, object]]]:
        """The public part of the ServiceAccount key as a JWK Set (RFC 7517)."""
        return {"keys": [dict(self.service_account_key.as_dict(private=False))]}

    # -- inside
    def _ensure_ca(self) -> tuple[ec.EllipticCurvePrivateKey, x509.Certificate]:
        key_path = self.directory / "ca.key"
        key_pem, pem = read_private(key_path), read_private(self.ca_path)
        if key_pem is not None and pem is not None:
            key, certificate = _load_key(key_path, key_pem), _load_certificate(self.ca_path, pem)
            if certificate.public_key() != key.public_key():
                raise StorageError(f"{self.ca_path} does not belong to {key_path}; restore both from one backup")
            if certificate.not_valid_after_utc <= self._now:
                raise StorageError(f"{self.ca_path} has expired; remove {self.directory} to make a new one")
            return key, certificate
        if pem is not None:
            raise StorageError(f"{key_path} is missing although {self.ca_path} exists; restore it from a backup")
        # A key without certificate is what a crash between the two writes leaves: the key is kept and used.
        key = _load_key(key_path, key_pem) if key_pem is not None else ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "quarterdeck-ca")])
        usage = _key_usage(ca=True)
        identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
        certificate = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(self._now - _BACKDATE)
            .not_valid_after(self._now + _CA_LIFE)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(usage, critical=True)
            .add_extension(identifier, critical=False)
            .sign(key, hashes.SHA256())
        )
        write_private(key_path, _key_pem(key))
        write_private(self.ca_path, certificate.public_bytes(serialization.Encoding.PEM))
        return key, certificate

    def _ensure_leaf(self, file: str, name: str, groups: Collection[str], hosts: Collection[str]) -> KeyPair:
        pair = KeyPair(self.directory / f"{file}.crt", self.directory / f"{file}.key")
        pem, key_pem = read_private(pair.certificate), read_private(pair.key)
        if pem is not None and key_pem is not None:
            certificate, key = _load_certificate(pair.certificate, pem), _load_key(pair.key, key_pem)
            if self._usable(certificate, key, name, groups, hosts):
                return pair
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = self._issue(key.public_key(), name, groups, hosts)
        write_private(pair.key, _key_pem(key))
        write_private(pair.certificate, certificate.public_bytes(serialization.Encoding.PEM))
        return pair

    def _usable(
        self,
        certificate: x509.Certificate,
        key: ec.EllipticCurvePrivateKey,
        name: str,
        groups: Collection[str],
        hosts: Collection[str],
    ) -> bool:
        if certificate.not_valid_after_utc - self._now < _RENEW_BEFORE or certificate.public_key() != key.public_key():
            return False
        if certificate.subject != _subject(name, groups) or _names_of(certificate) != set(hosts):
            return False
        try:
            certificate.verify_directly_issued_by(self._ca)
        except (ValueError, TypeError, InvalidSignature):
            return False
        return True

    def _issue(
        self, public_key: ec.EllipticCurvePublicKey, name: str, groups: Collection[str], hosts: Collection[str]
    ) -> x509.Certificate:
        purpose = ExtendedKeyUsageOID.SERVER_AUTH if hosts else ExtendedKeyUsageOID.CLIENT_AUTH
        builder = (
            x509.CertificateBuilder()
            .subject_name(_subject(name, groups))
            .issuer_name(self._ca.subject)
            .public_key(public_key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(self._now - _BACKDATE)
            .not_valid_after(min(self._now + _LEAF_LIFE, self._ca.not_valid_after_utc))
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_key_usage(ca=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self._ca_key.public_key()), critical=False
            )
        )
        if hosts:
            builder = builder.add_extension(
                x509.SubjectAlternativeName([_general_name(h) for h in hosts]), critical=False
            )
        return builder.sign(self._ca_key, hashes.SHA256())

    def _ensure_service_account_key(self) -> ECKey:
        path = self.directory / "sa.key"
        pem = read_private(path)
        if pem is None:
            pem = _key_pem(ec.generate_private_key(ec.SECP256R1()))
            write_private(path, pem)
        else:
            _load_key(path, pem)
        bare = ECKey.import_key(pem)
        return ECKey.import_key(pem, {"kid": bare.thumbprint(), "alg": "ES256", "use": "sig"})


def ensure_pki(data_dir: Path, hosts: Collection[str] = (), *, now: dt.datetime | None = None) -> Pki:
    """Open ``<data_dir>/pki``, making what is missing. Raises StorageError naming a file that cannot be used."""
    return Pki(Path(data_dir) / "pki", hosts, now or dt.datetime.now(dt.UTC))


def _subject(name: str, groups: Collection[str]) -> x509.Name:
    parts = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, group) for group in groups]
    return x509.Name([*parts, x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _general_name(host: str) -> x509.GeneralName:
    with contextlib.suppress(ValueError):
        return x509.IPAddress(ipaddress.ip_address(host))
    return x509.DNSName(host)


def _names_of(certificate: x509.Certificate) -> set[str]:
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return set()
    return {str(n.value) for n in names}


def _key_usage(*, ca: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        key_cert_sign=ca,
        crl_sign=ca,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _load_key(path: Path, pem: bytes) -> ec.EllipticCurvePrivateKey:
    try:
        key = serialization.load_pem_private_key(pem, None)
    except (ValueError, TypeError) as error:
        raise StorageError(f"{path} is not a readable private key; restore it from a backup") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise StorageError(f"{path} is not an ECDSA private key; restore the original")
    return key


def _load_certificate(path: Path, pem: bytes) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificate(pem)
    except ValueError as error:
        raise StorageError(f"{path} is not a readable certificate; restore it or remove it with its key") from error
