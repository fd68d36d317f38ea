"""Lists as clients page and select through them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quarterdeck.apiserver.app import ApiServer, ApiServerConfig
from quarterdeck.apiserver.selectors import parse_labels
from quarterdeck.apiserver.store import Retention
from quarterdeck.errors import BadRequest, Expired
from quarterdeck.kube.client import ClientConfig, KubeClient
from quarterdeck.kube.resource import CONFIG_MAP


def names(answer: Any) -> list[str]:
    return [item["metadata"]["name"] for item in answer["items"]]


@pytest.fixture
def ten(api: Any, space: str) -> str:
    for number in range(10):
        labels = {"parity": "even" if number % 2 == 0 else "odd", "number": str(number)}
        if number > 7:
            labels["big"] = ""
        api.ok("POST", f"{space}/configmaps", {"metadata": {"name": f"c{number}", "labels": labels}})
    return f"{space}/configmaps"


def test_pages_show_one_version_whatever_happens_meanwhile(api: Any, ten: str) -> None:
    first = api.ok("GET", ten, limit="4")
    assert names(first) == ["c0", "c1", "c2", "c3"] and first["metadata"]["remainingItemCount"] == 6
    api.ok("DELETE", f"{ten}/c5")
    api.ok("POST", ten, {"metadata": {"name": "c33"}})
    api.ok("PATCH", f"{ten}/c6", {"data": {"new": "x"}}, "application/merge-patch+json")
    second = api.ok("GET", ten, limit="4", **{"continue": first["metadata"]["continue"]})
    assert names(second) == ["c4", "c5", "c6", "c7"]
    assert second["metadata"]["resourceVersion"] == first["metadata"]["resourceVersion"]
    assert second["metadata"]["remainingItemCount"] == 2 and "data" not in second["items"][2]
    last = api.ok("GET", ten, limit="4", **{"continue": second["metadata"]["continue"]})
    assert names(last) == ["c8", "c9"] and "continue" not in last["metadata"]
    assert "remainingItemCount" not in last["metadata"]


def test_no_count_of_the_rest_with_a_selector(api: Any, ten: str) -> None:
    page = api.ok("GET", ten, limit="2", labelSelector="parity=odd")
    assert names(page) == ["c1", "c3"] and "remainingItemCount" not in page["metadata"]
    rest = api.ok("GET", ten, limit="9", labelSelector="parity=odd", **{"continue": page["metadata"]["continue"]})
    assert names(rest) == ["c5", "c7", "c9"]


def test_exact_and_not_older_than(api: Any, ten: str) -> None:
    version = api.ok("GET", ten)["metadata"]["resourceVersion"]
    api.ok("DELETE", f"{ten}/c0")
    exact = api.ok("GET", ten, resourceVersion=version, resourceVersionMatch="Exact")
    assert len(names(exact)) == 10 and exact["metadata"]["resourceVersion"] == version
    newer = api.ok("GET", ten, resourceVersion=version, resourceVersionMatch="NotOlderThan")
    assert len(names(newer)) == 9 and int(newer["metadata"]["resourceVersion"]) > int(version)
    for any_version in ("", "0", version):
        assert len(names(api.ok("GET", ten, resourceVersion=any_version))) == 9


@pytest.mark.parametrize(
    ("params", "code", "text"),
    [
        ({"resourceVersionMatch": "Exact"}, 422, "resourceVersionMatch is forbidden unless resourceVersion"),
        (
            {"resourceVersionMatch": "Exact", "resourceVersion": "0"},
            422,
            '"exact" is forbidden for resourceVersion "0"',
        ),
        ({"resourceVersionMatch": "Newest", "resourceVersion": "1"}, 422, 'Unsupported value: "Newest"'),
        ({"resourceVersion": "x"}, 422, 'Invalid value: "x"'),
        ({"resourceVersion": "999999999"}, 504, "Too large resource version: 999999999"),
        ({"limit": "x"}, 400, 'parsing "x": invalid syntax'),
        ({"continue": "nonsense"}, 400, "continue key is not valid"),
        ({"labelSelector": "a in"}, 400, "unable to parse requirement: found '', expected: '('"),
        ({"labelSelector": "a in (b"}, 400, "unable to parse requirement"),
        ({"labelSelector": "a=b=c"}, 400, "unable to parse requirement"),
        ({"labelSelector": "a=b!"}, 400, "unable to parse requirement"),
        ({"labelSelector": "-a=b"}, 400, 'unable to parse requirement: <nil>: Invalid value: "-a"'),
        ({"labelSelector": "a=-b"}, 400, 'unable to parse requirement: values[0][a]: Invalid value: "-b"'),
        ({"labelSelector": "a>b"}, 400, 'unable to parse requirement: values[0][a]: Invalid value: "b"'),
        ({"fieldSelector": "spec.nodeName=x"}, 400, "field label not supported: spec.nodeName"),
        ({"fieldSelector": "nonsense"}, 400, "invalid selector: 'nonsense'; can't understand 'nonsense'"),
        ({"sendInitialEvents": "true"}, 422, "sendInitialEvents is forbidden for list"),
    ],
)
def test_refused_options(api: Any, ten: str, params: dict[str, str], code: int, text: str) -> None:
    assert text in api.refused(code, "GET", ten, **params)["message"]


@pytest.mark.parametrize(
    ("selector", "expected"),
    [
        ("parity=even", "02468"), ("parity!=even", "13579"), ("parity==odd,number notin (1,3)", "579"),
        ("number in (1, 2,3)", "123"), ("big", "89"), ("!big,parity=odd", "1357"), ("big=", "89"), ("number>7", "89"),
        ("number<2", "01"), ("missing notin (a)", "0123456789"), ("missing", ""), ("in", ""), ("notin=x", ""),
        ("big in ()", "89"), ("number in (1,),parity", "1"),
    ],
)  # fmt: skip
def test_label_selectors(api: Any, ten: str, selector: str, expected: str) -> None:
    assert "".join(name[1:] for name in names(api.ok("GET", ten, labelSelector=selector))) == expected


@pytest.mark.parametrize(
    ("selector", "expected"),
    [("metadata.name=c3", "3"), ("metadata.name!=c3,metadata.name!=c4", "01256789"), ("metadata.name=none", "")],
)
def test_field_selectors_on_metadata(api: Any, ten: str, selector: str, expected: str) -> None:
    assert "".join(name[1:] for name in names(api.ok("GET", ten, fieldSelector=selector))) == expected


def test_field_selectors_of_kinds(api: Any, space: str) -> None:
    def selects(path: str, good: str, bad: str) -> None:
        assert len(names(api.ok("GET", path, fieldSelector=good))) == 1
        assert names(api.ok("GET", path, fieldSelector=bad)) == []

    spec = {"containers": [{"name": "c", "image": "x"}], "nodeName": "n1", "restartPolicy": "Never"}
    api.ok("POST", f"{space}/pods", {"metadata": {"name": "p"}, "spec": spec})
    selects(f"{space}/pods", "spec.nodeName=n1,status.phase=Pending", "spec.nodeName=n2")
    selects(f"{space}/pods", "spec.restartPolicy=Never,spec.nodeName!=n2", "status.phase!=Pending")
    api.ok("POST", f"{space}/secrets", {"metadata": {"name": "s"}, "type": "example.com/x"})
    selects(f"{space}/secrets", "type=example.com/x", "type=Opaque")
    name = space.rpartition("/")[2]
    selects("/api/v1/namespaces", f"metadata.name={name},status.phase=Active", f"metadata.name={name},status.phase=X")
    event = {
        "metadata": {"name": "e"}, "involvedObject": {"kind": "Pod", "name": "p", "namespace": name}, "reason": "R",
        "type": "Warning",
    }  # fmt: skip
    api.ok("POST", f"{space}/events", event)
    selects(f"{space}/events", "involvedObject.name=p,reason=R,type=Warning", "involvedObject.kind=Node")


def test_lists_of_all_namespaces_and_tables(api: Any, ten: str) -> None:
    every = api.ok("GET", "/api/v1/configmaps", labelSelector="parity=odd,number=1")
    assert every["kind"] == "ConfigMapList" and "c1" in names(every)
    accept = {"accept": "application/json;as=Table;v=v1;g=meta.k8s.io"}
    table = api.http.get(ten, params={"limit": 3}, headers=accept).json()
    assert table["kind"] == "Table" and len(table["rows"]) == 3 and table["metadata"]["remainingItemCount"] == 7
    accept = {"accept": "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io"}
    partial = api.http.get(ten, headers=accept).json()
    assert partial["kind"] == "PartialObjectMetadataList" and set(partial["items"][0]) == {
        "kind", "apiVersion", "metadata",
    }  # fmt: skip


async def test_an_expired_token_gives_one_that_goes_on_inconsistently(tmp_path: Path) -> None:
    server = ApiServer(ApiServerConfig(tmp_path, port=0, retention=Retention(count=5)))
    await server.start()
    client = KubeClient(ClientConfig(**server.client_config()))
    path = "/api/v1/namespaces/default/configmaps"
    for number in range(6):
        await client.create(CONFIG_MAP, {"metadata": {"name": f"c{number}"}}, "default")
    page = await client.request("GET", path, params={"limit": "2"})
    for number in range(6):
        await client.patch(CONFIG_MAP, "c0", {"data": {"a": str(number)}}, "default")
    with pytest.raises(Expired, match="too old to display a consistent list result") as refused:
        await client.request("GET", path, params={"limit": "2", "continue": page["metadata"]["continue"]})
    token = refused.value.continue_token
    rest = await client.request("GET", path, params={"limit": "9", "continue": token})
    assert [item["metadata"]["name"] for item in rest["items"]] == ["c2", "c3", "c4", "c5"]
    assert int(rest["metadata"]["resourceVersion"]) > int(page["metadata"]["resourceVersion"])
    await client.close()
    await server.stop()


@given(st.text(max_size=40))
def test_any_text_is_a_selector_or_a_bad_request(text: str) -> None:
    try:
        terms = parse_labels(text)
    except BadRequest:
        return
    assert all(term.key for term in terms)
