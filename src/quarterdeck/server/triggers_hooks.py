"""Requests that fire triggers: who sent them is proved by the trigger's Secret, at the control plane alone.

GitHub's signature covers the body and nothing else, so one body fires once, whatever its headers say. Generic senders
sign the time, too; an old request is refused, and the same one again within its time is known. A token proves the
sender only: ``Idempotency-Key`` or ``Webhook-Id`` makes a repetition one.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl

import msgspec

from quarterdeck.errors import BadRequest, ConfigError, TooLarge, Unauthorized
from quarterdeck.malformed import MALFORMED
from quarterdeck.resources.trigger import Hmac
from quarterdeck.translate.triggers import Input, Plan, ignored, of_alerts

_HEX = re.compile(r"[0-9a-fA-F]{64}")
_HIDDEN = frozenset({"authorization", "cookie", "proxy-authorization", "x-hub-signature", "x-hub-signature-256"})
_NAMED = ("idempotency-key", "webhook-id")
_DEEPEST = 60


@dataclass(frozen=True, slots=True)
class Request:
    """What came to the gateway. Names of headers are in lower case."""

    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class Taken:
    """A request whose sender is proved; ``ignored`` says why it fires nothing."""

    given: Input
    key: str
    ignored: str = ""


def take(found: Plan, request: Request, secret: bytes, now: float) -> Taken:
    """Raises Unauthorized for what is not proved, TooLarge, BadRequest for what cannot be read."""
    hook = found.spec.webhook
    most = hook.max_body_bytes if hook is not None else 1024 * 1024
    if len(request.body) > most:
        raise TooLarge(f"the body has {len(request.body)} bytes; this trigger takes {most} at most")
    if not secret:
        raise Unauthorized("the request is not proved to be the sender's")
    if hook is None or hook.bearer is not None:
        key = _by_token(request, secret)
    elif hook.github is not None:
        key = _by_github(request, secret)
    else:
        assert hook.hmac is not None
        key = _by_hmac(request, secret, hook.hmac, found.tolerance, now)
    body = _body(request)
    shown = {name: value for name, value in request.headers.items() if name not in _hidden(found)}
    given = alerts(body) if found.spec.alertmanager is not None else Input({"body": body, "headers": shown}, body)
    return Taken(given, key, ignored(found, given))


def alerts(body: Any) -> Input:
    """Raises BadRequest."""
    if not isinstance(body, dict):
        raise BadRequest("the body is no message of Alertmanager's webhook: it is no JSON object")
    try:
        return of_alerts(body)
    except ConfigError as error:
        raise BadRequest(str(error)) from error


def _by_token(request: Request, secret: bytes) -> str:
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    wanted = secret.strip()
    fits = hmac.compare_digest(_digest(token.strip().encode()), _digest(wanted))
    if scheme.lower() != "bearer" or not fits or not wanted:
        raise Unauthorized("the request is not proved to be the sender's: Authorization must be Bearer and the token")
    named = next((request.headers[name] for name in _NAMED if request.headers.get(name)), "")
    return f"id/{hashlib.sha256(named.encode()).hexdigest()}" if named else ""


def _by_github(request: Request, secret: bytes) -> str:
    given = request.headers.get("x-hub-signature-256", "").removeprefix("sha256=")
    _proved(given, hmac.digest(secret, request.body, "sha256"), "X-Hub-Signature-256")
    return f"body/{hashlib.sha256(request.body).hexdigest()}"


def _by_hmac(request: Request, secret: bytes, spec: Hmac, tolerance: float, now: float) -> str:
    stamp = request.headers.get(spec.timestamp_header.lower(), "")
    signed = stamp.encode() + b"." + request.body
    given = request.headers.get(spec.header.lower(), "").removeprefix("sha256=")
    _proved(given, hmac.digest(secret, signed, "sha256"), spec.header)
    if not stamp.isascii() or not stamp.isdigit() or len(stamp) > 12:
        raise Unauthorized(f"{spec.timestamp_header} must be the time of sending in whole seconds since the epoch")
    if abs(now - int(stamp)) > tolerance:
        raise Unauthorized(f"the request is {abs(now - int(stamp)):.0f} s off; {tolerance:g} s are taken at most")
    return f"signed/{hashlib.sha256(signed).hexdigest()}"


def _proved(given: str, wanted: bytes, header: str) -> None:
    """In a time that says nothing about where they differ."""
    shaped = _HEX.fullmatch(given) is not None
    if not hmac.compare_digest(bytes.fromhex(given) if shaped else bytes(32), wanted) or not shaped:
        raise Unauthorized(f"the request is not proved to be the sender's: {header} does not fit body and key")


def _digest(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def _hidden(found: Plan) -> frozenset[str]:
    spec = found.spec.webhook.hmac if found.spec.webhook is not None else None
    return _HIDDEN | ({spec.header.lower()} if spec is not None else set())


def _body(request: Request) -> Any:
    """JSON, a form (GitHub's holds JSON in ``payload``), or text."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    try:
        if kind == "application/x-www-form-urlencoded":
            fields = dict(parse_qsl(request.body.decode(), max_num_fields=1000))
            return _json(fields["payload"].encode()) if set(fields) == {"payload"} else fields
        if kind.endswith("json") or kind == "":
            return _json(request.body) if request.body else None
        return request.body.decode()
    except (*MALFORMED, ValueError) as error:
        raise BadRequest(f"the body cannot be read as {kind or 'JSON'}: {error}") from error


def _json(data: bytes) -> Any:
    value = msgspec.json.decode(data)
    if too_deep(value):
        raise ValueError(f"it is nested more than {_DEEPEST} levels deep")
    return value


def too_deep(value: Any) -> bool:
    """Whether JSON is nested deeper than what goes through it by recursion should be asked to go."""
    level = [value]
    for _ in range(_DEEPEST):
        level = [
            item
            for one in level
            for item in (one.values() if isinstance(one, dict) else one if isinstance(one, list) else ())
        ]
        if not level:
            return False
    return True
