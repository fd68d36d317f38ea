"""Which tests of a parallel run stay together in one worker, and in which order they begin.

A file's tests stay together. So do the files that share something expensive, such as a platform or a control plane: it
is made once, and ended before the worker goes on (its fixtures have the scope of the package). What takes longest
begins first, so that no worker is alone with it at the end.
"""

from __future__ import annotations

import re
from collections import Counter

import pytest
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

_REAL = re.compile(r"[\[-]real[\]-]")
_TOGETHER: tuple[tuple[str, re.Pattern[str] | None, str], ...] = (
    ("tests/e2e/", _REAL, "e2e real"),
    ("tests/e2e/test_kubectl", None, "e2e kubectl"),
    ("tests/e2e/test_identity", None, "e2e kubectl"),
    ("tests/e2e/", None, "e2e"),
    ("tests/faults/test_home.py", None, "faults of the home"),
    ("tests/faults/", None, "faults"),
)
"""Beginning of the name of a test, what else is in it, unit."""

FIRST = (
    "e2e", "tests/controllers/test_tenancy.py", "tests/controllers/test_rollout.py", "tests/cluster/test_restarts.py",
    "faults", "e2e kubectl", "tests/cluster/test_backup.py", "tests/cluster/test_leader.py", "faults of the home",
    "tests/cli/test_lifecycle.py", "e2e real", "tests/cli/test_platform.py", "tests/conformance/test_server.py",
    "tests/interop/test_inspector.py", "tests/cluster/test_operator.py", "tests/cluster/test_roles.py",
    "tests/fuzz/test_fuzz.py", "tests/bridge/test_bridge.py", "tests/controllers/test_bad_input.py",
    "tests/controllers/test_faults.py", "tests/cluster/test_conversion.py", "tests/cluster/test_confinement.py",
    "tests/cluster/test_plane.py", "tests/cluster/test_schemas.py", "tests/cluster/test_crds.py",
    "tests/cluster/test_migrate.py", "tests/agents/scripted/test_real_servers.py", "tests/interop/test_clients.py",
    "tests/cli/test_get.py", "tests/charts/test_helm.py", "tests/server/test_database.py", "tests/node/test_crash.py",
)  # fmt: skip
"""Units that take longest, in the order in which they begin; the others follow, those with most tests first."""


def unit_of(nodeid: str) -> str:
    """What a test stays together with: its file, or a name of :data:`_TOGETHER`."""
    for beginning, inside, unit in _TOGETHER:
        if nodeid.startswith(beginning) and (inside is None or inside.search(nodeid)):
            return unit
    return nodeid.partition("::")[0]


def in_order(items: list[pytest.Item]) -> None:
    """Sort the tests as their units are to begin; those of a unit stay as they are."""
    sizes = Counter(unit_of(item.nodeid) for item in items)
    first = {unit: number for number, unit in enumerate(FIRST)}

    def rank(item: pytest.Item) -> tuple[int, int, str]:
        unit = unit_of(item.nodeid)
        return first.get(unit, len(first)), -sizes[unit], unit

    items.sort(key=rank)


class Units(LoadScopeScheduling):
    """Sends whole units to workers, in the order of the tests."""

    def __init__(self, config: pytest.Config, log: Producer) -> None:
        config.option.loadscopereorder = False
        super().__init__(config, log)

    def _split_scope(self, nodeid: str) -> str:
        return unit_of(nodeid)
