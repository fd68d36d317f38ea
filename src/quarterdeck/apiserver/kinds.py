"""What is served: kinds, their columns, and the registry that maps URLs to them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Protocol

from quarterdeck.apiserver.schema.node import KindSchema
from quarterdeck.apiserver.store import storage_key
from quarterdeck.kube.resource import Object, Resource

ALL_VERBS = ("create", "delete", "deletecollection", "get", "list", "patch", "update", "watch")


@dataclass(frozen=True, slots=True)
class Column:
    """One printer column. ``value(obj, now)`` gives the cell; ``priority`` 1 shows with ``-o wide`` only."""

    name: str
    type: str
    value: Callable[[Object, float], Any]
    description: str = ""
    priority: int = 0
    format: str = ""


@dataclass(frozen=True, slots=True)
class ScaleSpec:
    """Where replicas stand, as JSON paths without the leading dot (``spec.replicas``)."""

    spec_replicas: str = "spec.replicas"
    status_replicas: str = "status.replicas"
    label_selector: str = "spec.selector"


class Converter(Protocol):
    """A conversion that takes time: see ``crd.conversion.Webhook``."""

    async def convert(self, objects: list[Object], wanted: str) -> list[Object]: ...


def no_fields(obj: Object) -> dict[str, str]:
    """Field selectors: only metadata.name and metadata.namespace, which every kind has."""
    del obj
    return {}


@dataclass(frozen=True, slots=True, eq=False)
class Kind:
    """One served group/version/kind."""

    resource: Resource
    singular: str
    schema: KindSchema
    short_names: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    verbs: tuple[str, ...] = ALL_VERBS
    subresources: frozenset[str] = frozenset()
    columns: tuple[Column, ...] = ()
    storage_version: str = ""
    stored_as: str = ""  # apiVersion in the store where that is another group's: events
    stored_warning: str = ""
    convert: Callable[[Object, str], Object] | None = None
    webhook: Converter | None = None
    scale: ScaleSpec | None = None
    list_kind: str = ""
    selectable: frozenset[str] = frozenset()
    fields_of: Callable[[Object], dict[str, str]] = no_fields
    custom: bool = False
    warnings: tuple[str, ...] = ()

    @property
    def key(self) -> str:
        """Where its objects are stored."""
        return storage_key(self.resource)

    @property
    def group_resource(self) -> str:
        """As error messages name it: ``deployments.apps``, ``pods``."""
        group = self.resource.group
        return f"{self.resource.plural}.{group}" if group else self.resource.plural

    @property
    def stored_api_version(self) -> str:
        if self.stored_as:
            return self.stored_as
        version = self.storage_version or self.resource.version
        if "/" in version or not self.resource.group:
            return version
        return f"{self.resource.group}/{version}"

    @property
    def list_name(self) -> str:
        return self.list_kind or f"{self.resource.kind}List"


class KindRegistry:
    """Served kinds by (group, version, plural). CRDs come and go; built-ins stay."""

    def __init__(self, builtin: Iterable[Kind]) -> None:
        self._builtin = tuple(builtin)
        self._custom: tuple[Kind, ...] = ()
        self._by_path: dict[tuple[str, str, str], Kind] = {}
        self._by_kind: dict[tuple[str, str], Kind] = {}
        self.generation = 0  # counts changes, for caches of discovery and OpenAPI
        self._listeners: list[Callable[[], None]] = []
        self._index()

    def get(self, group: str, version: str, plural: str) -> Kind | None:
        return self._by_path.get((group, version, plural))

    def by_kind(self, api_version: str, kind: str) -> Kind | None:
        return self._by_kind.get((api_version, kind))

    def all(self) -> tuple[Kind, ...]:
        return self._builtin + self._custom

    def custom(self) -> tuple[Kind, ...]:
        return self._custom

    def replace_crds(self, kinds: Iterable[Kind]) -> None:
        """Serve exactly these custom kinds from now on."""
        self._custom = tuple(kinds)
        self._index()
        for listener in self._listeners:
            listener()

    def on_change(self, listener: Callable[[], None]) -> None:
        """Call ``listener`` after each :meth:`replace_crds`."""
        self._listeners.append(listener)

    def _index(self) -> None:
        every = self.all()
        self._by_path = {(k.resource.group, k.resource.version, k.resource.plural): k for k in every}
        self._by_kind = {(k.resource.api_version, k.resource.kind): k for k in every}
        self.generation += 1
