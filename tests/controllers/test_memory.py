"""An agent whose memories no embedding can be had for says so."""

from __future__ import annotations

from typing import Any

from quarterdeck.controllers.memory import WITHOUT
from quarterdeck.gateway.llm.formats import FORMATS
from quarterdeck.kube import resource as k
from quarterdeck.translate import model as translated

from .test_controllers import Platform, platform

__all__ = ["platform"]


async def test_a_provider_without_embeddings_is_a_condition(platform: Platform) -> None:
    await platform.model()
    model: dict[str, Any] = {"provider": "Anthropic", "model": "claude"}
    await platform.client.create(k.MODEL_CONFIG, {"metadata": {"name": "embed", "namespace": "kagent"}, "spec": model})
    declarative = {"systemMessage": "x", "memory": {"modelConfig": "embed"}}
    spec = {"type": "Declarative", "declarative": declarative}
    await platform.client.create(k.AGENT, {"metadata": {"name": "keeper", "namespace": "kagent"}, "spec": spec})
    found = await platform.eventually(
        lambda: (c := platform.condition(k.AGENT, "keeper", "Embeddings")).get("status") == "False" and c
    )
    assert found["reason"] == "EmbeddingsNotSupported"
    assert "ModelConfig kagent/embed is of provider Anthropic" in found["message"]
    await platform.client.patch(k.MODEL_CONFIG, "embed", {"spec": {"provider": "Ollama"}}, namespace="kagent")
    await platform.eventually(
        lambda: platform.condition(k.AGENT, "keeper", "Embeddings").get("reason") == "EmbeddingsSupported"
    )
    await platform.client.patch(k.AGENT, "keeper", {"spec": {"declarative": {"memory": None}}}, namespace="kagent")
    await platform.eventually(lambda: platform.condition(k.AGENT, "keeper", "Embeddings").get("reason") == "NoMemory")


def test_these_are_the_providers_that_the_gateway_gets_none_of() -> None:
    spoken = translated._FORMATS.items()  # pyright: ignore[reportPrivateUsage]
    assert {provider for provider, name in spoken if FORMATS[name].embeddings is None} == WITHOUT
