"""What a browser sees of a sign-in: the question, the way to the authorization server, and the code at the end.

``start`` asks first (nothing begins by opening a link), then leads to the authorization server with a state that only
the browser's cookie can finish. ``callback`` ends in a code for the user's own client. Pages have no scripts, may not
be framed and are kept nowhere. ``client.json`` describes the gateway to authorization servers (CIMD).
"""

from __future__ import annotations

from collections.abc import Coroutine
from hashlib import sha256
from html import escape
from secrets import compare_digest, token_urlsafe
from typing import Any
from urllib.parse import parse_qsl

import msgspec

from quarterdeck.errors import QuarterdeckError
from quarterdeck.wire.http import Exchange, Header

from .flow import Refused
from .sign_ins import CALLBACK, DOCUMENT, LASTS, START, Begun, ServerDoor, SignIns, Ticket

_MOST = 16 * 1024
_COOKIE, _HOST = "qd-sign-in", "__Host-"
_CSP = b"default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'; base-uri 'none'"
_HEADERS: list[Header] = [
    (b"content-type", b"text/html; charset=utf-8"),
    (b"cache-control", b"no-store"),
    (b"content-security-policy", _CSP),
    (b"x-frame-options", b"DENY"),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
]
_PAGE = """<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>{title}</title><style>body{{font:1rem/1.5 system-ui;max-width:34rem;margin:4rem auto;padding:0 1rem}}
button{{font:inherit;padding:.5rem 1rem}}code{{font-size:2rem;letter-spacing:.2rem}}</style>
<h1>{title}</h1>{body}</html>"""


