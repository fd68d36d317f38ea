"""`python -m bench [--quick] [--no-write] [NAME…]`: run benches, print a table, put it into bench/README.md.

A named subset replaces only its own rows of the kept results.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

import uvloop

from . import agents, api_server, cluster, faults, gateway, llm, operator, reconcile, startup
from .measure import ROOT, Row, machine

README = Path(__file__).parent / "README.md"
RESULTS = Path(__file__).parent / "results.json"
BEGIN, END = "<!-- results: begin (python -m bench writes this) -->", "<!-- results: end -->"
BENCHES: dict[str, tuple[Callable[[bool], Awaitable[list[Row]]], float]] = {
    "startup": (startup.bench, 240.0),
    "api_server": (api_server.bench, 420.0),
    "reconcile": (reconcile.bench, 420.0),
    "cluster": (cluster.bench, 180.0),
    "operator": (operator.bench, 5_400.0),
    "takeover": (operator.takeover_bench, 300.0),
    "agents": (agents.bench, 600.0),
    "gateway": (gateway.bench, 900.0),
    "faults": (faults.bench, 240.0),
    "llm": (llm.bench, 120.0),
}
"""Name → (bench, seconds it may take)."""


def commit() -> str:
    """The commit measured; ``+`` when files differ from it."""
    head = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True
    ).stdout.strip()
    changed = subprocess.run(["git", "status", "--porcelain", "src"], cwd=ROOT, capture_output=True, text=True).stdout
    return f"{head}{'+' if changed.strip() else ''}" or "unknown"


def number(value: float) -> str:
    """Three significant digits, no exponent."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def line(row: Row) -> str:
    target = "" if row.target is None else f"≤ {row.target:g} {row.unit}".rstrip()
    verdict = {None: "", True: "met", False: "**over**"}[row.met]
    return f"| {row.what} | {number(row.value)} {row.unit} | {target} | {verdict} | {row.beside} |"


def section(name: str, where: dict[str, str], rows: list[Row]) -> list[str]:
    head = f"### {name} ({where['when']}, commit {where['commit']}{where['how']})"
    return [head, "", where["machine"], "", "| figure | value | target | | beside it, in the same run |",
            "|---|---:|---|---|---|", *map(line, rows), ""]  # fmt: skip


def write(results: dict[str, dict[str, object]]) -> None:
    """Put all kept results between the markers of README.md."""
    RESULTS.write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n")
    parts: list[str] = []
    for name in BENCHES:
        if name in results:
            found = results[name]
            rows = [Row(**row) for row in found["rows"]]  # type: ignore[attr-defined,arg-type]  # as asdict wrote them
            parts += section(name, {k: str(v) for k, v in found.items() if k != "rows"}, rows)
    text = README.read_text()
    start, end = text.index(BEGIN) + len(BEGIN), text.index(END)
    README.write_text(text[:start] + "\n\n" + "\n".join(parts) + text[end:])


async def run(name: str, quick: bool) -> list[Row]:
    bench, limit = BENCHES[name]
    async with asyncio.timeout(limit):
        return await bench(quick)


def main(arguments: list[str]) -> int:
    """Exit code 1 when a bench could not be run; a figure over its target is reported, not an error."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__.partition("\n")[0] if __doc__ else "")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(BENCHES)}; all when none is given")
    parser.add_argument("--quick", action="store_true", help="smaller counts, for trying changes")
    parser.add_argument("--no-write", action="store_true", help="leave README.md and results.json as they are")
    given = parser.parse_args(arguments)
    unknown = set(given.names) - set(BENCHES)
    if unknown:
        parser.error(f"no bench {', '.join(sorted(unknown))}; there are {', '.join(BENCHES)}")
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    failed = False
    for name in given.names or BENCHES:
        where, start = machine(), time.monotonic()
        try:
            rows = uvloop.run(run(name, given.quick))
        except (RuntimeError, AssertionError, OSError) as error:  # TimeoutError is an OSError
            print(f"{name}: failed after {time.monotonic() - start:.0f} s: {error!r}", file=sys.stderr)
            failed = True
            continue
        about = {"when": f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC", "commit": commit(), "machine": where}
        about["how"] = ", --quick" if given.quick else ""
        print("\n".join(section(name, about, rows)), flush=True)
        results[name] = {**about, "rows": [asdict(row) for row in rows]}
        if not given.no_write:
            write(results)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
