"""TLS contexts: for upstreams, and for ports whose listeners are told apart by the name a client asks for (SNI)."""

from __future__ import annotations

import contextlib
import os
import ssl
from collections.abc import Generator, Mapping
from functools import lru_cache
from typing import Any, TypeVar

from cryptography import x509

from quarterdeck.errors import ConfigError


def client_context(
    *,
    insecure: bool = False,
    ca_pem: str = "",
    certificate: str = "",
    key: str = "",
    system: bool = False,
    where: str = "",
) -> ssl.SSLContext:
    """A context that verifies against ``ca_pem`` (a PEM bundle), with ``system`` beside the system's roots, or those.

    ``insecure`` accepts any certificate; ``certificate`` and ``key`` (PEM) are what we show of ourselves. Raises
    ConfigError, naming ``where``, when one of them is not what it should be.
    """
    if not (insecure or ca_pem or certificate):
        return _system()
    try:
        context = ssl.create_default_context(cadata=ca_pem or None)
        if ca_pem and system:
            context.load_default_certs()
    except (ssl.SSLError, ValueError) as error:
        raise ConfigError(f"{where or 'TLS'}: the CA bundle is not PEM certificates: {error}") from error
    if insecure:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if certificate:
        load_identity(context, certificate, key, where)
    return context


@lru_cache(maxsize=1)
def _system() -> ssl.SSLContext:
    """With the system's roots: reading them takes 20 ms, which calls would wait for at each reload."""
    return ssl.create_default_context()


def load_identity(context: ssl.SSLContext, chain: str, key: str, where: str) -> None:
    """Give a context a certificate chain and its key (PEM). Raises ConfigError naming ``where``."""
    try:
        with _as_file(chain) as chain_path, _as_file(key) as key_path:
            context.load_cert_chain(chain_path, key_path, password=_no_password)
    except (ssl.SSLError, OSError, ValueError) as error:
        raise ConfigError(f"{where or 'TLS'}: certificate and key cannot be used: {error}") from error


def _no_password() -> str:
    raise ValueError("the key is encrypted; give it without a passphrase")


@contextlib.contextmanager
def _as_file(text: str) -> Generator[str]:
    """OpenSSL reads files only: one in memory where there are such, else one that is ours alone and soon gone."""
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create("pem", os.MFD_CLOEXEC)
        try:
            os.write(descriptor, text.encode())
            yield f"/proc/self/fd/{descriptor}"
        finally:
            os.close(descriptor)
        return
    import tempfile  # needed on few systems, and it loads three compressors

    with tempfile.NamedTemporaryFile("w", suffix=".pem") as file:
        file.write(text)
        file.flush()
        yield file.name


class NamedContext(ssl.SSLContext):
    """A server context that knows for which listener it was made."""

    name: str = ""
    """Host name of the listener: exact, ``*.example.org``, or empty for all."""
    client_ca: str = ""
    """PEM of who may sign the certificates that clients must show; empty: they need none."""


class ListenerTls:
    """How one listener shakes hands: with the certificate whose names cover what the client asks for."""

    def __init__(
        self, name: str, certificates: tuple[tuple[str, str], ...], client_ca: str = "", *, where: str = ""
    ) -> None:
        """``certificates``: chain and key (PEM); those of the same names, say one RSA and one ECDSA, go together.

        ``client_ca`` (PEM): clients must present a certificate that one of these signed. Raises ConfigError naming
        ``where``.
        """
        if not certificates:
            raise ConfigError(f"{where}: an HTTPS listener needs a certificate")
        self.usable = True
        self.verifies = bool(client_ca)
        self._contexts: dict[str, NamedContext] = {}
        made: dict[tuple[str, ...], NamedContext] = {}
        for chain, key in certificates:
            names = _names(chain, where)
            context = made.get(names) or _server_context(name, client_ca, where)
            made[names] = context
            load_identity(context, chain, key, where)
            for covered in names:
                self._contexts.setdefault(covered, context)
        self._contexts.setdefault("", next(iter(made.values())))

    @classmethod
    def unusable(cls) -> ListenerTls:
        """In the place of a listener that has no good certificate: its names are refused, not served by another."""
        made = cls.__new__(cls)
        made.usable = made.verifies = False
        return made

    def context(self, name: str) -> NamedContext:
        """For the name a client asked for (lower case); the first certificate's when none covers it."""
        found = by_name(self._contexts, name)
        assert found is not None, "there is one for every name"
        return found


