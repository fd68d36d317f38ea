"""Helm's record of a release: a Secret whose manifest decides what ``helm uninstall`` deletes.

Marking the live object is not enough. Helm 3 looks for ``helm.sh/resource-policy: keep`` in the manifest it stored when
it installed, and nowhere else; it deletes even what another release has taken over since. (Helm 4 also asks the live
object which release it belongs to: ``pkg/action/uninstall.go`` of 3.22 and 4.3.) So that is where the mark has to be.
"""

from __future__ import annotations

import base64
import binascii
import gzip
import json
import re
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import yaml

from quarterdeck.errors import ConfigError
from quarterdeck.kube.resource import Object

SELECTOR = "owner=helm"
POLICY = "helm.sh/resource-policy"
RELEASE_NAME, RELEASE_NAMESPACE = "meta.helm.sh/release-name", "meta.helm.sh/release-namespace"
MANAGED_BY = "app.kubernetes.io/managed-by"
_SEPARATOR = re.compile(r"^---\s*$", re.MULTILINE)
_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_DUMPER: Any = getattr(yaml, "CSafeDumper", yaml.SafeDumper)


Part = tuple[str, Object | None]
"""A document of a manifest as it is written, and the object in it."""


@dataclass(frozen=True, slots=True)
class Release:
    """One revision of a release as it is stored."""

    secret: Object
    payload: dict[str, Any]
    parts: tuple[Part, ...]

    @property
    def name(self) -> str:
        return str(self.payload["name"])

    @property
    def namespace(self) -> str:
        return str(self.payload["namespace"])

    @property
    def current(self) -> bool:
        """Whether this is the revision that an uninstall takes; older ones are for rollbacks."""
        return str((self.payload.get("info") or {}).get("status")) != "superseded"

    @property
    def documents(self) -> list[Object]:
        """The objects in its manifest; those without a namespace are in the release's, or in none."""
        return [document for _, document in self.parts if document is not None]

    def keeping(self, chosen: Callable[[Object], bool]) -> dict[str, Any] | None:
        """The payload with the chosen objects marked to be kept; None when they all are already."""
        changed = False
        texts: list[str] = []
        for text, document in self.parts:
            if document is not None and chosen(document) and not is_kept(document):
                annotations = (document["metadata"].get("annotations") or {}) | {POLICY: "keep"}
                marked = document | {"metadata": document["metadata"] | {"annotations": annotations}}
                comments = "".join(line + "\n" for line in text.strip().splitlines() if line.startswith("# Source:"))
                text = "\n" + comments + yaml.dump(marked, Dumper=_DUMPER, sort_keys=False, width=1000)
                changed = True
            texts.append(text)
        return self.payload | {"manifest": "---".join(texts)} if changed else None


def is_kept(document: Object) -> bool:
    return (document["metadata"].get("annotations") or {}).get(POLICY) == "keep"


def _parts(manifest: str) -> tuple[Part, ...]:
    found: list[Part] = []
    for text in _SEPARATOR.split(manifest):
        document: Any = yaml.load(text, Loader=_LOADER)  # noqa: S506 - a safe loader
        whole = isinstance(document, dict) and document.get("kind") and document.get("metadata")
        found.append((text, document if whole else None))
    return tuple(found)


def decode(secret: Object) -> Release:
    """Raises ConfigError when the Secret is not a release of Helm 3 or 4."""
    metadata = secret["metadata"]
    try:
        raw = base64.b64decode(base64.b64decode((secret.get("data") or {})["release"]))
        payload = json.loads(gzip.decompress(raw) if raw.startswith(b"\x1f\x8b") else raw)
        return Release(
            secret,
            payload | {"name": payload["name"], "namespace": payload["namespace"]},
            _parts(str(payload.get("manifest") or "")),
        )
    except (KeyError, ValueError, TypeError, OSError, EOFError, zlib.error, binascii.Error, yaml.YAMLError) as error:
        name = f"{metadata.get('namespace')}/{metadata['name']}"
        raise ConfigError(f"Secret {name} is labelled as a Helm release and cannot be read as one: {error}") from error


def encode(payload: dict[str, Any]) -> str:
    """The value of ``data.release``."""
    packed = gzip.compress(json.dumps(payload, ensure_ascii=False, separators=(",", ":")).encode(), 9)
    return base64.b64encode(base64.b64encode(packed)).decode()
