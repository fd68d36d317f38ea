"""Whether an agent's memories can be found by what they mean: not every provider has embeddings."""

from __future__ import annotations

from quarterdeck.kube import resource as k
from quarterdeck.kube.conditions import get_condition
from quarterdeck.kube.resource import Object
from quarterdeck.resources.conversion import model_spec
from quarterdeck.translate.agent_config import AgentInputs

from .context import Context, Verdict

WITHOUT = frozenset({"Anthropic", "AnthropicVertexAI", "SAPAICore"})
"""Providers of which the gateway gets no embeddings."""
_TYPE = "Embeddings"


def verdicts(context: Context, obj: Object, inputs: AgentInputs) -> list[Verdict]:
    """Nothing is said of an agent for which nothing was ever amiss."""
    known = get_condition((obj.get("status") or {}).get("conditions"), _TYPE) is not None
    model = inputs.embedding
    found = context.get(k.MODEL_CONFIG, model.namespace, model.name) if model is not None else None
    if model is None or found is None:
        return [Verdict(_TYPE, True, "NoMemory", "the agent has no memory any more", quiet=True)] if known else []
    provider = model_spec({"kind": "ModelConfig"} | found).provider
    where = f"ModelConfig {model.namespace}/{model.name}"
    if provider in WITHOUT:
        text = f"memory goes by words alone: {where} is of provider {provider}, which has no embeddings here"
        return [Verdict(_TYPE, False, "EmbeddingsNotSupported", text)]
    return [Verdict(_TYPE, True, "EmbeddingsSupported", f"{where} can be asked", quiet=True)] if known else []
