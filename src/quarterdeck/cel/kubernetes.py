"""Kubernetes' URL and format libraries."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, ClassVar
from urllib.parse import SplitResult, parse_qs, quote, urlsplit

from quarterdeck.cel import types
from quarterdeck.cel.errors import EvalError, no_overload
from quarterdeck.cel.function import Function
from quarterdeck.cel.values import NONE, Duration, Optional, Timestamp, type_name


@dataclass(frozen=True, slots=True)
class URL:
    text: str
    parts: SplitResult
    cel_type: ClassVar[str] = "kubernetes.URL"

    @classmethod
    def parse(cls, text: Any) -> URL:
        """An absolute URI or an absolute path, as Go's ``url.ParseRequestURI``. Raises EvalError."""
        if type(text) is not str:
            raise no_overload(f"url applied to {type_name(text)}")
        try:
            parts = urlsplit(text)
            _ = parts.port
        except ValueError as error:
            raise EvalError(f"URL parse error during conversion from string: {error}") from None
        if not (parts.scheme or text.startswith("/")) or re.search(r"[\x00-\x20\x7f]", text):
            raise EvalError(f"URL parse error during conversion from string: parse {text!r}: invalid URI for request")
        return cls(text, parts)


def _host(url: URL) -> str:
    return url.parts.netloc.rpartition("@")[2]


def _hostname(url: URL) -> str:
    host = _host(url)
    return host[1:].partition("]")[0] if host.startswith("[") else host.partition(":")[0]


def _is_url(text: Any) -> bool:
    try:
        URL.parse(text)
    except EvalError:
        return False
    return True


def _port(url: URL) -> str:
    return "" if url.parts.port is None else str(url.parts.port)


URL_MEMBERS: dict[str, Function] = {
    "getScheme": Function(lambda url: url.parts.scheme, ("",), types.STRING),
    "getHost": Function(_host, ("",), types.STRING),
    "getHostname": Function(_hostname, ("",), types.STRING),
    "getPort": Function(_port, ("",), types.STRING),
    "getEscapedPath": Function(lambda url: quote(url.parts.path, safe="/%:@!$&'()*+,;=~-._"), ("",), types.STRING),
    "getQuery": Function(lambda url: parse_qs(url.parts.query, keep_blank_values=True), ("",), types.MAP),
}

_LABEL = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?"
_PATTERNS: dict[str, tuple[str, int, str]] = {
    "dns1123Label": (_LABEL, 63, "a lowercase RFC 1123 label"),
    "dns1123Subdomain": (rf"{_LABEL}(\.{_LABEL})*", 253, "a lowercase RFC 1123 subdomain"),
    "dns1035Label": (r"[a-z]([-a-z0-9]*[a-z0-9])?", 63, "a DNS-1035 label"),
    "labelValue": (r"(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?", 63, "a valid label value"),
    "dns1123LabelPrefix": (r"[a-z0-9]([-a-z0-9]*[a-z0-9])?-?", 63, "a prefix of a lowercase RFC 1123 label"),
    "dns1123SubdomainPrefix": (rf"{_LABEL}(\.{_LABEL})*[-.]?", 253, "a prefix of a lowercase RFC 1123 subdomain"),
    "dns1035LabelPrefix": (r"[a-z]([-a-z0-9]*[a-z0-9])?-?", 63, "a prefix of a DNS-1035 label"),
    "uuid": (r"[0-9a-fA-F]{8}(-?[0-9a-fA-F]{4}){3}-?[0-9a-fA-F]{12}", 45, "a UUID"),
    "byte": (r"[A-Za-z0-9+/]*={0,2}", 1 << 20, "valid base64"),
    "date": (r"\d{4}-\d\d-\d\d", 10, "a date"),
}
_QUALIFIED = re.compile(r"([A-Za-z0-9][-A-Za-z0-9_.]{0,61})?[A-Za-z0-9]\Z")


@dataclass(frozen=True, slots=True)
class Format:
    """A named format of Kubernetes' ``format`` library."""

    name: str
    cel_type: ClassVar[str] = "kubernetes.NamedFormat"

    def problems(self, text: str) -> list[str]:
        """Why ``text`` is not of this format; empty when it is."""
        if self.name in _PATTERNS:
            pattern, longest, description = _PATTERNS[self.name]
            if len(text) > longest:
                return [f"must be no more than {longest} bytes"]
            return [] if re.fullmatch(pattern, text) else [f"{description} is required, matching '{pattern}'"]
        if self.name == "qualifiedName":
            prefix, slash, name = text.rpartition("/")
            problems = Format("dns1123Subdomain").problems(prefix) if slash else []
            return problems if _QUALIFIED.match(name) else [*problems, "name part must be a qualified name"]
        if self.name == "uri":
            return [] if _is_url(text) else ["invalid URI"]
        try:
            _ = Timestamp.parse(text) if self.name == "datetime" else Duration.parse(text)
        except EvalError as error:
            return [str(error)]
        return []


_FORMATS = (*_PATTERNS, "qualifiedName", "uri", "datetime")


def _validate(named: Format, text: Any) -> Optional:
    if type(text) is not str:
        raise no_overload(f"validate applied to {type_name(text)}")
    problems = named.problems(text)
    return Optional(True, problems) if problems else NONE


def _named(name: Any) -> Optional:
    return Optional(True, Format(name)) if name in _FORMATS else NONE


def _constant(name: str) -> Function:
    value = Format(name)
    return Function(lambda: value, ())


FORMAT_MEMBERS: dict[str, Function] = {"validate": Function(_validate, ("", "string"), types.OPTIONAL)}
FUNCTIONS: dict[str, Function] = {
    "url": Function(URL.parse, ("string",)),
    "isURL": Function(_is_url, ("string",), types.BOOL),
    "format.named": Function(_named, ("string",), types.OPTIONAL),
} | {f"format.{name}": _constant(name) for name in _FORMATS}
