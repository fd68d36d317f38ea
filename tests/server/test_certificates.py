"""Certificates over years of simulated time: always valid, always known to who checks them, never churning."""

from __future__ import annotations

import datetime as dt
from dataclasses import replace

import pytest
from cryptography import x509
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from quarterdeck.server.certificates import (
    AUTHORITY_LIFE,
    OVERLAP,
    SERVING_LIFE,
    Material,
    advance,
    decode,
    encode,
    initial,
)

START = dt.datetime(2026, 11, 21, tzinfo=dt.UTC)
NAMES = ("quarterdeck.quarterdeck-system.svc", "127.0.0.1")


def trusted(certificate: bytes, bundle: bytes, now: dt.datetime) -> bool:
    """Whether a client that knows ``bundle`` accepts the certificate now."""
    leaf = x509.load_pem_x509_certificate(certificate)
    if not leaf.not_valid_before_utc <= now <= leaf.not_valid_after_utc:
        return False
    for authority in x509.load_pem_x509_certificates(bundle):
        if authority.subject == leaf.issuer and authority.not_valid_before_utc <= now <= authority.not_valid_after_utc:
            leaf.verify_directly_issued_by(authority)
            return True
    return False


def test_a_new_one_is_complete_and_nothing_is_due() -> None:
    material = initial(NAMES, START)
    assert trusted(material.certificate, material.bundle, START)
    assert advance(material, NAMES, START, False) is material
    assert decode(encode(material)) == material


@settings(max_examples=8, deadline=None, phases=(Phase.generate,))
@given(steps=st.lists(st.integers(1, 8), min_size=120, max_size=160), lags=st.lists(st.integers(0, 2), min_size=1))
def test_no_client_ever_meets_an_unknown_certificate(steps: list[int], lags: list[int]) -> None:
    """Looks 1 to 8 days apart; the definitions follow up to two looks late, another replica serves the last pair."""
    now, material = START, initial(NAMES, START)
    published, served, waiting = material.bundle, material, 0
    for at, days in enumerate(steps):
        now += dt.timedelta(days=days)
        before = material
        material = advance(material, NAMES, now, published == material.bundle)
        waiting = lags[at % len(lags)] if material.bundle != before.bundle else max(0, waiting - 1)
        if not waiting:
            published = material.bundle
        assert trusted(material.certificate, published, now)
        assert trusted(served.certificate, published, now), "a replica that has not looked since"
        assert len(material.authorities) <= 3
        served = material


def test_an_authority_signs_only_after_everybody_has_heard_of_it() -> None:
    late = START + AUTHORITY_LIFE * 0.7
    material = replace(initial(NAMES, START), certificate=b"", key=b"")
    material = renewed(material, late - SERVING_LIFE / 2)
    announced = advance(material, NAMES, late, True)
    assert len(announced.authorities) == 2 and announced.certificate == material.certificate
    assert advance(announced, NAMES, late + OVERLAP / 2, True) is announced
    changed = advance(announced, NAMES, late + OVERLAP * 2, True)
    newest = x509.load_pem_x509_certificate(changed.authorities[-1])
    assert x509.load_pem_x509_certificate(changed.certificate).issuer == newest.subject
    assert advance(changed, NAMES, late + OVERLAP * 3, True) is changed
    gone = advance(changed, NAMES, START + AUTHORITY_LIFE + dt.timedelta(days=1), True)
    assert material.authorities[0] not in gone.authorities


def test_a_serving_certificate_is_renewed_long_before_its_end() -> None:
    material = initial(NAMES, START)
    assert advance(material, NAMES, START + SERVING_LIFE * 0.6, True) is material
    renewed = advance(material, NAMES, START + SERVING_LIFE * 0.7, True)
    assert renewed.authorities == material.authorities and renewed.certificate != material.certificate


def test_other_names_need_another_certificate() -> None:
    material = initial(NAMES, START)
    moved = advance(material, ("elsewhere.svc",), START + OVERLAP * 2, True)
    assert moved.authorities == material.authorities and moved.certificate != material.certificate


def renewed(material: Material, now: dt.datetime) -> Material:
    """With a serving certificate as new as ``now``."""
    fresh = advance(replace(material, certificate=initial(("x",), now).certificate), NAMES, now, True)
    assert len(fresh.authorities) == 1
    return fresh


@pytest.mark.parametrize("missing", ["ca.crt", "ca.key", "tls.crt", "tls.key"])
def test_what_is_incomplete_is_refused(missing: str) -> None:
    data = encode(initial(NAMES, START))
    del data[missing]
    with pytest.raises(ValueError, match="incomplete"):
        decode(data)


def test_keys_that_do_not_belong_are_refused() -> None:
    mixed: Material = replace(initial(NAMES, START), key=initial(NAMES, START).key)
    with pytest.raises(ValueError, match="do not belong together"):
        decode(encode(mixed))
