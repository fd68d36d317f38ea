"""Whatever is done to an audit file shows: edits, removals and reordering by the chains, the rest by checkpoints."""

from __future__ import annotations

import contextlib
import hashlib
import os
import subprocess
import sys
from base64 import b64encode
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quarterdeck.telemetry.audit import GENESIS, AuditLog, Checkpoint, Position, Record, open_log, verify
from quarterdeck.telemetry.audit.checkpoint import Signer, genuine
from quarterdeck.telemetry.audit.record import Chain
from quarterdeck.telemetry.audit.sinks import DescriptorSink, files, numbered
from quarterdeck.telemetry.audit.verify import verify_files


def record(tool: str) -> Record:
    return Record(
        1.5, "id", "agent:kagent/a", "", "kagent/a", "mcp", "kagent/s", tool, "tools/call", "", "allow", "r", "ok", 200,
        0.25, "0" * 32,
    )  # fmt: skip


def chains(sizes: list[int]) -> tuple[list[bytes], list[Checkpoint]]:
    """The lines of a file that processes wrote one after the other, and the last checkpoint of each."""
    lines: list[bytes] = []
    points: list[Checkpoint] = []
    prev = GENESIS
    for number, size in enumerate(sizes):
        chain = Chain(prev)
        lines += [chain.link(record(f"t{number}-{at}")) for at in range(size)]
        prev = chain.prev
        signer = Signer("ns/gw", "pod")
        points.append(signer.sign(Position(chain.id, chain.seq - 1, chain.prev), 1.0))
    return lines, points


SIZES = st.lists(st.integers(1, 6), min_size=1, max_size=4)


def check(tmp_path_factory: pytest.TempPathFactory, data: bytes, points: list[Checkpoint]) -> tuple[bool, bool]:
    """Whether the file verifies without and with checkpoints."""
    path = tmp_path_factory.mktemp("audit") / "audit.jsonl"
    path.write_bytes(data)
    return verify(path).ok, verify(path, points).ok


@settings(deadline=None, max_examples=60)
@given(sizes=SIZES)
def test_an_untouched_file_is_good(tmp_path_factory: pytest.TempPathFactory, sizes: list[int]) -> None:
    lines, points = chains(sizes)
    assert check(tmp_path_factory, b"".join(lines), points) == (True, True)


@settings(deadline=None, max_examples=150)
@given(sizes=SIZES, data=st.data())
def test_a_flipped_bit_shows(tmp_path_factory: pytest.TempPathFactory, sizes: list[int], data: st.DataObject) -> None:
    lines, points = chains(sizes)
    whole = bytearray(b"".join(lines))
    at = data.draw(st.integers(0, len(whole) - 1))
    whole[at] ^= 1 << data.draw(st.integers(0, 7))
    assert check(tmp_path_factory, bytes(whole), points) == (False, False)


@settings(deadline=None, max_examples=100)
@given(sizes=SIZES, data=st.data())
def test_removed_lines_show(tmp_path_factory: pytest.TempPathFactory, sizes: list[int], data: st.DataObject) -> None:
    lines, points = chains(sizes)
    start = data.draw(st.integers(0, len(lines) - 1))
    stop = data.draw(st.integers(start + 1, len(lines)))
    left = b"".join(lines[:start] + lines[stop:])
    alone, anchored = check(tmp_path_factory, left, points)
    assert not anchored
    assert alone == (stop == len(lines)), "only what is cut off at the end needs a checkpoint to show"


@settings(deadline=None, max_examples=100)
@given(sizes=SIZES, data=st.data())
def test_reordered_and_repeated_lines_show(
    tmp_path_factory: pytest.TempPathFactory, sizes: list[int], data: st.DataObject
) -> None:
    lines, points = chains([*sizes, 1])
    one, other = data.draw(st.lists(st.integers(0, len(lines) - 1), min_size=2, max_size=2, unique=True))
    swapped = list(lines)
    swapped[one], swapped[other] = swapped[other], swapped[one]
    assert check(tmp_path_factory, b"".join(swapped), points) == (False, False)
    repeated = [*lines[: one + 1], *lines[one:]]
    assert check(tmp_path_factory, b"".join(repeated), points) == (False, False)


@settings(deadline=None, max_examples=60)
@given(sizes=SIZES, data=st.data())
def test_a_rewrite_by_the_owner_shows_beside_the_checkpoints(
    tmp_path_factory: pytest.TempPathFactory, sizes: list[int], data: st.DataObject
) -> None:
    """All hashes are computed anew under the same chain ids, as one can who knows the format and owns the file."""
    lines, points = chains(sizes)
    changed = data.draw(st.integers(0, len(lines) - 1))
    forged: list[bytes] = []
    prev, at = GENESIS, 0
    for size, point in zip(sizes, points, strict=True):
        chain = Chain(prev, point.chain)
        for number in range(size):
            forged.append(chain.link(record("harmless" if at == changed else f"t{sizes.index(size)}-{number}")))
            at += 1
        prev = chain.prev
    assert check(tmp_path_factory, b"".join(forged), points) == (True, False)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda p: msgspec.structs.replace(p, seq=1), "signature is wrong"),
        (lambda p: msgspec.structs.replace(p, hash="f" * 64), "signature is wrong"),
        (lambda p: msgspec.structs.replace(p, key=b64encode(bytes(32)).decode()), "signature is wrong"),
        (lambda p: Signer("ns/gw", "pod").sign(Position(p.chain, 9, "f" * 64), 1.0), "two keys"),
    ],
)
def test_a_forged_checkpoint_is_found(tmp_path: Path, change: Callable[[Checkpoint], Checkpoint], says: str) -> None:
    lines, points = chains([3])
    path = tmp_path / "audit.jsonl"
    path.write_bytes(b"".join(lines))
    found = verify(path, [*points, change(points[0])])
    assert not found.ok and says in found.problem


