"""Listeners of a Gateway: which can be served, on which port, with which certificates (gateway_types.go)."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import lru_cache

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

from quarterdeck.errors import ConfigError
from quarterdeck.kube.resource import Object
from quarterdeck.resources.gateway_api import GROUP
from quarterdeck.resources.gateway_api.gateway import GatewaySpec, Listener
from quarterdeck.resources.gateway_api.references import ObjectRef
from quarterdeck.snapshot.routing import Certificate

from .status import Problem, Verdict, accepted, refused, resolved
from .world import GatewayWorld, key_of, not_permitted

RESERVED = frozenset({8701, 8702, 8704, 15000, 15020, 15021})
"""The gateway's own."""
_PRIVILEGED, _SHIFT = 1024, 8000
_PROTOCOLS = ("HTTP", "HTTPS")
_PORTS = 65536


@dataclass(slots=True)
class ListenerState:
    """One listener, and what was found out about it."""

    spec: Listener
    kinds: list[str]
    accepted: Verdict
    resolved: Verdict
    conflicted: Verdict
    certificates: tuple[Certificate, ...] = ()
    client_ca: str = ""
    port: int = 0
    """Where it is bound; 0 while it cannot be served."""
    valid: bool = field(init=False)

    def __post_init__(self) -> None:
        secured = self.spec.protocol != "HTTPS" or bool(self.certificates)
        self.valid = self.accepted.status == "True" and secured and bool(self.kinds)


def listener_states(gateway: Object, spec: GatewaySpec, world: GatewayWorld) -> list[ListenerState]:
    """The listeners in their order, without ports."""
    conflicts = _conflicts(spec.listeners)
    states: list[ListenerState] = []
    for listener in spec.listeners:
        kinds, problems = _kinds(listener)
        certificates, client_ca = (), ""
        conflict = conflicts.get(listener.name)
        verdict = _accepted(listener, conflict)
        if listener.protocol == "HTTPS":
            certificates, found = _certificates(gateway, listener, world)
            client_ca, more = _client_ca(gateway, spec, listener, world)
            problems += found + more
            if client_ca is None:
                problem = Problem("NoValidCACertificate", "of no authority of clients a bundle can be read")
                verdict = refused("Accepted", problem) if verdict.status == "True" else verdict
        states.append(
            ListenerState(
                listener,
                kinds,
                verdict,
                resolved(problems),
                Verdict("Conflicted", "False", "NoConflicts")
                if conflict is None
                else Verdict("Conflicted", "True", conflict.reason, conflict.message),
                certificates,
                client_ca or "",
            )
        )
    return states


def _accepted(listener: Listener, conflict: Problem | None) -> Verdict:
    if listener.protocol not in _PROTOCOLS:
        return refused(
            "Accepted",
            Problem("UnsupportedProtocol", f"protocol {listener.protocol} is not served; use HTTP or HTTPS"),
        )
    if listener.protocol == "HTTPS" and listener.tls is not None and listener.tls.mode != "Terminate":
        return refused(
            "Accepted", Problem("UnsupportedValue", f"tls.mode {listener.tls.mode} is not served; use Terminate")
        )
    return accepted() if conflict is None else refused("Accepted", conflict)


def _conflicts(listeners: list[Listener]) -> dict[str, Problem]:
    """Listeners that cannot be told apart: of none of them is it said that it won."""
    found: dict[str, Problem] = {}
    for one in listeners:
        for other in listeners:
            if one is other or one.port != other.port:
                continue
            if one.protocol != other.protocol:
                text = f"listener {other.name} has port {one.port} with protocol {other.protocol}"
                found[one.name] = Problem("ProtocolConflict", text)
            elif (one.hostname or "").lower() == (other.hostname or "").lower() and one.name not in found:
                text = f"listener {other.name} has the same port, protocol and hostname"
                found[one.name] = Problem("HostnameConflict", text)
    return found


def _kinds(listener: Listener) -> tuple[list[str], list[Problem]]:
    if listener.protocol not in _PROTOCOLS:
        return [], []
    if not listener.allowed_routes.kinds:
        return ["HTTPRoute"], []
    names = [(kind.group, kind.kind) for kind in listener.allowed_routes.kinds]
    wrong = [f"{group}/{kind}" for group, kind in names if (group, kind) != (GROUP, "HTTPRoute")]
    problems = [Problem("InvalidRouteKinds", f"routes of kind {', '.join(wrong)} are not served")] if wrong else []
    return (["HTTPRoute"] if len(wrong) < len(names) else []), problems


