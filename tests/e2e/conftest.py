"""One platform for the whole package, with the seed's manifests applied.

Every test runs against the embedded platform and, where its module is listed in :data:`REAL`, against a real control
plane on which helm installed the charts; those in :data:`PAIR` also against one with two controllers on PostgreSQL.
``QUARTERDECK_E2E=embedded``, ``real`` or ``real-pair`` picks one of them.
"""

from __future__ import annotations

import base64
import os
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest

from cluster.plane import available
from support import postgresql
from support.platform import SEED, Platform, embedded
from support.real import real

SECRET = base64.b64encode(b"ghp_seed").decode()
REAL = {"test_clients": True, "test_canary": False, "test_identity": False,
        "test_kubectl": False, "test_kubectl_releases": False, "test_quiet": False, "test_rollout": False,
        "test_rolling_update": False, "test_scaling": False, "test_skills": False}  # fmt: skip
"""Modules that also run on the real control plane: in the fast tier, or only in the slow one."""
PAIR = ("test_approvals", "test_rolling_update", "test_runs", "test_triggers")
"""Modules that, in the slow tier, also run with two controllers on PostgreSQL."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "e2e/" in item.nodeid:
            item.add_marker(pytest.mark.e2e)
            item.add_marker(pytest.mark.timeout(300))


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "platform" not in metafunc.fixturenames:
        return
    chosen = os.environ.get("QUARTERDECK_E2E", "")
    module = metafunc.module.__name__.rpartition(".")[2]
    marks = () if REAL.get(module) or chosen else (pytest.mark.slow,)
    found = [pytest.param("embedded")] if chosen in ("", "embedded") else []
    if module in REAL and chosen in ("", "real"):
        found.append(pytest.param("real", marks=marks))
    if module in PAIR and chosen in ("", "real-pair"):
        found.append(pytest.param("real-pair", marks=() if chosen else (pytest.mark.slow,)))
    metafunc.parametrize("platform", found, indirect=True, scope="package")


@pytest.fixture(scope="package")
def platform(request: pytest.FixtureRequest) -> Iterator[Platform]:
    """The real ``qd up``, or a cluster."""
    with ExitStack() as stack:
        if request.param == "embedded":
            started = stack.enter_context(embedded())
        else:
            place, why = available()
            if place is None:
                pytest.skip(f"kube-apiserver: {why}")
            database = stack.enter_context(_database()) if request.param == "real-pair" else ""
            started, _ = stack.enter_context(real(database=database))
        yield started
        for name, value in started.figures.items():
            print(f"\n{request.param}: {name}: {value:.1f} s")


@contextmanager
def _database() -> Iterator[str]:
    if postgresql.commands() is None:
        pytest.skip("PostgreSQL is not installed (Debian: postgresql)")
    pytest.importorskip("asyncpg")
    with postgresql.running() as url:
        yield url


@pytest.fixture(scope="package")
def seed(platform: Platform) -> Platform:
    """The platform with everything of ``examples/seed`` applied and the datetime pair Ready."""
    began = time.monotonic()
    platform.kubectl("create", "namespace", "mcp")
    token = (SEED / "github-mcp-secret.yaml.tpl").read_text().replace("$GITHUB_PERSONAL_ACCESS_TOKEN", SECRET)
    platform.apply(token)
    platform.kubectl("apply", "-f", str(SEED))
    platform.wait("agent/datetime-agent")
    platform.wait("mcpserver/datetime-agent-mcp")
    platform.wait("agent/datetime-agent", condition="ResolvedRefs")
    platform.figures["apply to Ready"] = time.monotonic() - began
    return platform
