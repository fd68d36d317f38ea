"""The watch protocol as clients rely on it: where a stream begins, what it contains, how it ends."""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from quarterdeck.apiserver.app import ApiServer, ApiServerConfig
from quarterdeck.apiserver.store import Retention
from quarterdeck.errors import Expired
from quarterdeck.kube.client import ClientConfig, KubeClient
from quarterdeck.kube.informer import Informer
from quarterdeck.kube.resource import CONFIG_MAP

TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json"
PARTIAL = "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io,application/json"


def config_map(name: str, **labels: str) -> dict[str, Any]:
    return {"metadata": {"name": name, "labels": labels}, "data": {"a": "1"}}


def take(events: Iterator[Any], count: int) -> list[tuple[str, str]]:
    return [(e["type"], e["object"]["metadata"].get("name", "")) for e in islice(events, count)]


@pytest.fixture
def maps(api: Any, space: str) -> str:
    """URL of the ConfigMaps of a namespace with ``one`` and ``two``; its own CA bundle ConfigMap has no part here."""
    path = f"{space}/configmaps"
    api.ok("POST", path, config_map("one", tier="a"))
    api.ok("POST", path, config_map("two", tier="b"))
    return path


@pytest.mark.parametrize("version", [{}, {"resourceVersion": ""}, {"resourceVersion": "0"}])
def test_without_a_version_the_present_state_comes_first(api: Any, maps: str, version: dict[str, str]) -> None:
    with api.watch(maps, **version) as events:
        assert take(events, 2) == [("ADDED", "one"), ("ADDED", "two")]
        api.ok("DELETE", f"{maps}/one")
        assert take(events, 1) == [("DELETED", "one")]


def test_from_a_version_only_later_changes_come(api: Any, maps: str) -> None:
    version = api.ok("GET", maps)["metadata"]["resourceVersion"]
    api.ok("POST", maps, config_map("three"))
    api.ok("PATCH", f"{maps}/three", {"data": {"a": "2"}}, "application/merge-patch+json")
    api.ok("DELETE", f"{maps}/one")
    with api.watch(maps, resourceVersion=version) as events:
        seen = list(islice(events, 3))
    assert [e["type"] for e in seen] == ["ADDED", "MODIFIED", "DELETED"]
    versions = [int(e["object"]["metadata"]["resourceVersion"]) for e in seen]
    assert versions == sorted(versions) and versions[0] > int(version)
    assert seen[1]["object"]["data"] == {"a": "2"} and seen[1]["object"]["apiVersion"] == "v1"


def test_initial_events_end_with_an_annotated_bookmark(api: Any, maps: str) -> None:
    asked = {"sendInitialEvents": "true", "resourceVersionMatch": "NotOlderThan", "allowWatchBookmarks": "true"}
    for version in ({}, {"resourceVersion": api.ok("GET", maps)["metadata"]["resourceVersion"]}):
        with api.watch(maps, **asked, **version) as events:
            assert take(events, 2) == [("ADDED", "one"), ("ADDED", "two")]
            bookmark = next(events)
            assert bookmark["type"] == "BOOKMARK"
            metadata = bookmark["object"]["metadata"]
            assert metadata["annotations"] == {"k8s.io/initial-events-end": "true"}
            assert (bookmark["object"]["kind"], bookmark["object"]["apiVersion"]) == ("ConfigMap", "v1")
            assert int(metadata["resourceVersion"]) > 0


def test_no_initial_events_when_refused(api: Any, maps: str) -> None:
    asked = {"sendInitialEvents": "false", "resourceVersionMatch": "NotOlderThan"}
    with api.watch(maps, **asked) as events:
        api.ok("POST", maps, config_map("three"))
        assert take(events, 1) == [("ADDED", "three")]


@pytest.mark.parametrize(
    ("params", "text"),
    [
        ({"sendInitialEvents": "true"}, "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan"),
        ({"resourceVersionMatch": "NotOlderThan"}, "resourceVersionMatch is forbidden for watch unless"),
        ({"resourceVersion": "abc"}, 'resourceVersion: Invalid value: "abc"'),
    ],
)
def test_impossible_options_are_invalid(api: Any, maps: str, params: dict[str, str], text: str) -> None:
    assert text in api.refused(422, "GET", maps, watch="true", **params)["message"]


