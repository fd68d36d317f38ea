"""The published definitions of Gateway API (standard channel), as the chart and embedded mode install them.

``python -m quarterdeck.resources.gateway_api.upstream MODULE_DIR OUT_DIR`` copies them from the Go module
sigs.k8s.io/gateway-api (``go mod download -json sigs.k8s.io/gateway-api@VERSION`` prints its folder). One annotation is
added: an uninstalled chart must not take everybody's Gateways with it.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import yaml

from quarterdeck.errors import ConfigError

from . import GROUP

VERSION = "v1.7.0"
PLURALS = ("gatewayclasses", "gateways", "grpcroutes", "httproutes", "referencegrants")
"""The kinds we read; definitions of others are left to who implements them."""
BUNDLE = f"{GROUP}/bundle-version"
FOLDER = "gateway-api"


def published(module: Path) -> dict[str, dict[str, Any]]:
    """Definitions by file name, from the module's folder."""
    found: dict[str, dict[str, Any]] = {}
    for plural in PLURALS:
        path = module / "config" / "crd" / "standard" / f"{GROUP}_{plural}.yaml"
        document: dict[str, Any] = yaml.load(path.read_text(), yaml.CSafeLoader)
        document.pop("status", None)
        document["metadata"]["annotations"]["helm.sh/resource-policy"] = "keep"
        document["metadata"].pop("labels", None)
        found[f"{plural}.{GROUP}.yaml"] = document
    return found


def folder() -> Path:
    """Where the copies are: in the installed package, else in the checkout. Raises ConfigError."""
    package = Path(__file__).resolve().parents[2]
    for place in (package / "charts", package.parents[1] / "charts"):
        found = place / "quarterdeck-crds" / "files" / FOLDER
        if found.is_dir():
            return found
    raise ConfigError("the definitions of Gateway API are not part of this installation; install Quarterdeck again")


def definitions() -> list[dict[str, Any]]:
    """CustomResourceDefinitions as JSON data. Raises ConfigError."""
    files = sorted(folder().glob("*.yaml"))
    return [yaml.load(file.read_text(), yaml.CSafeLoader) for file in files]


if __name__ == "__main__":
    out = Path(sys.argv[2])
    out.mkdir(parents=True, exist_ok=True)
    for name, body in published(Path(sys.argv[1])).items():
        (out / name).write_text(yaml.dump(body, Dumper=yaml.CSafeDumper, sort_keys=False, width=120))
