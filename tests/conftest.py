"""Settings of the whole suite."""

from __future__ import annotations

import pytest
from hypothesis import settings
from xdist.remote import Producer

from support.schedule import Units, in_order

pytest_plugins = ("support.databases",)

# Tests run side by side, so the time an example takes says nothing; pytest-timeout ends what hangs.
settings.register_profile("quarterdeck", deadline=None)
settings.load_profile("quarterdeck")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if hasattr(config, "workerinput"):
        in_order(items)


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> Units | None:
    return Units(config, log) if config.getvalue("dist") == "loadfile" else None
