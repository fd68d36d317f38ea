"""Tokens and permissions as the API server's reviews tell them."""

from __future__ import annotations

from typing import Any

import pytest

from quarterdeck.errors import Unauthorized
from quarterdeck.server.reviews import ApiReviews

USER = {"username": "jane", "uid": "7", "groups": ["g"], "extra": {"scopes": ["user:info"]}}


class Api:
    """Answers each TokenReview with ``status`` and allows everything."""

    def __init__(self, **status: Any) -> None:
        self.status = {"authenticated": True, "user": USER} | status
        self.specs: list[Any] = []

    async def request(self, method: str, path: str, *, body: Any) -> Any:
        assert method == "POST"
        self.specs.append(body["spec"])
        return {"status": self.status if path.endswith("tokenreviews") else {"allowed": True}}


def reviews(api: Api) -> ApiReviews:
    return ApiReviews(api)  # type: ignore[arg-type]


async def test_a_token_that_was_made_for_others_is_refused() -> None:
    assert await reviews(Api(audiences=["quarterdeck"])).workload("t", "quarterdeck") == USER
    for status in ({}, {"audiences": []}, {"audiences": ["https://kubernetes.default.svc"]}):
        with pytest.raises(Unauthorized, match="not made for audience quarterdeck"):
            await reviews(Api(**status)).workload("t", "quarterdeck")


async def test_permissions_are_asked_with_all_that_is_known_of_the_caller() -> None:
    api = Api()
    assert await reviews(api).person("t", {"verb": "get"}) == (USER, True)
    wanted = {"user": "jane", "uid": "7", "groups": ["g"], "extra": {"scopes": ["user:info"]}}
    assert api.specs[1] == wanted | {"resourceAttributes": {"verb": "get"}}