class Pages:
    """Answers below ``/.quarterdeck/oauth``."""

    def __init__(self, sign_ins: SignIns) -> None:
        self._sign_ins = sign_ins

    def handle(self, exchange: Exchange) -> Coroutine[Any, Any, None] | None:
        """Answer one request; a coroutine when something must be awaited."""
        path, _, query = exchange.target.decode("latin-1").partition("?")
        given = _form(query)
        if path == DOCUMENT and exchange.method == "GET":
            self._describe(exchange)
        elif path == START and exchange.method == "GET":
            self._ask(exchange, given.get("t", ""))
        elif path == START and exchange.method == "POST":
            return self._begin(exchange, _form(exchange.body.decode("latin-1")))
        elif path == CALLBACK and exchange.method == "GET":
            return self._finish(exchange, given)
        else:
            _page(exchange, 404, "Not here", "There is nothing at this address.")
        return None

    def _describe(self, exchange: Exchange) -> None:
        identity = self._sign_ins.identity
        body = msgspec.json.encode(identity.document(identity.metadata_url))
        exchange.respond(200, body, [(b"content-type", b"application/json"), (b"cache-control", b"max-age=300")])

    def _found(self, sealed: str) -> tuple[Ticket, ServerDoor] | None:
        ticket = self._sign_ins.ticket(sealed)
        door = self._sign_ins.found(ticket.server) if ticket is not None else None
        return (ticket, door) if ticket is not None and door is not None else None

    def _ask(self, exchange: Exchange, sealed: str) -> None:
        found = self._found(sealed)
        if found is None:
            _page(exchange, 400, "This link has expired", _AGAIN)
            return
        ticket, door = found
        label, browser = escape(door.label), token_urlsafe(24)
        scope = f"<p>It asks for: {escape(ticket.challenge.scope)}</p>" if ticket.challenge.scope else ""
        body = (
            f"<p>You are about to sign in at <b>{label}</b> ({escape(door.settings.url)}), so that "
            f"<b>{escape(ticket.user)}</b> can use it through Quarterdeck.</p>{scope}"
            "<p>Go on only if that is you, and you have just been asked to. If somebody sent you this link, close this "
            "page: they would use your account.</p>"
            f'<form method="post" action="{START.rpartition("/")[2]}">'
            f'<input type="hidden" name="t" value="{escape(sealed)}">'
            f'<input type="hidden" name="b" value="{browser}"><button>Sign in at {label}</button></form>'
        )
        _page(exchange, 200, f"Sign in at {door.label}", body, [self._cookie(browser)])

    async def _begin(self, exchange: Exchange, form: dict[str, str]) -> None:
        found = self._found(form.get("t", ""))
        browser = form.get("b", "")
        if found is None or not _same(_cookie_of(exchange, self._cookie_name), browser):
            _page(exchange, 400, "This page has expired", _AGAIN)
            return
        ticket, door = found
        try:
            url = await door.begin(ticket, _hash(browser))
        except QuarterdeckError as error:
            _page(exchange, 502, "The sign-in cannot begin", f"<p>{escape(door.label)} {escape(str(error))}</p>")
            return
        exchange.respond(303, b"", [(b"location", url.encode("ascii", "ignore")), *_HEADERS[1:]])

    async def _finish(self, exchange: Exchange, given: dict[str, str]) -> None:
        sign_ins = self._sign_ins
        begun: Begun | None = None
        door: ServerDoor | None = None
        try:
            begun = await sign_ins.begun(given.get("state", ""))
            door = sign_ins.found(begun.ticket.server) if begun is not None else None
            if begun is None or door is None:
                _page(exchange, 400, "This sign-in is over", _AGAIN)
                return
            if not _same(_hash(_cookie_of(exchange, self._cookie_name)), begun.browser):
                raise Refused("it was begun in another browser")
            code = await door.finish(begun, given)
        except Refused as error:
            if begun is not None and door is not None:
                sign_ins.recorded(begun.ticket.user, door.server, "grant", "denied", str(error))
            _page(exchange, 400, "This sign-in was refused", f"<p>{escape(str(error))}.</p>{_AGAIN}")
            return
        except QuarterdeckError as error:
            _page(exchange, 502, "The sign-in failed", f"<p>{escape(str(error))}</p>{_AGAIN}")
            return
        body = (
            f"<p>Signed in at <b>{escape(door.label)}</b>. To let <b>{escape(begun.ticket.user)}</b> use it, give this "
            f"code to your own client when it asks:</p><p><code>{code[:4]} {code[4:]}</code></p>"
            "<p>It is good for ten minutes. Tell it nobody: with it, others would use your account.</p>"
        )
        _page(exchange, 200, "One step left", body, [self._cookie("", 0)])

    @property
    def _cookie_name(self) -> str:
        return f"{_HOST}{_COOKIE}" if self._sign_ins.identity.redirect_uri.startswith("https:") else _COOKIE

    def _cookie(self, value: str, seconds: int = int(LASTS)) -> Header:
        base = self._sign_ins.identity.redirect_uri
        path, secure = "/" + base.partition("://")[2].partition("/")[2].rpartition("/")[0], ""
        if base.startswith("https:"):  # then the name says that this host alone has set it (RFC 6265bis §4.1.3.2)
            path, secure = "/", "; Secure"
        cookie = f"{self._cookie_name}={value}; Path={path}; Max-Age={seconds}; HttpOnly; SameSite=Lax{secure}"
        return b"set-cookie", cookie.encode("ascii", "ignore")


_AGAIN = "<p>Go back to your client and try again: it gets a new link.</p>"


def _page(exchange: Exchange, status: int, title: str, body: str, more: list[Header] | None = None) -> None:
    page = _PAGE.format(title=escape(title), body=body)
    exchange.respond(status, page.encode(), [*_HEADERS, *(more or [])])


def _form(text: str) -> dict[str, str]:
    """Fields of a query or form; of those that come twice none counts."""
    if len(text) > _MOST:
        return {}
    pairs = parse_qsl(text, keep_blank_values=True)
    names = [name for name, _ in pairs]
    return {name: value for name, value in pairs if names.count(name) == 1}


def _cookie_of(exchange: Exchange, wanted: str) -> str:
    for name, value in exchange.headers:
        if name.lower() == b"cookie":
            for part in value.decode("latin-1").split(";"):
                key, _, cookie = part.strip().partition("=")
                if key == wanted:
                    return cookie
    return ""


def _hash(browser: str) -> str:
    return sha256(browser.encode()).hexdigest()


def _same(one: str, other: str) -> bool:
    return bool(one) and compare_digest(one.encode(), other.encode())
