"""Exposition text and trace context."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from quarterdeck.telemetry import metrics as m
from quarterdeck.telemetry.trace import Ids, parse


@given(st.text(alphabet=st.characters(exclude_categories=("Cs",))), st.lists(st.floats(0, 100), max_size=20))
def test_prometheus_reads_what_we_write(label: str, values: list[float]) -> None:
    registry = m.Registry()
    registry.counter("calls_total", "Calls.", ("name",)).labels(label).value += len(values)
    histogram = registry.histogram("seconds", "Time.", ("name",), (0.1, 1.0, 10.0)).labels(label)
    for value in values:
        histogram.observe(value)
    families = {f.name: f for f in text_string_to_metric_families(registry.render().decode())}
    samples = {(s.name, s.labels.get("le")): s.value for s in families["seconds"].samples}
    assert samples["seconds_count", None] == len(values)
    assert samples["seconds_bucket", "1"] == sum(v <= 1.0 for v in values)
    assert families["calls"].samples[0].value == len(values)


def test_series_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(m, "MAX_SERIES", 2)
    family = m.CounterFamily("c", "", ("name",))
    for name in "abcd":
        family.labels(name).value += 1
    assert list(family.lines()) == ['c{name="a"} 1', 'c{name="b"} 1', 'c{name="other"} 2']


def test_a_series_that_comes_while_others_are_shown_is_no_fault() -> None:
    counter, histogram = m.CounterFamily("c", "", ("name",)), m.HistogramFamily("h", "", ("name",), (1.0,))
    for family in (counter, histogram):
        family.labels("a")
        shown = iter(family.lines())
        first = next(shown)
        family.labels("b")
        assert all('name="a"' in line for line in (first, *shown))


def test_a_name_twice_is_refused() -> None:
    registry = m.Registry()
    registry.counter("a", "")
    with pytest.raises(ValueError, match="twice"):
        registry.counter("a", "")


@pytest.mark.parametrize(
    ("value", "valid"),
    [
        (b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", True),
        (b"01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-later", True),
        (b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-later", False),
        (b"ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", False),
        (b"00-00000000000000000000000000000000-00f067aa0ba902b7-01", False),
        (b"00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01", False),
        (b"00-4BF92F3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", False),
        (b"", False),
    ],
)
def test_traceparent(value: bytes, valid: bool) -> None:
    assert (parse(value) is not None) == valid
    trace, sent = Ids().continue_trace(value)
    assert parse(sent) is not None and parse(sent)[0] == trace
    assert (trace == "4bf92f3577b34da6a3ce929d0e0e4736") == valid


def test_who_tells_of_no_span_passes_the_caller_on() -> None:
    given = b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    assert Ids().continue_trace(given, span=False) == ("4bf92f3577b34da6a3ce929d0e0e4736", given)
    trace, sent = Ids().continue_trace(b"01" + given[2:] + b"-later", span=False)
    assert sent.startswith(b"00-" + trace.encode()) and len(sent) == len(given)
    assert parse(Ids().continue_trace(None, span=False)[1]) is not None
