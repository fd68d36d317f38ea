"""Names, sizes and images that a cluster would refuse are refused before anything is written."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quarterdeck.errors import ConfigError, ConfigTooLarge, InvalidName
from quarterdeck.translate.names import DATA_LIMIT, check_image, check_name, check_size

LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
SUBDOMAIN = st.from_regex(r"[a-z0-9]([-a-z0-9.]{0,80}[a-z0-9])?", fullmatch=True)


def named(name: str) -> dict[str, object]:
    return {"kind": "Agent", "metadata": {"namespace": "team", "name": name}}


@given(SUBDOMAIN, st.sampled_from(["", "-canary"]))
def test_what_passes_fits_into_a_label_and_the_rest_is_told_a_length(name: str, suffix: str) -> None:
    try:
        made = check_name(named(name), suffix)
    except InvalidName as error:
        assert f"Agent team/{name}: metadata.name" in str(error)
        assert not LABEL.fullmatch(name + suffix)
    else:
        assert made == name + suffix
        assert LABEL.fullmatch(made)


def test_the_longest_names() -> None:
    assert check_name(named("a" * 63))
    assert check_name(named("a" * 56), "-canary")
    with pytest.raises(InvalidName, match="at most 56"):
        check_name(named("a" * 57), "-canary")


def test_the_largest_secret() -> None:
    check_size(named("a"), "Secret", {"x": b"1" * (DATA_LIMIT - 1), "y": b"1"}, "shorten it")
    with pytest.raises(ConfigTooLarge, match=r"has 1048577 bytes \(x: 1048576\).*shorten it"):
        check_size(named("a"), "Secret", {"x": b"1" * DATA_LIMIT, "y": b"1"}, "shorten it")


@pytest.mark.parametrize("image", [
    "", None, "python", "ghcr.io/acme/agent:1.2", "localhost:5000/a/b:c", f"acme/agent@sha256:{'a' * 64}",
    f"acme/agent:1@sha512:{'b' * 128}",
])  # fmt: skip
def test_images_that_a_kubelet_can_pull(image: str | None) -> None:
    check_image(named("a"), "spec.image", image)


@pytest.mark.parametrize("image", ["Not An Image", "UPPER/case", "a:b:c", "acme/agent@sha256:short", " python"])
def test_images_that_it_cannot(image: str) -> None:
    with pytest.raises(ConfigError, match=r"Agent team/a: spec\.image: .* is not an image reference"):
        check_image(named("a"), "spec.image", image)
