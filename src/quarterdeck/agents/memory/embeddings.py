"""Embeddings of any ModelConfig: OpenAI's ``POST …/embeddings`` at the gateway, which holds the key."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from math import isfinite
from time import monotonic

from quarterdeck.errors import TimedOut, UpstreamError
from quarterdeck.mcpclient import HeaderSource, split_url
from quarterdeck.wire.client import Pool

from ..config import Embedding

_TIMEOUT = 15.0
_LONGEST = 8000
"""Characters of a text that are embedded: models take about 8,000 tokens."""
_BATCH = 64
_DIMENSIONS = 4096
"""What the control plane keeps."""
_REST = 30.0
"""Seconds in which a model that failed is not asked again: each turn would wait for it."""


class Embeddings:
    """``model`` names what vectors may be compared with each other."""

    def __init__(
        self, pool: Pool, config: Embedding, headers: HeaderSource, clock: Callable[[], float] = monotonic
    ) -> None:
        self.model = config.model
        self._pool = pool
        self._headers = headers
        self._clock = clock
        base = (config.base_url or "https://api.openai.com/v1").rstrip("/")
        self._origin, self._target = split_url(f"{base}/embeddings")
        self._failed: tuple[float, str] | None = None

    async def of(self, texts: Sequence[str]) -> list[list[float]]:
        """A vector for each text. Raises UpstreamError, also while the model rests after it failed."""
        if self._failed is not None and self._clock() - self._failed[0] < _REST:
            raise UpstreamError(self._failed[1])
        found: list[list[float]] = []
        try:
            for start in range(0, len(texts), _BATCH):
                found += await self._batch([text[:_LONGEST] for text in texts[start : start + _BATCH]])
        except (UpstreamError, TimedOut) as error:
            text = f"embedding model {self.model}: {error}"
            self._failed = self._clock(), text
            raise UpstreamError(text) from error
        self._failed = None
        return found

    async def _batch(self, texts: list[str]) -> list[list[float]]:
        """Together, or one by one where the model takes one text a request (Titan, Gemini on Vertex AI)."""
        try:
            return await self._ask(texts)
        except _Refused:
            if len(texts) == 1:
                raise
            return [(await self._ask([text]))[0] for text in texts]

    async def _ask(self, texts: list[str]) -> list[list[float]]:
        headers = [(b"content-type", b"application/json"), *await self._headers()]
        body = json.dumps({"model": self.model, "input": texts, "encoding_format": "float"}).encode()
        response = await self._pool.request("POST", self._origin, self._target, headers, body, timeout=_TIMEOUT)
        content = await response.read()
        if response.status != 200:
            kind = _Refused if response.status == 400 else UpstreamError
            raise kind(f"HTTP {response.status}: {_said(content)}")
        try:
            data = sorted(json.loads(content)["data"], key=lambda one: int(one.get("index", 0)))
            vectors = [[float(number) for number in one["embedding"]] for one in data]
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError, OverflowError) as error:
            raise UpstreamError(f"the answer holds no embeddings: {type(error).__name__}: {error}") from error
        if not all(isfinite(sum(vector)) for vector in vectors):
            raise UpstreamError("the answer holds embeddings with what is no number")
        if len(vectors) != len(texts) or not all(vectors):
            raise UpstreamError(f"the answer holds {len(vectors)} embeddings for {len(texts)} texts")
        if max(map(len, vectors)) > _DIMENSIONS:
            raise UpstreamError(f"the answer holds embeddings of more than {_DIMENSIONS} numbers; take a smaller model")
        return vectors


class _Refused(UpstreamError):
    """The request is not what the model takes."""


def _said(content: bytes) -> str:
    try:
        return str(json.loads(content)["error"]["message"])[:500]
    except (ValueError, KeyError, TypeError, RecursionError):
        return content[:200].decode("utf-8", "replace")
