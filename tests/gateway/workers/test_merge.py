"""Metrics of several workers read as those of one gateway."""

from __future__ import annotations

from quarterdeck.telemetry.merge import Exposition, merged
from quarterdeck.telemetry.metrics import Registry


def worker(calls: int, version: str = "v1") -> str:
    registry = Registry()
    registry.counter("calls_total", "Calls.", ("tool",)).labels('a "b" c').value = calls
    registry.histogram("took", "Time.", ("tool",), (0.1, 1.0)).labels("x").observe(0.05)
    registry.gauge("info", "Version.", lambda: [({"version": version}, 1.0)])
    registry.gauge("written_total", "A total that is read.", lambda: [({}, 2.0)])
    return registry.render().decode()


def test_counts_are_summed_and_measures_are_not() -> None:
    text = merged([worker(1), worker(2)], Exposition()).decode()
    lines = text.splitlines()
    assert 'calls_total{tool="a \\"b\\" c"} 3' in lines
    assert 'took_bucket{tool="x",le="+Inf"} 2' in lines
    assert 'took_sum{tool="x"} 0.1' in lines
    assert 'info{version="v1"} 1' in lines
    assert "written_total 4" in lines
    assert lines.count("# TYPE calls_total counter") == 1
    assert lines.index("# TYPE calls_total counter") == lines.index('calls_total{tool="a \\"b\\" c"} 3') - 1


def test_the_counts_of_a_worker_that_died_stay() -> None:
    gone = Exposition()
    gone.add(Exposition(worker(5, "old")), totals_only=True)
    text = merged([worker(1)], gone).decode()
    assert 'calls_total{tool="a \\"b\\" c"} 6' in text
    assert "old" not in text
