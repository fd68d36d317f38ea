"""Custom kinds: what the API server serves for one version of a CustomResourceDefinition."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from quarterdeck.apiserver.crd import causes, jsonpath, pruning, structural
from quarterdeck.apiserver.crd.columns import columns_of
from quarterdeck.apiserver.crd.conversion import InProcess, Webhook, converter_of
from quarterdeck.apiserver.crd.replicas import validate_replicas
from quarterdeck.apiserver.crd.rules import RuleTree
from quarterdeck.apiserver.crd.values import ValueSchema
from quarterdeck.apiserver.kinds import Kind, ScaleSpec
from quarterdeck.apiserver.schema.node import SchemaNode
from quarterdeck.errors import Cause
from quarterdeck.kube.resource import Object, Resource

_METADATA_FIELDS = frozenset(
    [
        "name",
        "generateName",
        "namespace",
        "selfLink",
        "uid",
        "resourceVersion",
        "generation",
        "creationTimestamp",
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
        "labels",
        "annotations",
        "ownerReferences",
        "finalizers",
        "managedFields",
    ]
)
_OPEN: dict[str, Any] = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}


class CustomSchema:
    """The ``KindSchema`` of a custom resource, from a structural schema."""

    def __init__(self, schema: dict[str, Any], *, status: bool, scale: ScaleSpec | None = None) -> None:
        """``status``: the version has the status subresource; ``scale``: where its scale subresource finds numbers."""
        self._scale = scale
        self.root: SchemaNode = structural.build(schema)
        self._status = status
        self._values = ValueSchema({key: value for key, value in schema.items() if key != "x-kubernetes-validations"})
        self._rules = RuleTree(schema, root=True)
        self._defaulter = pruning.Defaulter(self.root)

    def unknown_fields(self, obj: Object) -> list[str]:
        """``unknown field "spec.foo"`` for every field pruning would drop."""
        paths = pruning.unknown_fields(obj, self.root, resource=True)
        metadata = obj.get("metadata")
        if isinstance(metadata, dict):
            paths += [f"metadata.{key}" for key in metadata if key not in _METADATA_FIELDS]
        return [f'unknown field "{path}"' for path in sorted(paths)]

    def prune(self, obj: Object) -> None:
        pruning.prune(obj, self.root, resource=True)
        metadata = obj.get("metadata")
        if isinstance(metadata, dict):
            for key in [key for key in metadata if key not in _METADATA_FIELDS]:
                del metadata[key]

    def default(self, obj: Object) -> None:
        self._defaulter.apply(obj)

    def validate(self, obj: Object, old: Object | None, subresource: str = "") -> list[Cause]:
        """Schema errors first; CEL rules only when none of them makes their evaluation pointless."""
        found: list[Cause] = []
        if subresource == "status" and self._status:
            self._validate_status(obj, old, found)
            return found
        self._values.validate(obj, "", found, old)
        blocked = any(cause.reason in causes.BLOCKING for cause in found)
        if self._scale is not None:
            found += validate_replicas(obj, self._scale)
        if blocked:
            if self._rules.any:
                found.append(causes.BLOCKED)
            return found
        self._rules.validate(obj, old, old is not None, "", found)
        return found

    def _validate_status(self, obj: Object, old: Object | None, found: list[Cause]) -> None:
        status = self._values.child("status")
        before = (old or {}).get("status")
        if status is not None and "status" in obj:
            status.validate(obj["status"], "status", found, before)
        if any(cause.reason in causes.BLOCKING for cause in found):
            if self._rules.any:
                found.append(causes.BLOCKED)
            return
        self._rules.validate(obj, old, old is not None, "", found)

    def prepare_create(self, obj: Object) -> None:
        """A status is the controller's to write; generation starts at 1."""
        if self._status:
            obj.pop("status", None)
        obj.setdefault("metadata", {})["generation"] = 1

    def prepare_update(self, obj: Object, old: Object, subresource: str = "") -> None:
        """Status requests change status only, others all but status; generation counts changes of the rest."""
        if subresource == "status" and self._status:
            self._keep_all_but_status(obj, old)
            return
        if self._status:
            if "status" in old:
                obj["status"] = pruning.copy(old["status"])
            else:
                obj.pop("status", None)
        generation = int((old.get("metadata") or {}).get("generation") or 0)
        changed = self._counted(obj) != self._counted(old)
        obj.setdefault("metadata", {})["generation"] = generation + 1 if changed else generation

    def _counted(self, obj: Object) -> Object:
        ignored = ("metadata", "status") if self._status else ("metadata",)
        return {key: value for key, value in obj.items() if key not in ignored}

    @staticmethod
    def _keep_all_but_status(obj: Object, old: Object) -> None:
        sent = obj.get("metadata") or {}
        metadata = pruning.copy(old.get("metadata") or {})
        for key in ("resourceVersion", "managedFields"):
            if key in sent:
                metadata[key] = sent[key]
        kept = {
            key: pruning.copy(value) for key, value in old.items() if key not in ("metadata", "status", "apiVersion")
        }
        kept["metadata"] = metadata
        kept["apiVersion"] = obj.get("apiVersion", old.get("apiVersion"))
        if "status" in obj:
            kept["status"] = obj["status"]
        obj.clear()
        obj.update(kept)


