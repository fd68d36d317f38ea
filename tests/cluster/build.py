"""Build the real Kubernetes control plane that tests and benchmarks measure against: `python tests/cluster/build.py`.

One Go binary out of published modules (kube-apiserver, kube-controller-manager, kube-scheduler, etcd), kept outside the
checkout and built once: about four minutes of CPU, 3 GB of Go caches. Prints the folder that holds the commands.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

VERSION = "v1.36.3"
COMMANDS = ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler")
SOURCE = Path(__file__).parent / "testplane"


class NoToolchain(RuntimeError):
    """Go is missing, so the control plane cannot be built here."""


def folder() -> Path:
    """Where the commands are, or will be."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    machine = {"x86_64": "amd64", "aarch64": "arm64"}.get(os.uname().machine, os.uname().machine)
    return cache / "quarterdeck" / "testplane" / f"{VERSION}-{sys.platform}-{machine}"


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
        go = shutil.which("go")
        if go is None:
            raise NoToolchain("no Go toolchain: install Go 1.26 or newer (https://go.dev/dl) to build kube-apiserver")
        with tempfile.TemporaryDirectory(prefix="testplane-") as temporary:
            module = Path(temporary)
            shutil.copy(SOURCE / "main.go", module)
            _write_module(go, module)
            _run(go, "mod", "tidy", cwd=module)
            fresh = str(place / "testplane.new")
            _run(go, "build", "-trimpath", "-ldflags", _linker_flags(), "-o", fresh, ".", cwd=module)
        (place / "testplane.new").replace(place / "testplane")
        for command in COMMANDS:
            with contextlib.suppress(FileExistsError):
                (place / command).symlink_to("testplane")
    return place


def _write_module(go: str, module: Path) -> None:
    """go.mod: Kubernetes requires its staging modules at v0.0.0, to be replaced by their published versions."""
    (module / "go.mod").write_text("module testplane\n")
    downloaded = json.loads(_run(go, "mod", "download", "-json", f"k8s.io/kubernetes@{VERSION}", cwd=module))
    upstream = Path(downloaded["GoMod"]).read_text()
    staging = re.findall(r"^\s*(k8s\.io/[a-z-]+) v0\.0\.0$", upstream, re.MULTILINE)
    language = re.search(r"^go (\S+)$", upstream, re.MULTILINE)
    lines = ["module testplane", f"go {language[1] if language else '1.26.0'}", f"require k8s.io/kubernetes {VERSION}"]
    lines += [f"replace {name} => {name} {VERSION.replace('v1.', 'v0.', 1)}" for name in staging]
    (module / "go.mod").write_text("\n".join(lines) + "\n")


def _linker_flags() -> str:
    package = "k8s.io/component-base/version"
    major, minor, _ = VERSION.removeprefix("v").split(".")
    values = {"gitVersion": VERSION, "gitMajor": major, "gitMinor": minor}
    return " ".join(["-s -w", *(f"-X {package}.{key}={value}" for key, value in values.items())])


def _run(*command: str, cwd: Path) -> str:
    environment = {**os.environ, "CGO_ENABLED": "0", "GOFLAGS": "-mod=mod", "GOWORK": "off"}
    return subprocess.run(
        ["nice", "-n", "10", *command], cwd=cwd, env=environment, check=True, stdout=subprocess.PIPE, text=True
    ).stdout


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


if __name__ == "__main__":
    try:
        print(build())
    except NoToolchain as error:
        sys.exit(f"build: {error}")
