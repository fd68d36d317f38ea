"""Who may fire a trigger by a request: proofs, forgeries, replays, bodies of all sorts."""

from __future__ import annotations

import hashlib
import hmac
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quarterdeck.errors import ApiError, BadRequest, TooLarge, Unauthorized
from quarterdeck.server.triggers_hooks import Request, Taken, take
from quarterdeck.translate.triggers import Plan, plan

KEY = b"sesame"
NOW = 1_780_000_000.0
REF = {"secretRef": {"name": "hook", "key": "key"}}
GITHUB = {"webhook": {"github": REF}}
HMAC = {"webhook": {"hmac": REF | {"tolerance": "1m"}}}
BEARER = {"webhook": {"bearer": REF}}
ALERTS = {"alertmanager": {"bearer": REF}}


def of(spec: dict[str, Any]) -> Plan:
    base = {"agent": "a", "serviceAccountName": "s", "message": "m"}
    return plan({"metadata": {"namespace": "kagent", "name": "t", "uid": "u"}, "spec": base | spec})


def signed(body: bytes, key: bytes = KEY) -> str:
    return "sha256=" + hmac.new(key, body, hashlib.sha256).hexdigest()


def github(body: bytes = b"{}", **headers: str) -> Request:
    said = {"x-github-event": "issues", "x-hub-signature-256": signed(body), "content-type": "application/json"}
    return Request(said | {name.replace("_", "-"): value for name, value in headers.items()}, body)


def generic(body: bytes = b"{}", at: float = NOW, stamp: str = "", key: bytes = KEY) -> Request:
    stamp = stamp or str(int(at))
    said = {"x-quarterdeck-timestamp": stamp, "x-quarterdeck-signature": signed(stamp.encode() + b"." + body, key)}
    return Request(said, body)


def test_githubs_signature_covers_the_body_and_one_body_fires_once() -> None:
    body = json.dumps({"action": "opened"}).encode()
    taken = take(of(GITHUB), github(body), KEY, NOW)
    assert taken.given.payload == {"action": "opened"} and not taken.ignored
    assert "x-hub-signature-256" not in taken.given.parts["headers"]
    again = take(of(GITHUB), github(body, x_github_delivery="another"), KEY, NOW + 9e9)
    assert again.key == taken.key, "the id of a delivery is not signed: a replay may have any"
    assert take(of(GITHUB), github(body + b" "), KEY, NOW).key != taken.key


@pytest.mark.parametrize(
    ("spec", "request_", "said"),
    [
        (GITHUB, github(x_hub_signature_256=signed(b"{}", b"other")), "does not fit body and key"),
        (GITHUB, github(x_hub_signature_256=signed(b"{ }")), "does not fit"),
        (GITHUB, github(x_hub_signature_256=""), "does not fit"),
        (GITHUB, github(x_hub_signature_256="sha256=" + "0" * 64), "does not fit"),
        (GITHUB, github(x_hub_signature_256="sha1=" + "0" * 40), "does not fit"),
        (GITHUB, github(x_hub_signature_256=signed(b"{}")[:-1] + "\xe9"), "does not fit"),
        (GITHUB, Request({"x-hub-signature": "sha1=x"}, b"{}"), "does not fit"),
        (HMAC, generic(key=b"other"), "does not fit"),
        (HMAC, generic(at=NOW - 61), "61 s off; 60 s are taken at most"),
        (HMAC, generic(at=NOW + 61), "61 s off"),
        (HMAC, generic(stamp="-5"), "whole seconds"),
        (HMAC, generic(stamp="²"), "whole seconds"),
        (HMAC, Request(generic().headers | {"x-quarterdeck-timestamp": str(int(NOW) + 1)}, b"{}"), "does not fit"),
        (HMAC, Request({}, b"{}"), "does not fit"),
        (BEARER, Request({}, b"{}"), "must be Bearer and the token"),
        (BEARER, Request({"authorization": "Bearer sesam"}, b"{}"), "must be Bearer"),
        (BEARER, Request({"authorization": "Basic sesame"}, b"{}"), "must be Bearer"),
        (BEARER, Request({"authorization": "Bearer "}, b"{}"), "must be Bearer"),
        (ALERTS, Request({}, b"{}"), "must be Bearer"),
    ],
)
def test_what_is_not_proved_is_refused(spec: dict[str, Any], request_: Request, said: str) -> None:
    with pytest.raises(Unauthorized, match=said):
        take(of(spec), request_, KEY, NOW)


@pytest.mark.parametrize("spec", [GITHUB, HMAC, BEARER, ALERTS])
def test_an_empty_secret_proves_nothing(spec: dict[str, Any]) -> None:
    empty = Request(
        generic(key=b"").headers | {"authorization": "Bearer ", "x-hub-signature-256": signed(b"{}", b"")}, b"{}"
    )
    with pytest.raises(Unauthorized):
        take(of(spec), empty, b"", NOW)


def test_blanks_are_no_token() -> None:
    for said in ("Bearer ", "Bearer   "):
        with pytest.raises(Unauthorized):
            take(of(BEARER), Request({"authorization": said}, b"{}"), b"  ", NOW)
    assert take(of(BEARER), Request({"authorization": "Bearer sesame"}, b"{}"), b" sesame ", NOW).given.payload == {}


