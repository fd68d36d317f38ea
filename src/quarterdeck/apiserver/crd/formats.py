"""String formats a structural schema may name; unknown formats are ignored, as upstream does."""

from __future__ import annotations

import base64
import binascii
import ipaddress
import re
from collections.abc import Callable
from datetime import date
from urllib.parse import urlsplit

from quarterdeck.cel import Duration, EvalError, Timestamp

_UUID = r"[0-9a-f]{8}-?[0-9a-f]{4}-?%s[0-9a-f]{3}-?%s[0-9a-f]{3}-?[0-9a-f]{12}"
_HOSTNAME = re.compile(
    r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?(?:\.[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?)*\.?"
)
_EMAIL = re.compile(r"[^@\s<>,;]+@[^@\s<>,;]+")
_MAC = re.compile(r"(?:[0-9A-Fa-f]{2}[:-]){5}[0-9A-Fa-f]{2}|(?:[0-9A-Fa-f]{4}\.){2}[0-9A-Fa-f]{4}")
_COLOR = re.compile(r"#?(?:[0-9a-fA-F]{3}|[0-9a-fA-F]{6})")


def _pattern(expression: str, flags: int = 0) -> Callable[[str], bool]:
    compiled = re.compile(expression, flags)
    return lambda text: compiled.fullmatch(text) is not None


def _parses(parse: Callable[[str], object]) -> Callable[[str], bool]:
    def check(text: str) -> bool:
        try:
            parse(text)
        except (ValueError, EvalError, binascii.Error):
            return False
        return True

    return check


def _uri(text: str) -> bool:
    """What Go's ``url.ParseRequestURI`` takes: an absolute URI or an absolute path."""
    try:
        parts = urlsplit(text)
        _ = parts.port
    except ValueError:
        return False
    return bool(parts.scheme or text.startswith("/")) and not re.search(r"[\x00-\x20\x7f]", text)


def _duration(text: str) -> bool:
    return _parses(Duration.parse)(text) or re.fullmatch(r"\d+\s*(?:d|w|day|days|week|weeks)", text) is not None


FORMATS: dict[str, Callable[[str], bool]] = {
    "byte": _parses(lambda text: base64.b64decode(text, validate=True)),
    "date": _parses(date.fromisoformat),
    "date-time": _parses(Timestamp.parse),
    "datetime": _parses(Timestamp.parse),
    "duration": _duration,
    "email": lambda text: _EMAIL.fullmatch(text) is not None,
    "hostname": lambda text: len(text) <= 255 and _HOSTNAME.fullmatch(text) is not None,
    "ipv4": _parses(ipaddress.IPv4Address),
    "ipv6": _parses(ipaddress.IPv6Address),
    "ip": _parses(ipaddress.ip_address),
    "cidr": lambda text: "/" in text and _parses(ipaddress.ip_interface)(text),
    "mac": lambda text: _MAC.fullmatch(text) is not None,
    "uri": _uri,
    "uuid": _pattern(_UUID % ("[0-9a-f]", "[0-9a-f]"), re.I),
    "uuid3": _pattern(_UUID % ("3", "[0-9a-f]"), re.I),
    "uuid4": _pattern(_UUID % ("4", "[89ab]"), re.I),
    "uuid5": _pattern(_UUID % ("5", "[89ab]"), re.I),
    "hexcolor": lambda text: _COLOR.fullmatch(text) is not None,
    "rgbcolor": _pattern(r"rgb\(\s*\d{1,3}\s*,\s*\d{1,3}\s*,\s*\d{1,3}\s*\)"),
    "isbn10": _pattern(r"(?:\d[ -]?){9}[\dXx]"),
    "isbn13": _pattern(r"(?:\d[ -]?){13}"),
    "isbn": _pattern(r"(?:\d[ -]?){9}[\dXx]|(?:\d[ -]?){13}"),
    "creditcard": _pattern(r"(?:\d[ -]?){13,19}"),
    "ssn": _pattern(r"\d{3}[- ]?\d{2}[- ]?\d{4}"),
}
