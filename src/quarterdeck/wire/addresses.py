"""Where no URL of a resource may lead whoever dials for it, whatever name it has: decided on the address it led to."""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import IPv4Address, IPv6Address, ip_address


def plain(address: str) -> IPv4Address | IPv6Address:
    """An address without zone, IPv4 in its own form. Raises ValueError."""
    ip = ip_address(address.partition("%")[0])
    return ip.ipv4_mapped or ip if isinstance(ip, IPv6Address) else ip


def refused(host: str, address: str, closed: Callable[[str], object]) -> str:
    """Why a connection to ``host`` that reached ``address`` may not be used; empty when it may.

    ``closed`` is true of addresses of agents, MCP servers and models, which nobody's own DNS name may lead to. One that
    was dialled as an address comes from their EndpointSlices, or was checked when the configuration was made.
    """
    ip = plain(address)
    if ip.is_link_local:
        return "is a link-local address, where machines keep their metadata: the gateway does not call those"
    if closed(str(ip)) and not _is_address(host):
        return (
            f"is a name for {ip}, the address of an agent, MCP server or model of this cluster: "
            "name its Service instead, where it is open to this namespace"
        )
    return ""


def _is_address(host: str) -> bool:
    try:
        ip_address(host.strip("[]").partition("%")[0])
    except ValueError:
        return False
    return True