def test_a_version_from_the_future_is_a_timeout_with_retry(api: Any, maps: str) -> None:
    status = api.refused(504, "GET", maps, watch="true", resourceVersion="999999999")
    assert status["reason"] == "Timeout" and "Too large resource version: 999999999" in status["message"]
    assert status["details"]["causes"][0]["reason"] == "ResourceVersionTooLarge"
    assert status["details"]["retryAfterSeconds"] == 1


def test_timeout_seconds_ends_the_stream_cleanly(api: Any, maps: str) -> None:
    with api.watch(maps, timeoutSeconds="1") as events:
        assert [e["object"]["metadata"]["name"] for e in events] == ["one", "two"]


def test_entering_and_leaving_a_selector(api: Any, maps: str) -> None:
    def label(tier: str) -> None:
        patch = {"metadata": {"labels": {"tier": tier}}, "data": {"a": tier}}
        api.ok("PATCH", f"{maps}/two", patch, "application/merge-patch+json")

    with api.watch(maps, labelSelector="tier=a") as events:
        assert take(events, 1) == [("ADDED", "one")]
        label("a")
        assert take(events, 1) == [("ADDED", "two")]
        label("c")
        left = next(events)
        # As upstream: the object as it last matched, with the version at which it stopped to.
        assert (left["type"], left["object"]["metadata"]["labels"]) == ("DELETED", {"tier": "a"})
        assert left["object"]["data"] == {"a": "a"}
        now = api.ok("GET", f"{maps}/two")["metadata"]["resourceVersion"]
        assert left["object"]["metadata"]["resourceVersion"] == now


def test_field_selector_and_single_object_watch(api: Any, maps: str) -> None:
    with api.watch(maps, fieldSelector="metadata.name=two") as events:
        assert take(events, 1) == [("ADDED", "two")]
    with api.watch(maps.replace("/api/v1/", "/api/v1/watch/") + "/one") as events:
        assert take(events, 1) == [("ADDED", "one")]


def test_table_watch_sends_columns_once(api: Any, maps: str) -> None:
    with api.watch(maps, accept=TABLE) as events:
        first, second = islice(events, 2)
    assert first["object"]["kind"] == second["object"]["kind"] == "Table"
    assert [c["name"] for c in first["object"]["columnDefinitions"]] == ["Name", "Data", "Age"]
    assert not second["object"]["columnDefinitions"]
    assert second["object"]["rows"][0]["cells"][:2] == ["two", 1]
    assert second["object"]["rows"][0]["object"]["kind"] == "PartialObjectMetadata"


def test_partial_metadata_watch(api: Any, maps: str) -> None:
    with api.watch(maps, accept=PARTIAL) as events:
        shown = next(events)["object"]
    assert (shown["kind"], shown["apiVersion"]) == ("PartialObjectMetadata", "meta.k8s.io/v1")
    assert set(shown) == {"kind", "apiVersion", "metadata"}


class Home:
    """API servers one after the other on one data directory, in the test's own loop."""

    def __init__(self, path: Path, **config: Any) -> None:
        self.path, self.config = path, config

    async def start(self) -> tuple[ApiServer, KubeClient]:
        server = ApiServer(ApiServerConfig(self.path, port=0, **self.config))
        await server.start()
        return server, KubeClient(ClientConfig(**server.client_config()))


async def test_a_watch_goes_on_where_it_was_after_a_restart(tmp_path: Path) -> None:
    home = Home(tmp_path)
    server, client = await home.start()
    made = await client.create(CONFIG_MAP, config_map("before"), "default")
    await client.create(CONFIG_MAP, config_map("missed"), "default")
    await client.delete(CONFIG_MAP, "before", "default")
    await client.close()
    await server.stop()
    server, client = await home.start()
    events = client.watch(CONFIG_MAP, "default", resource_version=made["metadata"]["resourceVersion"])
    seen = [await anext(events), await anext(events)]
    assert [(e.type, e.object["metadata"]["name"]) for e in seen] == [("ADDED", "missed"), ("DELETED", "before")]
    await client.close()
    await server.stop()


