"""Embeddings in the providers' own formats: OpenAI's ``{input, dimensions?}`` in, its list of vectors out.

Vectors are given as numbers, whatever ``encoding_format`` asks for: OpenAI's clients take both.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

from quarterdeck.errors import UpstreamError
from quarterdeck.snapshot import Model

from .base import Embeddings, Sent
from .chat import Unfit

_MOST = 2048
_COHERE_MOST = 96


def _texts(document: dict[str, Any], most: int = _MOST, who: str = "") -> list[str]:
    given = document.get("input")
    texts = [given] if isinstance(given, str) else given
    if not isinstance(texts, list) or not texts or not all(isinstance(text, str) and text for text in texts):
        raise Unfit("input: must be a text or a list of texts, none of them empty; tokens are not taken")
    if len(texts) > most:
        raise Unfit(f"input: {who or 'a request'} takes {most} texts at most, not {len(texts)}")
    return texts


def _dimensions(document: dict[str, Any], name: str) -> dict[str, int]:
    wanted = document.get("dimensions")
    if wanted is None:
        return {}
    if not isinstance(wanted, int) or isinstance(wanted, bool) or wanted < 1:
        raise Unfit("dimensions: must be a whole number from 1")
    return {name: wanted}


def _answer(model: Model, vectors: list[Any], tokens: int) -> dict[str, Any]:
    if not all(isinstance(vector, list) and vector for vector in vectors):
        raise UpstreamError("sent an answer without vectors")
    data = [{"object": "embedding", "index": i, "embedding": vector} for i, vector in enumerate(vectors)]
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    return {"object": "list", "data": data, "model": model.model, "usage": usage}


# -- Ollama: https://docs.ollama.com/api/embed
def _to_ollama(model: Model, document: dict[str, Any]) -> Sent:
    return Sent("/embed", {"model": model.model, "input": _texts(document), **_dimensions(document, "dimensions")})


def _of_ollama(model: Model, document: Any) -> dict[str, Any]:
    return _answer(model, document["embeddings"], document.get("prompt_eval_count") or 0)


OLLAMA = Embeddings(_to_ollama, _of_ollama)


# -- Gemini API: https://ai.google.dev/api/embeddings; Vertex AI has `predict` instead
def _to_google(model: Model, document: dict[str, Any]) -> Sent:
    name = model.model.removeprefix("models/")
    path = f"/{quote(name, safe='@')}"
    texts = _texts(document)
    if model.provider == "GeminiVertexAI":
        if len(texts) > 1 and name.startswith("gemini-embedding"):
            raise Unfit(f"input: {name} on Vertex AI takes one text a request, not {len(texts)}")
        instances = {"instances": [{"content": text} for text in texts]}
        size = _dimensions(document, "outputDimensionality")
        return Sent(f"{path}:predict", instances | ({"parameters": size} if size else {}))
    requests = [
        {"model": f"models/{name}", "content": {"parts": [{"text": text}]}}
        | _dimensions(document, "outputDimensionality")
        for text in texts
    ]
    return Sent(f"{path}:batchEmbedContents", {"requests": requests})


def _of_google(model: Model, document: Any) -> dict[str, Any]:
    if model.provider == "GeminiVertexAI":
        found = [one["embeddings"] for one in document["predictions"]]
        tokens = sum(int((one.get("statistics") or {}).get("token_count") or 0) for one in found)
        return _answer(model, [one["values"] for one in found], tokens)
    usage = document.get("usageMetadata") or {}
    return _answer(model, [one["values"] for one in document["embeddings"]], int(usage.get("promptTokenCount") or 0))


GOOGLE = Embeddings(_to_google, _of_google)


# -- Bedrock's InvokeModel: Titan (one text) and Cohere Embed
def _to_bedrock(model: Model, document: dict[str, Any]) -> Sent:
    path = f"/model/{quote(model.model, safe='')}/invoke"
    if "titan-embed" in model.model:
        (text,) = _texts(document, 1, "Titan")
        return Sent(path, {"inputText": text, **_dimensions(document, "dimensions")})
    if "cohere.embed" in model.model:
        body = {"texts": _texts(document, _COHERE_MOST, "Cohere"), "input_type": "search_document"}
        return Sent(path, body | _dimensions(document, "output_dimension"))
    raise Unfit(f"{model.model} is no embedding model that is known here; Titan and Cohere Embed are")


def _of_bedrock(model: Model, document: Any) -> dict[str, Any]:
    if "embedding" in document:
        return _answer(model, [document["embedding"]], int(document.get("inputTextTokenCount") or 0))
    vectors = document["embeddings"]
    return _answer(model, vectors["float"] if isinstance(vectors, dict) else vectors, 0)


BEDROCK = Embeddings(_to_bedrock, _of_bedrock)


# -- OpenAI's own, where chat goes by its Responses format
def _to_openai(model: Model, document: dict[str, Any]) -> Sent:
    return Sent("/embeddings", document | {"model": model.model})


def _of_openai(model: Model, document: Any) -> dict[str, Any]:
    del model
    if not isinstance(document["data"], list):
        raise UpstreamError("sent an answer without vectors")
    return document


OPENAI = Embeddings(_to_openai, _of_openai)
