"""Who may call the kubelet API; tests/cluster asks a real API server."""

from __future__ import annotations

from typing import Any

import pytest

from quarterdeck.errors import ApiError, Forbidden, Unauthorized, UpstreamError
from quarterdeck.node.kubelet.access import Access, Caller, certificate_caller, subresource, verb_of


class Reviews:
    """An API server that knows one token and grants ``get nodes/metrics`` to its holder."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.down = False

    async def request(self, method: str, path: str, *, body: Any) -> Any:
        assert method == "POST"
        if self.down:
            raise UpstreamError("away")
        self.asked.append(path.rpartition("/")[2])
        spec = body["spec"]
        if "token" in spec:
            good = spec["token"] == "right"
            return {"status": {"authenticated": good, "user": {"username": "scraper", "groups": ["g"]} if good else {}}}
        wanted = spec["resourceAttributes"]
        assert (wanted["resource"], wanted["name"]) == ("nodes", "here")
        asked = (spec["user"], wanted["verb"], wanted["subresource"])
        return {"status": {"allowed": asked == ("scraper", "get", "metrics")}}


class Asked:
    """A request: method, path, and what its caller shows."""

    def __init__(self, path: str, method: str = "GET", token: str = "", subject: dict[str, str] | None = None) -> None:
        self.path, self.method = path, method
        self._token = token
        self.peer_certificate = (
            None if subject is None else {"subject": tuple(((key, value),) for key, value in subject.items())}
        )

    def header(self, name: bytes) -> bytes | None:
        assert name == b"authorization"
        return f"Bearer {self._token}".encode() if self._token else None


def access(reviews: Reviews, now: list[float]) -> Access:
    return Access(reviews, "here", lambda: now[0])  # type: ignore[arg-type]


def check(who: Access, asked: Asked) -> Any:
    return who.check(asked)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("method", "path", "verb", "what"),
    [
        ("GET", "/metrics/resource", "get", "metrics"),
        ("GET", "/stats/summary", "get", "stats"),
        ("GET", "/logs/x", "get", "log"),
        ("GET", "/pods", "get", "proxy"),
        ("GET", "/containerLogs/a/b/c", "get", "proxy"),
        ("GET", "/exec/a/b/c", "create", "proxy"),
        ("POST", "/exec/a/b/c", "create", "proxy"),
        ("POST", "/portForward/a/b", "create", "proxy"),
    ],
)
def test_what_a_request_is_asked_as(method: str, path: str, verb: str, what: str) -> None:
    assert (verb_of(method, path), subresource(path)) == (verb, what)


def test_the_caller_of_a_certificate() -> None:
    subject = ((("organizationName", "a"),), (("organizationName", "b"),), (("commonName", "me"),))
    assert certificate_caller({"subject": subject}) == Caller("me", ("a", "b", "system:authenticated"))


async def test_answers_are_kept_for_a_while() -> None:
    reviews, now = Reviews(), [0.0]
    who = access(reviews, now)
    for _ in range(3):
        await check(who, Asked("/metrics/resource", token="right"))
    assert reviews.asked == ["tokenreviews", "subjectaccessreviews"]
    now[0] = 121.0
    await check(who, Asked("/metrics/resource", token="right"))
    assert reviews.asked[2:] == ["tokenreviews"]
    now[0] = 301.0
    await check(who, Asked("/metrics/resource", token="right"))
    assert reviews.asked[3:] == ["tokenreviews", "subjectaccessreviews"]


async def test_refusals() -> None:
    reviews, now = Reviews(), [0.0]
    who = access(reviews, now)
    with pytest.raises(Unauthorized, match="certificate of the cluster's CA, or a bearer token"):
        await check(who, Asked("/pods"))
    with pytest.raises(Unauthorized, match="not valid"):
        await check(who, Asked("/pods", token="wrong"))
    with pytest.raises(Forbidden, match="scraper may not create nodes/proxy of node here"):
        await check(who, Asked("/exec/a/b/c", token="right"))
    await check(who, Asked("/exec/a/b/c", subject={"organizationName": "system:masters", "commonName": "api"}))
    with pytest.raises(Forbidden, match="stranger"):
        await check(who, Asked("/metrics/resource", subject={"commonName": "stranger"}))


async def test_what_a_token_is_limited_to_is_passed_on() -> None:
    specs: list[Any] = []

    class Scoped(Reviews):
        async def request(self, method: str, path: str, *, body: Any) -> Any:
            specs.append(body["spec"])
            answer = await super().request(method, path, body=body)
            if "token" in body["spec"]:
                answer["status"]["user"]["extra"] = {"scopes": ["user:info"]}
            return answer

    await check(access(Scoped(), [0.0]), Asked("/metrics/resource", token="right"))
    assert specs[1]["extra"] == {"scopes": ["user:info"]}


async def test_nobody_is_let_in_when_the_api_server_is_away() -> None:
    reviews, now = Reviews(), [0.0]
    who = access(reviews, now)
    reviews.down = True
    with pytest.raises(ApiError, match="cannot be asked") as refused:
        await check(who, Asked("/metrics/resource", token="right"))
    assert refused.value.status_code == 503
    await check(who, Asked("/pods", subject={"organizationName": "system:masters", "commonName": "api"}))
