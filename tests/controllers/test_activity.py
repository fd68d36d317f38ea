"""What the reports of gateways add up to, and for how long something is taken for idle. The clock is a number."""

from __future__ import annotations

from quarterdeck.controllers.activity import FORGET, FRESH, Activity, Counts, Target
from quarterdeck.controllers.idle import Rest, decide
from quarterdeck.snapshot.activity import Counted, Report, Used

AGENT: Target = ("Agent", "kagent", "a")


class World:
    def __init__(self) -> None:
        self.now = 1000.0
        self.changed: list[Target] = []
        self.activity = Activity(lambda: self.now, self.changed.append)

    def use(self, calls: int, open: int = 0, boot: str = "b", after: float = 0.0) -> None:
        self.now += after
        self.activity.report("g", Report(boot, (), (Used(*AGENT, calls=calls, open=open),)))

    def count(self, requests: int, errors: int, boot: str = "b") -> None:
        self.activity.report("g", Report(boot, (Counted(*AGENT, "e", requests, errors),)))


def test_totals_of_all_processes_however_often_they_are_told() -> None:
    world = World()
    for _ in range(3):
        world.count(5, 1, "one")
        world.count(7, 0, "two")
    assert world.activity.counts(AGENT, "e") == Counts(12, 1)
    assert world.activity.counts(AGENT, "another step") == Counts()
    assert world.changed == [AGENT, AGENT], "what says nothing new asks for no look"


def test_a_process_that_begins_anew_adds_to_what_the_last_one_counted() -> None:
    world = World()
    world.count(5, 1, "one")
    world.count(2, 2, "restarted")
    assert world.activity.counts(AGENT, "e") == Counts(7, 3)


def test_idle_begins_when_the_last_call_ends() -> None:
    world = World()
    assert world.activity.idle(AGENT) == 0.0, "no gateway has said anything"
    world.use(1)
    world.use(1, after=20)
    assert world.activity.idle(AGENT) == 20
    world.use(1, open=1, after=5)
    world.use(1, open=1, after=10)
    world.now += 15
    assert world.activity.idle(AGENT) == 0.0, "a stream is open, though nothing new is told of it"
    world.use(2, after=5)
    world.use(2, after=9)
    assert world.activity.idle(AGENT) == 9


def test_a_gateway_that_falls_silent_may_have_calls_nobody_knows_of() -> None:
    world = World()
    world.use(0, boot="silent")
    world.use(0, boot="talks")
    world.use(0, boot="talks", after=FRESH + 1)
    assert world.activity.idle(AGENT) == 0.0
    for _ in range(int(FORGET / 20) + 1):
        world.use(0, boot="talks", after=20)
    assert world.activity.idle(AGENT) > FORGET, "one that is gone for long has no calls"


def test_the_number_of_pods_is_the_state() -> None:
    assert decide(60, 3, None, 0) == Rest(3, False, 60), "a new one starts awake"
    assert decide(60, 3, 3, 59) == Rest(3, False, 1)
    assert decide(60, 3, 3, 60) == Rest(0, True)
    assert decide(60, 3, 0, 0) == Rest(0), "asleep until it is woken"
    assert decide(60, 3, 1, 0) == Rest(3, False, 60), "woken with one Pod, then as many as its spec wants"
    assert decide(60, 0, None, 0) == Rest(0), "replicas 0 at first: it starts with its first call"
    assert decide(60, 0, 1, 0) == Rest(1, False, 60)