def _certificates(
    gateway: Object, listener: Listener, world: GatewayWorld
) -> tuple[tuple[Certificate, ...], list[Problem]]:
    refs = (listener.tls.certificate_refs if listener.tls else None) or []
    if not refs:
        return (), [Problem("InvalidCertificateRef", f"listener {listener.name} names no certificate")]
    found: list[Certificate] = []
    problems: list[Problem] = []
    for ref in refs:
        answer = _certificate(gateway, ref, world)
        if isinstance(answer, Problem):
            problems.append(answer)
        else:
            found.append(answer)
    return tuple(found), problems


def _certificate(gateway: Object, ref: ObjectRef, world: GatewayWorld) -> Certificate | Problem:
    if (ref.group, ref.kind) != ("", "Secret"):
        return Problem("InvalidCertificateRef", f"{ref.group}/{ref.kind} {ref.name} is no Secret")
    home = key_of(gateway)[0]
    namespace = ref.namespace or home
    what = f"Secret {namespace}/{ref.name}"
    if not world.may_refer((GROUP, "Gateway", home), ("", "Secret", namespace, ref.name)):
        return not_permitted(what, namespace, f"Gateways of {home}")
    obj = world.secret(namespace, ref.name)
    if obj is None:
        return Problem("InvalidCertificateRef", f"{what} not found")
    data: dict[str, str] = obj.get("data") or {}
    try:
        chain, key = (base64.b64decode(data.get(name) or "", validate=True) for name in ("tls.crt", "tls.key"))
    except binascii.Error:
        return Problem("InvalidCertificateRef", f"{what}: tls.crt or tls.key is not base64")
    wrong = _unusable(chain, key)
    return Problem("InvalidCertificateRef", f"{what}: {wrong}") if wrong else Certificate(chain.decode(), key.decode())


@lru_cache(maxsize=1024)
def _unusable(chain: bytes, key: bytes) -> str:
    """Why the pair cannot serve TLS; empty when it can."""
    try:
        certificate = x509.load_pem_x509_certificates(chain)[0]
    except ValueError:
        return "tls.crt holds no PEM certificate"
    try:
        public = load_pem_private_key(key, None).public_key()
    except (ValueError, TypeError, UnsupportedAlgorithm):
        return "tls.key holds no PEM private key without password"
    form = (Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    if public.public_bytes(*form) != certificate.public_key().public_bytes(*form):
        return "tls.key is not the key of tls.crt"
    return ""


def _client_ca(
    gateway: Object, spec: GatewaySpec, listener: Listener, world: GatewayWorld
) -> tuple[str | None, list[Problem]]:
    """The bundle that client certificates of the port must be signed by; empty: they need none. None: it is asked for,
    and nothing of it can be read."""
    frontend = spec.tls.frontend if spec.tls else None
    wanted = frontend.of(listener.port) if frontend else None
    if wanted is None:
        return "", []
    if wanted.mode != "AllowValidOnly":
        return None, [Problem("InvalidCACertificateRef", f"mode {wanted.mode} is not served; use AllowValidOnly")]
    home = key_of(gateway)[0]
    bundle: list[str] = []
    problems: list[Problem] = []
    for ref in wanted.ca_certificate_refs or ():
        namespace = ref.namespace or home
        if (ref.group, ref.kind) != ("", "ConfigMap"):
            problems.append(Problem("InvalidCACertificateKind", f"{ref.group}/{ref.kind} {ref.name} is no ConfigMap"))
            continue
        if not world.may_refer((GROUP, "Gateway", home), ("", "ConfigMap", namespace, ref.name)):
            problems.append(not_permitted(f"ConfigMap {namespace}/{ref.name}", namespace, f"Gateways of {home}"))
            continue
        try:
            text = world.values.config_map(namespace, ref.name, "ca.crt")
            x509.load_pem_x509_certificates(text.encode())
        except (ConfigError, ValueError) as error:
            problems.append(
                Problem("InvalidCACertificateRef", f"ConfigMap {namespace}/{ref.name}: no CA bundle: {error}")
            )
        else:
            bundle.append(text)
    return "\n".join(bundle) or None, problems


def assign_ports(states: Iterable[ListenerState], taken: set[int]) -> None:
    """Where each valid listener is bound; ``taken`` are ports of others, and gets these. Deterministic.

    The wanted port where that is possible for a process without privileges and not somebody else's, else a high one:
    80 becomes 8080, 443 becomes 8443.
    """
    mapped: dict[int, int] = {}
    for state in states:
        if not state.valid:
            continue
        wanted = state.spec.port
        if wanted not in mapped:
            mapped[wanted] = _free(wanted, taken)
            taken.add(mapped[wanted])
        state.port = mapped[wanted]


def _free(wanted: int, taken: set[int]) -> int:
    usable = wanted >= _PRIVILEGED and wanted not in taken and wanted not in RESERVED
    port = wanted if usable else (wanted % (_PORTS - _SHIFT)) + _SHIFT
    while port in taken or port in RESERVED:
        port = port + 1 if port + 1 < _PORTS else _SHIFT
    return port
