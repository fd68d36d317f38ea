"""Numbers of revisions against a model of a Deployment's; what is kept, and what comes back."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from quarterdeck.translate import revision
from quarterdeck.translate.revision import Revision


def agent(text: str, **more: Any) -> dict[str, Any]:
    return {
        "apiVersion": "kagent.dev/v1alpha2", "kind": "Agent",
        "metadata": {"name": "a", "namespace": "n", "uid": "u1"} | more.pop("metadata", {}),
        "spec": {"declarative": {"systemMessage": text, "deployment": {"replicas": 2}}} | more,
    }  # fmt: skip


class History:
    """Keeps revisions as the controller does, with objects in place of a server."""

    def __init__(self, limit: str | None = None) -> None:
        self.objects: dict[str, dict[str, Any]] = {}
        self.annotations = {} if limit is None else {revision.HISTORY_LIMIT: limit}

    def accept(self, text: str, cause: str | None = None) -> int:
        marks = self.annotations | ({revision.CHANGE_CAUSE: cause} if cause else {})
        obj = agent(text, metadata={"annotations": marks})
        plan = revision.plan(obj, self.revisions)
        if plan.create:
            made = revision.controller_revision(obj, plan.number)
            assert made["metadata"]["name"] not in self.objects, "two revisions of one content"
            self.objects[made["metadata"]["name"]] = made
        elif plan.renumber:
            kept = self.objects[plan.renumber]
            kept["revision"] = plan.number
            for key, value in revision.marks(obj, plan.number).items():
                kept["metadata"]["annotations"].pop(key, None)
                if value is not None:
                    kept["metadata"]["annotations"][key] = value
        for name in plan.surplus:
            del self.objects[name]
        assert revision.plan(obj, self.revisions) == revision.Plan(plan.number), "the second look changes something"
        return plan.number

    @property
    def revisions(self) -> list[Revision]:
        return sorted(map(revision.read, self.objects.values()), key=lambda r: r.number)


def test_an_earlier_spec_becomes_the_newest_revision() -> None:
    history = History()
    assert [history.accept(text) for text in ("one", "two", "three", "one")] == [1, 2, 3, 4]
    assert [r.number for r in history.revisions] == [2, 3, 4]


def test_the_change_cause_belongs_to_the_current_revision() -> None:
    history = History()
    history.accept("one", "first")
    history.accept("two", "second")
    assert history.accept("two", "second, said better") == 2
    assert [r.cause for r in history.revisions] == ["first", "second, said better"]
    history.accept("two")
    assert [r.cause for r in history.revisions] == ["first", None]


def test_old_revisions_beyond_the_limit_go() -> None:
    history = History(limit="2")
    for number in range(6):
        history.accept(f"text {number}")
    assert [r.number for r in history.revisions] == [4, 5, 6]
    for text in ("", "-1", "many"):
        assert revision.history_limit(agent("x", metadata={"annotations": {revision.HISTORY_LIMIT: text}})) == 10


@given(st.lists(st.sampled_from("abcdefgh"), max_size=40), st.integers(0, 4))
def test_numbers_grow_and_contents_are_unique(texts: list[str], limit: int) -> None:
    history, last, before = History(str(limit)), 0, None
    for text in texts:
        number = history.accept(text)
        assert number == (last if text == before else last + 1)
        last, before = number, text
        assert history.revisions[-1].number == number
        assert history.revisions[-1].hash == revision.content_hash("Agent", agent(text)["spec"])
        assert len(history.revisions) <= limit + 1
    assert len({r.hash for r in history.revisions}) == len(history.revisions)


def test_numbers_of_pods_and_the_way_of_rolling_out_are_not_versioned() -> None:
    first = agent("x", replicas=3, rollout={"strategy": "Canary"})
    second = deepcopy(first)
    second["spec"] |= {"replicas": 7, "rollout": {"strategy": "RollingUpdate"}}
    second["spec"]["declarative"]["deployment"]["replicas"] = 5
    assert revision.content_hash("Agent", first["spec"]) == revision.content_hash("Agent", second["spec"])
    third = deepcopy(second)
    third["spec"]["declarative"]["systemMessage"] = "y"
    kept = revision.controller_revision(first, 1)["data"]["spec"]
    assert revision.restored(third["spec"], kept) == second["spec"]


def test_a_revision_of_another_object_of_the_name_is_another() -> None:
    one = revision.controller_revision(agent("x"), 1)["metadata"]["name"]
    other = revision.controller_revision(agent("x", metadata={"uid": "u2"}), 1)["metadata"]["name"]
    assert one != other


def test_a_revision_whose_content_somebody_replaced_is_not_what_its_name_says() -> None:
    obj = agent("x", replicas=3)
    made = revision.controller_revision(obj, 1)
    name, kept = made["metadata"]["name"], made["data"]["spec"]
    assert revision.kept_as(obj, name, kept)
    for planted in (kept | {"declarative": {"systemMessage": "evil"}}, {}, [kept], "spec", None):
        assert not revision.kept_as(obj, name, planted)
    assert not revision.kept_as(agent("x", metadata={"uid": "u2"}), name, kept)
