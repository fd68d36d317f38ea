"""Two servers, one of each era, behind one route."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from ..conftest import Rig
from .servers import Upstream, behind, running


@pytest.fixture
async def one() -> AsyncIterator[Upstream]:
    upstream = Upstream("one")
    async with running(upstream):
        yield upstream


@pytest.fixture
async def two() -> AsyncIterator[Upstream]:
    upstream = Upstream("two")
    async with running(upstream):
        yield upstream


@pytest.fixture
async def new() -> AsyncIterator[Upstream]:
    upstream = Upstream("new", modern=True)
    async with running(upstream):
        yield upstream


@pytest.fixture
async def both(bare: Rig, one: Upstream, two: Upstream) -> Rig:
    """A gateway in front of two servers of the older era."""
    bare.gateway.use(behind(one, two))
    await bare.gateway.listeners.settled()
    return bare


@pytest.fixture
async def mixed(bare: Rig, one: Upstream, new: Upstream) -> Rig:
    """A gateway in front of a server of each era."""
    bare.gateway.use(behind(one, new))
    await bare.gateway.listeners.settled()
    return bare
