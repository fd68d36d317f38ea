"""Tables that several processes share: counted exactly, and still there when one is killed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from quarterdeck.errors import ConfigError
from quarterdeck.gateway.limits.breaker import Breakers
from quarterdeck.gateway.limits.bucket import Buckets, Shape
from quarterdeck.gateway.limits.memory import ACTIVE, SIZE, private, shared
from quarterdeck.gateway.limits.mutex import RecordLock
from quarterdeck.gateway.limits.rooms import Rooms
from quarterdeck.snapshot.policies import Breaker

TAKE = """
import sys
from pathlib import Path
from quarterdeck.gateway.limits.bucket import Buckets, Shape
from quarterdeck.gateway.limits.memory import shared
memory = shared(Path(sys.argv[1]))
buckets, key = Buckets(memory), memory.key("all")
print(memory.worker, flush=True)
sys.stdin.readline()
print(sum(buckets.take(Shape(30_000, 0, 1.0), key, 1.0) >= 0 for _ in range(20_000)), flush=True)
"""
HOLD = """
import sys, time
from pathlib import Path
from quarterdeck.gateway.limits.memory import ACTIVE, shared
from quarterdeck.gateway.limits.rooms import Rooms
memory = shared(Path(sys.argv[1]))
rooms = Rooms(memory)
assert rooms.enter(memory.key("room"), 2)
memory.enter()
memory.words[ACTIVE] = 77  # half done
print("held", flush=True)
time.sleep(60)
"""


def child(code: str, path: Path) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    process.first = process.stdout.readline().strip()  # type: ignore[attr-defined]  # for the test to read
    return process


def test_two_processes_grant_together_exactly_what_there_is(tmp_path: Path) -> None:
    path = tmp_path / "limits.table"
    workers = [child(TAKE, path) for _ in range(2)]
    assert {worker.first for worker in workers} == {"0", "1"}  # type: ignore[attr-defined]
    for worker in workers:
        assert worker.stdin is not None
        worker.stdin.write("\n")
        worker.stdin.flush()
    granted = [int(worker.communicate(timeout=30)[0]) for worker in workers]
    assert sum(granted) == 30_000


def test_a_worker_killed_with_the_lock_in_its_hand_stops_nobody(tmp_path: Path) -> None:
    path = tmp_path / "limits.table"
    worker = child(HOLD, path)
    memory = shared(path)
    worker.kill()
    worker.wait()
    buckets = Buckets(memory)
    assert buckets.take(Shape(1, 0, 1.0), memory.key("a"), 1.0) == 0.0
    assert memory.words[ACTIVE] == 0  # counted again
    rooms = Rooms(memory)
    room = memory.key("room")
    assert rooms.enter(room, 2)
    assert rooms.inside(room) == 2  # nobody has looked for the dead one yet
    assert rooms.enter(room, 2), "what a dead worker held is given up when there seems to be no room"
    assert not rooms.enter(room, 2)
    rooms.leave(room)
    assert rooms.enter(room, 2)


def test_a_breaker_opened_by_one_is_open_for_all(tmp_path: Path) -> None:
    path = tmp_path / "limits.table"
    one, two = shared(path), shared(path)
    rule = Breaker()
    first = Breakers(one, clock=lambda: 5.0)
    for _ in range(3):
        first.report("s", "t", "failed", rule)
    assert Breakers(two, clock=lambda: 6.0).admit("s", "t", 10.0) == 29.0


def test_the_first_to_come_begins_anew(tmp_path: Path) -> None:
    path = tmp_path / "limits.table"
    shape = Shape(1, 0, 1.0)
    before = shared(path)
    assert Buckets(before).take(shape, before.key("a"), 1e12) == 0.0  # of a clock that the next boot knows nothing of
    again = shared(path, alive=lambda pid: False)
    assert Buckets(again).take(shape, again.key("a"), 1.0) == 0.0


def test_a_file_of_another_size_is_made_anew(tmp_path: Path) -> None:
    path = tmp_path / "limits.table"
    path.write_bytes(b"something else")
    memory = shared(path)
    assert path.stat().st_size == SIZE and memory.key("a")


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "target").write_bytes(b"precious")
    (tmp_path / "limits.table").symlink_to(tmp_path / "target")
    with pytest.raises(ConfigError, match="limits file"):
        shared(tmp_path / "limits.table")
    assert (tmp_path / "target").read_bytes() == b"precious"


def test_a_record_lock_does_where_there_are_no_robust_mutexes(tmp_path: Path) -> None:
    with open(tmp_path / "lock", "w") as file:
        lock = RecordLock(file.fileno())
        assert lock.acquire()
        if (pid := os.fork()) == 0:
            import fcntl

            try:
                fcntl.lockf(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                os._exit(7)
            os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7
        lock.release()


def test_private_tables_take_no_memory_until_they_are_used() -> None:
    def resident() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * 4096

    before = resident()
    tables = [private() for _ in range(20)]
    assert resident() - before < 20 * SIZE // 8
    del tables


def test_rooms_bound_what_is_under_way() -> None:
    memory = private()
    rooms, room = Rooms(memory), memory.key("route")
    assert [rooms.enter(room, 2) for _ in range(3)] == [True, True, False]
    assert rooms.enter(memory.key("another"), 2)
    rooms.leave(room)
    assert rooms.inside(room) == 1 and rooms.enter(room, 2)
    for _ in range(5):
        rooms.leave(room)
    assert rooms.inside(room) == 0
