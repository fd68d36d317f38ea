"""One platform for the whole session, with the seed's manifests applied."""

from __future__ import annotations

import base64
import time
from collections.abc import Iterator

import pytest

from support.platform import SEED, Platform, embedded

SECRET = base64.b64encode(b"ghp_seed").decode()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "e2e/" in item.nodeid:
            item.add_marker(pytest.mark.e2e)
            item.add_marker(pytest.mark.timeout(150))


@pytest.fixture(scope="session")
def platform() -> Iterator[Platform]:
    """The real ``qd up``. A cluster's Platform would be another parameter of this fixture."""
    with embedded() as started:
        yield started
        for name, value in started.figures.items():
            print(f"\n{name}: {value:.1f} s")


@pytest.fixture(scope="session")
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
