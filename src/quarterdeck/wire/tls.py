"""TLS contexts for upstreams."""

from __future__ import annotations

import ssl

from quarterdeck.errors import ConfigError


def client_context(*, insecure: bool = False, ca_pem: str = "", where: str = "") -> ssl.SSLContext:
    """A context that verifies against ``ca_pem`` (a PEM bundle) or the system's roots.

    ``insecure`` accepts any certificate. Raises ConfigError, naming ``where``, when the bundle holds no certificate.
    """
    try:
        context = ssl.create_default_context(cadata=ca_pem or None)
    except ssl.SSLError as error:
        raise ConfigError(f"{where or 'TLS'}: the CA bundle is not PEM certificates: {error}") from error
    if insecure:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context
