"""Version 0.3 from and to 1.0, as tables; what goes out is read by the official SDK's own types of 0.3."""

from __future__ import annotations

from typing import Any

import pytest
from a2a.compat.v0_3 import a2a_v0_3_pb2 as pb03
from a2a.compat.v0_3 import types as v03
from google.protobuf.json_format import ParseDict

from quarterdeck.a2atypes import cards, legacy, legacy_proto, updates
from quarterdeck.a2atypes import operations as op

STAMP = "2026-05-26T10:00:00.000Z"
PARTS: list[tuple[Any, Any, Any]] = [
    ({"text": "hi"}, {"kind": "text", "text": "hi"}, {"text": "hi"}),
    ({"data": {"a": 1}}, {"kind": "data", "data": {"a": 1}}, {"data": {"data": {"a": 1}}}),
    ({"data": [1]}, {"kind": "data", "data": {"value": [1]}}, {"data": {"data": {"value": [1]}}}),
    (
        {"raw": "dGNr", "mediaType": "text/plain", "filename": "f"},
        {"kind": "file", "file": {"bytes": "dGNr", "mimeType": "text/plain", "name": "f"}},
        {"file": {"fileWithBytes": "dGNr", "mimeType": "text/plain", "name": "f"}},
    ),
    (
        {"url": "https://x/y"},
        {"kind": "file", "file": {"uri": "https://x/y"}},
        {"file": {"fileWithUri": "https://x/y"}},
    ),
    (
        {"text": "x", "metadata": {"k": 1}},
        {"kind": "text", "text": "x", "metadata": {"k": 1}},
        {"text": "x", "metadata": {"k": 1}},
    ),
]


@pytest.mark.parametrize(("now", "old", "proto"), PARTS)
def test_parts(now: Any, old: Any, proto: Any) -> None:
    message = {"messageId": "m", "role": "ROLE_USER", "parts": [now]}
    assert legacy.message_out(message)["parts"] == [old]
    assert legacy_proto.message_out(message)["content"] == [proto]
    v03.Message.model_validate(legacy.message_out(message))
    ParseDict(legacy_proto.message_out(message), pb03.Message())
    if now.get("data") != [1]:  # 0.3 has objects only: what it was is not known any more
        assert legacy.message_in(legacy.message_out(message)) == message
        assert legacy_proto.message_in(legacy_proto.message_out(message)) == message


STATES = [
    ("SUBMITTED", "submitted", False), ("WORKING", "working", False), ("COMPLETED", "completed", True),
    ("FAILED", "failed", True), ("CANCELED", "canceled", True), ("REJECTED", "rejected", True),
    ("INPUT_REQUIRED", "input-required", True), ("AUTH_REQUIRED", "auth-required", True),
]  # fmt: skip


@pytest.mark.parametrize(("now", "old", "final"), STATES)
def test_states_and_the_final_event(now: str, old: str, final: bool) -> None:
    status = {"state": f"TASK_STATE_{now}", "timestamp": STAMP}
    event = {"statusUpdate": {"taskId": "t", "contextId": "c", "status": status}}
    out = legacy.event_out(event)
    assert (out["status"]["state"], out["final"], out["kind"]) == (old, final, "status-update")
    v03.TaskStatusUpdateEvent.model_validate(out)
    ParseDict(legacy_proto.event_out(event), pb03.StreamResponse())
    task = {"id": "t", "contextId": "c", "status": status, "artifacts": [], "history": []}
    v03.Task.model_validate(legacy.task_out(task))
    ParseDict(legacy_proto.task_out(task), pb03.Task())


SECRET = {"schemes": ["Bearer"], "credentials": "x"}
REQUESTS: list[tuple[str, Any, Any]] = [
    (op.GET, {"id": "t", "historyLength": 1}, {"id": "t", "historyLength": 1}),
    (op.PUSH_LIST, {"id": "t"}, {"taskId": "t"}),
    (op.PUSH_GET, {"id": "t", "pushNotificationConfigId": "c"}, {"taskId": "t", "id": "c"}),
    (op.PUSH_GET, {"id": "t"}, {"taskId": "t", "id": ""}),
    (
        op.PUSH_CREATE,
        {"taskId": "t", "pushNotificationConfig": {"url": "u", "authentication": SECRET}},
        {"taskId": "t", "url": "u", "authentication": {"scheme": "Bearer", "credentials": "x"}},
    ),
    (
        op.SEND,
        {
            "message": {"kind": "message", "messageId": "m", "role": "user", "parts": []},
            "configuration": {"blocking": False, "historyLength": 0},
        },
        {"message": {"messageId": "m", "role": "ROLE_USER", "parts": []}, "configuration": {"returnImmediately": True}},
    ),
    (
        op.SEND,
        {"message": {}, "configuration": {"blocking": True, "pushNotificationConfig": {"url": "u", "id": "i"}}},
        {
            "message": {"role": None},
            "configuration": {"returnImmediately": False, "taskPushNotificationConfig": {"url": "u", "id": "i"}},
        },
    ),
]  # fmt: skip


