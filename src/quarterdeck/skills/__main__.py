"""``python -m quarterdeck.skills``: the init container of an agent's Pod that fetches its skills.

It ends with what it found in its termination message: a report in JSON, or what is wrong, for people. All its paths are
arguments: a node without mount namespaces puts the real ones there.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from pathlib import Path

import msgspec

from quarterdeck.errors import ConfigError, QuarterdeckError

from .fetch import Mounts, fetch
from .probe import unusable
from .report import Loaded, Report
from .sources import Sources

MESSAGE_BYTES = 4000
"""Kubernetes keeps 4096 bytes of a termination message."""


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m quarterdeck.skills", description="Fetch an agent's skills.")
    parser.add_argument("--sources", type=Path, default=Path("/config/skills.json"))
    parser.add_argument("--to", type=Path, default=Path("/skills"))
    parser.add_argument("--config-map", type=Path, action="append", default=[], help="a mounted ConfigMap")
    parser.add_argument("--secret", action="append", default=[], help="NAME=PATH of a mounted Secret")
    parser.add_argument("--report", type=Path, default=Path("/dev/termination-log"))
    given = parser.parse_args(arguments)
    try:
        try:
            sources = msgspec.json.decode(given.sources.read_bytes(), type=Sources)
        except (OSError, msgspec.DecodeError) as error:
            raise ConfigError(f"{given.sources}: {error}") from error
        secrets = {name: Path(path) for name, _, path in (each.partition("=") for each in given.secret)}
        loaded = asyncio.run(fetch(sources, Mounts(tuple(given.config_map), secrets), given.to))
    except QuarterdeckError as error:  # it may quote a server, whose words are shown on terminals
        said = "".join(character if character.isprintable() else " " for character in str(error))
        print(f"skills: {said}", file=sys.stderr)
        _write(given.report, said.encode("utf-8", "replace")[:MESSAGE_BYTES])
        return 1
    report = Report(tuple(loaded), unusable() if any(skill.scripts for skill in loaded) else "")
    for skill in loaded:
        print(f"{skill.name}: {skill.source} {skill.revision}")
    if report.sandbox:
        print(f"scripts cannot be run: {report.sandbox}")
    _write(given.report, shortened(report))
    return 0


def shortened(report: Report) -> bytes:
    """The report in what a termination message may have: revisions go first, then sources, then skills."""
    for cut in (lambda s: s, lambda s: Loaded(s.name, s.source[:60], scripts=s.scripts),
                lambda s: Loaded(s.name, "", scripts=s.scripts)):  # fmt: skip
        data = msgspec.json.encode(Report(tuple(cut(skill) for skill in report.skills), report.sandbox))
        if len(data) <= MESSAGE_BYTES:
            return data
    return msgspec.json.encode(Report((), report.sandbox[:500]))


def _write(path: Path, data: bytes) -> None:
    try:
        path.write_bytes(data)
    except OSError as error:
        print(f"skills: {path}: {error.strerror}; the report is in this log only", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
