"""The chain: what is removed or changed shows, a crash costs only the line being written."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from quarterdeck.errors import StorageError
from quarterdeck.telemetry.audit import GENESIS, AuditLog, FileSink, Record, open_log, verify


def record(tool: str = "t") -> Record:
    return Record(
        1.5, "id", "agent:kagent/a", "", "kagent/a", "mcp", "kagent/s", tool, "tools/call", "", "allow", "r", "ok", 200,
        0.25, "0" * 32,
    )  # fmt: skip


async def write(path: Path, *tools: str) -> None:
    log = open_log(path)
    for tool in tools:
        log.append(record(tool))
    log.close()


async def test_the_chain_goes_on_after_a_restart(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    await write(path, "a", "b")
    await write(path, "c")
    lines = [msgspec.json.decode(line) for line in path.read_bytes().splitlines()]
    assert [line["tool"] for line in lines] == ["a", "b", "c"]
    assert lines[0]["prev"] == GENESIS
    assert lines[2]["prev"] == lines[1]["hash"]
    assert set(lines[0]) >= {"ts", "principal", "onBehalfOf", "argumentsHash", "latencyMs", "traceId", "prev", "hash"}
    assert verify(path).ok and verify(path).records == 3
    assert path.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    ("damage", "line", "says"),
    [
        (lambda ls: [ls[0], ls[1].replace(b'"b"', b'"x"'), ls[2]], 2, "changed"),
        (lambda ls: [ls[0], ls[2]], 2, "chain is broken"),
        (lambda ls: ls[1:], 1, "chain is broken"),
        (lambda ls: [ls[1], ls[0], ls[2]], 1, "chain is broken"),
        (lambda ls: [ls[0], b"hello\n"], 2, "not an audit record"),
        (lambda ls: [ls[0], ls[1][:-5]], 2, "incomplete"),
    ],
)
async def test_damage_is_found(tmp_path: Path, damage, line: int, says: str) -> None:
    path = tmp_path / "audit.jsonl"
    await write(path, "a", "b", "c")
    path.write_bytes(b"".join(damage(path.read_bytes().splitlines(keepends=True))))
    result = verify(path)
    assert (result.ok, result.line) == (False, line)
    assert says in result.problem


async def test_a_line_cut_by_a_crash_is_dropped_at_the_next_start(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    await write(path, "a", "b")
    path.write_bytes(path.read_bytes()[:-10])
    await write(path, "c")
    assert verify(path).ok and verify(path).records == 2


async def test_a_foreign_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    path.write_text("not ours\n")
    with pytest.raises(StorageError, match="move the file away"):
        open_log(path)


class Flaky:
    """A sink on a disk that is full for a while."""

    behind = False

    def __init__(self) -> None:
        self.full = True
        self.data = b""

    def write(self, data: bytes) -> None:
        if self.full:
            raise OSError(28, "No space left on device")
        self.data += data

    def close(self) -> None: ...


class Clock:
    """Seconds that pass when told to."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


async def test_records_wait_for_a_full_disk_and_the_excess_is_counted() -> None:
    sink, said, clock = Flaky(), [], Clock()
    log = AuditLog(sink, backlog=2, on_error=said.append, clock=clock)
    for tool in ("a", "b", "c"):
        log.append(record(tool))
    assert not log.flush() and log.blocked
    assert log.lost == 1 and "No space left on device" in said[0] and "503" in said[0]
    sink.full = False
    assert not log.flush(), "not tried again before its time"
    clock.now += 1
    assert log.flush() and not log.blocked
    log.close()
    lines = [msgspec.json.decode(line) for line in sink.data.splitlines()]
    assert [line["tool"] for line in lines] == ["b", "c", ""]
    assert (lines[2]["kind"], lines[2]["outcome"]) == ("audit", "gap") and "1 were lost" in lines[2]["detail"]
    assert [line["seq"] for line in lines] == [0, 1, 2]


async def test_dropping_goes_on_without_the_sink() -> None:
    sink = Flaky()
    log = AuditLog(sink, on_failure="drop", clock=Clock())
    log.append(record("a"))
    assert log.flush() and not log.blocked


async def test_appending_writes_soon(tmp_path: Path) -> None:
    log = AuditLog(FileSink(tmp_path / "a"), interval=0.01)
    log.append(record())
    async with asyncio.timeout(30):
        while log.written == 0:
            await asyncio.sleep(0.005)
    log.close()


def test_standard_output_takes_records_without_blocking() -> None:
    program = (
        "import asyncio\n"
        "from quarterdeck.telemetry.audit import Record, open_log\n"
        "async def main():\n"
        "    log = open_log(None)\n"
        "    for number in range(2000):\n"
        "        log.append(Record(1.5, *[str(number)] * 12, 200, 0.25, '0' * 32))\n"
        "    assert not log.flush() and log.blocked\n"
        "    import sys; sys.stderr.write('goes on')\n"
        "asyncio.run(main())\n"
    )
    process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stderr is not None
    assert process.wait(90) == 0, "though nobody reads"
    assert process.stderr.read() == b"goes on"
    assert process.stdout is not None and process.stdout.read().count(b"\n") > 10
    process.stdout.close()
    process.stderr.close()
