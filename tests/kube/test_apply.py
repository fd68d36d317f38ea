from __future__ import annotations

from typing import Any

import pytest

from quarterdeck.kube.apply import APPLIED_HASH, apply_if_changed, covers, with_applied_hash
from quarterdeck.kube.client import KubeClient
from quarterdeck.kube.resource import CONFIG_MAP

from .fake_api import FakeApi


@pytest.mark.parametrize(
    ("desired", "live", "same"),
    [
        ({"a": 1}, {"a": 1, "defaulted": True}, True),
        ({"a": 1}, {"a": 2}, False),
        ({"a": 1}, {}, False),
        ({"a": {}}, {}, True),
        ({"a": False, "b": 0, "c": ""}, {}, True),
        ({"a": True}, {"a": 1}, False),
        ({"cpu": "0.5"}, {"cpu": "500m"}, True),
        ({"cpu": 1}, {"cpu": "1"}, True),
        ({"memory": "1Gi"}, {"memory": "1024Mi"}, True),
        ({"memory": "1Gi"}, {"memory": "1G"}, False),
        ({"args": ["a", "b"]}, {"args": ["b", "a"]}, False),
        ({"args": ["a"]}, {"args": ["a", "b"]}, False),
        ({"env": [{"name": "A", "value": "1"}]}, {"env": [{"name": "B"}, {"name": "A", "value": "1"}]}, True),
        ({"env": [{"name": "A", "value": "1"}]}, {"env": [{"name": "A", "value": "2"}]}, False),
    ],
)
def test_covers(desired: Any, live: Any, same: bool) -> None:
    assert covers(desired, live) is same


async def test_a_second_apply_sends_nothing(client: KubeClient, api: FakeApi) -> None:
    desired = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a", "namespace": "default"},
               "data": {"k": "v", "gone": "x"}}  # fmt: skip
    live = await client.create(CONFIG_MAP, with_applied_hash(desired))
    client.writes = 0
    assert await apply_if_changed(client, CONFIG_MAP, desired, live) is None
    assert client.writes == 0
    shrunk = desired | {"data": {"k": "v"}}  # a field we no longer want is a change too
    applied = await apply_if_changed(client, CONFIG_MAP, shrunk, live)
    assert applied is not None
    assert client.writes == 1
    assert applied["metadata"]["annotations"][APPLIED_HASH] != live["metadata"]["annotations"][APPLIED_HASH]