@given(st.binary(max_size=200), st.integers(0, 10_000))
@settings(max_examples=60)
def test_one_bit_of_a_signed_request_changed_is_refused(body: bytes, bit: int) -> None:
    good = generic(body)
    changed = bytearray(good.headers["x-quarterdeck-timestamp"].encode() + b"." + body)
    changed[bit // 8 % len(changed)] ^= 1 << bit % 8
    stamp, dot, rest = bytes(changed).partition(b".")
    headers = dict(good.headers) | {"x-quarterdeck-timestamp": stamp.decode("latin-1")}
    if dot and (stamp.decode("latin-1"), rest) != (good.headers["x-quarterdeck-timestamp"], body):
        with pytest.raises(Unauthorized):
            take(of(HMAC), Request(headers, rest), KEY, NOW)


def test_a_repetition_within_its_time_has_the_same_key() -> None:
    first = take(of(HMAC), generic(), KEY, NOW)
    assert take(of(HMAC), generic(), KEY, NOW + 59).key == first.key
    assert take(of(HMAC), generic(at=NOW + 1), KEY, NOW + 1).key != first.key
    token = {"authorization": "Bearer sesame"}
    assert take(of(BEARER), Request(token, b"{}"), KEY, NOW).key == "", "nothing says that it is a repetition"
    named = [take(of(BEARER), Request(token | {"idempotency-key": "a"}, body), KEY, NOW).key for body in (b"1", b"2")]
    assert named[0] == named[1] != ""


@pytest.mark.parametrize(
    ("kind", "body", "payload"),
    [
        ("application/json", b'{"a": 1}', {"a": 1}),
        ("application/cloudevents+json; charset=utf-8", b"[1]", [1]),
        ("application/x-www-form-urlencoded", b"a=1&b=2", {"a": "1", "b": "2"}),
        ("application/x-www-form-urlencoded", b"payload=%7B%22a%22%3A1%7D", {"a": 1}),
        ("text/plain", "größer".encode(), "größer"),
        ("", b"", None),
    ],
)
def test_bodies_are_read_by_their_type(kind: str, body: bytes, payload: Any) -> None:
    token = {"authorization": "bearer sesame", "content-type": kind}
    assert take(of(BEARER), Request(token, body), KEY, NOW).given.payload == payload


@pytest.mark.parametrize(
    "body", [b"{", b"\xff", b'"\xff"', b"[" * 100 + b"]" * 100, b"[" * 100_000, b"NaN", b'{"a":1}{"b":2}']
)
def test_bodies_that_are_no_json_are_refused(body: bytes) -> None:
    with pytest.raises(BadRequest):
        take(of(BEARER), Request({"authorization": "Bearer sesame"}, body), KEY, NOW)


def test_large_bodies_are_refused_before_anything_is_made_of_them() -> None:
    small = {"webhook": {"github": REF, "maxBodyBytes": 10}}
    assert take(of(small), github(b'{"a": 123}'), KEY, NOW).given.payload == {"a": 123}
    with pytest.raises(TooLarge, match="11 bytes; this trigger takes 10"):
        take(of(small), github(b'{"a": 1234}', x_hub_signature_256="wrong"), KEY, NOW)


@pytest.mark.parametrize(("events", "event", "counts"), [
    (None, "ping", False), (None, "push", True), (["push"], "push", True), (["push"], "issues", False),
    (["ping"], "ping", True), (["push"], "", False),
])  # fmt: skip
def test_githubs_events_are_chosen(events: list[str] | None, event: str, counts: bool) -> None:
    spec = {"webhook": {"github": REF | ({"events": events} if events else {})}}
    assert bool(take(of(spec), github(x_github_event=event), KEY, NOW).ignored) is not counts


def alerts(**more: Any) -> bytes:
    alert = {"status": "firing", "labels": {"a": "b"}, "fingerprint": "f", "startsAt": "s"}
    group = {"version": "4", "groupKey": "g", "status": "firing", "commonLabels": {"team": "x"}, "alerts": [alert]}
    return json.dumps(group | more).encode()


def alerted(body: bytes, **spec: Any) -> Taken:
    found = of({"alertmanager": ALERTS["alertmanager"] | spec})
    return take(found, Request({"authorization": "Bearer sesame"}, body), KEY, NOW)


def test_a_group_of_alerts_is_one_firing() -> None:
    taken = alerted(alerts())
    assert taken.given.parts["alerts"][0]["labels"] == {"a": "b"} and not taken.ignored
    assert alerted(alerts()).given.key == taken.given.key
    other = {"status": "firing", "fingerprint": "f2", "startsAt": "s"}
    assert alerted(alerts(alerts=[other])).given.key != taken.given.key
    assert (
        alerted(alerts(status="resolved")).ignored
        and not alerted(alerts(status="resolved"), statuses=["resolved"]).ignored
    )
    assert alerted(alerts(), labels={"team": "y"}).ignored and not alerted(alerts(), labels={"team": "x"}).ignored


@pytest.mark.parametrize(
    "body",
    [
        b"[]",
        b"{}",
        alerts(version="3"),
        alerts(alerts="x"),
        alerts(alerts=[1]),
        alerts(status="odd"),
        alerts(groupKey=1),
    ],
)
def test_what_alertmanager_does_not_say_is_refused(body: bytes) -> None:
    with pytest.raises(ApiError):
        alerted(body)
