"""The kinds under a real kube-apiserver: it type-checks and prices validation rules more strictly than we do."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from quarterdeck.kube import resource as k
from quarterdeck.kube.client import ClientConfig, KubeClient
from quarterdeck.resources.crd import crds

from .plane import available, running

COMMANDS, WHY = available()
pytestmark = pytest.mark.skipif(COMMANDS is None, reason=f"kube-apiserver: {WHY}")


@pytest.fixture
async def client() -> AsyncIterator[KubeClient]:
    assert COMMANDS is not None
    with running(COMMANDS) as peer:
        client = KubeClient(ClientConfig(**peer.config))
        yield client
        await client.close()


@pytest.mark.timeout(180)
async def test_every_definition_is_accepted(client: KubeClient) -> None:
    for document in crds():
        created = await client.apply(k.CRD, document)
        assert created["metadata"]["name"] == document["metadata"]["name"]
