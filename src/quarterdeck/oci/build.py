"""``qd mcp build``: a project folder becomes an OCI image in the local store, without Docker and without root.

The image has two layers, dependencies and the project's own files, both below ``/app``. It carries no operating
system: on a laptop the node's own Python or Node runs it; for a cluster, push it on a base (``--push --base``) or
use the Dockerfile.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from quarterdeck.errors import ConfigError

from .archive import pack
from .layout import LAYER, Layout
from .project import Project, dockerfile, inspect
from .reference import Reference

PYTHON_LABEL = "dev.quarterdeck.python"
NODE_LABEL = "dev.quarterdeck.node"
DEPENDENCIES = "app/.site-packages"


@dataclass(frozen=True, slots=True)
class Built:
    """What a build made. Sizes in bytes."""

    reference: Reference
    digest: str
    size: int
    command: tuple[str, ...]
    dockerfile: Path | None
    """The Dockerfile written beside the project, None when it already had one."""


def build(directory: Path, reference: Reference, store: Layout, say: Callable[[str], None]) -> Built:
    """Build ``directory`` and store it as ``reference``. ``say`` gets one line a step.

    Raises ConfigError when the folder cannot be built or its dependencies cannot be installed; the store is unchanged
    then.
    """
    project = inspect(directory)
    store.root.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=store.root, prefix=".build-") as scratch:
        work = Path(scratch)
        layers: list[tuple[Path, str]] = []
        if project.language == "python":
            say("installing dependencies")
            _python_dependencies(project, work / "site-packages")
            layers.append(_layer(work, work / "site-packages", DEPENDENCIES, lambda path: True))
            say("packing the project")
            layers.append(_layer(work, directory, "app", project.keeps))
        else:
            say("installing dependencies and building")
            tree = _node_tree(project, work / "app")
            layers.append(_layer(work, tree, "app", lambda path: not path.startswith(".git/")))
        descriptors = [store.put_file(path, LAYER) for path, _ in layers]
        config = _config(project, [diff for _, diff in layers])
        digest = store.put_image(reference, config, descriptors)
    written = None
    if not (directory / "Dockerfile").exists() and os.access(directory, os.W_OK):
        written = directory / "Dockerfile"
        written.write_text(dockerfile(project))
    return Built(reference, digest, sum(int(d["size"]) for d in descriptors), project.command, written)


def find_uv() -> list[str]:
    """The command line of uv. Raises ConfigError with the remedy when there is none."""
    beside = Path(sys.executable).parent / "uv"
    if beside.exists():
        return [str(beside)]
    found = shutil.which("uv")
    if found:
        return [found]
    raise ConfigError("uv is not installed; it resolves Python packages: pip install uv")


def base_python() -> str:
    """The interpreter below our virtual environment: images run on it without seeing our packages."""
    return os.path.realpath(getattr(sys, "_base_executable", sys.executable))


def _layer(work: Path, tree: Path, prefix: str, keep: Callable[[str], bool]) -> tuple[Path, str]:
    target = work / f"layer-{prefix.replace('/', '-')}.tar.gz"
    return target, pack(tree, prefix, target, keep)


def _python_dependencies(project: Project, target: Path) -> None:
    """Install what the project locks (``requirements.lock`` with hashes, ``uv.lock``), else what it asks for."""
    target.mkdir()
    directory = project.directory
    command = [*find_uv(), "pip", "install", "--quiet", "--python", base_python(), "--target", str(target)]
    if (directory / "requirements.lock").is_file():
        _run([*command, "--require-hashes", "-r", "requirements.lock"], directory)
    elif (directory / "uv.lock").is_file():
        exported = target.parent / "requirements.txt"
        lock = [
            *find_uv(),
            "export",
            "--quiet",
            "--frozen",
            "--no-dev",
            "--no-emit-project",
            "--output-file",
            str(exported),
        ]
        _run(lock, directory)
        _run([*command, "--require-hashes", "-r", str(exported)], directory)
    elif (directory / "pyproject.toml").is_file():
        _run([*command, "-r", "pyproject.toml"], directory)
    else:
        _run([*command, "-r", "requirements.txt"], directory)
    _compile(target)


def _compile(target: Path) -> None:
    """Bytecode into the image: its folder is read-only where it runs, so each start would compile anew.

    Unchecked and with the paths it has in the image, so that it comes out the same each time. Files that are no valid
    Python of this version (templates, tests of syntax errors) are left as they are.
    """
    for stale in target.rglob("__pycache__"):
        shutil.rmtree(stale)
    command = [base_python(), "-m", "compileall", "-q", "-j", "0", "--invalidation-mode", "unchecked-hash"]
    command += ["-s", str(target), "-p", f"/{DEPENDENCIES}", str(target)]
    subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False)


def _node_tree(project: Project, target: Path) -> Path:
    npm = shutil.which("npm")
    if npm is None:
        raise ConfigError("npm is not installed; Node projects need it: apt-get install nodejs npm")

    def left_out(folder: str, names: list[str]) -> list[str]:
        relative = os.path.relpath(folder, project.directory)
        base = "" if relative == "." else f"{relative}/"
        return [name for name in names if not project.keeps(base + name)]

    shutil.copytree(project.directory, target, ignore=left_out, symlinks=True)
    install = "ci" if (target / "package-lock.json").is_file() else "install"
    _run([npm, install, "--silent", "--no-audit", "--no-fund"], target)
    _run([npm, "run", "build", "--if-present", "--silent"], target)
    _run([npm, "prune", "--omit=dev", "--silent", "--no-audit"], target)
    return target


def _run(command: list[str], directory: Path) -> None:
    done = subprocess.run(command, cwd=directory, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        lines = (done.stderr or done.stdout).strip().splitlines()[-12:]
        raise ConfigError(f"{directory}: {' '.join(command[:3])} … failed:\n  " + "\n  ".join(lines))


def _config(project: Project, diff_ids: list[str]) -> dict[str, Any]:
    if project.language == "python":
        env = [
            f"PYTHONPATH=/{DEPENDENCIES}",
            f"PATH=/{DEPENDENCIES}/bin:/usr/local/bin:/usr/bin:/bin",
            "PYTHONUNBUFFERED=1",
        ]
        labels = {PYTHON_LABEL: f"{sys.version_info.major}.{sys.version_info.minor}"}
    else:
        env = ["PATH=/app/node_modules/.bin:/usr/local/bin:/usr/bin:/bin", "NODE_ENV=production"]
        labels = {NODE_LABEL: "true"}
    return {
        "architecture": {"x86_64": "amd64", "aarch64": "arm64"}.get(os.uname().machine, os.uname().machine),
        "os": "linux",
        "created": "1970-01-01T00:00:00Z",
        "config": {"Env": env, "WorkingDir": "/app", "Cmd": list(project.command), "User": "65532", "Labels": labels},
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
        "history": [{"created_by": f"qd mcp build ({part})"} for part in ("dependencies", "project")[-len(diff_ids) :]],
    }
