from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from cluster.plane import Plane, available, plane

from . import servers
from .servers import World

COMMANDS, WHY = available()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Faults are tried on both servers; on the real one, which is slower to come to rest, in the slow tier."""
    for item in items:
        if "controllers/test_faults.py" in item.nodeid and "[kube-apiserver]" in item.nodeid:
            item.add_marker(pytest.mark.slow)


@pytest.fixture(scope="package")
def cluster() -> Iterator[Plane]:
    """Kubernetes' API server and controllers, without a node; one for all tests of a worker."""
    if COMMANDS is None:
        pytest.skip(f"kube-apiserver: {WHY}")
    with plane(nodes=0) as started:
        yield started


@pytest.fixture(params=["embedded", "kube-apiserver"])
async def world(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[World]:
    """An API server with a cluster's own controllers, empty."""
    if request.param == "embedded":
        async with servers.embedded(tmp_path) as found:
            yield found
        return
    async with servers.real(request.getfixturevalue("cluster")) as found:
        yield found


@pytest.fixture
async def embedded_world(tmp_path: Path) -> AsyncIterator[World]:
    """The embedded server, for what does not depend on the server."""
    async with servers.embedded(tmp_path) as found:
        yield found


@pytest.fixture
async def real_world(cluster: Plane) -> AsyncIterator[World]:
    """Kubernetes' own server, for what the embedded one does not have."""
    async with servers.real(cluster) as found:
        yield found
