"""Which URLs that came as data may be asked: https, and no address that only this side of the network reaches.

A server, its metadata and its authorization server name further URLs. Whoever controls one of them must not make the
gateway ask what is inside (MCP security best practices, SSRF). Names that the configuration itself gives are trusted:
an issuer inside the cluster is named there. The address is judged after the connection is made, so no name can mean one
thing to the check and another to the request.
"""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import ip_address
from urllib.parse import SplitResult

from quarterdeck.errors import ConfigError, UpstreamError
from quarterdeck.wire.addresses import plain
from quarterdeck.wire.client import Pool
from quarterdeck.wire.tls import client_context

from ..policy.fetch import Fetcher, parse_url

Refuse = Callable[[str, str, int], str]


class GuardedFetcher(Fetcher):
    """Fetches from public addresses over TLS, and from the hosts that the configuration names."""

    def __init__(self, named: frozenset[str], refuse: Refuse, *, ca_pem: str = "") -> None:
        """``named``: host names from the configuration. ``refuse``: what no request of the gateway may reach."""
        self._named = named
        self._base = refuse
        self._guarded = Pool(tls=client_context(ca_pem=ca_pem) if ca_pem else None, refuse=self._refuse)

    def _pool(self, where: str) -> Pool:
        del where
        return self._guarded

    def check(self, url: str, what: str) -> SplitResult:
        """Raises UpstreamError when ``url``, which is the server's ``what``, must not be used."""
        try:
            parts = parse_url(url, what)
        except ConfigError as error:  # the server's word, not somebody's configuration
            raise UpstreamError(str(error)) from None
        if parts.fragment:
            raise UpstreamError(f"{what} {url!r} has a fragment")
        if parts.scheme != "https" and (parts.hostname or "").lower() not in self._named:
            raise UpstreamError(
                f"{what} {url!r} is not https; name its host in trustedHosts of the server's oauth settings to allow it"
            )
        return parts

    def _refuse(self, host: str, address: str, port: int) -> str:
        reason = self._base(host, address, port)
        if reason or host.lower() in self._named or plain(address).is_global:
            return reason
        return "leads to an address that is not public; name the host in trustedHosts to allow it"

    def close(self) -> None:
        self._guarded.close()


def is_loopback_host(host: str) -> bool:
    """Whether a host of a URL is this machine."""
    name = host.lower().strip("[]")
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        return ip_address(name).is_loopback
    except ValueError:
        return False
