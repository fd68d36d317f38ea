"""Bodies of real kubectl (``bodies.json``: kubectl 1.37.1; 1.36.3 sends the same) and hand-made ones."""

from __future__ import annotations

import base64
import json
import struct
from pathlib import Path
from typing import Any

import pytest

from quarterdeck.apiserver.codec import decode_object
from quarterdeck.apiserver.protobuf.decoder import MAX_DEPTH, MEDIA_TYPE, decode
from quarterdeck.errors import BadRequest

from .encoding import envelope, field, number, text

BODIES = json.loads(Path(__file__).with_name("bodies.json").read_text())
_CRD = ("apiextensions.k8s.io/v1", "CustomResourceDefinition")


@pytest.mark.parametrize("sent", BODIES, ids=lambda sent: sent["command"].split(" --")[0])
def test_a_body_is_what_dry_run_prints(sent: dict[str, Any]) -> None:
    """``object`` is the output of the same command with ``--dry-run=client -o json``, where it has that option."""
    assert decode_object(base64.b64decode(sent["body"]), MEDIA_TYPE) == (sent["object"], [])


def _decoded(api_version: str, kind: str, raw: bytes) -> dict[str, Any]:
    made = decode(envelope(api_version, kind, raw))
    assert (made.pop("apiVersion"), made.pop("kind")) == (api_version, kind)
    return made


def test_zeros_are_written_as_the_json_tags_say() -> None:
    strategy = field(4, b"")
    spec = field(1, 0) + strategy + field(5, 0) + field(7, 0)  # replicas, strategy, minReadySeconds, paused
    assert _decoded("apps/v1", "Deployment", field(1, text(1, "") + field(8, b"")) + field(2, spec)) == {
        "metadata": {},
        "spec": {"replicas": 0, "strategy": {}},
    }


def test_maps_of_text_and_bytes_whose_entries_leave_zeros_out() -> None:
    raw = field(2, text(1, "a") + text(2, "b")) + field(2, text(1, "empty")) + field(2, text(2, "no key"))
    raw += field(3, text(1, "blob") + field(2, b"\x00\xff")) + field(3, text(1, "none"))
    assert _decoded("v1", "ConfigMap", raw) == {
        "data": {"a": "b", "empty": "", "": "no key"},
        "binaryData": {"blob": "AP8=", "none": ""},
    }


@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        (field(1, 1_700_000_000), "2023-11-14T22:13:20.000000Z"),
        (field(1, 1_700_000_000) + field(2, 123_456_789), "2023-11-14T22:13:20.123456Z"),
        (field(1, -1), "1969-12-31T23:59:59.000000Z"),
        (field(1, 0), "1970-01-01T00:00:00.000000Z"),
    ],
)
def test_times(parts: bytes, expected: str) -> None:
    lease = _decoded("coordination.k8s.io/v1", "Lease", field(2, field(3, parts)))
    assert lease == {"spec": {"acquireTime": expected}}
    whole = f"{expected[:19]}Z"
    assert _decoded("v1", "Pod", field(1, field(9, parts))) == {"metadata": {"deletionTimestamp": whole}}


def test_an_unset_time_is_left_out() -> None:
    never = field(1, -62135596800)
    assert _decoded("v1", "Pod", field(1, field(8, b"") + field(9, b"") + field(17, field(4, never)))) == {
        "metadata": {"managedFields": [{}]}
    }


@pytest.mark.parametrize(
    ("parts", "expected"),
    [(field(1, 0) + field(2, 5) + text(3, ""), 5), (field(1, 1) + field(2, 0) + text(3, "50%"), "50%"), (b"", 0)],
)
def test_int_or_string(parts: bytes, expected: int | str) -> None:
    assert _decoded("policy/v1", "PodDisruptionBudget", field(2, field(1, parts))) == {
        "spec": {"minAvailable": expected}
    }


def test_embedded_json() -> None:
    raw = field(1, field(17, field(7, field(1, b'{"f:spec":{}}')))) + field(2, field(1, b'{"a":[1,2.5]}')) + field(3, 7)
    assert _decoded("apps/v1", "ControllerRevision", raw) == {
        "metadata": {"managedFields": [{"fieldsV1": {"f:spec": {}}}]},
        "data": {"a": [1, 2.5]},
        "revision": 7,
    }


def test_embedded_structs_appear_in_the_object_that_holds_them() -> None:
    volume = text(1, "scratch") + field(2, field(2, b""))
    assert _decoded("v1", "Pod", field(2, field(1, volume))) == {
        "spec": {"volumes": [{"name": "scratch", "emptyDir": {}}]}
    }


def test_lists_of_integers_packed_or_not() -> None:
    packed = field(14, field(4, number(1) + number(300)))
    single = field(14, field(4, 1) + field(4, 300))
    assert _decoded("v1", "Pod", field(2, packed)) == _decoded("v1", "Pod", field(2, single))
    assert _decoded("v1", "Pod", field(2, packed)) == {"spec": {"securityContext": {"supplementalGroups": [1, 300]}}}