def _names(chain: str, where: str) -> tuple[str, ...]:
    """The DNS names of the first certificate of a chain."""
    try:
        leaf = x509.load_pem_x509_certificate(chain.encode())
        names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return ()
    except ValueError as error:
        raise ConfigError(f"{where}: the certificate is not PEM: {error}") from error
    return tuple(sorted({name.lower() for name in names.get_values_for_type(x509.DNSName)}))


def _server_context(name: str, client_ca: str, where: str) -> NamedContext:
    context = NamedContext(ssl.PROTOCOL_TLS_SERVER)
    context.name = name
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION
    context.set_alpn_protocols(["http/1.1"])
    if client_ca:
        context.client_ca = client_ca
        context.verify_mode = ssl.CERT_REQUIRED
        try:
            context.load_verify_locations(cadata=client_ca)
        except (ssl.SSLError, ValueError) as error:
            raise ConfigError(f"{where}: the client CA is not PEM certificates: {error}") from error
    return context


class PortContext(ssl.SSLContext):
    """The context a port listens with; each handshake is done by what :meth:`use` set last.

    The server keeps one context for as long as the port is open. This one only passes on to others, so that
    certificates change without closing anything.
    """

    _entry: ssl.SSLContext | None = None

    def use(self, listeners: Mapping[str, ListenerTls]) -> None:
        """From now on serve these, by host name."""
        self._entry = _entry(listeners)

    def wrap_bio(self, *args: Any, **options: Any) -> ssl.SSLObject:
        """What asyncio and uvloop call for each connection."""
        assert self._entry is not None, "use() comes before the first connection"
        return self._entry.wrap_bio(*args, **options)


def port_context() -> PortContext:
    return PortContext(ssl.PROTOCOL_TLS_SERVER)


def _entry(listeners: Mapping[str, ListenerTls]) -> ssl.SSLContext:
    """The context that a handshake begins in, before the client has said which name it wants."""
    verifying = sum(listener.verifies for listener in listeners.values())
    entry = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    entry.minimum_version = ssl.TLSVersion.TLSv1_2
    entry.options |= ssl.OP_NO_RENEGOTIATION
    entry.set_alpn_protocols(["http/1.1"])
    if verifying:
        # OpenSSL takes the demand for a certificate from where the handshake begins, and would resume a session of a
        # name that demands none under one that does: so ask on all names, and resume nothing. Whether a certificate
        # came is looked at again with each request, see gateway/http/listeners.py.
        entry.verify_mode = ssl.CERT_REQUIRED if verifying == len(listeners) else ssl.CERT_OPTIONAL
        entry.minimum_version = ssl.TLSVersion.TLSv1_3
        entry.num_tickets = 0

    def choose(connection: ssl.SSLObject, name: str | None, _: ssl.SSLContext) -> int | None:
        asked = (name or "").lower().rstrip(".")
        listener = by_name(listeners, asked)
        if listener is None or not listener.usable:
            return ssl.ALERT_DESCRIPTION_UNRECOGNIZED_NAME
        connection.context = listener.context(asked)
        return None

    entry.sni_callback = choose  # type: ignore[assignment]  # the stub leaves SSLObject out
    return entry


T = TypeVar("T")


def by_name(named: Mapping[str, T], name: str) -> T | None:
    """What the most specific of the host names has that cover ``name`` (lower case): exact, longest wildcard, all."""
    found = named.get(name) if name else None
    rest = name
    while found is None and "." in rest:
        rest = rest.partition(".")[2]
        found = named.get("*." + rest)
    return found if found is not None else named.get("")
