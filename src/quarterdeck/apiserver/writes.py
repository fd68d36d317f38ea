"""create, update and patch: what happens to an object between the request body and the store.

Order, as in kube-apiserver: decode → defaults → admission → reset what the client may not set → managed fields →
validation → store. One object is changed under its lock, so the server-side retry loop of upstream is not needed.
"""

from __future__ import annotations

import copy
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from time import time
from typing import Any, Protocol, cast

from quarterdeck.apiserver import faults, objects
from quarterdeck.apiserver.admission.attributes import AdmissionAttributes, Operation
from quarterdeck.apiserver.apply import apply, track
from quarterdeck.apiserver.kinds import Kind, KindRegistry
from quarterdeck.apiserver.namespaces import check_namespace_exists, default_namespace
from quarterdeck.apiserver.options import WriteOptions
from quarterdeck.apiserver.store import Entry, Key, Store
from quarterdeck.apiserver.versions import as_answered, is_stored_as_wanted, ready, to_served, to_stored
from quarterdeck.errors import AlreadyExists, BadRequest, Cause
from quarterdeck.kube.resource import Object

_NAME_ATTEMPTS = 8

Change = Callable[[Object], Object]
"""From a copy of the live object (served version) to the wanted one."""


class Admission(Protocol):
    """Mutates or refuses a write; see ``apiserver/admission``."""

    async def admit(self, a: AdmissionAttributes) -> None: ...

    async def validate(self, a: AdmissionAttributes) -> None: ...

    def release(self, a: AdmissionAttributes) -> None: ...


class Hooks(Protocol):
    """Told about each write before it is stored: CRD conditions, allocated addresses."""

    def prepare(self, kind: Kind, obj: Object, old: Object | None) -> None: ...


@dataclass(slots=True)
class Written:
    """A finished write: the object in the served version; ``created`` decides between 200 and 201."""

    obj: Object
    created: bool = False
    deleted: bool = False


