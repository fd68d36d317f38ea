"""Helm 3 and 4 make of the charts exactly what we make of them, and find nothing to complain about."""

from __future__ import annotations

import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from cluster.build import helm_path
from quarterdeck.cli.chart import Release, folder, load
from quarterdeck.cli.chart.values import merged, parse_sets

from .test_chart import SETS, values

HERE = Path(__file__).parent
CASES = [
    *(("quarterdeck", (f"-f{HERE}/values/{name}.yaml",)) for name in SETS),
    ("quarterdeck", ("--set", "controller.env[0].name=A,controller.env[0].value=x\\,y,watchNamespaces={a,b}")),
    ("quarterdeck", ("--set", "database.secretName=db,controller.replicas=null,commonLabels.a\\.b/c=d")),
    ("quarterdeck-crds", ()),
    ("quarterdeck-crds", ("--set", "conversion.enabled=false")),
    ("quarterdeck-crds", ("--set", "gatewayApi.install=true,kgateway.install=true")),
]
Key = tuple[str, str, str]


@cache
def helm(major: Any) -> str:
    """Path of that helm, where it has been built."""
    path = helm_path(major)
    if not path.exists():
        pytest.skip(f"helm {major} is not built here: python tests/cluster/build.py (needs Go)")
    return str(path)


def template(major: int, chart: str, arguments: tuple[str, ...]) -> subprocess.CompletedProcess[str]:
    command = [helm(major), "template", "rel", str(folder(chart)), "-n", "place", "--kube-version=1.36.0", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


def by_key(documents: list[dict[str, Any]]) -> dict[Key, dict[str, Any]]:
    return {(d["kind"], d["metadata"].get("namespace", ""), d["metadata"]["name"]): d for d in documents}


@cache
def ours(chart: str, arguments: tuple[str, ...]) -> list[dict[str, Any]]:
    given: dict[str, Any] = {}
    for flag, following in zip(arguments, (*arguments[1:], ""), strict=False):
        if flag.startswith("-f"):
            given = values(Path(flag[2:]).stem)
        elif flag == "--set":
            given = merged(given, parse_sets([following]), keep_nulls=True)
    return [manifest.body for manifest in load(chart).render(Release("rel", "place", "Helm"), given)]


@pytest.mark.parametrize("major", [3, 4])
@pytest.mark.parametrize(("chart", "arguments"), CASES)
def test_helm_renders_what_we_render(major: int, chart: str, arguments: tuple[str, ...]) -> None:
    done = template(major, chart, arguments)
    assert done.returncode == 0, done.stderr
    theirs = by_key([document for document in yaml.load_all(done.stdout, yaml.CSafeLoader) if document])
    assert by_key(ours(chart, arguments)) == theirs


@pytest.mark.parametrize("major", [3, 4])
@pytest.mark.parametrize("text", ["controller.replicas=2", "gatway.replicas=2", "gateway.auditFile=/etc/passwd"])
def test_helm_refuses_what_we_refuse(major: int, text: str) -> None:
    done = template(major, "quarterdeck", ("--set", text))
    assert done.returncode != 0
    assert text.split(".")[0] in done.stderr


@pytest.mark.parametrize("major", [3, 4])
@pytest.mark.parametrize("chart", ["quarterdeck", "quarterdeck-crds"])
def test_lint(major: int, chart: str) -> None:
    done = subprocess.run([helm(major), "lint", "--strict", str(folder(chart))], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
