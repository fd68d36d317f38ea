"""A small metric registry in Prometheus' text format, for the data path.

A child (one label combination) is looked up once and kept by the caller; counting is then one attribute addition.
prometheus_client takes a lock and several calls for each increment, which is a fifth of the budget of a call.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable
from typing import Literal, TypeVar

MAX_SERIES = 10_000
"""Label combinations kept per metric; what comes after is counted under ``other`` (names are chosen by callers)."""


class Counter:
    """One series that only grows."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value = 0.0


class Histogram:
    """One series of observations. ``bounds`` are upper bounds, inclusive, ascending."""

    __slots__ = ("bounds", "counts", "sum")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def observe(self, value: float) -> None:
        self.counts[bisect_left(self.bounds, value)] += 1
        self.sum += value


def _escape(value: str) -> str:
    return value.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')


def _labels(names: Iterable[str], values: Iterable[str]) -> str:
    return ",".join(f'{n}="{_escape(v)}"' for n, v in zip(names, values, strict=True))


class CounterFamily:
    """A counter metric and its series by label values."""

    kind = "counter"

    def __init__(self, name: str, help_text: str, labels: tuple[str, ...]) -> None:
        self.name = name
        self.help_text = help_text
        self.label_names = labels
        self._series: dict[tuple[str, ...], Counter] = {}

    def labels(self, *values: str) -> Counter:
        child = self._series.get(values)
        if child is None:
            if len(self._series) >= MAX_SERIES:
                values = tuple("other" for _ in values)
            child = self._series.setdefault(values, Counter())
        return child

    def lines(self) -> Iterable[str]:
        for values, child in list(self._series.items()):  # other threads may add one
            labels = _labels(self.label_names, values)
            yield f"{self.name}{{{labels}}} {child.value:g}" if labels else f"{self.name} {child.value:g}"


class HistogramFamily:
    """A histogram metric and its series by label values."""

    kind = "histogram"

    def __init__(self, name: str, help_text: str, labels: tuple[str, ...], bounds: tuple[float, ...]) -> None:
        self.name = name
        self.help_text = help_text
        self.label_names = labels
        self._bounds = bounds
        self._series: dict[tuple[str, ...], Histogram] = {}

    def labels(self, *values: str) -> Histogram:
        child = self._series.get(values)
        if child is None:
            if len(self._series) >= MAX_SERIES:
                values = tuple("other" for _ in values)
            child = self._series.setdefault(values, Histogram(self._bounds))
        return child

    def adopt(self, values: tuple[str, ...], child: Histogram) -> None:
        """Show a histogram that its owner keeps (of the same bounds)."""
        self._series[values] = child

    def lines(self) -> Iterable[str]:
        for values, child in list(self._series.items()):  # other threads may add one
            labels = _labels(self.label_names, values)
            prefix = labels + "," if labels else ""
            running = 0
            for bound, count in zip((*self._bounds, None), child.counts, strict=True):
                running += count
                le = "+Inf" if bound is None else f"{bound:g}"
                yield f'{self.name}_bucket{{{prefix}le="{le}"}} {running}'
            suffix = f"{{{labels}}}" if labels else ""
            yield f"{self.name}_sum{suffix} {child.sum:g}"
            yield f"{self.name}_count{suffix} {running}"


class GaugeFunction:
    """A value that is read when asked for: a gauge, or a counter that its owner keeps."""

    def __init__(
        self, name: str, help_text: str, read: Callable[[], list[tuple[dict[str, str], float]]], kind: str = "gauge"
    ) -> None:
        self.kind = kind
        self.name = name
        self.help_text = help_text
        self._read = read

    def lines(self) -> Iterable[str]:
        for labels, value in self._read():
            text = _labels(labels.keys(), labels.values())
            yield f"{self.name}{{{text}}} {value:g}" if text else f"{self.name} {value:g}"


F = TypeVar("F", bound="CounterFamily | HistogramFamily | GaugeFunction")


class Registry:
    """The metrics of one process."""

    content_type = b"text/plain; version=0.0.4; charset=utf-8"

    def __init__(self) -> None:
        self._families: dict[str, CounterFamily | HistogramFamily | GaugeFunction] = {}

    def counter(self, name: str, help_text: str, labels: tuple[str, ...] = ()) -> CounterFamily:
        return self._add(CounterFamily(name, help_text, labels))

    def histogram(
        self, name: str, help_text: str, labels: tuple[str, ...], bounds: tuple[float, ...]
    ) -> HistogramFamily:
        return self._add(HistogramFamily(name, help_text, labels, bounds))

    def gauge(
        self,
        name: str,
        help_text: str,
        read: Callable[[], list[tuple[dict[str, str], float]]],
        *,
        kind: Literal["gauge", "counter"] = "gauge",
    ) -> GaugeFunction:
        """``read`` returns (labels, value) pairs at scrape time."""
        return self._add(GaugeFunction(name, help_text, read, kind))

    def render(self) -> bytes:
        """The exposition text, families in the order they were added."""
        lines: list[str] = []
        for family in self._families.values():
            lines.append(f"# HELP {family.name} {family.help_text}")
            lines.append(f"# TYPE {family.name} {family.kind}")
            lines.extend(family.lines())
        return ("\n".join(lines) + "\n").encode()

    def _add(self, family: F) -> F:
        if family.name in self._families:
            raise ValueError(f"metric {family.name} is registered twice")
        self._families[family.name] = family
        return family