def test_a_message_that_is_a_list_in_json() -> None:
    extra = field(5, text(1, "scopes") + field(2, text(1, "a") + text(1, "b")))
    assert _decoded("authorization.k8s.io/v1", "SubjectAccessReview", field(2, extra)) == {
        "spec": {"extra": {"scopes": ["a", "b"]}}
    }


def _crd(schema: bytes) -> Any:
    version = field(7, text(1, "v1") + field(4, field(1, schema)))
    return _decoded(*_CRD, field(2, version))["spec"]["versions"][0]["schema"]["openAPIV3Schema"]


def test_schemas_of_definitions() -> None:
    inner = text(5, "string")
    schema = field(8, field(1, b"3")) + number(9 << 3 | 1) + struct.pack("<d", 10) + field(20, field(1, b'"x"'))
    schema += field(24, field(1, inner)) + field(
        29, text(1, "p") + field(2, field(24, field(2, inner) + field(2, inner)))
    )
    schema += field(30, field(1, 1)) + field(32, text(1, "d") + field(2, text(2, "p")))
    assert _crd(schema) == {
        "default": 3,
        "maximum": 10,
        "enum": ["x"],
        "items": {"type": "string"},
        "properties": {"p": {"items": [{"type": "string"}, {"type": "string"}]}},
        "additionalProperties": True,
        "dependencies": {"d": ["p"]},
    }
    assert _crd(field(30, field(1, 0))) == {"additionalProperties": False}
    assert _crd(field(30, field(1, 1) + field(2, inner))) == {"additionalProperties": {"type": "string"}}


def test_delete_options_belong_to_every_group() -> None:
    raw = field(1, 0) + text(4, "Orphan") + text(5, "All")
    for group in ("v1", "apps/v1", "kagent.dev/v1alpha2"):
        assert _decoded(group, "DeleteOptions", raw) == {
            "gracePeriodSeconds": 0, "propagationPolicy": "Orphan", "dryRun": ["All"],
        }  # fmt: skip


def test_fields_of_a_newer_kubernetes_are_ignored() -> None:
    assert _decoded("v1", "ConfigMap", field(4000, b"later") + field(4001, 1) + field(4, 1)) == {"immutable": True}


def _nested(depth: int) -> bytes:
    schema = b""
    for _ in range(depth):
        schema = field(29, text(1, "p") + field(2, schema))
    return envelope(*_CRD, field(2, field(7, field(4, field(1, schema)))))


def test_depth_is_bounded() -> None:
    decode(_nested(MAX_DEPTH - 10))
    with pytest.raises(BadRequest, match="nested more than"):
        decode(_nested(MAX_DEPTH + 10))


_POD = ("v1", "Pod")


@pytest.mark.parametrize(
    ("body", "fault"),
    [
        (b"", "does not begin with"),
        (b'{"kind":"Pod"}', "does not begin with"),
        (b"k8s\x00", "must name both apiVersion and kind"),
        (envelope("v1", "", b""), "must name both apiVersion and kind"),
        (envelope("v1", "Gadget", b""), "no kind 'Gadget' is known for version 'v1'"),
        (envelope("kagent.dev/v1alpha2", "Agent", b""), "send it as application/json"),
        (envelope(*_POD, b"", text(3, "gzip")), "content encoding 'gzip' is not supported"),
        (envelope(*_POD, b"", text(4, "application/json")), "the envelope holds 'application/json'"),
        (envelope(*_POD, field(1, text(1, "a") + text(1, "b"))), "metadata.name: the field is sent twice"),
        (envelope(*_POD, field(1, field(1, b"\xff"))), "metadata.name: the text is not valid UTF-8"),
        (envelope(*_POD, field(1, field(1, 1 << 40))), "metadata.name: field 1 is varint, not length-delimited"),
        (envelope(*_POD, field(1, field(9, field(1, 1 << 50)))), "metadata.deletionTimestamp: .* is no time"),
        (envelope(*_POD, field(1, field(9, field(2, -5)))), "metadata.deletionTimestamp: -5 is no fraction"),
        (envelope(*_POD, field(2, field(1, field(2, b"\x0a\x09")))), "spec.volumes: field 1 ends after the body"),
        (envelope("apps/v1", "ControllerRevision", field(2, field(1, b"{"))), "data: the embedded JSON cannot be read"),
        (envelope("apps/v1", "ControllerRevision", field(2, field(1, b"[" * 200_000))), "embedded JSON cannot be read"),
        (envelope("policy/v1", "PodDisruptionBudget", field(2, field(1, field(1, 2)))), "spec.minAvailable: an Int"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_a_bad_request(body: bytes, fault: str) -> None:
    with pytest.raises(BadRequest, match=fault):
        decode(body)