def kinds_from(crd: Object, registry: InProcess | None = None, webhook: Webhook | None = None) -> list[Kind]:
    """The kinds of all served versions; names are ``status.acceptedNames`` when set, else ``spec.names``.

    ``registry`` holds in-process conversions by (group, kind), which win over ``webhook``; without either, only
    apiVersion changes between versions.
    """
    spec = crd["spec"]
    names = {**spec["names"], **((crd.get("status") or {}).get("acceptedNames") or {})}
    storage = next((version["name"] for version in spec["versions"] if version.get("storage")), "")
    # Without other versions nothing is ever converted, and stored bytes can be served as they are.
    convert = converter_of(crd, registry) if len(spec["versions"]) > 1 else None
    if registry is not None and registry.get(spec["group"], spec["names"]["kind"]) is not None:
        webhook = None
    served = [version for version in spec["versions"] if version.get("served")]
    if convert is not None:
        complete = _stored_defaults(spec, storage)
        convert = _completed(convert, complete)
        webhook = webhook.finished_by(complete) if webhook is not None else None
    return [_kind(spec, version, names, storage, convert, webhook) for version in served]


def _schema(version: dict[str, Any]) -> dict[str, Any]:
    return (version.get("schema") or {}).get("openAPIV3Schema") or _OPEN


def _stored_defaults(spec: dict[str, Any], storage: str) -> Callable[[Object], Object]:
    """Gives a converted object the defaults of the stored version, and as upstream those of no other version."""
    schema = next((_schema(version) for version in spec["versions"] if version["name"] == storage), _OPEN)
    defaulter, stored = pruning.Defaulter(structural.build(schema)), f"{spec['group']}/{storage}"

    def complete(obj: Object) -> Object:
        if obj.get("apiVersion") != stored:
            return obj
        obj = pruning.copy(obj)
        defaulter.apply(obj)
        return obj

    return complete


def _completed(
    convert: Callable[[Object, str], Object], complete: Callable[[Object], Object]
) -> Callable[[Object, str], Object]:
    def converted(obj: Object, wanted: str) -> Object:
        out = convert(obj, wanted)
        return out if out is obj else complete(out)

    return converted


def _kind(
    spec: dict[str, Any],
    version: dict[str, Any],
    names: dict[str, Any],
    storage: str,
    convert: Callable[[Object, str], Object] | None,
    webhook: Webhook | None,
) -> Kind:
    resource = Resource(spec["group"], version["name"], names["kind"], names["plural"], spec["scope"] == "Namespaced")
    subresources = version.get("subresources") or {}
    has_status = subresources.get("status") is not None
    scale = subresources.get("scale")
    schema = _schema(version)
    if spec.get("preserveUnknownFields"):
        schema = {**schema, "x-kubernetes-preserve-unknown-fields": True}
    selectable = tuple(field["jsonPath"] for field in version.get("selectableFields") or ())
    warning = version.get("deprecationWarning") or (
        f"{resource.api_version} {resource.kind} is deprecated" if version.get("deprecated") else ""
    )
    return Kind(
        resource=resource,
        singular=names.get("singular") or names["kind"].lower(),
        schema=CustomSchema(schema, status=has_status, scale=_scale(scale) if scale else None),
        short_names=tuple(names.get("shortNames") or ()),
        categories=tuple(names.get("categories") or ()),
        subresources=frozenset(name for name, there in (("status", has_status), ("scale", scale)) if there),
        columns=columns_of(version),
        storage_version=storage,
        convert=convert,
        webhook=webhook if convert is not None else None,
        scale=_scale(scale) if scale else None,
        list_kind=names.get("listKind") or f"{names['kind']}List",
        selectable=frozenset(path.removeprefix(".") for path in selectable),
        fields_of=_fields_of(selectable),
        custom=True,
        warnings=(warning,) if warning else (),
    )


def _scale(raw: dict[str, Any]) -> ScaleSpec:
    return ScaleSpec(
        raw["specReplicasPath"].removeprefix("."),
        raw["statusReplicasPath"].removeprefix("."),
        str(raw.get("labelSelectorPath") or "").removeprefix("."),
    )


def _fields_of(paths: tuple[str, ...]) -> Callable[[Object], dict[str, str]]:
    def read(obj: Object) -> dict[str, str]:
        values: dict[str, str] = {}
        for path in paths:
            found = jsonpath.evaluate(path, obj)
            values[path.removeprefix(".")] = jsonpath.text_of(found[0]) if found and found[0] is not None else ""
        return values

    return read
