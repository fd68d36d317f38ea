"""Writes ``src/quarterdeck/apiserver/protobuf/tables.json`` from the Kubernetes API's Go modules.

Run when the supported Kubernetes version moves, and commit the result::

    go mod download k8s.io/api@v0.37.1 k8s.io/apimachinery@v0.37.1 k8s.io/apiextensions-apiserver@v0.37.1
    python scripts/generate_protobuf_tables.py [--check]

Only facts of the wire format are taken. ``generated.proto`` gives numbers, types and labels; the tags of the Go struct
of the same name give the JSON name and whether encoding/json omits a zero value, which the proto files do not say.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

VERSION = "v0.37.1"
MODULES = ("api", "apimachinery", "apiextensions-apiserver")
TABLES = Path(__file__).parents[1] / "src" / "quarterdeck" / "apiserver" / "protobuf" / "tables.json"

SERVED = (
    "api.core.v1", "api.apps.v1", "api.batch.v1", "api.autoscaling.v1", "api.autoscaling.v2", "api.discovery.v1",
    "api.coordination.v1", "api.events.v1", "api.networking.v1", "api.policy.v1", "api.rbac.v1",
    "api.authentication.v1", "api.authorization.v1", "apiextensions_apiserver.pkg.apis.apiextensions.v1",
)  # fmt: skip
META = "apimachinery.pkg.apis.meta.v1"
SCALARS = frozenset({"string", "bytes", "bool", "int32", "int64", "double"})
# Messages whose JSON form is not an object of their fields; protobuf/values.py knows each.
SPECIAL = frozenset(
    {f"{META}.Time", f"{META}.MicroTime", f"{META}.FieldsV1", "apimachinery.pkg.runtime.RawExtension",
     "apimachinery.pkg.api.resource.Quantity", "apimachinery.pkg.util.intstr.IntOrString"}
    | {f"{SERVED[-1]}.{name}" for name in (
        "JSON", "JSONSchemaPropsOrArray", "JSONSchemaPropsOrBool", "JSONSchemaPropsOrStringArray")}
)  # fmt: skip

_COMMENT = re.compile(r"//[^\n]*|/\*.*?\*/", re.S)
_MESSAGE = re.compile(r"^message (\w+) \{\n(.*?)^\}", re.M | re.S)
_PROTO_FIELD = re.compile(r"^\s*(optional|repeated|map<string,)\s*([\w.]+)>?\s+(\w+)\s*=\s*(\d+);", re.M)
_STRUCT = re.compile(r"^type (\w+) struct \{\n(.*?)^\}", re.M | re.S)
_LIST_TYPE = re.compile(r"^type (\w+) \[\]", re.M)
_GO_FIELD = re.compile(r"^\s*(?:\w+\s+)?([\w.*\[\]]+)\s+`([^`]*)`", re.M)
_TAG = re.compile(r'(\w+):"([^"]*)"')
_GROUP = re.compile(r'GroupName = "([^"]*)"')
_COMMENT_LINE = re.compile(r"^\s*//.*$", re.M)


class Tag(NamedTuple):
    """What a Go struct says of one field: JSON name ("" = inlined), Go type, omission rules."""

    name: str
    go: str
    options: frozenset[str]


class Package:
    """The messages of one ``generated.proto`` and the Go structs beside it."""

    def __init__(self, modules: Path, name: str) -> None:
        module, _, rest = name.partition(".")
        folder = modules / f"{module.replace('_', '-')}@{VERSION}" / rest.replace(".", "/")
        proto = _COMMENT.sub("", (folder / "generated.proto").read_text())
        self.messages = {m[1]: [f.groups() for f in _PROTO_FIELD.finditer(m[2])] for m in _MESSAGE.finditer(proto)}
        for message, body in _MESSAGE.findall(proto):
            if body.count("=") != len(self.messages[message]):
                raise ValueError(f"{name}.{message}: a field of the proto file is not understood")
        sources = [p for p in sorted(folder.glob("*.go")) if not p.name.endswith(("_test.go", ".pb.go"))]
        go = _COMMENT_LINE.sub("", "\n".join(p.read_text() for p in sources))
        self.structs = {m[1]: m[2] for m in _STRUCT.finditer(go)}
        self.lists = set(_LIST_TYPE.findall(go))
        group = _GROUP.search(go)
        self.group = group[1] if group else ""

    def tags(self, message: str) -> dict[int, Tag]:
        found: dict[int, Tag] = {}
        for go, text in _GO_FIELD.findall(self.structs[message]):
            tags = dict(_TAG.findall(text))
            if "protobuf" in tags:
                name, *options = tags["json"].split(",")
                found[int(tags["protobuf"].split(",")[1])] = Tag(name, go, frozenset(options))
        return found

    def kinds(self) -> list[str]:
        """Messages that can be a request body: those with a TypeMeta, lists excepted."""
        body = re.compile(r"\bTypeMeta\b")
        return [m for m in self.messages if body.search(self.structs.get(m, "")) and not m.endswith("List")]


class Tables:
    """Collects every message that can be reached from a served kind."""

    def __init__(self, modules: Path) -> None:
        self.package = cache(lambda name: Package(modules, name))
        self.kinds: dict[str, dict[str, str]] = {}
        self.messages: dict[str, Any] = {}
        for name in SERVED:
            package = self.package(name)
            version = name.rpartition(".")[2]
            api_version = f"{package.group}/{version}" if package.group else version
            self.kinds[api_version] = {kind: f"{name}.{kind}" for kind in package.kinds()}
        for message in [*(m for kinds in self.kinds.values() for m in kinds.values()), f"{META}.DeleteOptions"]:
            self.add(message)

    def add(self, full: str) -> None:
        if full in self.messages or full in SPECIAL:
            return
        where, _, message = full.rpartition(".")
        package = self.package(where)
        fields = package.messages[message]
        if message in package.lists:  # type X []T: the JSON form is the list itself
            ((_, kind, _, _),) = fields
            self.messages[full] = self.resolve(where, kind)
            return
        rows: list[list[Any]] = []
        self.messages[full] = rows
        tags = package.tags(message) if fields else {}
        for label, kind, _, number in fields:
            tag = tags[int(number)]
            resolved = self.resolve(where, kind)
            shape = {"optional": "", "repeated": "repeated"}.get(label, "map")
            rows.append([int(number), tag.name, resolved, shape, int(keeps_zero(tag, resolved))])

    def resolve(self, where: str, kind: str) -> str:
        if kind in SCALARS:
            return kind
        full = kind.lstrip(".").removeprefix("k8s.io.") if "." in kind else f"{where}.{kind}"
        self.add(full)
        return full


def keeps_zero(tag: Tag, kind: str) -> bool:
    """Whether encoding/json writes this field when it is zero; pointers only reach the wire when they are set."""
    if tag.go.startswith("*") or not tag.options & {"omitempty", "omitzero"}:
        return True
    return kind not in SCALARS and "omitzero" not in tag.options  # omitempty never omits a struct


def generate(modules: Path) -> str:
    """The text of ``tables.json``; ``modules`` is ``$GOMODCACHE/k8s.io``."""
    tables = Tables(modules)
    parts = [
        f'"source":{json.dumps([f"k8s.io/{m}@{VERSION}" for m in MODULES])}',
        f'"kinds":{json.dumps(tables.kinds, sort_keys=True, separators=(",", ":"))}',
    ]
    rows = [f"{json.dumps(k)}:{json.dumps(v, separators=(',', ':'))}" for k, v in sorted(tables.messages.items())]
    return "{" + ",\n".join(parts) + ',\n"messages":{\n' + ",\n".join(rows) + "\n}}\n"


def module_cache() -> Path:
    """``$GOMODCACHE/k8s.io``. Raises FileNotFoundError without Go or without the modules."""
    found = subprocess.run(["go", "env", "GOMODCACHE"], capture_output=True, text=True, check=True).stdout.strip()
    modules = Path(found) / "k8s.io"
    for module in MODULES:
        if not (modules / f"{module}@{VERSION}").is_dir():
            raise FileNotFoundError(f"{modules / module}@{VERSION}: go mod download k8s.io/{module}@{VERSION}")
    return modules


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="only tell whether the committed file is current")
    check = parser.parse_args().check
    text = generate(module_cache())
    if check:
        return 0 if TABLES.read_text() == text else 1
    TABLES.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