async def test_a_forgotten_version_is_an_error_event_and_410_for_lists(tmp_path: Path) -> None:
    server, client = await Home(tmp_path, retention=Retention(count=5)).start()
    old = await client.create(CONFIG_MAP, config_map("old"), "default")
    for number in range(10):
        await client.create(CONFIG_MAP, config_map(f"n{number}"), "default")
    version = old["metadata"]["resourceVersion"]
    with pytest.raises(Expired, match="too old resource version"):
        await anext(client.watch(CONFIG_MAP, "default", resource_version=version))
    with pytest.raises(Expired, match="too old"):
        await client.request(
            "GET", "/api/v1/namespaces/default/configmaps",
            params={"resourceVersion": version, "resourceVersionMatch": "Exact"},
        )  # fmt: skip
    await client.close()
    await server.stop()


async def test_an_informer_lists_follows_and_lists_again_when_expired(tmp_path: Path) -> None:
    server, client = await Home(tmp_path, retention=Retention(count=3)).start()
    informer = Informer(client, CONFIG_MAP, "default")
    seen: asyncio.Queue[tuple[str, str]] = asyncio.Queue()
    informer.on_change(lambda kind, old, new: seen.put_nowait((kind, (new or old)["metadata"]["name"])))
    informer.start()
    await asyncio.wait_for(informer.synced.wait(), 30)
    while not seen.empty():
        seen.get_nowait()
    await client.create(CONFIG_MAP, config_map("a"), "default")
    assert await asyncio.wait_for(seen.get(), 30) == ("added", "a")
    await client.delete(CONFIG_MAP, "a", "default")
    assert await asyncio.wait_for(seen.get(), 30) == ("deleted", "a")
    await informer.stop()
    await client.close()
    await server.stop()


async def test_a_watcher_that_does_not_read_is_cut_off(tmp_path: Path) -> None:
    server, client = await Home(tmp_path, watch_pending=20).start()
    await client.create(CONFIG_MAP, {"metadata": {"name": "big"}, "data": {"a": "x" * 800_000}}, "default")
    raw = socket.create_connection(("127.0.0.1", int(server.url.rpartition(":")[2])))
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    context = ssl.create_default_context(cadata=server.ca_pem.decode())
    tls = await asyncio.to_thread(context.wrap_socket, raw, server_hostname="127.0.0.1")
    request = (
        "GET /api/v1/namespaces/default/configmaps?watch=true HTTP/1.1\r\nhost: 127.0.0.1\r\n"
        f"authorization: Bearer {server.admin_token}\r\n\r\n"
    )
    await asyncio.to_thread(tls.sendall, request.encode())
    assert server.store is not None
    bucket = server.store.bucket("configmaps")
    async with asyncio.timeout(30):
        while not bucket.listeners:
            await asyncio.sleep(0.01)
    for number in range(40):
        await client.patch(CONFIG_MAP, "big", {"data": {"b": str(number)}}, "default")
    async with asyncio.timeout(30):
        while bucket.listeners:
            await asyncio.sleep(0.01)
    tls.close()
    await client.close()
    await server.stop()


def test_watches_of_custom_resources_and_all_namespaces(api: Any, maps: str) -> None:
    version = api.ok("GET", "/api/v1/configmaps", limit="1")["metadata"]["resourceVersion"]
    with api.watch("/api/v1/configmaps", resourceVersion=version) as events:
        api.ok("POST", maps, config_map("three"))
        assert take(events, 1) == [("ADDED", "three")]


def test_lines_are_json_without_newlines_inside(api: Any, maps: str) -> None:
    api.ok("POST", maps, {"metadata": {"name": "lines"}, "data": {"a": "1\n2\n"}})
    with api.watch(maps, fieldSelector="metadata.name=lines") as events:
        assert json.loads(json.dumps(next(events)))["object"]["data"] == {"a": "1\n2\n"}
