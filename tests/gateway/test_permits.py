"""Tool calls of hosted agents need a permit for just that call; everybody else is not asked."""

from __future__ import annotations

import time
from typing import Any

import msgspec
import pytest

from quarterdeck import snapshot as s
from quarterdeck.errors import Denied, UpstreamError
from quarterdeck.mcptypes.canonical import arguments_hash
from quarterdeck.snapshot.permits import (
    META_KEY,
    META_PERMIT,
    META_RUN,
    META_STEP,
    InvalidPermit,
    Permit,
    Signer,
    Verifier,
)

from .conftest import Rig, grant, snapshot, token

SIGNER, _ = Signer.new()
OTHER, _ = Signer.new()
ARGUMENTS = {"a": 2, "b": 3}
PATH = "/mcp/kagent/peer"


def permit(**changes: Any) -> Permit:
    fields: dict[str, Any] = {
        "run": "r1", "step": 2, "fence": 1, "attempt": 1, "agent": "kagent/b", "tool": "add",
        "arguments": arguments_hash(ARGUMENTS), "expires": time.time() + 30,
    }  # fmt: skip
    return Permit(**(fields | changes))


def meta(shown: str | None, **changes: Any) -> dict[str, Any]:
    told = {META_RUN: "r1", META_STEP: 2, META_KEY: "r1/2"} | changes
    return told | ({META_PERMIT: shown} if shown is not None else {})


class ControlPlane:
    def __init__(self) -> None:
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self.answers: list[Exception | None] = []

    async def ask(self, path: str, body: bytes) -> bytes:
        self.asked.append((path, msgspec.json.decode(body)))
        answer = self.answers.pop(0) if self.answers else None
        if answer is not None:
            raise answer
        return b"{}"


@pytest.fixture
def plane(bare: Rig, peer: int) -> ControlPlane:
    """The gateway ``bare`` holds agent b to permits, agent a not."""
    policies = (s.AgentPolicy("kagent", "a", (grant(),)), s.AgentPolicy("kagent", "b", (grant(),), hosted=True))
    bare.gateway.use(snapshot(peer, policies=policies, permit_keys=(SIGNER.public,)))
    made = ControlPlane()
    bare.gateway.permits.ask = made.ask
    return made


async def call(rig: Rig, shown: str | None, *, pod: str = "pod-b", arguments: Any = ARGUMENTS, **told: Any) -> Any:
    session = await rig.initialize(PATH, bearer=token(pod))
    params = {"name": "add", "arguments": arguments, "_meta": meta(shown, **told)}
    return await rig.rpc(PATH, "tools/call", params, bearer=token(pod), headers={"mcp-session-id": session})


async def test_a_call_with_its_permit_starts_the_step_and_is_sent_on_without_it(bare: Rig, plane: ControlPlane) -> None:
    answer = await call(bare, SIGNER.sign(permit()))
    assert answer["result"]["content"][0]["text"] == "5", answer
    [(path, body)] = plane.asked
    assert path == "runs/r1/steps/2/start"
    assert body | {"key": ""} == {"gateway": s.Snapshot().gateway, "fence": 1, "attempt": 1, "key": ""} and body["key"]


REFUSED: list[tuple[str, dict[str, Any], dict[str, Any], str]] = [
    ("another tool", {"tool": "echo"}, {}, "another call"),
    ("other arguments", {}, {"arguments": {"a": 2, "b": 4}}, "another call"),
    ("another agent", {"agent": "kagent/a"}, {}, "another call"),
    ("another run", {"run": "r2"}, {}, "another call"),
    ("another step", {"step": 3}, {}, "another call"),
    ("expired", {"expires": 1.0}, {}, "expired"),
]
"""Name, what is other in the permit, what is other in the call, words of the refusal."""


@pytest.mark.parametrize(("shown", "changes", "words"), [row[1:] for row in REFUSED], ids=[row[0] for row in REFUSED])
async def test_a_permit_for_something_else_is_refused(
    bare: Rig, plane: ControlPlane, shown: dict[str, Any], changes: dict[str, Any], words: str
) -> None:
    answer = await call(bare, SIGNER.sign(permit(**shown)), **changes)
    assert answer["error"]["code"] == 4003 and words in answer["error"]["message"], answer
    assert not plane.asked and bare.records()[-1]["rule"] == "gateway/permits"


async def test_what_is_no_permit_is_refused(bare: Rig, plane: ControlPlane) -> None:
    good = SIGNER.sign(permit())
    flipped = good[:-4] + ("A" if good[-4] != "A" else "B") + good[-3:]
    for shown, words in (
        (None, "there is none"), ("x", "malformed"), (OTHER.sign(permit()), "not signed"), (flipped, "not signed"),
        ("a" * 5000, "too long"),
    ):  # fmt: skip
        answer = await call(bare, shown)
        assert answer["error"]["code"] == 4003 and words in answer["error"]["message"], (shown, answer)
    assert not plane.asked


async def test_a_stale_replica_is_refused_by_the_control_plane(bare: Rig, plane: ControlPlane) -> None:
    plane.answers = [Denied("step 2 of run r1 may not start under fence 1: another replica has it, fence 2")]
    answer = await call(bare, SIGNER.sign(permit()))
    assert answer["error"]["code"] == 4003 and "fence 2" in answer["error"]["message"]
    assert len(plane.asked) == 1


async def test_a_control_plane_that_is_away_for_a_moment_is_asked_again_with_the_same_key(
    bare: Rig, plane: ControlPlane
) -> None:
    plane.answers = [UpstreamError("away"), UpstreamError("away")]
    answer = await call(bare, SIGNER.sign(permit()))
    assert answer["result"]["content"][0]["text"] == "5"
    assert len({body["key"] for _, body in plane.asked}) == 1 and len(plane.asked) == 3


async def test_others_are_not_asked_for_permits(bare: Rig, plane: ControlPlane) -> None:
    assert "result" in await call(bare, None, pod="pod-a")
    session = await bare.initialize(PATH, bearer=token("pod-b"))
    listed = await bare.rpc(PATH, "tools/list", bearer=token("pod-b"), headers={"mcp-session-id": session})
    assert listed["result"]["tools"]
    people = await bare.initialize(PATH, listener="local")
    params = {"name": "add", "arguments": ARGUMENTS}
    headers = {"mcp-session-id": people}
    assert "result" in await bare.rpc(PATH, "tools/call", params, listener="local", headers=headers)
    assert not plane.asked


def test_keys_of_before_are_good_as_long_as_they_are_in_the_snapshot() -> None:
    verifier = Verifier((OTHER.public, SIGNER.public))
    assert verifier.open(SIGNER.sign(permit()), time.time()).run == "r1"
    with pytest.raises(InvalidPermit):
        Verifier(()).open(SIGNER.sign(permit()), time.time())
