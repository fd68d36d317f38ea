from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from quarterdeck.kube.client import KubeClient

from .fake_api import FakeApi


@pytest.fixture
async def api() -> AsyncIterator[FakeApi]:
    fake = FakeApi()
    fake.config = await fake.start()
    yield fake
    await fake.stop()


@pytest.fixture
async def client(api: FakeApi) -> AsyncIterator[KubeClient]:
    async with KubeClient(api.config) as client:
        yield client
