from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import Any

import msgspec
import pytest

from quarterdeck import snapshot as s
from quarterdeck.errors import RefNotFound
from quarterdeck.resources.model_config import ModelConfigSpec
from quarterdeck.translate.model import gateway_model
from quarterdeck.translate.resolve import Services
from quarterdeck.translate.values import Sources
from quarterdeck.wire.client import Response
from quarterdeck.wire.http import Server

from ..conftest import Rig, snapshot, token
from .doubles import Answer, Provider

PATH = "/llm/kagent/m/v1/chat/completions"
TOOL = {
    "type": "function",
    "function": {"name": "add", "description": "Adds.", "parameters": {"type": "object", "properties": {"a": {}}}},
}


def model(spec: Mapping[str, Any], secrets: Mapping[str, str] | None = None) -> s.Model:
    """What the control plane makes of a ModelConfig ``kagent/m`` whose Secret holds ``secrets``."""
    values = {"k": "sk-1"} if secrets is None else dict(secrets)

    def read(name: str, key: str) -> str:
        if key not in values:
            raise RefNotFound(f"Secret kagent/{name} has no key {key}")
        return values[key]

    parsed = ModelConfigSpec.model_validate({"model": "x"} | dict(spec))
    return gateway_model("kagent", "m", parsed, Sources(read, read), Services.of((), ()))


class Models:
    """A gateway in front of a double of a provider."""

    def __init__(self, rig: Rig, provider: Provider) -> None:
        self.rig = rig
        self.provider = provider

    def use(self, *models: s.Model) -> None:
        """Serve these; what they would send to the provider's own host goes to the double."""
        moved: list[s.Model] = []
        for found in models:
            assert not found.error, found.error
            path = "/" + found.base_url.partition("://")[2].partition("/")[2]
            moved.append(msgspec.structs.replace(found, base_url=f"http://127.0.0.1:{self.provider.port}{path}"))
        names = tuple(f"{m.namespace}/{m.name}" for m in models)
        self.rig.gateway.use(snapshot(1, models=tuple(moved), policies=(s.AgentPolicy("kagent", "a", models=names),)))

    def answers(self, *answers: Answer) -> None:
        self.provider.answers = list(answers)

    async def ask(self, body: Mapping[str, Any] | None = None, path: str = PATH, **options: Any) -> Response:
        asked = {"messages": [{"role": "user", "content": "hi"}]} | dict(body or {})
        return await self.rig.request(path, asked, bearer=token("pod-a"), **options)

    async def json(self, body: Mapping[str, Any] | None = None, **options: Any) -> Any:
        response = await self.ask(body, **options)
        return msgspec.json.decode(await response.read())

    async def chunks(self, body: Mapping[str, Any] | None = None) -> list[Any]:
        """Of a stream, ``[DONE]`` as the text."""
        options = {"stream": True, "stream_options": {"include_usage": True}}
        response = await self.ask(options | dict(body or {}))
        data = await response.read()
        assert response.status == 200, data
        lines = [line[6:] for line in data.split(b"\n") if line.startswith(b"data: ")]
        return [line.decode() if line == b"[DONE]" else msgspec.json.decode(line) for line in lines]


@pytest.fixture
async def models(bare: Rig) -> AsyncIterator[Models]:
    provider = Provider()
    server = Server(provider)
    _, provider.port = await server.listen("127.0.0.1", 0)
    yield Models(bare, provider)
    await server.stop(0.1)
