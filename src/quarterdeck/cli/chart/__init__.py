"""Our own Helm charts, rendered without Helm: one source, two ways to install it.

The chart is what Helm users get; ``qd manifests`` and, where no helm is at hand, ``qd install`` render the same files
here. tests/charts compares the two.
"""

from __future__ import annotations

import fnmatch
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from quarterdeck.errors import ConfigError

from ..manifests import Manifest
from ..manifests import parse as parse_manifests
from .evaluate import Templates
from .syntax import Node, parse
from .values import Values, check, merged, read_schema

__all__ = ["Chart", "Release", "load"]

_ORDER = (
    "Namespace", "NetworkPolicy", "ResourceQuota", "LimitRange", "PodDisruptionBudget", "ServiceAccount", "Secret",
    "ConfigMap", "PersistentVolumeClaim", "CustomResourceDefinition", "ClusterRole", "ClusterRoleBinding", "Role",
    "RoleBinding", "Service", "Deployment",
)  # fmt: skip
"""Helm's order of installation, as far as our kinds go; others come last."""


@dataclass(frozen=True, slots=True)
class Release:
    """What Helm calls a release. ``service``: who installs."""

    name: str
    namespace: str
    service: str = "quarterdeck"


@dataclass(frozen=True, slots=True)
class Chart:
    """A chart as read from its folder."""

    metadata: dict[str, Any]
    values: Values
    schema: Any
    templates: dict[str, str]
    files: dict[str, str]

    @property
    def name(self) -> str:
        return str(self.metadata["name"])

    def render(self, release: Release, values: Values | None = None) -> list[Manifest]:
        """Manifests in the order to apply them. Raises ConfigError naming value, file or line."""
        given = merged(self.values, values or {})
        if self.schema is not None:
            check(self.schema, given, self.name)
        sources: dict[str, list[Node]] = {}
        defines: dict[str, list[Node]] = {}
        for name, text in self.templates.items():
            sources[name], found = parse(f"{self.name}/templates/{name}", text)
            defines |= found
        data = self._data(release, given)
        templates = Templates(defines)
        manifests: list[Manifest] = []
        for name, nodes in sources.items():
            if name.endswith(".yaml"):
                where = f"{self.name}/templates/{name}"
                manifests += parse_manifests(where, templates.render(where, nodes, data))
        return sorted(manifests, key=_order)

    def notes(self, release: Release, values: Values | None = None) -> str:
        """What NOTES.txt says."""
        nodes, _ = parse(f"{self.name}/templates/NOTES.txt", self.templates.get("NOTES.txt", ""))
        return Templates({}).render("NOTES.txt", nodes, self._data(release, merged(self.values, values or {})))

    def _data(self, release: Release, values: Values) -> dict[str, Any]:
        chart = {name[0].upper() + name[1:]: value for name, value in self.metadata.items()}
        return {
            "Values": values,
            "Chart": chart,
            "Release": {"Name": release.name, "Namespace": release.namespace, "Service": release.service},
            "Files": {"Get": self.files.__getitem__, "Glob": self._glob},
        }

    def _glob(self, pattern: str) -> dict[str, str]:
        """As Helm's: an asterisk stays within a folder."""
        deep = pattern.count("/")
        return {p: text for p, text in self.files.items() if p.count("/") == deep and fnmatch.fnmatchcase(p, pattern)}


def load(name: str) -> Chart:
    """One of our charts, from the installed package or the checkout. Raises ConfigError."""
    return read(folder(name))


def folder(name: str) -> Path:
    """Where the chart is. Raises ConfigError."""
    package = Path(__file__).resolve().parents[2]
    for place in (package / "charts", package.parents[1] / "charts"):
        if (place / name / "Chart.yaml").is_file():
            return place / name
    raise ConfigError(f"chart {name} is not part of this installation; install Quarterdeck again")


def read(path: Path) -> Chart:
    """A chart in a folder. Raises ConfigError."""
    try:
        schema = path / "values.schema.json"
        return Chart(
            metadata=yaml.safe_load((path / "Chart.yaml").read_text()),
            values=yaml.safe_load((path / "values.yaml").read_text()) or {},
            schema=read_schema(schema.read_text()) if schema.is_file() else None,
            templates=_texts(path / "templates"),
            files={f"files/{name}": text for name, text in _texts(path / "files").items()},
        )
    except OSError as error:
        raise ConfigError(f"{error.filename}: {error.strerror}") from error


def _texts(path: Path) -> dict[str, str]:
    """By name relative to ``path``, folders below included."""
    return {str(file.relative_to(path)): file.read_text() for file in sorted(path.rglob("*")) if file.is_file()}


def _order(manifest: Manifest) -> int:
    kind = manifest.body["kind"]
    return _ORDER.index(kind) if kind in _ORDER else len(_ORDER)
