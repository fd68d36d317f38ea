"""The work behind ``qd audit``: reading ``gateway/audit.jsonl`` and what was rotated out of it."""

from __future__ import annotations

import json
import os
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from quarterdeck.errors import QuarterdeckError, StorageError, UsageError

from .home import home
from .output import emit, note, table, to_json, to_yaml

if TYPE_CHECKING:
    from quarterdeck.telemetry.audit import Checkpoint

_HEADER = ["TIME", "PRINCIPAL", "KIND", "SERVER", "TOOL", "DECISION", "OUTCOME", "MS", "TRACE", "DETAIL"]
_POLL = 0.2
_DETAIL = 240


@dataclass(frozen=True, slots=True)
class Filter:
    """Empty fields match everything."""

    agent: str = ""
    tool: str = ""
    decision: str = ""

    def matches(self, record: dict[str, Any]) -> bool:
        agent = str(record.get("agent", ""))
        return (
            (not self.agent or self.agent in (agent, agent.rpartition("/")[2]))
            and (not self.tool or self.tool == record.get("tool"))
            and (not self.decision or self.decision == record.get("decision"))
        )


def show(file: Path | None, wanted: Filter, *, lines: int, follow: bool, output: str) -> None:
    """Print the newest ``lines`` records that match, then new ones. Raises StorageError when there is no file."""
    if wanted.decision not in ("", "allow", "deny"):
        raise UsageError(f"--decision={wanted.decision}: must be allow or deny")
    if output not in ("", "json"):
        raise UsageError(f"--output={output}: must be json")
    path = file or default_path()
    try:
        stream = path.open("rb")
    except OSError as error:
        raise StorageError(f"audit file {path}: {error.strerror}; the gateway writes it once qd up runs") from error
    with stream:
        newest = deque((r for r in _records(stream) if wanted.matches(r[0])), maxlen=lines)
        _print(list(newest), output, header=True)
        if not newest and not follow:
            note("no records")
        while follow:
            fresh = [found for found in _records(stream) if wanted.matches(found[0])]
            _print(fresh, output, header=False)
            if not fresh:
                stream = _reopened(stream, path)
                time.sleep(_POLL)


@dataclass(frozen=True, slots=True)
class Checkpoints:
    """Where they are: a file, ``control-plane``, or by default the latter for the platform's own file."""

    source: str = ""
    gateway: str = "quarterdeck-system/quarterdeck"
    replicas: tuple[str, ...] = ()


def check(given: list[Path], wanted: Checkpoints, output: str) -> bool:
    """Verify the chains of hashes, and say what was found."""
    from quarterdeck.telemetry.audit.sinks import files
    from quarterdeck.telemetry.audit.verify import verify_files

    if output not in ("", "json", "yaml"):
        raise UsageError(f"--output={output}: must be json or yaml")
    paths = given if len(given) > 1 else files(given[0] if given else default_path())
    points = _checkpoints(wanted, own=not given)
    result = verify_files(paths, points or ())
    name = ", ".join(map(str, paths)) if len(paths) < 4 else f"{len(paths)} files up to {paths[-1]}"
    if output:
        document = {"file": name, "ok": result.ok, "records": result.records, "line": result.line,
                    "problem": result.problem, "chains": result.chains, "checkpoints": points is not None,
                    "anchored": result.anchored}  # fmt: skip
        emit(to_json(document) if output == "json" else to_yaml(document))
    elif result.ok:
        emit(f"{name}: {result.records} records, none changed or removed\n")
        if points:
            emit(f"checkpoints vouch for {result.anchored} of them\n")
        elif points is None:
            note("no checkpoints were looked at: what was cut off at the end, or rewritten as a whole, would not show")
    else:
        where = f"{result.file}: line {result.line}: " if result.line else f"{name}: "
        note(f"error: {where}{result.problem}")
    return result.ok


def _checkpoints(wanted: Checkpoints, *, own: bool) -> list[Checkpoint] | None:
    """None when there is nowhere to ask."""
    import msgspec

    from quarterdeck.telemetry.audit.checkpoint import Checkpoint, read

    from . import rest

    if wanted.source and wanted.source != "control-plane":
        try:
            points = read(Path(wanted.source).read_bytes(), wanted.source)
        except OSError as error:
            raise StorageError(f"--checkpoints {wanted.source}: {error.strerror}") from error
    elif wanted.source or own:
        try:
            found = rest.control_plane("GET", f"/v1/gateways/{wanted.gateway}/audit/checkpoints")
        except QuarterdeckError as error:
            if wanted.source:
                raise
            note(f"warning: the control plane's checkpoints cannot be had: {error}")
            return None
        points = msgspec.convert(found["checkpoints"], list[Checkpoint])
    else:
        return None
    return [point for point in points if not wanted.replicas or point.replica in wanted.replicas]


def default_path() -> Path:
    return home() / "gateway" / "audit.jsonl"


def _records(stream: IO[bytes]) -> Iterator[tuple[dict[str, Any], str]]:
    """Complete lines from the current position; an unfinished last line is left for the next time."""
    while True:
        at = stream.tell()
        line = stream.readline()
        if not line.endswith(b"\n"):
            stream.seek(at)
            return
        text = line.decode("utf-8", "replace").rstrip("\n")
        try:
            record: Any = json.loads(text)
        except ValueError:
            record = None
        if isinstance(record, dict):
            yield record, text
        else:
            name = getattr(stream, "name", "audit file")
            note(f"warning: {name}: byte {at}: not an audit record; see: qd audit verify")


def _reopened(stream: IO[bytes], path: Path) -> IO[bytes]:
    """The file that has the name now, when it was replaced or cut."""
    try:
        now = path.stat()
    except FileNotFoundError:
        return stream
    if now.st_ino == os.fstat(stream.fileno()).st_ino and now.st_size >= stream.tell():
        return stream
    stream.close()
    return path.open("rb")


def _print(found: list[tuple[dict[str, Any], str]], output: str, *, header: bool) -> None:
    if not found:
        return
    if output == "json":
        emit("".join(text + "\n" for _, text in found))
        return
    emit(table([_row(record) for record, _ in found], header=_HEADER if header else None))


def _cut(text: str) -> str:
    """The last column: what to do about a refusal is at the end of it."""
    return text if len(text) <= _DETAIL else text[: _DETAIL - 1] + "…"


def _row(record: dict[str, Any]) -> list[str]:
    when = datetime.fromtimestamp(float(record.get("ts", 0))).astimezone()
    return [
        when.strftime("%H:%M:%S"),
        str(record.get("principal", "")) or "-",
        str(record.get("kind", "")),
        str(record.get("server", "")) or "-",
        str(record.get("tool", "")) or str(record.get("method", "")) or "-",
        str(record.get("decision", "")),
        str(record.get("outcome", "")),
        f"{float(record.get('latencyMs', 0)):.1f}",
        str(record.get("traceId", ""))[:8] or "-",
        _cut(str(record.get("detail", "")).partition("\n")[0]),
    ]
