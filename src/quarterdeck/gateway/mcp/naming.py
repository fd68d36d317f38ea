"""What a member calls its things becomes what clients call them, and back. Messages stay raw but for such names."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import msgspec
from msgspec import Raw

from quarterdeck.mcptypes import lists, protocol

from .call import text_of
from .groups import McpGroup, Member

Found = tuple[Member, str, str, dict[str, Any]]
"""The member a request is for, what the client calls the thing, what the member does, and the params for it."""

COMPLETE = "completion/complete"
SUBSCRIBE, UNSUBSCRIBE = "resources/subscribe", "resources/unsubscribe"
_BY_URI = frozenset({protocol.RESOURCES_READ, SUBSCRIBE, UNSUBSCRIBE})
_BY_TASK = frozenset({"tasks/get", "tasks/update", "tasks/cancel", "tasks/result"})
_UI_KEY = "ui/resourceUri"
"""Where older servers of MCP Apps say what newer ones say in ``_meta.ui.resourceUri``."""


def routed(method: str) -> bool:
    """Whether requests of this method name the thing they are about, and so the member."""
    return method in (protocol.TOOLS_CALL, protocol.PROMPTS_GET, COMPLETE) or method in _BY_URI or method in _BY_TASK


def find(group: McpGroup, method: str, params: dict[str, Raw]) -> Found | str:
    """Who a request of a :func:`routed` method is for; the exposed name when nobody is."""
    changed: dict[str, Any] = dict(params)
    if method == COMPLETE:
        return _find_reference(group, changed)
    if method in _BY_URI:
        exposed, found = text_of(params.get("uri")), group.uri_in(text_of(params.get("uri")))
        member = "uri"
    elif method in _BY_TASK:
        exposed, found = text_of(params.get("taskId")), group.task_in(text_of(params.get("taskId")))
        member = "taskId"
    else:
        exposed = text_of(params.get("name"))
        found = group.tool_in(exposed) if method == protocol.TOOLS_CALL else group.name_in(exposed)
        member = "name"
    if found is None:
        return exposed
    changed[member] = found[1]
    return found[0], exposed, found[1], changed


def _find_reference(group: McpGroup, params: dict[str, Any]) -> Found | str:
    reference = params.get("ref")
    members: dict[str, Any] = dict(lists.members(reference)) if isinstance(reference, Raw) else {}
    by_uri = text_of(members.get("type")) == "ref/resource"
    key = "uri" if by_uri else "name"
    exposed = text_of(members.get(key))
    found = group.uri_in(exposed) if by_uri else group.name_in(exposed)
    if found is None:
        return exposed
    members[key] = found[1]
    params["ref"] = members
    return found[0], exposed, found[1], params


# -- lists


def item_out(member: Member, key: str, item: Raw) -> Raw:
    """An item of a list under its new name. Raises msgspec.DecodeError when it is no object."""
    if not member.mark:
        return item
    fields: dict[str, Any] = dict(lists.members(item))
    if key == "resources":
        _change(fields, "uri", member.uri_out)
    elif key == "resourceTemplates":
        _change(fields, "uriTemplate", member.uri_out)
    elif key == "tasks":
        _change(fields, "taskId", member.task_out)
    else:
        _change(fields, "name", member.name_out)
        if key == "tools" and "_meta" in fields and b"esourceUri" in bytes(fields["_meta"]):
            fields["_meta"] = _ui_meta(member, fields["_meta"])
    return Raw(msgspec.json.encode(fields))


def label_of(key: str, item: Raw) -> str:
    """What decisions about an item go by: a tool's or prompt's name, a resource's URI."""
    field = {"resources": "uri", "resourceTemplates": "uriTemplate", "tasks": "taskId"}.get(key, "name")
    return text_of(lists.members(item).get(field))


def _ui_meta(member: Member, raw: Raw) -> dict[str, Any]:
    meta: dict[str, Any] = dict(lists.members(raw))
    _change(meta, _UI_KEY, member.uri_out)
    if "ui" in meta:
        view: dict[str, Any] = dict(lists.members(meta["ui"]))
        _change(view, "resourceUri", member.uri_out)
        meta["ui"] = view
    return meta


def _change(fields: dict[str, Any], key: str, change: Callable[[str], str]) -> None:
    raw = fields.get(key)
    text = text_of(raw) if isinstance(raw, Raw) else ""
    if text:
        fields[key] = change(text)


# -- results and notifications


def result_out(member: Member, method: str, exposed: str, own: str) -> Callable[[bytes], bytes] | None:
    """Rewrites a response of the member; None where its names pass as they are."""
    if not member.mark:
        return None

    def change(body: bytes) -> bytes:
        if method in (protocol.TOOLS_CALL, protocol.PROMPTS_GET):
            if b'"taskId"' not in body and b'"resource' not in body:
                return body
        elif method not in _BY_URI and method not in _BY_TASK:
            return body
        return _message_out(member, body, exposed, own)

    return change


def _message_out(member: Member, body: bytes, exposed: str, own: str) -> bytes:
    top = lists.members(body)
    if "result" not in top:
        return body
    result: Any = msgspec.json.decode(top["result"])
    if not isinstance(result, dict):
        return body
    fields = cast(dict[str, Any], result)
    _task(member, fields)
    for content in _dicts(fields.get("contents")):  # of resources/read
        uri = content.get("uri")
        if isinstance(uri, str):
            content["uri"] = exposed if uri == own else member.uri_out(uri)
    for content in _dicts(fields.get("content")):  # of tools/call
        _content(member, content)
    for message in _dicts(fields.get("messages")):  # of prompts/get
        for content in _dicts([message.get("content")]):
            _content(member, content)
    return msgspec.json.encode({**top, "result": fields})


def _task(member: Member, fields: dict[str, Any]) -> None:
    for place in (fields, *_dicts([fields.get("task")])):
        if isinstance(place.get("taskId"), str):
            place["taskId"] = member.task_out(place["taskId"])
    for meta in _dicts([fields.get("_meta")]):
        for related in _dicts([meta.get("io.modelcontextprotocol/related-task")]):
            if isinstance(related.get("taskId"), str):
                related["taskId"] = member.task_out(related["taskId"])


def _content(member: Member, content: dict[str, Any]) -> None:
    """Links to resources, and resources that are there, are read through the gateway, too."""
    place = content.get("resource") if content.get("type") == "resource" else content
    if content.get("type") in ("resource", "resource_link"):
        for found in _dicts([place]):
            if isinstance(found.get("uri"), str):
                found["uri"] = member.uri_out(found["uri"])


def _dicts(value: object) -> list[dict[str, Any]]:
    """The objects of an array."""
    return [v for v in cast(list[Any], value) if isinstance(v, dict)] if isinstance(value, list) else []


def notice_out(member: Member, method: str, params: Raw | Any) -> Any:
    """The params of a notification of the member's, with the client's names in them."""
    if not member.mark or not isinstance(params, Raw):
        return params
    if method == "notifications/resources/updated":
        fields: dict[str, Any] = dict(lists.members(params))
        _change(fields, "uri", member.uri_out)
        return fields
    if method == "notifications/tasks/status":
        fields = dict(lists.members(params))
        _change(fields, "taskId", member.task_out)
        return fields
    return params
