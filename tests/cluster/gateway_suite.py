"""The conformance suite of Gateway API on the test plane: our operator, our node, the suite's own echo server.

``run`` gives the report. What is changed of the suite: its base manifests get container ports (our node lets into a Pod
what it declares) and lose what other profiles need (DNS over UDP, TCP).
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from cluster.component import Component
from cluster.plane import Plane
from quarterdeck.oci.archive import pack
from quarterdeck.oci.layout import LAYER, Layout
from quarterdeck.oci.reference import parse
from quarterdeck.resources.crd import GATEWAY_KINDS, crd, crds

SYSTEM = "quarterdeck-system"
REPORT = Path(__file__).parent / "gateway_conformance" / "report.yaml"
ECHO_PORTS = (3000, 3001, 8443)
_OTHER_PROFILES = ("coredns", "tcp-", "udp-")
_SECONDS = 3600.0


def run(plane: Plane, suite: Path, scratch: Path, *flags: str) -> tuple[dict[str, Any], str]:
    """Run the suite with the features that our GatewayClass reports. Gives the report and the suite's output."""
    _install(plane, suite)
    images = _store_echo(plane, suite, scratch)
    base = scratch / "base"
    base.mkdir()
    (base / "base.yaml").write_text(yaml.safe_dump_all(_base(suite, images)))
    with _operator(plane, scratch):
        _until_accepted(plane)
        report, output = scratch / "report.yaml", scratch / "output.txt"
        command = [
            str(suite / "suite"), "-test.v", "-test.timeout=60m", "-test.run=TestConformance",
            "-gateway-class=quarterdeck", "-conformance-profiles=GATEWAY-HTTP", f"-report-output={report}",
            "-organization=quarterdeck", "-project=quarterdeck", "-url=https://quarterdeck.dev",
            "-version=v0.1.0", "-contact=@quarterdeck", "-disable-parallel-tests", *flags,
        ]  # fmt: skip
        env = os.environ | {"KUBECONFIG": str(plane.kubeconfig), "BASE_MANIFESTS": str(base), "NO_PROXY": "*"}
        with output.open("w") as log:
            subprocess.run(command, env=env, stdout=log, stderr=log, timeout=_SECONDS, check=False)
        found = yaml.safe_load(report.read_text()) if report.exists() else {}
        return found, output.read_text()


def _install(plane: Plane, suite: Path) -> None:
    """The definitions of the suite's own release, as a cluster that has them from somebody else, and ours."""
    texts = [file.read_text() for file in sorted((suite / "crds").glob("*.yaml"))]
    found = [d for text in texts for d in yaml.load_all(text, yaml.CSafeLoader) if d]
    documents = [d for d in found if d["kind"] == "CustomResourceDefinition"]
    for document in (*documents, *crds(), *map(crd, GATEWAY_KINDS)):
        plane.request("POST", "/apis/apiextensions.k8s.io/v1/customresourcedefinitions", document)
    plane.request("POST", "/api/v1/namespaces", {"metadata": {"name": SYSTEM}})


def _base(suite: Path, images: Sequence[str]) -> list[dict[str, Any]]:
    kept: list[dict[str, Any]] = []
    for document in yaml.safe_load_all((suite / "base.yaml").read_text()):
        if not document or any(word in document["metadata"]["name"] for word in _OTHER_PROFILES):
            continue
        if document["kind"] == "Deployment":
            for container in document["spec"]["template"]["spec"]["containers"]:
                assert container["image"] in images
                container["ports"] = [{"containerPort": port} for port in ECHO_PORTS]
        kept.append(document)
    return kept


def _store_echo(plane: Plane, suite: Path, scratch: Path) -> list[str]:
    """The echo server as an image on every node, under the names that the manifests use."""
    tree = scratch / "echo"
    tree.mkdir()
    shutil.copy(suite / "echo-basic", tree / "echo-basic")
    text = (suite / "base.yaml").read_text()
    names = sorted({line.split("image:")[1].strip() for line in text.splitlines() if "/echo-basic:" in line})
    for node in plane.nodes:
        layout = Layout(plane.node_data(node) / "images")
        layout.root.mkdir(parents=True, exist_ok=True)
        layer = layout.root / "echo.tar.gz"
        diff = pack(tree, "app", layer)
        descriptor = layout.put_file(layer, LAYER)
        config = {
            "architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": [diff]},
            "config": {"Entrypoint": ["/app/echo-basic"], "WorkingDir": "/app", "User": "65532"},
        }  # fmt: skip
        for name in names:
            layout.put_image(parse(name), config, [descriptor])
    return names


@contextmanager
def _operator(plane: Plane, scratch: Path) -> Generator[None]:
    """The control plane as a process; Pods reach it on an address of the plane."""
    host = plane.url.removeprefix("https://").rpartition(":")[0]
    port = 18700
    component = Component(
        "operator",
        [
            sys.executable, "-m", "quarterdeck.server", "operator", f"--namespace={SYSTEM}",
            f"--kubeconfig={plane.kubeconfig}", f"--api={host}:{port}", f"--kagent={host}:0", f"--health={host}:0",
            "--webhook=off", f"--database-url={scratch / 'server.db'}", f"--control-plane-url=http://{host}:{port}",
            "--network-policies=off",
        ],
        plane.root / "logs" / "operator.log",
    )  # fmt: skip
    component.start()
    try:
        yield
    finally:
        component.kill()


def _until_accepted(plane: Plane, seconds: float = 60.0) -> None:
    path = "/apis/gateway.networking.k8s.io/v1/gatewayclasses/quarterdeck"
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            found = json.loads(plane.request("GET", path))
        except urllib.request.HTTPError:
            found = {}
        conditions = (found.get("status") or {}).get("conditions") or ()
        if any(c["type"] == "Accepted" and c["status"] == "True" for c in conditions):
            return
        time.sleep(0.2)
    raise AssertionError(f"GatewayClass quarterdeck is not accepted; see {plane.root / 'logs/operator.log'}")


def failed(report: dict[str, Any]) -> list[str]:
    """Names of the tests that failed, core and extended."""
    found: set[str] = set()
    for profile in report.get("profiles") or ():
        for part in ("core", "extended"):
            found.update((profile.get(part) or {}).get("failedTests") or ())
    return sorted(found)


if __name__ == "__main__":
    from cluster.build import build_gateway_api
    from cluster.plane import plane as a_plane

    with a_plane(nodes=1) as started:
        place = Path(tempfile.mkdtemp(prefix="qd-conformance-"))
        print(place, started.root, flush=True)
        document, _ = run(started, build_gateway_api(), place, *sys.argv[1:])
        shutil.copytree(started.root / "logs", place / "logs")
        print(yaml.safe_dump(document, sort_keys=False))
