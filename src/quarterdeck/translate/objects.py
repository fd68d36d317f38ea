"""Small shared parts of generated objects: hashes, durations, metadata."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from typing import Any

import msgspec

from quarterdeck.errors import ConfigError
from quarterdeck.kube.owner import owner_reference
from quarterdeck.kube.resource import Object

_encode = msgspec.json.Encoder(order="deterministic").encode
_PART = re.compile(r"(\d+(?:\.\d+)?)(ns|us|µs|ms|s|m|h)")
_UNITS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}

LEAVE = 5
"""Seconds between a Pod's end being decided and its processes being told: whoever routes to it learns of it first."""
LIFECYCLE: dict[str, Any] = {"preStop": {"sleep": {"seconds": LEAVE}}}
PAUSED = "quarterdeck.dev/paused"
"""Annotation on an Agent or MCPServer: ``true`` holds its roll-outs back."""
PROMOTE = "quarterdeck.dev/promote"
"""Annotation on an Agent, ``ATTEMPT/STEP`` or ``ATTEMPT/full``: that step of that canary is passed, or all are."""
ABORT = "quarterdeck.dev/abort"
"""Annotation on an Agent, ``ATTEMPT``: that canary is given up."""
SOURCES = "quarterdeck.dev/sources"
POD_IP: dict[str, Any] = {"name": "POD_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}


def digest(value: Any) -> str:
    """SHA-256 (hex) of JSON data, the same for equal data."""
    return hashlib.sha256(_encode(value)).hexdigest()


def duration(text: str, default: float = 30.0) -> float:
    """Seconds of a Go duration such as ``30s`` or ``5m0s``. Raises ConfigError."""
    if not text:
        return default
    if not re.fullmatch(rf"(?:{_PART.pattern})+", text):
        raise ConfigError(f"duration {text!r} is not understood: write it as 30s, 5m or 1h30m")
    return sum(float(number) * _UNITS[unit] for number, unit in _PART.findall(text))


def metadata(
    owner: Object, name: str, labels: Mapping[str, str], annotations: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """Metadata of an object ``owner`` controls, in its namespace."""
    out: dict[str, Any] = {
        "name": name,
        "namespace": owner["metadata"]["namespace"],
        "labels": dict(labels),
        "ownerReferences": [owner_reference(owner)],
    }
    kept = {k: v for k, v in (annotations or {}).items() if not k.startswith(_NOT_COPIED)}
    return out | ({"annotations": kept} if kept else {})


_NOT_COPIED = (
    "kubectl.kubernetes.io/", "deployment.kubernetes.io/", "quarterdeck.dev/applied-hash", PAUSED,
    "quarterdeck.dev/revision", PROMOTE, ABORT,
)  # fmt: skip


def sources_annotation(mounted: Mapping[str, str]) -> dict[str, str]:
    """The template's annotation that says which Secrets and ConfigMaps, at which content, its Pods read."""
    return {SOURCES: json.dumps(dict(sorted(mounted.items())), separators=(",", ":"))} if mounted else {}


def read_sources(annotations: Mapping[str, str]) -> dict[str, str]:
    """Hashes by ``Kind/name`` from a template's annotations; empty when there are none."""
    try:
        found: Any = json.loads(annotations.get(SOURCES) or "{}")
    except ValueError:
        return {}
    return {str(key): str(value) for key, value in found.items()} if isinstance(found, dict) else {}


def present(**values: Any) -> dict[str, Any]:
    """The given fields without those that are None or empty."""
    return {key: value for key, value in values.items() if value is not None and value != [] and value != {}}


def http_probe(path: str, port: int | str, **timing: int) -> dict[str, Any]:
    return {"httpGet": {"path": path, "port": port}} | timing
