"""What the controllers of a process do, under the names that dashboards for controller-runtime know."""

from __future__ import annotations

from collections.abc import Callable

from quarterdeck.kube.client import KubeClient
from quarterdeck.kube.controller import Controller, ControllerSet
from quarterdeck.kube.informer import Informer
from quarterdeck.kube.lease import LeaderElector
from quarterdeck.telemetry import names
from quarterdeck.telemetry.metrics import Registry

Samples = list[tuple[dict[str, str], float]]


def register(registry: Registry, controllers: ControllerSet, elector: LeaderElector | None = None) -> None:
    """Add them to ``registry``; values are read when it is rendered."""

    def each(read: Callable[[Controller], float], label: str = "controller") -> Callable[[], Samples]:
        return lambda: [({label: c.name}, read(c)) for c in controllers.controllers]

    def results() -> Samples:
        found: Samples = []
        for controller in controllers.controllers:
            stats = controller.stats
            failed = stats.errors + stats.conflicts
            for result, value in (
                ("success", stats.reconciles - failed - stats.requeues - stats.active),
                ("requeue_after", stats.requeues),
                ("error", failed),
            ):
                found.append(({"controller": controller.name, "result": result}, value))
        return found

    registry.gauge("workqueue_depth", "Keys that wait for a worker.", each(lambda c: controllers.depth(c.name), "name"))
    registry.gauge(
        "workqueue_retries_total", "Keys added again after a failure.",
        each(lambda c: controllers.retries(c.name), "name"), kind="counter",
    )  # fmt: skip
    registry.gauge("controller_runtime_active_workers", "Workers at work.", each(lambda c: c.stats.active))
    registry.gauge("controller_runtime_reconcile_total", "Reconciles by result.", results, kind="counter")
    registry.gauge(
        "controller_runtime_reconcile_errors_total", "Reconciles that failed.",
        each(lambda c: c.stats.errors + c.stats.conflicts), kind="counter",
    )  # fmt: skip
    seconds = registry.histogram(
        "controller_runtime_reconcile_time_seconds", "How long reconciles take.", ("controller",),
        controllers.controllers[0].stats.seconds.bounds if controllers.controllers else (),
    )  # fmt: skip
    for controller in controllers.controllers:
        seconds.adopt((controller.name,), controller.stats.seconds)
    _register_watches(registry, controllers)
    if elector is not None:
        registry.gauge(
            "leader_election_master_status", "1 while this process leads.",
            lambda: [({"name": elector.name}, float(elector.is_leader))],
        )  # fmt: skip


def _register_watches(registry: Registry, controllers: ControllerSet) -> None:
    """Caches, background loops and requests."""

    def kinds(read: Callable[[Informer], float]) -> Callable[[], Samples]:
        return lambda: [
            ({"resource": resource}, value) for resource, value in sorted(_summed(controllers.informers, read).items())
        ]

    registry.gauge("quarterdeck_cached_objects", "Objects in the caches.", kinds(lambda i: i.count))
    watches: tuple[tuple[str, str, Callable[[Informer], float]], ...] = (
        ("quarterdeck_watch_lists_total", "Full lists made.", lambda i: i.stats.lists),
        ("quarterdeck_watch_starts_total", "Watches started.", lambda i: i.stats.watches),
        ("quarterdeck_watch_failures_total", "Lists and watches that failed.", lambda i: i.stats.failures),
        (names.WATCH_BUGS, "Objects that a reader of the cache could not cope with.", lambda i: i.stats.bugs),
    )
    for name, text, read in watches:
        registry.gauge(name, text, kinds(read), kind="counter")
    registry.gauge(
        names.LOOP_FAILURES, "Background loops that ended of a bug and were started again.",
        lambda: [({"loop": loop}, float(count)) for loop, count in sorted(controllers.supervisor.failures.items())],
        kind="counter",
    )  # fmt: skip
    registry.gauge(
        "rest_client_requests_total", "Requests by method and status.", _requests(controllers.client), kind="counter"
    )


def _summed(informers: list[Informer], read: Callable[[Informer], float]) -> dict[str, float]:
    found: dict[str, float] = {}
    for informer in informers:
        name = f"{informer.res.plural}.{informer.res.group}".rstrip(".")
        found[name] = found.get(name, 0.0) + read(informer)
    return found


def _requests(client: KubeClient) -> Callable[[], Samples]:
    return lambda: [
        ({"method": method, "code": str(status)}, count) for (method, status), count in sorted(client.answers.items())
    ]
