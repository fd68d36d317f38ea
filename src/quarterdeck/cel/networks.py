"""Kubernetes' IP and CIDR libraries."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from typing import Any, ClassVar

from quarterdeck.cel import types
from quarterdeck.cel.errors import EvalError, no_overload
from quarterdeck.cel.function import Function
from quarterdeck.cel.values import type_name


@dataclass(frozen=True, slots=True)
class IP:
    address: ipaddress.IPv4Address | ipaddress.IPv6Address
    cel_type: ClassVar[str] = "net.IP"

    def __str__(self) -> str:
        return str(self.address)


@dataclass(frozen=True, slots=True)
class CIDR:
    interface: ipaddress.IPv4Interface | ipaddress.IPv6Interface
    cel_type: ClassVar[str] = "net.CIDR"

    def __str__(self) -> str:
        return str(self.interface)


def _parse_ip(text: Any) -> IP:
    if type(text) is not str:
        raise no_overload(f"ip applied to {type_name(text)}")
    try:
        address = ipaddress.ip_address(text)
    except ValueError as error:
        raise EvalError(f"IP Address {text!r} parse error during conversion from string: {error}") from None
    if isinstance(address, ipaddress.IPv6Address) and (address.ipv4_mapped is not None or address.scope_id):
        raise EvalError(f"IPv4-mapped or zoned IPv6 address {text!r} is not allowed")
    return IP(address)


def _parse_cidr(text: Any) -> CIDR:
    if type(text) is not str:
        raise no_overload(f"cidr applied to {type_name(text)}")
    if not text.rpartition("/")[2].isdecimal() or "/" not in text:
        raise EvalError(f"network address parse error during conversion from string: {text!r}")
    try:
        return CIDR(ipaddress.ip_interface(text))
    except ValueError as error:
        raise EvalError(f"network address parse error during conversion from string: {error}") from None


def _is(parse: Any) -> Function:
    def call(text: Any) -> bool:
        try:
            parse(text)
        except EvalError:
            return False
        return True

    return Function(call, ("",), types.BOOL)


def _global_unicast(value: IP) -> bool:
    address = value.address
    broadcast = str(address) == "255.255.255.255"
    special = address.is_unspecified or address.is_loopback or address.is_multicast or address.is_link_local
    return not (broadcast or special)


def _contains_ip(value: CIDR, other: Any) -> bool:
    return (other if type(other) is IP else _parse_ip(other)).address in value.interface.network


def _contains_cidr(value: CIDR, other: Any) -> bool:
    inner = (other if type(other) is CIDR else _parse_cidr(other)).interface
    outer = value.interface.network
    return inner.version == outer.version and inner.ip in outer and inner.network.prefixlen >= outer.prefixlen


def _masked(value: CIDR) -> CIDR:
    return CIDR(ipaddress.ip_interface(str(value.interface.network)))


def _multicast_scope(value: IP, ipv4_prefix: str, ipv6_scope: int) -> bool:
    address = value.address
    if isinstance(address, ipaddress.IPv4Address):
        return address in ipaddress.ip_network(ipv4_prefix)
    return address.is_multicast and address.packed[1] & 0x0F == ipv6_scope


IP_MEMBERS: dict[str, Function] = {
    "family": Function(lambda value: value.address.version, ("",), types.INT),
    "isUnspecified": Function(lambda value: value.address.is_unspecified, ("",), types.BOOL),
    "isLoopback": Function(lambda value: value.address.is_loopback, ("",), types.BOOL),
    "isLinkLocalMulticast": Function(lambda value: _multicast_scope(value, "224.0.0.0/24", 2), ("",), types.BOOL),
    "isLinkLocalUnicast": Function(lambda value: value.address.is_link_local, ("",), types.BOOL),
    "isGlobalUnicast": Function(_global_unicast, ("",), types.BOOL),
}
CIDR_MEMBERS: dict[str, Function] = {
    "containsIP": Function(_contains_ip, ("", ""), types.BOOL),
    "containsCIDR": Function(_contains_cidr, ("", ""), types.BOOL),
    "ip": Function(lambda value: IP(value.interface.ip), ("",)),
    "masked": Function(_masked, ("",)),
    "prefixLength": Function(lambda value: value.interface.network.prefixlen, ("",), types.INT),
}
FUNCTIONS: dict[str, Function] = {
    "ip": Function(_parse_ip, ("string",)),
    "isIP": _is(_parse_ip),
    "ip.isCanonical": Function(lambda text: str(_parse_ip(text)) == text, ("string",), types.BOOL),
    "cidr": Function(_parse_cidr, ("string",)),
    "isCIDR": _is(_parse_cidr),
}
