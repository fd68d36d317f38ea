"""Redirects and rewrites (Gateway API's RequestRedirect and URLRewrite) as functions of a request."""

from __future__ import annotations

from urllib.parse import quote

from quarterdeck.snapshot.policies import Redirect, Rewrite

from .paths import Path

_DEFAULT_PORTS = {"http": 80, "https": 443}


def replaced(path: Path, prefix: int, whole: str | None, part: str | None) -> bytes:
    """The path after a rule: all of it is ``whole``, or its first ``prefix`` characters are ``part``."""
    if whole is not None:
        return quoted(whole) or b"/"
    if part is None:
        return path.raw
    rest = path.after(prefix)
    start = quoted(part).rstrip(b"/")
    if rest and not rest.startswith((b"/", b"%2F")):
        rest = b"/" + rest
    return start + rest or b"/"


def quoted(text: str) -> bytes:
    """A configured path as it stands in a request; escapes in it stay."""
    path = quote(text, safe="/%:@!$&'()*+,;=~-._")
    return (path if path.startswith("/") else f"/{path}").encode("ascii") if path else b""


def rewritten(rule: Rewrite | None, path: Path, prefix: int) -> bytes:
    """Path and query towards the backend."""
    if rule is None:
        return path.target
    raw = replaced(path, prefix, rule.path, rule.prefix)
    return b"%b?%b" % (raw, path.query) if path.query else raw


def location(rule: Redirect, path: Path, prefix: int, *, scheme: str, host: str, port: int) -> bytes:
    """The Location of a redirect. ``scheme`` and ``host`` are the request's, ``port`` is the listener's.

    The port is the rule's, else the well-known one of a scheme the rule gives, else the listener's; it is left out
    where the scheme implies it.
    """
    to = rule.scheme.lower() or scheme
    number = rule.port or (_DEFAULT_PORTS.get(rule.scheme.lower(), port) if rule.scheme else port)
    authority = rule.host or host
    if number and number != _DEFAULT_PORTS.get(to):
        authority = f"{authority}:{number}"
    raw = replaced(path, prefix, rule.path, rule.prefix)
    target = raw + b"?" + path.query if path.query else raw
    return f"{to}://{authority}".encode("latin-1") + target
