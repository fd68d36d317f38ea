"""Attachment points add up as documented."""

from __future__ import annotations

from quarterdeck.snapshot.merge import merged
from quarterdeck.snapshot.policies import Authorization, CelRule, Cors, HeaderModifier, Jwt, Policies, RateLimit


def rules(name: str) -> Authorization:
    return Authorization((CelRule("allow", "true"),), where=name)


def test_the_inner_one_wins_and_what_it_leaves_out_is_the_outer_ones() -> None:
    outer = Policies(jwt=Jwt(()), timeout=5.0, cors=Cors(max_age=1), rate_limits=(RateLimit(1, 1, 1.0),))
    inner = Policies(timeout=2.0, cors=Cors(max_age=2))
    result = merged(outer, inner)
    assert result == Policies(jwt=Jwt(()), timeout=2.0, cors=Cors(max_age=2), rate_limits=(RateLimit(1, 1, 1.0),))
    assert merged(Policies(), inner) is inner
    assert merged(outer, Policies()) == outer


def test_authorization_adds_up_from_the_outside_in() -> None:
    result = merged(
        Policies(authorization=(rules("a"),), mcp_authorization=(rules("b"),)), Policies(authorization=(rules("c"),))
    )
    assert [r.where for r in result.authorization] == ["a", "c"]
    assert [r.where for r in result.mcp_authorization] == ["b"]


def test_header_modifiers_work_one_after_the_other() -> None:
    outer = HeaderModifier(add=(("X-A", "1"),), set=(("x-b", "1"), ("x-c", "1")), remove=("x-d", "x-e"))
    inner = HeaderModifier(add=(("x-d", "2"),), set=(("X-B", "2"),), remove=("x-a",))
    result = merged(Policies(request_headers=outer), Policies(request_headers=inner)).request_headers
    assert result == HeaderModifier(add=(("x-d", "2"),), set=(("x-c", "1"), ("X-B", "2")), remove=("x-e", "x-a"))
