"""Cards as the gateway serves them: whose they are, what they say, and that they are signed when somebody can."""

from __future__ import annotations

import json
from typing import Any

from quarterdeck.a2atypes import cards
from quarterdeck.errors import UpstreamError
from quarterdeck.gateway.a2a.cards import rewrite
from quarterdeck.gateway.a2a.signing import CardSigner

BASE = "https://gw.example/a2a/kagent/x"
CARD: dict[str, Any] = {
    "name": "x",
    "url": "http://10.1.2.3:8080/",
    "preferredTransport": "GRPC",
    "additionalInterfaces": [
        {"url": "10.1.2.3:8081", "transport": "GRPC"},
        {"url": "http://10.1.2.3:8080/rest", "transport": "HTTP+JSON"},
    ],
    "supportedInterfaces": [
        {"url": "http://10.1.2.3:8080/", "protocolBinding": "JSONRPC", "protocolVersion": "1.0"},
        {"url": "10.1.2.3:8081", "protocolBinding": "GRPC", "protocolVersion": "1.0"},
        {"url": "wss://10.1.2.3/ws", "protocolBinding": "https://example.com/ws", "protocolVersion": "1.0"},
    ],
    "securitySchemes": {"own": {"type": "apiKey"}},
    "signatures": [{"protected": "x", "signature": "y"}],
}


def test_only_what_the_gateway_carries_is_in_its_card() -> None:
    card = rewrite(json.dumps(CARD).encode(), BASE, bearer=True)
    assert [i["url"] for i in card["supportedInterfaces"]] == [BASE]
    assert (card["url"], card["preferredTransport"]) == (f"{BASE}/rest", "HTTP+JSON")
    assert [i["transport"] for i in card["additionalInterfaces"]] == ["HTTP+JSON"]
    assert "signatures" not in card and "10.1.2.3" not in json.dumps(card)
    assert list(card["securitySchemes"]) == ["quarterdeck"], "its own scheme is not what the gateway asks for"
    assert "securitySchemes" in rewrite(json.dumps(CARD).encode(), BASE), "callers without a token need none"


class Plane:
    """The control plane's answers."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, Any]] = []
        self.down = False

    async def __call__(self, path: str, body: bytes) -> bytes:
        self.asked.append((path, json.loads(body)))
        if self.down:
            raise UpstreamError("away")
        return json.dumps({"signatures": [{"protected": "p", "signature": "s"}], "jwks": {"keys": []}}).encode()


async def test_a_card_is_signed_once_and_remembered() -> None:
    plane = Plane()
    signer = CardSigner("quarterdeck-system/quarterdeck", plane)
    card = rewrite(json.dumps(CARD).encode(), BASE)
    assert signer.known(card) is None
    signed = await signer.signed(card, "kagent/x", "https://gw.example")
    assert signed["signatures"] == [{"protected": "p", "signature": "s"}] and signer.known(card) == signed
    path, body = plane.asked[0]
    assert path == "gateways/quarterdeck-system/quarterdeck/cards/sign"
    assert body["agent"] == "kagent/x" and body["jku"] == "https://gw.example/a2a/.well-known/jwks.json"
    assert await signer.keys() == b'{"keys":[]}'
    assert await signer.keys() and len(plane.asked) == 2, "keys are asked for once"


async def test_a_card_goes_out_unsigned_when_nobody_signs() -> None:
    plane = Plane()
    plane.down = True
    signer = CardSigner("ns/gw", plane)
    card = rewrite(json.dumps(CARD).encode(), BASE)
    assert "signatures" not in await signer.signed(card, "kagent/x", "https://gw.example")
    assert signer.known(card) == card, "and is not asked again at once"
    assert CardSigner("ns/gw").known(card) == card and await CardSigner("ns/gw").keys() is None


def test_a_card_has_a_tag_and_conditional_requests_are_understood() -> None:
    tag = cards.etag(b"{}")
    for header in (tag, f"W/{tag}", f'"x", {tag}', "*"):
        assert cards.matches(header, tag), header
    assert not cards.matches('"x"', tag) and not cards.matches("", tag)
