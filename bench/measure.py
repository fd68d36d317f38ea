"""What every bench needs: CPU and memory of processes, child processes with a first line, rows of the table."""

from __future__ import annotations

import asyncio
import contextlib
import os
import platform
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TICKS = os.sysconf("SC_CLK_TCK")
PAGE = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True, slots=True)
class Row:
    """One figure. ``target`` is an upper bound in ``unit``; ``beside`` is a peer or baseline of the same run."""

    what: str
    value: float
    unit: str
    target: float | None = None
    beside: str = ""

    @property
    def met(self) -> bool | None:
        return None if self.target is None else self.value <= self.target


@dataclass(frozen=True, slots=True)
class Figures:
    """What a run gave. ``cpu`` is microseconds of the measured processes per call; latencies are milliseconds."""

    calls: int
    rate: float
    p50: float
    p99: float
    cpu: float


def cpu(pid: int) -> float:
    """Seconds of CPU (user and system) a process has used; 10 ms steps, so measure at least half a second."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def rss(pid: int) -> float:
    """Resident memory in MB (10⁶ bytes), shared pages included."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * PAGE / 1e6


def pss(pid: int) -> float:
    """Proportional resident memory in MB: shared pages are divided among those that map them."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024 / 1e6
    return 0.0


def children(pid: int) -> list[int]:
    """The process and all below it."""
    found = [pid]
    with contextlib.suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            for child in (task / "children").read_text().split():
                found += children(int(child))
    return found


async def settle(pids: tuple[int, ...]) -> None:
    """Wait until start-up work is over: less than 5 % CPU over a second, at most 20 s."""
    for _ in range(20):
        before = sum(map(cpu, pids))
        await asyncio.sleep(1.0)
        if sum(map(cpu, pids)) - before < 0.05:
            return


@contextlib.contextmanager
def child(module: str, *args: str, env: dict[str, str] | None = None) -> Iterator[tuple[int, str]]:
    """Run ``python -m module``; gives its pid and the first line it prints. Ended on exit."""
    process = subprocess.Popen(
        [sys.executable, "-m", module, *args], stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True, cwd=ROOT,
        env={**os.environ, **(env or {})},
    )  # fmt: skip
    try:
        assert process.stdout is not None
        line = process.stdout.readline().strip()
        if not line:
            raise RuntimeError(f"python -m {module} {' '.join(args)} ended with {process.wait()} before it was ready")
        yield process.pid, line
    finally:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(10)
        if process.poll() is None:
            process.kill()
            process.wait()


def machine() -> str:
    """One line about where this ran."""
    model = "unknown CPU"
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                model = line.partition(":")[2].strip()
                break
    memory = os.sysconf("SC_PHYS_PAGES") * PAGE / 2**30
    load = os.getloadavg()[0]
    system = f"Linux {platform.release()}, Python {platform.python_version()}"
    return f"{os.cpu_count()} × {model}, {memory:.0f} GiB, {system}, load average at start {load:.1f}"
