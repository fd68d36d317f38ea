"""Writes ``protobuf_fields.json`` from the struct tags in the Go modules k8s.io/api and k8s.io/apimachinery.

Run by hand when the supported Kubernetes version moves:
``python -m quarterdeck.apiserver.protobuf_generate DIRECTORY`` where DIRECTORY holds both unpacked modules
(``k8s.io/api@…``, ``k8s.io/apimachinery@…``). Only facts of the wire format are taken: numbers, JSON names, types.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

_META = "k8s.io/apimachinery/pkg/apis/meta/v1"
_PACKAGES = (
    "core/v1", "apps/v1", "batch/v1", "autoscaling/v1", "autoscaling/v2", "discovery/v1", "coordination/v1",
    "networking/v1", "policy/v1", "rbac/v1", "events/v1", "authentication/v1", "authorization/v1",
)  # fmt: skip
_SPECIAL = {
    f"{_META}.Time": "time", f"{_META}.MicroTime": "microtime", f"{_META}.FieldsV1": "raw",
    "k8s.io/apimachinery/pkg/api/resource.Quantity": "quantity", "k8s.io/apimachinery/pkg/runtime.RawExtension": "raw",
    "k8s.io/apimachinery/pkg/util/intstr.IntOrString": "intstr", "k8s.io/apimachinery/pkg/types.UID": "string",
    "k8s.io/apimachinery/pkg/types.NodeName": "string", "k8s.io/apimachinery/pkg/runtime.Object": "raw",
}  # fmt: skip
_SCALARS = {"string": "string", "bool": "bool", "int32": "int", "int64": "int", "uint8": "int", "int": "int",
            "float64": "double", "[]byte": "bytes", "int16": "int", "rune": "int"}  # fmt: skip
_STRUCT = re.compile(r"^type (\w+) struct \{\n(.*?)^\}", re.M | re.S)
_NAMED = re.compile(r"^type (\w+) ((?:map|\[\]|\w)[^\n{]*)$", re.M)
_FIELD = re.compile(r"^\s*(?:\w+\s+)?([\w.*\[\]]+)\s+`([^`]*)`", re.M)
_IMPORT = re.compile(r'^\s*(\w+)?\s*"(k8s\.io/[^"]+)"', re.M)


class Generator:
    def __init__(self, root: Path) -> None:
        self.structs: dict[str, tuple[str, str]] = {}
        self.named: dict[str, tuple[str, str]] = {}
        self.imports: dict[str, dict[str, str]] = {}
        for package in [f"k8s.io/api/{p}" for p in _PACKAGES] + [_META]:
            module, rest = package.split("/")[1], "/".join(package.split("/")[2:])
            (file,) = root.glob(f"k8s.io/{module}@*/{rest}/types.go")
            self._read(package, file.read_text())
        self.out: dict[str, list[list[Any]]] = {}

    def _read(self, package: str, text: str) -> None:
        text = re.sub(r"^\s*//.*$", "", text, flags=re.M)
        self.imports[package] = {m[1] or m[2].rsplit("/", 1)[1]: m[2] for m in _IMPORT.finditer(text)}
        for m in _STRUCT.finditer(text):
            self.structs[f"{package}.{m[1]}"] = (package, m[2])
        for m in _NAMED.finditer(text):
            self.named[f"{package}.{m[1]}"] = (package, m[2].strip())

    def resolve(self, package: str, go: str, *, field: bool = True) -> str:
        """``string``, ``list:…``, ``map:…``, ``msg:<name>`` … of a Go type."""
        go = go.lstrip("*")
        if go in _SCALARS:
            return _SCALARS[go]
        if go.startswith("[]"):
            return "list:" + self.resolve(package, go[2:])
        if go.startswith("map["):
            return "map:" + self.resolve(package, go[go.index("]") + 1 :])
        alias, _, name = go.rpartition(".")
        full = f"{self.imports[package].get(alias, alias) if alias else package}.{name}"
        if full in _SPECIAL:
            return _SPECIAL[full]
        if full in self.named:
            where, under = self.named[full]
            found = self.resolve(where, under)
            return f"items:{found[5:]}" if found.startswith("list:") else found
        self.struct(full)
        return f"msg:{full}"

    def struct(self, full: str) -> None:
        if full in self.out:
            return
        rows: list[list[Any]] = []
        self.out[full] = rows
        package, body = self.structs[full]
        for m in _FIELD.finditer(body):
            tags = dict(re.findall(r'(\w+):"([^"]*)"', m[2]))
            if "protobuf" not in tags:
                continue
            number = int(tags["protobuf"].split(",")[1])
            name, *rest = tags.get("json", "").split(",")
            keep_zero = m[1].startswith("*") or "omitempty" not in rest
            rows.append([number, name, self.resolve(package, m[1]), int(keep_zero)])


def main() -> None:
    generator = Generator(Path(sys.argv[1]))
    for full, (package, body) in list(generator.structs.items()):
        if package != _META and "metav1.TypeMeta" in body and not full.endswith("List"):
            generator.struct(full)
    generator.struct(f"{_META}.DeleteOptions")
    target = Path(__file__).with_name("protobuf_fields.json")
    target.write_text(json.dumps(generator.out, separators=(",", ":"), sort_keys=True) + "\n")


if __name__ == "__main__":
    main()
