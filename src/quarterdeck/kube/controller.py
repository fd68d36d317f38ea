"""Level-triggered controllers: changes name keys, workers reconcile keys, failures come back and are never lost."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial

from quarterdeck import errors
from quarterdeck.kube.client import KubeClient
from quarterdeck.kube.clock import Clock, SystemClock, sleep
from quarterdeck.kube.events import EventRecorder
from quarterdeck.kube.informer import ChangeKind, Informer, NotLoaded
from quarterdeck.kube.owner import controller_of
from quarterdeck.kube.queue import QueueClosed, WorkQueue
from quarterdeck.kube.resource import Key, Object, Resource, key_of
from quarterdeck.kube.supervise import Supervisor
from quarterdeck.telemetry.metrics import Histogram

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Result:
    """``requeue_after``: seconds until the key is looked at again even if nothing changes; None: not at all."""

    requeue_after: float | None = None


DONE = Result()
Reconcile = Callable[[Key], Awaitable[Result | None]]
KeyMap = Callable[[Object], Iterable[Key]]


_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
_LOADS = 32
_LEAN_WAIT = 5.0


@dataclass(slots=True)
class Stats:
    """Counters since the start, per controller. ``seconds``: how long its reconciles took."""

    reconciles: int = 0
    errors: int = 0
    conflicts: int = 0
    requeues: int = 0
    active: int = 0
    seconds: Histogram = field(default_factory=lambda: Histogram(_SECONDS))


@dataclass(slots=True)
class Controller:
    """What to reconcile and which changes ask for it.

    ``owns``: kinds whose ``controller: true`` owner of the primary kind is reconciled. ``maps``: other kinds, with the
    keys that a change of one of their objects touches (called for the old and the new object). ``reads``: kinds that
    it looks at without being woken by them. It starts when all these are in sync.
    """

    name: str
    primary: Resource
    reconcile: Reconcile
    owns: Sequence[Resource] = ()
    maps: Sequence[tuple[Resource, KeyMap]] = ()
    reads: Sequence[Resource] = ()
    workers: int = 2
    stats: Stats = field(default_factory=Stats)


class ControllerSet:
    """Controllers of one process with their shared informers and one event recorder each component.

    ``namespaces``: the only ones to look at; all when empty.
    """

    def __init__(self, client: KubeClient, *, clock: Clock | None = None, namespaces: Sequence[str] = ()) -> None:
        self.client = client
        self.namespaces = tuple(namespaces)
        self.clock = clock or SystemClock()
        self.supervisor = Supervisor(self.clock)
        self.controllers: list[Controller] = []
        self._informers: dict[tuple[Resource, str | None, str, str, bool], Informer] = {}
        self._recorders: dict[str, EventRecorder] = {}
        self._queues: dict[str, WorkQueue[Key]] = {}
        self._loops: list[tuple[str, Callable[[], Awaitable[None]]]] = []
        self._tasks: list[asyncio.Task[None]] = []
        self._running = False

    def informer(
        self,
        res: Resource,
        namespace: str | None = None,
        label_selector: str = "",
        field_selector: str = "",
        *,
        metadata_only: bool = False,
    ) -> Informer:
        """The shared informer; started with the set, or at once when the set already runs."""
        key = (res, namespace, label_selector, field_selector, metadata_only)
        if key not in self._informers:
            self._informers[key] = Informer(
                self.client,
                res,
                namespace,
                label_selector,
                field_selector,
                namespaces=self.namespaces if namespace is None else (),
                metadata_only=metadata_only,
                clock=self.clock,
                supervisor=self.supervisor,
            )
            if self._running:
                self._informers[key].start()
        return self._informers[key]

    def recorder(self, component: str) -> EventRecorder:
        if component not in self._recorders:
            self._recorders[component] = EventRecorder(
                self.client, component, clock=self.clock, supervisor=self.supervisor
            )
        return self._recorders[component]

    def add(self, controller: Controller) -> None:
        self.controllers.append(controller)
        queue = self._queues[controller.name] = WorkQueue[Key](self.clock)
        _feed(self.informer(controller.primary), queue, lambda obj: (key_of(obj),))
        for res in controller.owns:
            _feed(self.informer(res), queue, _owner_map(controller.primary))
        for res, fn in controller.maps:
            _feed(self.informer(res), queue, fn)
        for res in controller.reads:
            self.informer(res)

    def add_loop(self, name: str, loop: Callable[[], Awaitable[None]]) -> None:
        """A coroutine function that runs as long as the set (work that is not keyed); started again when it fails."""
        self._loops.append((name, loop))

    def enqueue(self, controller: str, key: Key, after: float = 0) -> None:
        """Ask for a reconcile from outside (a timer, a discovery refresh)."""
        self._queues[controller].add_after(key, after)

    @property
    def informers(self) -> list[Informer]:
        return list(self._informers.values())

    def depth(self, controller: str) -> int:
        """Keys that wait for a worker."""
        return len(self._queues[controller])

    def retries(self, controller: str) -> int:
        """Keys added again after a failure."""
        return self._queues[controller].retries

    @property
    def idle(self) -> bool:
        """All informers are in sync and no key waits or is worked on now."""
        return all(i.answered.is_set() for i in self._informers.values()) and all(q.idle for q in self._queues.values())

    def waiting_for(self) -> list[str]:
        """Names of the kinds that could not be listed yet: no CRD, no permission or no answer."""
        return sorted({i.res.plural for i in self._informers.values() if not i.synced.is_set()})

    async def start(self, *, workers: bool = True) -> None:
        """Start informers, loops and workers; workers begin once the informers they read are in sync.

        Without ``workers`` the set only watches (a standby, whose caches are warm when it takes over): :meth:`work`
        runs them while this process leads.
        """
        self._running = True
        for informer in self._informers.values():
            if not informer.lean:
                informer.start()
        self._keep("lean informers", self._start_lean)
        if workers:
            self._tasks += self._start_workers()
        for name, loop in self._loops:
            self._keep(name, loop)

    def _keep(self, name: str, loop: Callable[[], Awaitable[None]]) -> None:
        self._tasks.append(asyncio.create_task(self.supervisor.keep(name, loop), name=name))

    async def _start_lean(self) -> None:
        """What is kept of Secrets depends on what refers to them, so those who refer come first."""
        others = [i.answered.wait() for i in self._informers.values() if not i.lean]
        waiting = asyncio.gather(*others)
        limit = asyncio.create_task(sleep(self.clock, _LEAN_WAIT))
        await asyncio.wait({asyncio.ensure_future(waiting), limit}, return_when=asyncio.FIRST_COMPLETED)
        waiting.cancel()
        limit.cancel()
        await asyncio.gather(waiting, limit, return_exceptions=True)
        for informer in list(self._informers.values()):
            informer.start()

    async def work(self) -> None:
        """Run the workers of a started set until cancelled (``LeaderElector.run(controllers.work)``).

        Begins with a look at everything: the leader before may have stopped anywhere.
        """
        for controller in self.controllers:
            for obj in self.informer(controller.primary).list():
                self._queues[controller.name].add(key_of(obj))
        tasks = self._start_workers()
        try:
            await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def _start_workers(self) -> list[asyncio.Task[None]]:
        return [
            asyncio.create_task(
                self.supervisor.keep(f"workers of {controller.name}", partial(self._work, controller)),
                name=f"{controller.name} worker {index}",
            )
            for controller in self.controllers
            for index in range(controller.workers)
        ]

    async def run(self) -> None:
        """Start and run until cancelled."""
        await self.start()
        try:
            await asyncio.gather(*self._tasks)
        finally:
            await self.stop()

    async def stop(self) -> None:
        for queue in self._queues.values():
            queue.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks.clear()
        self._running = False
        for recorder in self._recorders.values():
            await recorder.close()
        for informer in self._informers.values():
            await informer.stop()

    async def _work(self, controller: Controller) -> None:
        queue = self._queues[controller.name]
        declared = {controller.primary, *controller.owns, *(res for res, _ in controller.maps), *controller.reads}
        for informer in list(self._informers.values()):
            # A missing definition holds up those who need it; nobody else.
            await (informer.synced if informer.res in declared else informer.answered).wait()
        with suppress(QueueClosed):
            while True:
                key = await queue.get()
                try:
                    await self._reconcile(controller, queue, key)
                finally:
                    queue.done(key)

    async def _reconcile(self, controller: Controller, queue: WorkQueue[Key], key: Key) -> None:
        stats = controller.stats
        stats.reconciles += 1
        stats.active += 1
        began = self.clock.monotonic()
        try:
            result = await _loaded(controller, key)
        except errors.Conflict as error:
            # Somebody wrote in between, or our cache is behind: the next look decides anew.
            stats.conflicts += 1
            queue.add_rate_limited(key)
            log.debug("%s %s: %s", controller.name, key, error)
        except errors.NotLeader as error:
            queue.add_rate_limited(key)
            log.debug("%s %s: %s", controller.name, key, error)
        except asyncio.CancelledError:
            queue.add(key)  # half done: the first thing to do when this process leads again
            raise
        except errors.QuarterdeckError as error:
            stats.errors += 1
            delay = queue.add_rate_limited(key)
            log.warning("%s %s failed, again in %.1f s: %s", controller.name, key, delay, error)
        except Exception:
            stats.errors += 1
            delay = queue.add_rate_limited(key)
            log.exception("%s %s hit a bug, again in %.1f s", controller.name, key, delay)
        else:
            queue.forget(key)
            if result is not None and result.requeue_after is not None:
                stats.requeues += 1
                queue.add_after(key, result.requeue_after)
        finally:
            stats.active -= 1
            stats.seconds.observe(self.clock.monotonic() - began)


async def _loaded(controller: Controller, key: Key) -> Result | None:
    """Reconcile, with the data that it asks for and that is not kept in memory."""
    for _ in range(_LOADS):
        try:
            return await controller.reconcile(key)
        except NotLoaded as missing:
            await missing.load()
    return await controller.reconcile(key)


def _feed(informer: Informer, queue: WorkQueue[Key], fn: KeyMap) -> None:
    informer.referrers.append(fn)

    def changed(kind: ChangeKind, old: Object | None, new: Object | None) -> None:
        keys = {key for obj in (old, new) if obj is not None for key in fn(obj)}
        for key in keys:
            queue.add(key)

    informer.on_change(changed)


def _owner_map(primary: Resource) -> KeyMap:
    def owner(obj: Object) -> Iterable[Key]:
        reference = controller_of(obj)
        # The version may differ from ours: an owner is the same object in each version of its group.
        if reference is not None and reference["kind"] == primary.kind and _group(reference) == primary.group:
            namespace = obj["metadata"].get("namespace", "") if primary.namespaced else ""
            yield Key(namespace, reference["name"])

    return owner


def _group(reference: Object) -> str:
    group, slash, _ = reference["apiVersion"].partition("/")
    return group if slash else ""
