"""What a node that was killed leaves running when no node will start again to adopt it."""

from __future__ import annotations

import time
from pathlib import Path

from quarterdeck.node.addresses import Addresses
from quarterdeck.node.cgroups import Cgroups, group_of
from quarterdeck.node.foreign import engine_at
from quarterdeck.node.images.engine import remove_now
from quarterdeck.node.process import ProcessId, kill, terminate
from quarterdeck.node.runtime import read_state


def end_remains(data_dir: Path, grace: float = 5.0) -> int:
    """End the processes a node's records name, then take its cgroups and address range away; how many there were.

    Only for a data directory whose node does not run. Records name processes by start time: no other is hit.
    """
    left: list[tuple[ProcessId, str]] = []
    for state in data_dir.glob("pods/*/containers/*/state.json"):
        _, process = read_state(state)
        if process is not None and process.alive():
            left.append((process, f"{state.parents[2].name}/{state.parent.name}"))
    for process, _ in left:
        terminate(process)
    deadline = time.monotonic() + grace
    while time.monotonic() < deadline and any(process.alive() for process, _ in left):
        time.sleep(0.02)
    cgroups = Cgroups(group_of(data_dir))
    for process, group in left:
        kill(process, cgroups.procs(group))
    while any(process.alive() for process, _ in left):
        time.sleep(0.02)
    for state in data_dir.glob("pods/*/containers/*/state.json"):
        if (found := engine_at(state.parent)) is not None:
            remove_now(found.engine, found.run)
    cgroups.remove_tree()
    if (data_dir / "addresses.json").exists():
        Addresses(data_dir).close(keep_route=False)
    return len(left)
