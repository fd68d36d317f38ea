"""Metrics of several processes as those of one: the workers of a gateway share one stats port."""

from __future__ import annotations

from collections.abc import Iterable

Samples = dict[str, float]
"""Series (name and labels as written) → value."""


class Exposition:
    """A text exposition read back: headers and samples by family, in their order."""

    def __init__(self, text: str = "") -> None:
        self.families: dict[str, tuple[list[str], str]] = {}
        """Family → its HELP and TYPE lines, and its type."""
        self.samples: dict[str, Samples] = {}
        family = ""
        for line in text.splitlines():
            if line.startswith("# "):
                _, word, name, rest = [*line.split(" ", 3), "", ""][:4]
                head, kind = self.families.get(name, ([], ""))
                self.families[name] = ([*head, line], rest if word == "TYPE" else kind)
                family = name
            elif line:
                series, _, value = line.rpartition(" ")
                self.samples.setdefault(family, {})[series] = float(value)

    def add(self, other: Exposition, *, totals_only: bool = False) -> None:
        """Take another process's in: what counts is summed, of what is measured the largest holds.

        ``totals_only``: of a process that is gone, whose counts still count.
        """
        for family, (head, kind) in other.families.items():
            summed = kind in ("counter", "histogram") or family.endswith("_total")
            if totals_only and not summed:
                continue
            self.families.setdefault(family, (head, kind))
            mine = self.samples.setdefault(family, {})
            for series, value in other.samples.get(family, {}).items():
                before = mine.get(series)
                mine[series] = value if before is None else before + value if summed else max(before, value)

    def render(self) -> bytes:
        lines: list[str] = []
        for family, (head, _) in self.families.items():
            lines += head
            lines += [f"{series} {value:g}" for series, value in self.samples.get(family, {}).items()]
        return ("\n".join(lines) + "\n").encode()


def merged(texts: Iterable[str], gone: Exposition) -> bytes:
    """One exposition of several, and of the counts of processes that are gone."""
    whole = Exposition()
    for text in texts:
        whole.add(Exposition(text))
    whole.add(gone, totals_only=True)
    return whole.render()
