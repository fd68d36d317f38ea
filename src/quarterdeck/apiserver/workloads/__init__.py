"""The controllers a cluster has already, for the embedded API server: one process runs all of them.

They know only the Kubernetes API (:class:`KubeClient`, informers), nothing of the server they run beside.
"""

from __future__ import annotations

from quarterdeck.kube.client import KubeClient
from quarterdeck.kube.clock import Clock
from quarterdeck.kube.controller import ControllerSet

from .cronjob import CronJobs
from .deployment import Deployments
from .disruption import DisruptionBudgets
from .endpoints import EndpointSlices
from .gc import GarbageCollector
from .hpa import Autoscalers
from .job import Jobs
from .namespaces import Namespaces
from .node_lifecycle import NodeLifecycle
from .replicaset import ReplicaSets
from .scheduler import Scheduler
from .serviceaccounts import ServiceAccounts


def controllers(client: KubeClient, *, ca_pem: str = "", clock: Clock | None = None) -> ControllerSet:
    """All built-in controllers; ``await controllers(client).run()``. ``ca_pem`` is published as kube-root-ca.crt."""
    controllers = ControllerSet(client, clock=clock)
    Namespaces(controllers)
    ServiceAccounts(controllers, ca_pem)
    GarbageCollector(controllers)
    ReplicaSets(controllers)
    Deployments(controllers)
    Jobs(controllers)
    CronJobs(controllers)
    EndpointSlices(controllers)
    Scheduler(controllers)
    NodeLifecycle(controllers)
    DisruptionBudgets(controllers)
    Autoscalers(controllers)
    return controllers
