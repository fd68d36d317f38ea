from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from cluster.plane import Plane, available, plane

from . import servers
from .servers import World

COMMANDS, WHY = available()


SERVERS_OWN = {
    "test_bad_input": {
        "test_names_that_services_and_labels_cannot_carry", "test_images_and_pods_that_no_cluster_takes",
        "test_unrelated_objects_of_the_name_are_left_alone", "test_lists_that_are_too_long_are_refused_by_the_server",
        "test_unknown_fields_are_warned_of_and_change_nothing",
    },
    "test_gateway_api": {"test_the_seeds_chapter_5"},
    "test_network": {"test_policies_come_and_go_with_the_option"},
    "test_rivals": {"test_a_tenant_stops_his_own_namespace_and_a_controller_with_rights_the_others_too"},
    "test_rollout": {
        "test_history_is_bounded_survives_the_operator_and_goes_with_its_owner",
        "test_the_resource_wins_until_an_autoscaler_owns_the_replicas",
        "test_a_rotated_secret_rolls_what_uses_it_exactly_once",
    },
    "test_tenancy": {
        "test_quota_for_the_objects_themselves", "test_pods_that_the_namespace_does_not_allow",
        "test_pods_that_pod_security_refuses", "test_nothing_is_created_in_a_namespace_that_goes",
        "test_deletion_leaves_nothing_even_without_the_operator",
        "test_an_admin_of_one_team_manages_agents_there_and_nothing_elsewhere",
        "test_each_role_alone_gives_what_its_name_says",
    },
    "test_faults": set(),
    "test_triggers": set(),
}  # fmt: skip
"""Of these files, the tests that ask what the API server itself decides: they run on the real one in the fast tier,
too. The others do in the slow tier; in the fast one the embedded server proves them."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        file, _, name = item.nodeid.partition("::")
        own = SERVERS_OWN.get(Path(file).stem) if file.startswith("tests/controllers/") else None
        if own is not None and "kube-apiserver" in name and name.partition("[")[0] not in own:
            item.add_marker(pytest.mark.slow)


@pytest.fixture(scope="module")
def cluster() -> Iterator[Plane]:
    """Kubernetes' API server and controllers, without a node; one for a file: what others left would be reconciled."""
    if COMMANDS is None:
        pytest.skip(f"kube-apiserver: {WHY}")
    with plane(nodes=0) as started:
        yield started


@pytest.fixture(params=["embedded", "kube-apiserver"])
async def world(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[World]:
    """An API server with a cluster's own controllers, empty."""
    if request.param == "embedded":
        async with servers.embedded(tmp_path) as found:
            yield found
        return
    async with servers.real(request.getfixturevalue("cluster")) as found:
        yield found


@pytest.fixture
async def embedded_world(tmp_path: Path) -> AsyncIterator[World]:
    """The embedded server, for what does not depend on the server."""
    async with servers.embedded(tmp_path) as found:
        yield found


@pytest.fixture
async def real_world(cluster: Plane) -> AsyncIterator[World]:
    """Kubernetes' own server, for what the embedded one does not have."""
    async with servers.real(cluster) as found:
        yield found
