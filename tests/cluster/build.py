"""Build from published Go modules what tests and benchmarks need of Kubernetes, once, kept outside the checkout.

`python tests/cluster/build.py`: the control plane (kube-apiserver, kube-controller-manager, kube-scheduler, etcd,
metrics-server) as one binary, and helm 3 and 4. About five minutes of CPU, 3 GB of Go caches.
`python tests/cluster/build.py kubectl`: the kubectl of a release that PyPI does not carry; two minutes of CPU.
`python tests/cluster/build.py gateway-api`: the conformance suite of Gateway API and its echo server; four minutes.
Either prints what it built. Where a build is there already it costs nothing.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Generator
from pathlib import Path
from typing import Literal

VERSION = "v1.36.3"
METRICS_SERVER_VERSION = "v0.9.0"
COMMANDS = ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "metrics-server")
KUBECTL_VERSION = "v1.34.13"
GATEWAY_API_VERSION = "v1.6.3"
"""The newest whose suite the Go of this project builds."""
HELM_VERSIONS = {3: "v3.22.0", 4: "v4.3.1"}
SOURCE = Path(__file__).parent


class NoToolchain(RuntimeError):
    """Go is missing, so nothing can be built here."""


def folder() -> Path:
    """Where the commands are, or will be. The name changes with what is built."""
    source = (SOURCE / "testplane" / "main.go").read_bytes() + METRICS_SERVER_VERSION.encode()
    return _cached(f"{VERSION}-{hashlib.sha256(source).hexdigest()[:8]}")


def kubectl_path() -> Path:
    """Where the older kubectl is, or will be."""
    return _cached(f"kubectl-{KUBECTL_VERSION}")


def helm_path(major: Literal[3, 4]) -> Path:
    """Where that helm is, or will be."""
    return _cached(f"helm-{HELM_VERSIONS[major]}")


def _cached(name: str) -> Path:
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    machine = {"x86_64": "amd64", "aarch64": "arm64"}.get(os.uname().machine, os.uname().machine)
    return cache / "quarterdeck" / "testplane" / f"{name}-{sys.platform}-{machine}"


def built() -> Path | None:
    """The folder of a complete build, or None."""
    place = folder()
    return place if all((place / command).exists() for command in COMMANDS) else None


def build() -> Path:
    """Build unless it is there. Two builds at once: the second waits. Raises NoToolchain, CalledProcessError."""
    place = folder()
    place.mkdir(parents=True, exist_ok=True)
    with _locked(place.parent / f"{place.name}.lock"):
        if built():
            return place
        go = _go("kube-apiserver")
        with _module("testplane") as module:
            _write_kubernetes_module(go, module)
            _run(go, "mod", "tidy", cwd=module)
            _compile(go, module, ".", _kubernetes_flags(VERSION), place / "testplane")
        for command in COMMANDS:
            with contextlib.suppress(FileExistsError):
                (place / command).symlink_to("testplane")
    return place


def build_kubectl() -> Path:
    """The same for kubectl, whose module is published by itself, with the versions of what it needs.

    Raises NoToolchain, CalledProcessError.
    """
    binary = kubectl_path()
    with _once(binary) as missing:
        if missing:
            go = _go(f"kubectl {KUBECTL_VERSION}")
            with _module("kubectl") as module:
                required = f"k8s.io/kubectl {_module_version(KUBECTL_VERSION)}"
                (module / "go.mod").write_text(f"module kubectl\ngo 1.24.0\nrequire {required}\n")
                _compile(go, module, ".", _kubernetes_flags(KUBECTL_VERSION), binary)
    return binary


def build_helm(major: Literal[3, 4]) -> Path:
    """The published helm command. Both majors are one module here, so they share what they compile.

    Raises NoToolchain, CalledProcessError.
    """
    binary, version = helm_path(major), HELM_VERSIONS[major]
    with _once(binary) as missing:
        if missing:
            go = _go(f"helm {version}")
            with tempfile.TemporaryDirectory(prefix="testplane-helm-") as temporary:
                module = Path(temporary)
                lines = [f"require helm.sh/helm/v{n} {v}" for n, v in HELM_VERSIONS.items()]
                (module / "go.mod").write_text("\n".join(["module helm", "go 1.26.0", *lines]) + "\n")
                package = f"helm.sh/helm/v{major}"
                flags = f"-s -w -X {package}/internal/version.version={version}"
                _compile(go, module, f"{package}/cmd/helm", flags, binary)
    return binary


def gateway_api_path() -> Path:
    """The folder of the conformance suite, or where it will be: ``suite``, ``echo-basic``, ``base.yaml``, ``crds``."""
    source = (SOURCE / "gateway_conformance" / "main_test.go").read_bytes()
    return _cached(f"gateway-api-{GATEWAY_API_VERSION}-{hashlib.sha256(source).hexdigest()[:8]}")


def build_gateway_api() -> Path:
    """The suite as a test binary, its echo server, base manifests and definitions, all of one release.

    Raises NoToolchain, CalledProcessError.
    """
    place = gateway_api_path()
    with _once(place) as missing:
        if missing:
            go = _go(f"the conformance suite of Gateway API {GATEWAY_API_VERSION}")
            fresh = place.with_name(f"{place.name}.new")
            shutil.rmtree(fresh, ignore_errors=True)
            fresh.mkdir()
            with tempfile.TemporaryDirectory(prefix="testplane-gateway-") as temporary:
                module = Path(temporary)
                shutil.copy(SOURCE / "gateway_conformance" / "main_test.go", module)
                names = ("sigs.k8s.io/gateway-api", "sigs.k8s.io/gateway-api/conformance")
                lines = [f"require {name} {GATEWAY_API_VERSION}" for name in names]
                (module / "go.mod").write_text("\n".join(["module gatewayconformance", "go 1.26.0", *lines]) + "\n")
                _run(go, "mod", "tidy", cwd=module)
                _run(go, "test", "-c", "-ldflags", "-s -w", "-o", str(fresh / "suite"), ".", cwd=module)
                _compile(go, module, f"{names[1]}/echo-basic", "-s -w", fresh / "echo-basic")
                api, suite = (_folder_of(go, name, module) for name in names)
                shutil.copytree(api / "config" / "crd" / "standard", fresh / "crds")
                shutil.copy(suite / "base" / "manifests.yaml", fresh / "base.yaml")
            fresh.replace(place)
    return place


def _folder_of(go: str, name: str, module: Path) -> Path:
    found = json.loads(_run(go, "mod", "download", "-json", f"{name}@{GATEWAY_API_VERSION}", cwd=module))
    return Path(found["Dir"])


def _go(what: str) -> str:
    found = shutil.which("go")
    if found is None:
        raise NoToolchain(f"no Go toolchain: install Go 1.26 or newer (https://go.dev/dl) to build {what}")
    return found


@contextlib.contextmanager
def _module(name: str) -> Generator[Path, None, None]:
    """A temporary copy of the ``main.go`` of that name."""
    with tempfile.TemporaryDirectory(prefix=f"testplane-{name}-") as temporary:
        shutil.copy(SOURCE / name / "main.go", temporary)
        yield Path(temporary)


def _compile(go: str, module: Path, package: str, linker_flags: str, binary: Path) -> None:
    """Build beside the target and rename, so that a build cut short is never taken for a complete one."""
    fresh = binary.with_name(f"{binary.name}.new")
    _run(go, "build", "-trimpath", "-ldflags", linker_flags, "-o", str(fresh), package, cwd=module)
    fresh.replace(binary)


def _module_version(version: str) -> str:
    """Kubernetes v1.x.y publishes its libraries as v0.x.y."""
    return version.replace("v1.", "v0.", 1)


def _write_kubernetes_module(go: str, module: Path) -> None:
    """go.mod: Kubernetes requires its staging modules at v0.0.0, to be replaced by their published versions."""
    (module / "go.mod").write_text("module testplane\n")
    downloaded = json.loads(_run(go, "mod", "download", "-json", f"k8s.io/kubernetes@{VERSION}", cwd=module))
    upstream = Path(downloaded["GoMod"]).read_text()
    staging = re.findall(r"^\s*(k8s\.io/[a-z-]+) v0\.0\.0$", upstream, re.MULTILINE)
    language = re.search(r"^go (\S+)$", upstream, re.MULTILINE)
    lines = ["module testplane", f"go {language[1] if language else '1.26.0'}", f"require k8s.io/kubernetes {VERSION}"]
    lines += [f"require sigs.k8s.io/metrics-server {METRICS_SERVER_VERSION}"]
    lines += [f"replace {name} => {name} {_module_version(VERSION)}" for name in staging]
    (module / "go.mod").write_text("\n".join(lines) + "\n")


def _kubernetes_flags(version: str) -> str:
    package = "k8s.io/component-base/version"
    major, minor, _ = version.removeprefix("v").split(".")
    values = {"gitVersion": version, "gitMajor": major, "gitMinor": minor}
    return " ".join(["-s -w", *(f"-X {package}.{key}={value}" for key, value in values.items())])


def _run(*command: str, cwd: Path) -> str:
    environment = {**os.environ, "CGO_ENABLED": "0", "GOFLAGS": "-mod=mod", "GOWORK": "off"}
    return subprocess.run(
        ["nice", "-n", "15", *command], cwd=cwd, env=environment, check=True, stdout=subprocess.PIPE, text=True
    ).stdout


@contextlib.contextmanager
def _once(binary: Path) -> Generator[bool, None, None]:
    """Holds the lock of one binary; gives whether it still has to be built."""
    binary.parent.mkdir(parents=True, exist_ok=True)
    with _locked(binary.parent / f"{binary.name}.lock"):
        yield not binary.exists()


@contextlib.contextmanager
def _locked(path: Path) -> Generator[None, None, None]:
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def main(arguments: list[str]) -> None:
    if arguments == ["kubectl"]:
        print(build_kubectl())
        return
    if arguments == ["gateway-api"]:
        print(build_gateway_api())
        return
    for place in (build(), build_helm(3), build_helm(4)):
        print(place)


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except NoToolchain as error:
        print(f"build: {error}", file=sys.stderr)
        sys.exit(3)
