"""``sigs.k8s.io/gateway-api/conformance`` on a real control plane: Gateways are Deployments on our node."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from . import gateway_suite
from .build import gateway_api_path
from .plane import available, plane

COMMANDS, WHY = available()
SUITE = gateway_api_path()
pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(3600),
    pytest.mark.skipif(COMMANDS is None, reason=f"kube-apiserver: {WHY}"),
    pytest.mark.skipif(
        not SUITE.is_dir(), reason="the suite is not built: python tests/cluster/build.py gateway-api (needs Go)"
    ),
]


def test_the_suite_fails_where_the_committed_report_says_so_only(tmp_path: Path) -> None:
    """Core has no failure; a failure that is new, or a report that is out of date, is one here."""
    with plane(nodes=1) as started:
        report, output = gateway_suite.run(started, SUITE, tmp_path)
    assert report, output[-4000:]
    committed = yaml.safe_load(gateway_suite.REPORT.read_text())
    core = report["profiles"][0]["core"]
    assert core["statistics"]["Failed"] == 0 and core["statistics"]["Passed"] >= 36, core
    assert gateway_suite.failed(report) == gateway_suite.failed(committed)
    listed = [each["profiles"][0]["extended"]["supportedFeatures"] for each in (report, committed)]
    assert listed[0] == listed[1], "features changed: commit the new report"