@dataclass(slots=True)
class Writes:
    """The writing verbs on one store."""

    store: Store
    registry: KindRegistry
    admission: Admission | None = None
    hooks: list[Hooks] = field(default_factory=list[Hooks])
    now: Callable[[], float] = time

    # -- verbs
    async def create(self, kind: Kind, namespace: str, obj: Object, options: WriteOptions) -> Written:
        """Raises AlreadyExists, Invalid, Forbidden, NotFound (namespace), BadRequest."""
        objects.check_type(kind, obj)
        objects.check_namespace(kind, obj, namespace)
        if obj["metadata"].get("resourceVersion"):
            raise BadRequest("resourceVersion should not be set on objects to be created")
        prefix = obj["metadata"].get("generateName") or ""
        generated = not obj["metadata"].get("name") and bool(prefix)
        for attempt in range(_NAME_ATTEMPTS):
            candidate = copy.deepcopy(obj) if generated else obj
            if generated:
                candidate["metadata"]["name"] = objects.generated_name(prefix)
            try:
                return await self._create(kind, namespace, candidate, options)
            except AlreadyExists:
                if not generated or attempt == _NAME_ATTEMPTS - 1:
                    raise
        raise AssertionError("unreachable: the last attempt returns or raises")

    async def update(
        self, kind: Kind, namespace: str, name: str, obj: Object, options: WriteOptions, subresource: str = ""
    ) -> Written:
        """Replace. Raises NotFound, Conflict, Invalid."""
        objects.check_type(kind, obj)
        objects.check_namespace(kind, obj, namespace)
        given = obj["metadata"].setdefault("name", name)
        if given != name:
            raise BadRequest(f"the name of the object ({given}) does not match the name on the URL ({name})")
        self.strict(kind, obj, [], options)
        if kind.custom and not obj["metadata"].get("resourceVersion"):
            text = "Invalid value: 0: must be specified for an update"
            raise faults.invalid(kind, name, [Cause("metadata.resourceVersion", text)])
        return await self.modify(kind, namespace, name, lambda live: obj, options, subresource)

    async def modify(
        self,
        kind: Kind,
        namespace: str,
        name: str,
        change: Change,
        options: WriteOptions,
        subresource: str = "",
        *,
        operation: str = "Update",
    ) -> Written:
        """Read, change, write one object under its lock. ``operation`` "Apply" leaves managed fields to ``change``."""
        async with self.store.lock(kind.key, (namespace, name)):
            entry = self.store.entry(kind.key, namespace, name)
            if entry is None:
                raise faults.not_found(kind, name)
            await ready(kind, [entry])
            live = to_served(kind, entry)
            wanted = change(copy.deepcopy(live))
            objects.check_metadata(kind, wanted)
            return await self._replace(kind, entry, live, wanted, options, subresource, operation)

    async def apply(
        self, kind: Kind, namespace: str, name: str, config: Object, options: WriteOptions, subresource: str = ""
    ) -> Written:
        """Server-side apply; creates what does not exist. Raises Conflict with the fields of other managers."""
        objects.check_type(kind, config)
        objects.check_namespace(kind, config, namespace)
        metadata: Object = config["metadata"]
        if metadata.setdefault("name", name) != name:
            raise BadRequest(f"the name of the object ({metadata['name']}) does not match the name on the URL ({name})")
        if metadata.get("managedFields"):
            raise BadRequest("metadata.managedFields must be nil")
        self.strict(kind, config, [], options)

        def merge(live: Object | None) -> Object:
            return apply(
                live, config, manager=options.manager, force=options.force, node=kind.schema.root,
                api_version=kind.resource.api_version, subresource=subresource, now=objects.rfc3339(self.now()),
                reset_fields=_reset_fields(kind, subresource),
            )  # fmt: skip

        if self.store.entry(kind.key, namespace, name) is None:
            if subresource or metadata.get("uid"):
                raise faults.not_found(kind, name)
            try:
                return await self._create(kind, namespace, merge(None), options, applied=True)
            except AlreadyExists:
                pass  # created meanwhile: apply to it
        return await self.modify(kind, namespace, name, merge, options, subresource, operation="Apply")

    # -- steps
    def strict(self, kind: Kind, obj: Object, problems: list[str], options: WriteOptions) -> None:
        """Unknown and duplicate fields: refused, warned about, or ignored. Raises BadRequest when Strict."""
        if options.validation == "Ignore":
            return
        found = [*problems, *kind.schema.unknown_fields(obj)]
        if not found:
            return
        if options.validation == "Strict":
            raise faults.strict_decoding(kind, found)
        options.warnings.extend(found)

    async def _create(
        self, kind: Kind, namespace: str, obj: Object, options: WriteOptions, *, applied: bool = False
    ) -> Written:
        name = str(obj["metadata"].get("name") or "")
        causes = objects.name_causes(kind, name)
        if causes:
            raise faults.invalid(kind, name, causes)
        if not applied:
            self.strict(kind, obj, [], options)
        namespace = default_namespace(kind, namespace)
        check_namespace_exists(self.store, kind, namespace, name)
        managed = obj["metadata"].get("managedFields")
        objects.new_metadata(obj, self.now())
        schema = kind.schema
        schema.prune(obj)
        schema.default(obj)
        schema.prepare_create(obj)
        attributes = self._attributes("CREATE", kind, obj, None, options)
        if self.admission is not None:
            await self.admission.admit(attributes)
        self._prepare(kind, obj, None)
        if applied:
            obj["metadata"]["managedFields"] = managed
        else:
            self._track(kind, None, obj, options, "")
        self._validate(kind, obj, None, "")
        async with self.store.lock(kind.key, (namespace, name)), self._admitted(attributes):
            return await self._store_new(kind, (namespace, name), obj, options)

    async def _store_new(self, kind: Kind, key: Key, obj: Object, options: WriteOptions) -> Written:
        if self.store.entry(kind.key, *key) is not None:
            raise faults.already_exists(kind, key[1])
        check_namespace_exists(self.store, kind, *key)
        if kind.stored_warning:
            options.warnings.append(kind.stored_warning)
        options.warnings.extend(kind.warnings)
        stored = await to_stored(kind, obj)
        if not options.dry_run:
            await self.store.put(kind.key, key, stored)
        return Written(await as_answered(kind, stored), created=True)

    async def _replace(
        self,
        kind: Kind,
        entry: Entry,
        live: Object,
        obj: Object,
        options: WriteOptions,
        subresource: str,
        operation: str,
    ) -> Written:
        name, metadata = entry.name, cast(Object, obj["metadata"])
        self._preconditions(kind, metadata, live["metadata"], name)
        objects.keep_metadata(obj, live)
        schema = kind.schema
        schema.prune(obj)
        schema.default(obj)
        attributes = self._attributes("UPDATE", kind, obj, live, options, subresource)
        if self.admission is not None:
            await self.admission.admit(attributes)
        schema.prepare_update(obj, live, subresource)
        self._prepare(kind, obj, live)
        if operation == "Update":
            self._track(kind, live, obj, options, subresource)
        causes = objects.metadata_causes(obj, live) if kind.custom else []  # built-ins check it themselves
        if causes:
            raise faults.invalid(kind, name, causes)
        self._validate(kind, obj, live, subresource)
        obj["metadata"]["resourceVersion"] = live["metadata"]["resourceVersion"]
        async with self._admitted(attributes):
            return await self._store_changed(kind, entry, live, obj, options)

    async def _store_changed(
        self, kind: Kind, entry: Entry, live: Object, obj: Object, options: WriteOptions
    ) -> Written:
        key, ended = (entry.namespace, entry.name), finished(obj)
        if not ended and obj == live and is_stored_as_wanted(kind, entry):
            return Written(obj)
        stored = await to_stored(kind, obj)
        if options.dry_run:
            ended = False
        elif ended:
            await self.store.remove(kind.key, key, stored)
        else:
            await self.store.put(kind.key, key, stored)
        return Written(await as_answered(kind, stored), deleted=ended)

    def _preconditions(self, kind: Kind, metadata: Object, live: Object, name: str) -> None:
        uid = metadata.get("uid")
        if uid and uid != live.get("uid"):
            raise faults.conflict(
                kind, name, f"Precondition failed: UID in precondition: {uid}, UID in object meta: {live.get('uid')}"
            )
        version = metadata.get("resourceVersion")
        if version and version not in ("0", live.get("resourceVersion")):
            raise faults.conflict(kind, name)

    def _attributes(
        self,
        operation: Operation,
        kind: Kind,
        obj: Object,
        old: Object | None,
        options: WriteOptions,
        subresource: str = "",
    ) -> AdmissionAttributes:
        metadata: Object = obj["metadata"]
        return AdmissionAttributes(
            user=options.user, operation=operation, resource=kind.resource, obj=obj, subresource=subresource,
            namespace=str(metadata.get("namespace") or ""), name=str(metadata.get("name") or ""), old=old,
            dry_run=options.dry_run, warnings=options.warnings,
        )  # fmt: skip

    @asynccontextmanager
    async def _admitted(self, attributes: AdmissionAttributes) -> AsyncGenerator[None]:
        """The validating steps, and giving back what they reserved once the write is over."""
        if self.admission is None:
            yield
            return
        try:
            await self.admission.validate(attributes)
            yield
        finally:
            self.admission.release(attributes)

    def _prepare(self, kind: Kind, obj: Object, old: Object | None) -> None:
        for hook in self.hooks:
            hook.prepare(kind, obj, old)

    def _track(self, kind: Kind, old: Object | None, obj: Object, options: WriteOptions, subresource: str) -> None:
        track(
            old, obj, manager=options.manager, node=kind.schema.root, api_version=kind.resource.api_version,
            subresource=subresource, now=objects.rfc3339(self.now()), reset_fields=_reset_fields(kind, subresource),
        )  # fmt: skip

    def _validate(self, kind: Kind, obj: Object, old: Object | None, subresource: str) -> None:
        causes = kind.schema.validate(obj, old, subresource)
        if causes:
            raise faults.invalid(kind, str(obj["metadata"].get("name") or ""), causes)


def _reset_fields(kind: Kind, subresource: str) -> tuple[str, ...] | None:
    """What a request cannot set of a custom resource with a status; None: built-in kinds know themselves."""
    if not kind.custom:
        return None
    if "status" not in kind.subresources:
        return ()
    if subresource != "status":
        return ("status",)
    return tuple(set(kind.schema.root.properties) - {"apiVersion", "kind", "metadata", "status"})


def finished(obj: Object) -> bool:
    """Being deleted, and nothing holds it any more."""
    metadata: dict[str, Any] = obj["metadata"]
    if not metadata.get("deletionTimestamp") or metadata.get("finalizers"):
        return False
    if metadata.get("deletionGracePeriodSeconds"):
        return False
    return not (obj.get("kind") == "Namespace" and (obj.get("spec") or {}).get("finalizers"))