@pytest.mark.parametrize(("operation", "old", "now"), REQUESTS)
def test_requests(operation: str, old: Any, now: Any) -> None:
    assert legacy.request_in(operation, old) == now


def test_requests_of_http_in_either_spelling() -> None:
    now = {
        "message": {"messageId": "m", "contextId": "c", "role": "ROLE_USER", "parts": [{"text": "hi"}]},
        "configuration": {"acceptedOutputModes": ["text"], "returnImmediately": False},
    }
    camel = {"messageId": "m", "contextId": "c", "role": "ROLE_USER", "content": [{"text": "hi"}]}
    snake = {"message_id": "m", "context_id": "c", "role": "ROLE_USER", "content": [{"text": "hi"}]}
    text = {"messageId": "m", "contextId": "c", "role": "user", "parts": [{"kind": "text", "text": "hi"}]}
    for message in (camel, snake, text):
        configuration = {"acceptedOutputModes": ["text"], "blocking": True}
        given = {"message": message, "configuration": configuration}
        assert legacy_proto.request_in(op.SEND, given) == now
    assert legacy_proto.request_in(op.SEND, {"request": snake})["message"] == now["message"]
    created = {"taskId": "t", "config_id": "i", "config": {"push_notification_config": {"url": "u"}}}
    assert legacy_proto.request_in(op.PUSH_CREATE, created) == {"taskId": "t", "url": "u", "id": "i"}


VERSIONS = [
    ("", "0.3"),
    (" ", "0.3"),
    ("0.3", "0.3"),
    ("0.3.0", "0.3"),
    ("1.0", "1.0"),
    ("1.0.7", "1.0"),
    (" 1.0 ", "1.0"),
]


@pytest.mark.parametrize(("header", "version"), VERSIONS)
def test_the_version_a_header_asks_for(header: str, version: str) -> None:
    assert op.version(header) == version


PATHS = [
    ("POST", "/message:send", "1.0", op.SEND, {}),
    ("POST", "/acme/message:send", "1.0", op.SEND, {"tenant": "acme"}),
    ("POST", "/v1/message:send", "0.3", op.SEND, {}),
    ("GET", "/tasks/a%3Ab", "1.0", op.GET, {"id": "a:b"}),
    ("GET", "/acme/tasks", "1.0", op.LIST, {"tenant": "acme"}),
    ("POST", "/tasks/t:cancel", "1.0", op.CANCEL, {"id": "t"}),
    ("GET", "/v1/tasks/t:subscribe", "0.3", op.SUBSCRIBE, {"id": "t"}),
    ("DELETE", "/tasks/t/pushNotificationConfigs/c", "1.0", op.PUSH_DELETE, {"taskId": "t", "id": "c"}),
    ("GET", "/v1/card", "0.3", op.EXTENDED_CARD, {}),
]


@pytest.mark.parametrize(("method", "path", "version", "operation", "params"), PATHS)
def test_paths(method: str, path: str, version: str, operation: str, params: Any) -> None:
    assert op.match(method, path, version) == op.Match(operation, params)


def test_updates_between_two_states_of_a_task() -> None:
    before = {"id": "t", "contextId": "c", "status": {"state": "TASK_STATE_WORKING", "timestamp": "1"}, "artifacts": []}
    assert updates.updates(None, before) == [{"task": before}]
    assert updates.updates(before, before | {"status": before["status"] | {"timestamp": "2"}}) == []
    artifact = {"artifactId": "a", "parts": [{"text": "x"}]}
    after = before | {"artifacts": [artifact], "status": {"state": "TASK_STATE_COMPLETED"}}
    first, second = updates.updates(before, after)
    assert first["artifactUpdate"]["artifact"] == artifact
    assert second["statusUpdate"]["status"]["state"] == "TASK_STATE_COMPLETED"


def test_a_card_of_kagent_is_one_of_both_versions() -> None:
    kagent = {
        "name": "k8s_agent", "description": "", "url": "http://k8s-agent.kagent:8080", "version": "",
        "capabilities": {"streaming": True, "pushNotifications": False, "stateTransitionHistory": True},
        "defaultInputModes": ["text"], "defaultOutputModes": ["text"],
        "skills": [{"id": "s", "name": "S", "tags": []}],
    }  # fmt: skip
    interfaces = [cards.Interface("http://a/", cards.JSONRPC), cards.Interface("a:8081", cards.GRPC, ("1.0",))]
    card = cards.served(kagent, interfaces, push=True, extended=True)
    v03.AgentCard.model_validate(card)
    from a2a.types import a2a_pb2

    parsed = ParseDict(card, a2a_pb2.AgentCard(), ignore_unknown_fields=True)
    assert [(i.protocol_binding, i.protocol_version) for i in parsed.supported_interfaces] == [
        ("JSONRPC", "1.0"), ("GRPC", "1.0"), ("JSONRPC", "0.3"),
    ]  # fmt: skip
    assert card["url"] == "http://a/" and card["capabilities"]["pushNotifications"] is True
    assert card["defaultInputModes"] == ["text/plain", "application/json"]
    assert card["skills"][0]["description"] and card["skills"][0]["tags"]
