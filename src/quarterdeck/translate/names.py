"""Names of the objects made from a resource, what fits into them, and names of images.

A custom resource's name may have 253 characters and dots. Its Deployment, Service and Pods carry the name in labels and
in DNS, where 63 characters without dots is the limit (RFC 1035; Kubernetes validates both).
"""

from __future__ import annotations

import re

from quarterdeck.errors import ConfigError, ConfigTooLarge, InvalidName, UsageError
from quarterdeck.kube.resource import Object
from quarterdeck.oci.reference import parse

LABEL_LIMIT = 63
DATA_LIMIT = 1024 * 1024
"""Bytes of all values of a Secret or ConfigMap together (core/v1 MaxSecretSize)."""
_DIGEST = re.compile(r"@[a-z0-9]+(?:[+._-][a-z0-9]+)*:[0-9a-fA-F]{32,}$")
_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")


def check_name(obj: Object, suffix: str = "") -> str:
    """The name of what is made from ``obj``, ``suffix`` (``-canary``) appended. Raises InvalidName."""
    name, what = obj["metadata"]["name"], _named(obj)
    limit = LABEL_LIMIT - len(suffix)
    if len(name) > limit:
        added = f", {len(suffix)} of them for {suffix}" if suffix else ""
        raise InvalidName(
            f"{what}: metadata.name has {len(name)} characters; its Service and labels can carry {LABEL_LIMIT}{added}: "
            f"create it anew with a name of at most {limit}"
        )
    if not _LABEL.fullmatch(name):
        raise InvalidName(
            f"{what}: metadata.name cannot name a Service (lower-case letters, digits and '-'): create it "
            f"anew as {name.replace('.', '-')}"
        )
    return name + suffix


def check_size(obj: Object, kind: str, data: dict[str, bytes], remedy: str) -> None:
    """Raises ConfigTooLarge when a Secret or ConfigMap (``kind``) made from ``obj`` cannot hold ``data``."""
    size = sum(len(value) for value in data.values())
    if size > DATA_LIMIT:
        largest = max(data, key=lambda key: len(data[key]))
        raise ConfigTooLarge(
            f"{_named(obj)}: its configuration has {size} bytes ({largest}: {len(data[largest])}), and a {kind} holds "
            f"{DATA_LIMIT}: {remedy}"
        )


def check_image(obj: Object, field: str, image: str | None) -> None:
    """Raises ConfigError for what no kubelet could pull; an image that is not named is no error."""
    if not image:
        return
    try:
        parse(_DIGEST.sub("", image))
    except UsageError as error:
        raise ConfigError(f"{_named(obj)}: {field}: {error}") from error


def _named(obj: Object) -> str:
    return f"{obj['kind']} {obj['metadata']['namespace']}/{obj['metadata']['name']}"
