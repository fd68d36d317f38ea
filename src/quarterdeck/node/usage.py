"""CPU and memory in use: of the machine, and of a container where no control group counts it (Linux /proc)."""

from __future__ import annotations

import os
from pathlib import Path

from quarterdeck.node.cgroups import Usage
from quarterdeck.node.process import descendants

_TICK = 1_000_000_000 // os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")


def machine_usage(stat: str, meminfo: str) -> Usage:
    """Of the whole machine, by the texts of /proc/stat and /proc/meminfo (proc(5)); CPU counts all but idle time."""
    ticks = [int(word) for word in stat.splitlines()[0].split()[1:]]
    sizes = {line.partition(":")[0]: int(line.split()[1]) * 1024 for line in meminfo.splitlines()}
    busy = ticks[0] + ticks[1] + ticks[2] + sum(ticks[5:8])  # user, nice, system; irq, softirq, steal
    return Usage(busy * _TICK, sizes["MemTotal"] - sizes["MemAvailable"])


def tree_usage(pid: int) -> Usage | None:
    """Of a process and all below it, children that have ended included; None when it is gone."""
    cpu = memory = 0
    for each in descendants(pid):
        try:
            fields = Path(f"/proc/{each}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            if each == pid:
                return None
            continue
        cpu += sum(int(field) for field in fields[11:15])  # utime, stime, cutime, cstime
        memory += int(fields[21])
    return Usage(cpu * _TICK, memory * _PAGE)
