"""Embeddings in each provider's format: what it is asked, and what its answer becomes."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from quarterdeck.errors import UpstreamError
from quarterdeck.gateway.llm.formats.chat import Unfit
from quarterdeck.gateway.llm.formats.embeddings import BEDROCK, GOOGLE

from ..conftest import token
from .conftest import Models, model
from .doubles import Answer
from .test_formats import SPECS

PATH = "/llm/kagent/m/v1/embeddings"
TEXTS = ["a", "b"]
VECTORS = [[0.5, 1.0], [0.25, 2.0]]
TITAN, COHERE = "amazon.titan-embed-text-v2:0", "eu.cohere.embed-v4:0"
OPENAI: dict[str, Any] = {
    "object": "list", "model": "x", "data": [{"object": "embedding", "index": i, "embedding": v}
                                             for i, v in enumerate(VECTORS)],
    "usage": {"prompt_tokens": 3, "total_tokens": 3},
}  # fmt: skip
CASES: dict[str, tuple[dict[str, Any], dict[str, Any], str, dict[str, Any], dict[str, Any]]] = {
    "openai": (
        {"provider": "OpenAI", "openAI": {"temperature": "0.5", "maxTokens": 5}}, {"input": TEXTS}, "/v1/embeddings",
        {"model": "x", "input": TEXTS}, OPENAI,
    ),
    "responses": (
        SPECS["responses"][0], {"input": TEXTS, "dimensions": 2}, "/v1/embeddings",
        {"model": "x", "input": TEXTS, "dimensions": 2}, OPENAI,
    ),
    "ollama": (
        SPECS["ollama"][0], {"input": TEXTS, "encoding_format": "base64"}, "/api/embed",
        {"model": "x", "input": TEXTS}, {"embeddings": VECTORS, "prompt_eval_count": 3},
    ),
    "gemini": (
        SPECS["gemini"][0], {"input": TEXTS, "dimensions": 2}, "/v1beta/models/x:batchEmbedContents",
        {"requests": [{"model": "models/x", "content": {"parts": [{"text": text}]}, "outputDimensionality": 2}
                      for text in TEXTS]},
        {"embeddings": [{"values": v} for v in VECTORS], "usageMetadata": {"promptTokenCount": 3}},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
async def test_embeddings(models: Models, name: str) -> None:
    spec, asked, path, sent, answer = CASES[name]
    models.use(model(spec, SPECS.get(name, ({}, {}))[1]))
    models.answers(Answer(answer))
    response = await models.rig.request(PATH, asked, bearer=token("pod-a"))
    found = msgspec.json.decode(await response.read())
    assert response.status == 200, found
    assert models.provider.seen[-1].path == path and models.provider.body == sent
    assert found == OPENAI
    models.answers(Answer({"error": {"message": "no such model"}}, 404))
    response = await models.rig.request(PATH, asked, bearer=token("pod-a"))
    assert response.status == 404 and b"no such model" in await response.read()
    if name in ("gemini", "ollama"):
        models.answers(Answer({"embeddings": "none"}))
        response = await models.rig.request(PATH, asked, bearer=token("pod-a"))
        assert response.status == 502
        response = await models.rig.request(PATH, {"input": [1, 2]}, bearer=token("pod-a"))
        assert response.status == 400 and b"input: must be a text" in await response.read()


async def test_a_provider_without_embeddings_says_so(models: Models) -> None:
    models.use(model(*SPECS["anthropic"]))
    response = await models.rig.request(PATH, {"input": "a"}, bearer=token("pod-a"))
    assert response.status == 400 and b"embeddings is not translated for provider Anthropic" in await response.read()


@pytest.mark.parametrize(
    ("name", "asked", "body", "answer"),
    [
        (TITAN, {"input": ["a"], "dimensions": 256}, {"inputText": "a", "dimensions": 256},
         {"embedding": VECTORS[0], "inputTextTokenCount": 3}),
        (COHERE, {"input": TEXTS}, {"texts": TEXTS, "input_type": "search_document"}, {"embeddings": VECTORS}),
        (COHERE, {"input": TEXTS, "dimensions": 2},
         {"texts": TEXTS, "input_type": "search_document", "output_dimension": 2}, {"embeddings": {"float": VECTORS}}),
    ],
)  # fmt: skip
def test_bedrock(name: str, asked: dict[str, Any], body: dict[str, Any], answer: dict[str, Any]) -> None:
    spec, secrets = SPECS["converse"]
    found = model(spec | {"model": name}, secrets)
    sent = BEDROCK.request(found, asked)
    assert sent.path == f"/model/{name.replace(':', '%3A')}/invoke" and sent.body == body
    vectors = [one["embedding"] for one in BEDROCK.answer(found, answer)["data"]]
    assert vectors == VECTORS[: len(asked["input"])]


def test_vertex() -> None:
    plain = model({"provider": "Ollama", "model": "text-embedding-005"})
    found = msgspec.structs.replace(plain, provider="GeminiVertexAI")
    sent = GOOGLE.request(found, {"input": TEXTS, "dimensions": 2})
    assert sent.path == "/text-embedding-005:predict"
    assert sent.body == {"instances": [{"content": "a"}, {"content": "b"}], "parameters": {"outputDimensionality": 2}}
    predictions = [{"embeddings": {"values": v, "statistics": {"token_count": 2}}} for v in VECTORS]
    answer = GOOGLE.answer(found, {"predictions": predictions})
    assert [one["embedding"] for one in answer["data"]] == VECTORS and answer["usage"]["prompt_tokens"] == 4


@pytest.mark.parametrize(
    ("name", "asked", "said"),
    [
        (TITAN, {"input": TEXTS}, "Titan takes 1 texts at most"),
        (COHERE, {"input": ["a"] * 97}, "Cohere takes 96"),
        ("anthropic.claude", {"input": "a"}, "no embedding model"),
        (TITAN, {"input": ""}, "none of them empty"),
        (TITAN, {}, "input: must be"),
        (TITAN, {"input": "a", "dimensions": True}, "dimensions: must be"),
    ],
)
def test_what_does_not_fit_says_so(name: str, asked: dict[str, Any], said: str) -> None:
    spec, secrets = SPECS["converse"]
    with pytest.raises(Unfit, match=said):
        BEDROCK.request(model(spec | {"model": name}, secrets), asked)
    with pytest.raises(UpstreamError, match="without vectors"):
        BEDROCK.answer(model(spec, secrets), {"embeddings": [[]]})
