"""Writes the admin kubeconfig."""

from __future__ import annotations

import base64
from pathlib import Path

import yaml

from quarterdeck.errors import StorageError

from .files import private_dir, read_private, write_private

CONTEXT = "quarterdeck"


def write_kubeconfig(path: Path, server: str, ca_pem: bytes, token: str, *, namespace: str = "default") -> None:
    """Write a kubeconfig with one context ``quarterdeck`` (0600, atomic). ``server`` is the https URL."""
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": CONTEXT,
        "clusters": [
            {
                "name": CONTEXT,
                "cluster": {"server": server, "certificate-authority-data": base64.b64encode(ca_pem).decode()},
            }
        ],
        "users": [{"name": CONTEXT, "user": {"token": token}}],
        "contexts": [{"name": CONTEXT, "context": {"cluster": CONTEXT, "user": CONTEXT, "namespace": namespace}}],
        "preferences": {},
    }
    private_dir(path.parent) if not path.parent.exists() else None
    write_private(path, yaml.safe_dump(document, sort_keys=False).encode())


def kubeconfig_token(path: Path) -> str | None:
    """The admin token in a kubeconfig written here; None when there is no file. Raises StorageError when damaged."""
    data = read_private(path)
    if data is None:
        return None
    try:
        users = yaml.safe_load(data)["users"]
        return str(next(u for u in users if u["name"] == CONTEXT)["user"]["token"])
    except (yaml.YAMLError, KeyError, TypeError, StopIteration) as error:
        raise StorageError(f"{path} is not a kubeconfig written by quarterdeck; remove it and start again") from error
