"""A fresh cluster for each module that asks for one; see plane.py."""

from __future__ import annotations

from collections.abc import Generator

import pytest

from .plane import NO_ROUTES, Plane, available, plane


@pytest.fixture(scope="module")
def cluster() -> Generator[Plane]:
    """Control plane and one node, where this machine can run Pods of a real cluster."""
    place, why = available()
    if place is None:
        pytest.skip(f"kube-apiserver: {why}")
    with plane() as started:
        yield started


@pytest.fixture(scope="module")
def pods(cluster: Plane) -> Plane:
    """:func:`cluster`, for tests that need Pods to run."""
    if not cluster.routes:
        pytest.skip(NO_ROUTES)
    return cluster
