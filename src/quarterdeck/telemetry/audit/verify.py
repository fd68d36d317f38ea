"""Checking audit files: what was edited, removed or reordered shows in the chains, what was cut off or rewritten as a
whole shows beside the checkpoints that were kept elsewhere."""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from quarterdeck.errors import StorageError
from quarterdeck.malformed import MALFORMED

from .checkpoint import Checkpoint, genuine
from .record import GENESIS
from .sinks import files
from .tail import Link

_WINDOW = 65_536
"""Lines that may stand between the end of one chain and the line that follows it: other processes' own."""


_BROKEN = "the chain is broken: records before this one were removed or reordered"


@dataclass(frozen=True, slots=True)
class Verification:
    """Result of :func:`verify`. ``line`` is 1-based within ``file``, 0 when no single line is to blame."""

    ok: bool
    records: int
    line: int = 0
    problem: str = ""
    file: str = ""
    chains: int = 0
    anchored: int = 0
    """Records that checkpoints vouch for."""


@dataclass(slots=True)
class _ChainState:
    seq: int
    hash: str


def verify(path: Path, checkpoints: Sequence[Checkpoint] = ()) -> Verification:
    """Check a file with what was rotated out of it. Raises StorageError when it cannot be read."""
    return verify_files(files(path), checkpoints)


def verify_files(paths: Sequence[Path], checkpoints: Iterable[Checkpoint] = ()) -> Verification:
    """The same for files in this order."""
    checker = _Checker(list(checkpoints), rotated=len(paths) > 1 or paths[0].suffix[1:].isdigit())
    if checker.problem:
        return checker.result()
    for path in paths:
        checker.oldest = path is paths[0]
        try:
            with path.open("rb") as lines:
                for number, line in enumerate(lines, 1):
                    problem = checker.line(line)
                    if problem:
                        return checker.result(problem, number, str(path))
        except OSError as error:
            raise StorageError(f"cannot read the audit file {path}: {error.strerror}") from error
    return checker.end()


class _Checker:
    """Line by line over all files. ``rotated``: the first file need not be the first that ever was."""

    def __init__(self, checkpoints: list[Checkpoint], *, rotated: bool) -> None:
        self._rotated = rotated
        self.oldest = True
        """Whether the lines are those of the first file."""
        self._chains: dict[str, _ChainState] = {}
        self._seen: deque[str] = deque(maxlen=_WINDOW)
        self._known: set[str] = set()
        self._records = 0
        self._anchored = 0
        self._wanted: dict[str, dict[int, str]] = {}
        self._pruned: dict[str, int] = {}
        self.problem = self._take(checkpoints)

    def line(self, line: bytes) -> str:
        """What is wrong with a line; empty when nothing is."""
        if not line.endswith(b"\n"):
            return "the line is incomplete"
        try:
            link = msgspec.json.decode(line, type=Link)
        except MALFORMED as error:
            return f"not an audit record: {error}"
        head, mark, _ = line.rpartition(b',"hash":"')
        if not mark or hashlib.sha256(head).hexdigest() != link.hash:
            return "the record was changed: its hash does not match"
        problem = self._follow(link)
        if problem:
            return problem
        wanted = self._wanted.get(link.chain, {}).pop(link.seq, None)
        if wanted is not None and wanted != link.hash:
            return f"the file was rewritten: record {link.seq} of chain {link.chain} is not the one of its checkpoint"
        self._records += 1
        self._remember(link.hash)
        return ""

    def end(self) -> Verification:
        """After the last line: is everything there that checkpoints tell of?"""
        for chain, wanted in sorted(self._wanted.items()):
            state = self._chains.get(chain)
            last = state.seq if state is not None else -1
            missing = [seq for seq in wanted if seq > max(last, self._pruned.get(chain, -1))]
            if missing:
                return self.result(
                    f"the end is missing: chain {chain} had {max(missing) + 1} records, "
                    f"{'none is' if state is None else f'those after {last} are not'} here"
                )
            if any(seq > self._pruned.get(chain, -1) for seq in wanted):
                return self.result(f"records of chain {chain} are missing before those that are here")
        return self.result()

    def result(self, problem: str = "", line: int = 0, file: str = "") -> Verification:
        problem = problem or self.problem
        return Verification(not problem, self._records, line, problem, file, len(self._chains), self._anchored)

    def _take(self, checkpoints: list[Checkpoint]) -> str:
        keys: dict[str, str] = {}
        for point in checkpoints:
            if not genuine(point):
                return (
                    f"the checkpoint of record {point.seq} of chain {point.chain} was changed: its signature is wrong"
                )
            if keys.setdefault(point.chain, point.key) != point.key:
                return f"chain {point.chain} has checkpoints of two keys: one of them is forged"
            if self._wanted.setdefault(point.chain, {}).setdefault(point.seq, point.hash) != point.hash:
                return f"record {point.seq} of chain {point.chain} has two checkpoints that differ"
            for end in point.pruned:
                self._pruned[end.chain] = max(end.seq, self._pruned.get(end.chain, -1))
        self._anchored = sum(max(wanted) + 1 for wanted in self._wanted.values())
        return ""

    def _follow(self, link: Link) -> str:
        state = self._chains.get(link.chain)
        if state is None:
            return self._begin(link)
        if link.prev != state.hash or (link.chain and link.seq != state.seq + 1):
            return _BROKEN
        state.seq, state.hash = link.seq, link.hash
        return ""

    def _begin(self, link: Link) -> str:
        """The first line of a chain: it follows the end of another, or nothing at all."""
        self._chains[link.chain] = _ChainState(link.seq, link.hash)
        first = not self._records
        if link.seq > 0:
            if self._wanted and self._pruned.get(link.chain, -1) < link.seq - 1:
                return f"the chain is broken: no checkpoint says that the {link.seq} records before were rotated away"
            good = self._rotated and self.oldest
        elif first:
            good = self._rotated or link.prev == GENESIS
        else:
            # two processes may have found the file empty
            good = link.prev in self._known or link.prev == GENESIS
        return "" if good else _BROKEN

    def _remember(self, digest: str) -> None:
        if len(self._seen) == _WINDOW:
            self._known.discard(self._seen[0])
        self._seen.append(digest)
        self._known.add(digest)
