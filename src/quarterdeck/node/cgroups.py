"""Memory, CPU and process limits by cgroup, version 2 or 1, where this process may write there."""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

_ROOT = Path("/sys/fs/cgroup")
_V1 = ("memory", "cpu", "cpuacct", "pids")
_PERIOD = 100_000


@dataclass(frozen=True, slots=True)
class Limits:
    """``memory`` in bytes, ``cpu`` in cores, ``pids`` a count; 0 is no limit."""

    memory: int = 0
    cpu: float = 0.0
    pids: int = 0


@dataclass(frozen=True, slots=True)
class Usage:
    """CPU in nanoseconds since the start, working set memory in bytes."""

    cpu_nanoseconds: int
    memory: int


def group_of(data_dir: Path) -> str:
    """The name of a node's subtree, the same whenever it starts on its data directory."""
    return "quarterdeck-" + hashlib.sha256(str(data_dir.resolve()).encode()).hexdigest()[:12]


class Cgroups:
    """The node's own subtree. ``version`` 2, 1, or 0 when limits cannot be enforced this way."""

    def __init__(self, prefix: str, root: Path = _ROOT) -> None:
        self._prefix = prefix
        self._root = root
        self.version = self._probe()

    def _probe(self) -> int:
        controllers = self._root / "cgroup.controllers"
        if controllers.exists():
            names = controllers.read_text().split()
            if "memory" in names and os.access(self._root / "cgroup.subtree_control", os.W_OK):
                with contextlib.suppress(OSError):
                    (self._root / self._prefix).mkdir(exist_ok=True)
                    for parent in (self._root, self._root / self._prefix):
                        (parent / "cgroup.subtree_control").write_text("+memory +cpu +pids")
                    return 2
            return 0
        return 1 if self._writable("memory") and self._writable("cpu") else 0

    def _writable(self, controller: str) -> bool:
        base = self._root / controller
        if not (base / "cgroup.procs").exists():
            return False
        try:
            os.rmdir(tempfile.mkdtemp(prefix="quarterdeck-probe-", dir=base))
        except OSError:
            return False
        return True

    def _folders(self, name: str) -> dict[str, Path]:
        if self.version == 2:
            return {"": self._root / self._prefix / name}
        if self.version == 1:
            return {c: self._root / c / self._prefix / name for c in _V1 if (self._root / c / "cgroup.procs").exists()}
        return {}

    def procs(self, name: str) -> list[str]:
        """The files a process writes its pid to in order to join."""
        return [str(folder / "cgroup.procs") for folder in self._folders(name).values() if folder.exists()]

    def create(self, name: str, limits: Limits) -> list[str]:
        """Make a group for one container and set its limits; returns :meth:`procs`."""
        for controller, folder in self._folders(name).items():
            folder.mkdir(parents=True, exist_ok=True)
            for file, value in self._settings(controller, limits):
                with contextlib.suppress(OSError):  # swap accounting may be off; the memory limit itself still holds
                    (folder / file).write_text(value)
        return self.procs(name)

    def _settings(self, controller: str, limits: Limits) -> list[tuple[str, str]]:
        settings: list[tuple[str, str]] = []
        quota = max(1000, int(limits.cpu * _PERIOD))
        if controller == "" and limits.memory:
            settings += [("memory.max", str(limits.memory)), ("memory.swap.max", "0"), ("memory.oom.group", "1")]
        if controller == "" and limits.cpu:
            settings.append(("cpu.max", f"{quota} {_PERIOD}"))
        if controller in ("", "pids") and limits.pids:
            settings.append(("pids.max", str(limits.pids)))
        if controller == "memory" and limits.memory:
            settings += [("memory.limit_in_bytes", str(limits.memory)),
                         ("memory.memsw.limit_in_bytes", str(limits.memory))]  # fmt: skip
        if controller == "cpu" and limits.cpu:
            settings += [("cpu.cfs_period_us", str(_PERIOD)), ("cpu.cfs_quota_us", str(quota))]
        return settings

    def oom_killed(self, name: str) -> bool:
        """Whether the kernel ended something in this group for want of memory."""
        for folder in self._folders(name).values():
            for file in ("memory.events", "memory.oom_control"):
                with contextlib.suppress(OSError):
                    for line in (folder / file).read_text().splitlines():
                        key, _, value = line.partition(" ")
                        if key == "oom_kill" and int(value) > 0:
                            return True
        return False

    def usage(self, name: str) -> Usage | None:
        """None when the group is gone or cgroups are not in use."""
        folders = self._folders(name)
        try:
            if self.version == 2:
                stat = _pairs(folders[""] / "cpu.stat")
                memory = int((folders[""] / "memory.current").read_text())
                cache = _pairs(folders[""] / "memory.stat").get("inactive_file", 0)
                return Usage(stat["usage_usec"] * 1000, max(0, memory - cache))
            if self.version == 1:
                cpu = int((folders["cpuacct"] / "cpuacct.usage").read_text())
                memory = int((folders["memory"] / "memory.usage_in_bytes").read_text())
                cache = _pairs(folders["memory"] / "memory.stat").get("total_inactive_file", 0)
                return Usage(cpu, max(0, memory - cache))
        except (OSError, KeyError, ValueError):
            return None
        return None

    def remove(self, name: str) -> None:
        """Remove an empty group; one with processes stays."""
        for folder in self._folders(name).values():
            with contextlib.suppress(OSError):
                folder.rmdir()

    def remove_tree(self) -> None:
        """Remove the node's own subtree when nothing is left in it."""
        for base in (self._root, *(self._root / c for c in _V1)):
            top = base / self._prefix
            for path in (*sorted(top.glob("**/"), reverse=True), top) if top.is_dir() else ():
                with contextlib.suppress(OSError):
                    path.rmdir()


def _pairs(path: Path) -> dict[str, int]:
    return {k: int(v) for k, _, v in (line.partition(" ") for line in path.read_text().splitlines()) if v.isdigit()}