def test_a_checkpoint_survives_its_json(tmp_path: Path) -> None:
    _, points = chains([2])
    again = msgspec.json.decode(msgspec.json.encode(points[0]), type=Checkpoint)
    assert again == points[0] and genuine(again)


async def fill(path: Path, count: int, start: int = 0, **options: int) -> AuditLog:
    log = open_log(path, **options)
    for number in range(start, start + count):
        log.append(record(f"t{number}"))
        log.flush()
    return log


async def test_a_rotated_file_is_one_log(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    (await fill(path, 20, rotate=2000)).close()
    (await fill(path, 20, 20, rotate=2000)).close()
    parts = files(path)
    assert len(parts) > 3 and all(part.stat().st_size <= 2000 for part in parts)
    assert all(part.stat().st_mode & 0o777 == 0o600 for part in parts)
    found = verify(path)
    assert (found.ok, found.records, found.chains) == (True, 40, 2)
    parts[1].write_bytes(b"")
    assert "chain is broken" in verify(path).problem


async def test_files_that_rotation_removed_are_missed_unless_a_checkpoint_tells_of_them(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    log = await fill(path, 40, rotate=2000, keep=2)
    position = log.position()
    assert position is not None
    pruned = tuple(log.pruned())
    log.close()
    assert len(files(path)) == 3 and pruned
    signer = Signer("ns/gw", "pod")
    assert verify(path, [signer.sign(position, 1.0, pruned=pruned)]).ok
    silent = verify(path, [signer.sign(position, 1.0)])
    assert not silent.ok and "no checkpoint says" in silent.problem


async def test_a_file_moved_away_is_made_anew_and_the_chain_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    log = await fill(path, 3)
    path.rename(numbered(path, 1))  # as logrotate does
    log.refresh()
    log.append(record("after"))
    log.close()
    assert path.read_bytes().count(b"\n") == 1
    assert verify(path).records == 4 and verify(path).ok


async def test_two_processes_share_a_file(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    one, two = open_log(path), open_log(path)
    for number in range(6):
        log = (one, two)[number % 2]
        log.append(record(f"t{number}"))
        log.flush()
    one.close()
    two.close()
    found = verify(path)
    assert (found.ok, found.records, found.chains) == (True, 6, 2)
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:2] + lines[3:]))
    assert not verify(path).ok


async def test_a_slow_reader_gets_whole_lines_and_stalls_nobody(tmp_path: Path) -> None:
    """A pipe takes a part of a batch: the rest follows when it is read, and nothing is written twice."""
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    os.set_blocking(reading, False)
    now = [100.0]
    log = AuditLog(DescriptorSink(writing), clock=lambda: now[0])
    for number in range(2000):
        log.append(record(f"t{number}"))
    assert not log.flush() and log.blocked and log.position() is None
    data = b""
    while not log.flush():
        now[0] += 1
        with contextlib.suppress(BlockingIOError):
            data += os.read(reading, 1 << 20)
    assert not log.blocked
    with contextlib.suppress(BlockingIOError):
        data += os.read(reading, 1 << 20)
    log.close()
    data += os.read(reading, 1 << 20)
    os.close(reading)
    path = tmp_path / "copy.jsonl"
    path.write_bytes(data)
    assert verify(path).ok and verify(path).records == 2001, "with the record of the gap"


WRITER = """
import asyncio
import sys
from pathlib import Path
from quarterdeck.telemetry.audit import Record, open_log
async def main():
    log = open_log(Path(sys.argv[1]), rotate=40_000, keep=100)
    for number in range(400):
        words = [f"t{number}" if at == 7 else "x" for at in range(13)]
        log.append(Record(1.5, *words[1:13], 200, 0.25, "0" * 32))
        log.flush()
        if number % 20 == 0:
            log.refresh()
    log.close()
asyncio.run(main())
"""


def test_processes_that_rotate_one_file_lose_nothing(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    writers = [subprocess.Popen([sys.executable, "-c", WRITER, str(path)]) for _ in range(3)]
    assert [writer.wait(60) for writer in writers] == [0, 0, 0]
    found = verify(path)
    assert (found.problem, found.records, found.chains) == ("", 1200, 3)
    assert len(files(path)) > 5


def test_old_records_without_chains_are_read(tmp_path: Path) -> None:
    prev, lines = GENESIS, []
    for tool in ("a", "b"):
        head = msgspec.json.encode(record(tool))[:-1] + b',"prev":"%b"' % prev.encode()
        prev = hashlib.sha256(head).hexdigest()
        lines.append(b'%b,"hash":"%b"}\n' % (head, prev.encode()))
    path = tmp_path / "audit.jsonl"
    path.write_bytes(b"".join(lines))
    log = open_log(path)
    chain = log.chain
    path.write_bytes(path.read_bytes() + chain.link(record("c")))
    assert verify(path).ok and verify(path).records == 3
    assert not verify_files([_without(path, 1)]).ok


def _without(path: Path, number: int) -> Path:
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:number] + lines[number + 1 :]))
    return path
