"""The verbs of a resource, from an authorized request to its response."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from time import time
from typing import Any, cast

from quarterdeck.apiserver import faults, lists, tables, watch
from quarterdeck.apiserver.codec import Accept, decode_json, decode_object, decode_yaml, encode, negotiate
from quarterdeck.apiserver.deletion import Deletion
from quarterdeck.apiserver.kinds import Kind
from quarterdeck.apiserver.lists import check_reached, parse_version
from quarterdeck.apiserver.options import WriteOptions, delete_options, write_options
from quarterdeck.apiserver.patch import json_patch, merge_patch, strategic_merge
from quarterdeck.apiserver.requests import ApiRequest, authorization_attributes
from quarterdeck.apiserver.respond import send_bytes, success
from quarterdeck.apiserver.security import Attributes, Authorizer, forbidden
from quarterdeck.apiserver.selectors import Selection, selection
from quarterdeck.apiserver.store import Store
from quarterdeck.apiserver.versions import ready, served_bytes, to_served
from quarterdeck.apiserver.writes import Writes, Written
from quarterdeck.errors import BadRequest, Cause, Invalid, MethodNotAllowed, UnsupportedMediaType
from quarterdeck.kube.resource import Object

_JSON_PATCH = "application/json-patch+json"
_MERGE_PATCH = "application/merge-patch+json"
_STRATEGIC = "application/strategic-merge-patch+json"
_APPLY = ("application/apply-patch+yaml", "application/apply-patch+json", "application/apply-patch+cbor")


@dataclass(slots=True)
class ResourceVerbs:
    """get, list, watch, create, update, patch, delete, deletecollection on stored kinds."""

    store: Store
    writes: Writes
    deletion: Deletion
    now: Callable[[], float] = time
    max_pending: int = watch.MAX_PENDING
    authorizer: Authorizer | None = None  # for applies that turn out to be creates
    _watchers: set[watch.Watcher] = field(default_factory=set[watch.Watcher])

    async def handle(self, request: ApiRequest, kind: Kind) -> None:
        named = request.verb in ("get", "update", "patch", "delete")
        wrong = request.verb not in kind.verbs or (bool(request.name) is not named and request.verb != "watch")
        if wrong and not request.subresource:
            raise MethodNotAllowed(
                "the server does not allow this method on the requested resource", kind=kind.resource.plural
            )
        match request.verb:
            case "get":
                await self.get(request, kind)
            case "list":
                await self.list(request, kind)
            case "watch":
                await self.watch(request, kind)
            case "create":
                await self.create(request, kind)
            case "update":
                await self.update(request, kind)
            case "patch":
                await self.patch(request, kind)
            case "delete":
                await self.delete(request, kind)
            case "deletecollection":
                await self.delete_collection(request, kind)
            case _:
                raise MethodNotAllowed("the server does not allow this method on the requested resource")

    # -- reading
    async def get(self, request: ApiRequest, kind: Kind) -> None:
        accept = _accept(request)
        entry = self.store.entry(kind.key, self._namespace(request, kind), request.name)
        if entry is None:
            wanted = request.query.get("resourceVersion", "")
            if wanted:
                check_reached(parse_version(wanted), self.store.visible)
            raise faults.not_found(kind, request.name)
        await ready(kind, [entry])
        if accept.shape == "object":
            body = served_bytes(kind, entry) + b"\n"
        else:
            body = self._render(request, kind, to_served(kind, entry), accept)
        send_bytes(request.exchange, 200, body, accept)

    async def list(self, request: ApiRequest, kind: Kind) -> None:
        accept = _accept(request)
        query = lists.parse_list(request.query, self.store.visible)
        found = lists.page(self.store, kind, self._scope(request, kind), self._selection(request, kind), query)
        await ready(kind, found.entries)
        body = lists.render(kind, found, accept.shape, self.now(), request.query.get("includeObject", "Metadata"))
        send_bytes(request.exchange, 200, body, accept)

    async def watch(self, request: ApiRequest, kind: Kind) -> None:
        accept = _accept(request)
        query = watch.parse_watch(request.query, self.store.visible, accept.shape)
        wanted = self._selection(request, kind)
        if request.name:  # the old form: a watch on one object
            wanted = selection("", f"metadata.name={request.name}", ())
        watcher = watch.Watcher(self.store, kind, self._scope(request, kind), wanted, query, self.max_pending)
        self._watchers.add(watcher)
        try:
            await watcher.run(request.exchange)
        finally:
            self._watchers.discard(watcher)

    def end_watches(self) -> None:
        """The server stops: clients go on elsewhere, or when it is back, from their last version."""
        for watcher in self._watchers:
            watcher.stop()

    # -- writing
    async def create(self, request: ApiRequest, kind: Kind) -> None:
        accept = _accept(request)
        options = self.options(request)
        namespace = self._namespace(request, kind)
        obj = self.body(request, kind, options)
        done = await self.writes.create(kind, namespace, obj, options)
        self.answer(request, kind, done, options, accept)

    async def update(self, request: ApiRequest, kind: Kind) -> None:
        accept = _accept(request)
        options = self.options(request)
        obj = self.body(request, kind, options)
        namespace = self._namespace(request, kind)
        done = await self.writes.update(kind, namespace, request.name, obj, options, request.subresource)
        self.answer(request, kind, done, options, accept)

    async def patch(self, request: ApiRequest, kind: Kind) -> None:
        accept = _accept(request)
        options = self.options(request)
        media = request.header(b"content-type").partition(";")[0].strip()
        namespace = self._namespace(request, kind)
        if media in _APPLY:
            config = self.apply_body(request, kind, options)
            if self.store.entry(kind.key, namespace, request.name) is None:
                self._may_create(request)
            done = await self.writes.apply(kind, namespace, request.name, config, options, request.subresource)
        else:
            change = self.patch_change(request, kind, media, options)
            done = await self.writes.modify(kind, namespace, request.name, change, options, request.subresource)
        self.answer(request, kind, done, options, accept)

    async def delete(self, request: ApiRequest, kind: Kind) -> None:
        accept = _accept(request)
        options = delete_options(_delete_body(request), request.query, request.dry_run)
        options.user = request.user
        done = await self.deletion.delete(kind, self._namespace(request, kind), request.name, options)
        if done.deleted and kind.resource.plural != "pods":
            uid = done.obj["metadata"].get("uid", "")
            details: Object = {"name": request.name, "kind": kind.resource.plural, "uid": uid}
            if kind.resource.group:
                details["group"] = kind.resource.group
            send_bytes(request.exchange, 200, encode(success(details)) + b"\n", accept, request.warnings)
            return
        send_bytes(request.exchange, 200, self._render(request, kind, done.obj, accept), accept, request.warnings)

    async def delete_collection(self, request: ApiRequest, kind: Kind) -> None:
        accept = _accept(request)
        if kind.resource.namespaced and request.namespace is None:
            raise MethodNotAllowed(f"{kind.group_resource} are deleted namespace by namespace: the URL must name one")
        options = delete_options(_delete_body(request), request.query, request.dry_run)
        options.user = request.user
        wanted = self._selection(request, kind)
        gone = await self.deletion.delete_collection(kind, self._scope(request, kind), wanted, options)
        body: Object = {
            "kind": kind.list_name, "apiVersion": kind.resource.api_version,
            "metadata": {"resourceVersion": str(self.store.visible)}, "items": gone,
        }  # fmt: skip
        send_bytes(request.exchange, 200, encode(body) + b"\n", accept, request.warnings)

    # -- parts shared with subresources
    def options(self, request: ApiRequest) -> WriteOptions:
        made = write_options(request.query, request.user, request.header(b"user-agent"), request.dry_run)
        made.warnings = request.warnings
        return made

    def body(self, request: ApiRequest, kind: Kind, options: WriteOptions) -> Object:
        """The object in the request; duplicate fields are refused or warned about."""
        strict = options.validation != "Ignore"
        obj, duplicates = decode_object(request.exchange.body, request.header(b"content-type"), strict=strict)
        self._duplicates(kind, duplicates, obj, options)
        return obj

    def apply_body(self, request: ApiRequest, kind: Kind, options: WriteOptions) -> Object:
        """The configuration of a server-side apply. Raises BadRequest without a field manager."""
        if "fieldManager" not in request.query:
            cause = Cause("fieldManager", "Required value: is required for apply patch", "FieldValueRequired")
            raise Invalid(
                f'PatchOptions.meta.k8s.io "" is invalid: fieldManager: {cause.message}', kind="PatchOptions",
                group="meta.k8s.io", causes=(cause,),
            )  # fmt: skip
        body = request.exchange.body
        value, duplicates = decode_json(body, strict=True) if body[:1] == b"{" else decode_yaml(body)
        if not isinstance(value, dict):
            raise BadRequest("error decoding YAML: the body of an apply must be an object")
        config = cast(Object, value)
        self._duplicates(kind, duplicates, config, options)
        return config

    def patch_change(
        self, request: ApiRequest, kind: Kind, media: str, options: WriteOptions
    ) -> Callable[[Object], Object]:
        """What a JSON, merge or strategic patch does to the live object."""
        if options.force:
            raise BadRequest("force may not be set for non-apply patch")
        if (media == _STRATEGIC and kind.custom) or media not in (_JSON_PATCH, _MERGE_PATCH, _STRATEGIC):
            accepted = [_JSON_PATCH, _MERGE_PATCH, *([] if kind.custom else [_STRATEGIC]), _APPLY[0]]
            raise UnsupportedMediaType(
                "the body of the request was in an unknown format - accepted media types include: "
                + ", ".join(accepted)
            )
        patch, duplicates = decode_json(request.exchange.body, strict=options.validation != "Ignore")
        shown = request.exchange.body.decode("utf-8", "replace")

        def change(live: Object) -> Object:
            before = set(kind.schema.unknown_fields(live)) if options.validation != "Ignore" else set[str]()
            if media == _JSON_PATCH:
                made = json_patch(live, patch)
            elif media == _MERGE_PATCH:
                made = merge_patch(live, patch)
            else:
                made = strategic_merge(live, patch, kind.schema.root)
            if not isinstance(made, dict):
                raise BadRequest("the patch does not leave an object")
            self._check_patched(kind, cast(Object, made), before, duplicates, shown, options)
            return cast(Object, made)

        return change

    def _check_patched(
        self, kind: Kind, made: Object, before: set[str], duplicates: list[str], shown: str, options: WriteOptions
    ) -> None:
        if options.validation == "Ignore":
            return
        problems = [*duplicates, *(text for text in kind.schema.unknown_fields(made) if text not in before)]
        if not problems:
            return
        if options.validation == "Warn":
            options.warnings.extend(problems)
            return
        text = f'Invalid value: "{shown}": strict decoding error: {", ".join(problems)}'
        raise Invalid(f' "" is invalid: patch: {text}', causes=(Cause("patch", text),))

    def answer(self, request: ApiRequest, kind: Kind, done: Written, options: WriteOptions, accept: Accept) -> None:
        status = 201 if done.created else 200
        body = self._render(request, kind, done.obj, accept)
        send_bytes(request.exchange, status, body, accept, options.warnings)

    # -- inside
    def _may_create(self, request: ApiRequest) -> None:
        """Raises Forbidden: an apply of something new needs the right to create besides the one to patch."""
        if self.authorizer is None:
            return
        asked = Attributes(request.user, **{**authorization_attributes(request), "verb": "create"})
        decision = self.authorizer.decide(asked)
        if not decision.allowed:
            raise forbidden(asked, decision.reason)

    def _duplicates(self, kind: Kind, duplicates: list[str], obj: Object, options: WriteOptions) -> None:
        if not duplicates or options.validation == "Ignore":
            return
        if options.validation == "Strict":
            raise faults.strict_decoding(kind, [*duplicates, *kind.schema.unknown_fields(obj)])
        options.warnings.extend(duplicates)

    def _render(self, request: ApiRequest, kind: Kind, obj: Object, accept: Accept) -> bytes:
        include = request.query.get("includeObject", "Metadata")
        return tables.render(kind, obj, accept.shape, self.now(), include) + b"\n"

    def _namespace(self, request: ApiRequest, kind: Kind) -> str:
        if not kind.resource.namespaced:
            if request.namespace is not None:
                raise faults.not_found(kind, request.name)
            return ""
        if request.namespace is None:
            if request.verb != "create":
                raise faults.not_found(kind, request.name)
            raise MethodNotAllowed(f"{kind.group_resource} are namespaced: the URL must name a namespace")
        return request.namespace

    def _scope(self, request: ApiRequest, kind: Kind) -> str | None:
        return request.namespace if kind.resource.namespaced else None

    def _selection(self, request: ApiRequest, kind: Kind) -> Selection:
        query = request.query
        return selection(query.get("labelSelector", ""), query.get("fieldSelector", ""), kind.selectable)


def _accept(request: ApiRequest) -> Accept:
    return negotiate(request.header(b"accept"), tables.SHAPES)


def _delete_body(request: ApiRequest) -> Object:
    body = request.exchange.body
    if not body.strip():
        return {}
    obj: Any = decode_object(body, request.header(b"content-type"))[0]
    if obj.get("kind") not in (None, "DeleteOptions"):
        raise BadRequest(f"the body of a delete must be DeleteOptions, not {obj.get('kind')}")
    return cast(Object, obj)
