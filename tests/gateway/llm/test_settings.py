"""Keys, headers, TLS and time-outs of a ModelConfig."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from quarterdeck import snapshot as s
from quarterdeck.wire.http import Exchange, Server

from ..conftest import Rig, snapshot, token
from ..routes.certs import Authority
from .conftest import PATH, Models, model
from .doubles import ANSWERS, Answer
from .test_fields import AZURE, CHAT, FOUNDRY, KEY

FORWARD = "X-Quarterdeck-Forward-Authorization"


@pytest.mark.parametrize(
    ("spec", "header", "value"),
    [
        ({"provider": "OpenAI"}, "authorization", "Bearer sk-1"),
        ({"provider": "Anthropic"}, "x-api-key", "sk-1"),
        ({"provider": "AzureOpenAI", "azureOpenAI": AZURE}, "api-key", "sk-1"),
        ({"provider": "Foundry", "foundry": FOUNDRY}, "api-key", "sk-1"),
        ({"provider": "Gemini"}, "x-goog-api-key", "sk-1"),
        ({"provider": "Ollama"}, "authorization", "Bearer sk-1"),
    ],
)
async def test_a_key_is_where_the_provider_wants_it(
    models: Models, spec: dict[str, Any], header: str, value: str
) -> None:
    """``defaultHeaders`` go along, and do not replace the key."""
    found = model(spec | KEY | {"defaultHeaders": {"X-Team": "a", header.title(): "mine"}})
    models.use(found)
    models.answers(Answer(ANSWERS.get(found.format, CHAT)))
    await models.json()
    given = [text for name, text in models.provider.seen[-1].headers if name == header.encode()]
    assert given == [value.encode()]
    assert models.provider.header("x-team") == "a"


@pytest.mark.parametrize(
    ("spec", "header", "value"),
    [
        ({"provider": "OpenAI"}, "authorization", "Bearer mine"),
        ({"provider": "Anthropic"}, "x-api-key", "mine"),
        ({"provider": "AzureOpenAI", "azureOpenAI": AZURE}, "authorization", "Bearer mine"),
        ({"provider": "Foundry", "foundry": FOUNDRY}, "authorization", "Bearer mine"),
        ({"provider": "Bedrock", "bedrock": {"region": "eu-west-1"}}, "authorization", "Bearer mine"),
    ],
)
async def test_a_callers_own_key_is_passed_on(models: Models, spec: dict[str, Any], header: str, value: str) -> None:
    found = model(spec | {"apiKeyPassthrough": True, "defaultHeaders": {header: "none"}})
    models.use(found)
    models.answers(Answer(ANSWERS.get(found.format, CHAT)))
    await models.json(headers={FORWARD: "Bearer mine"})
    given = [text for name, text in models.provider.seen[-1].headers if name == header.encode()]
    assert given == [value.encode()]
    assert models.provider.header(FORWARD.lower()) is None
    missing = await models.ask()
    assert missing.status == 401
    assert FORWARD in msgspec.json.decode(await missing.read())["error"]["message"]
    models.answers(Answer({}, 401))
    refused = await models.ask(headers={FORWARD: "Bearer mine"})
    assert refused.status == 401
    assert "refused your key" in msgspec.json.decode(await refused.read())["error"]["message"]


@pytest.mark.parametrize("name", ["Host", "Content-Length", "transfer-encoding", "Connection"])
def test_default_headers_do_not_frame_requests(name: str) -> None:
    """Those of other ModelConfigs go over the same connections."""
    found = model({"provider": "OpenAI", "defaultHeaders": {name: "1"}})
    assert f"defaultHeaders.{name}" in found.error


async def test_what_the_gateway_says_is_said_once(models: Models) -> None:
    found = model({"provider": "OpenAI", "defaultHeaders": {"Content-Type": "text/plain", "Accept": "a/b", "X-A": "1"}})
    framing = (s.HeaderValue("Content-Length", "1"), s.HeaderValue("Host", "other.example"))
    models.use(msgspec.structs.replace(found, headers=(*found.headers, *framing)))  # whoever made the snapshot
    models.answers(Answer(CHAT))
    await models.json()
    headers = models.provider.seen[-1].headers
    assert len({name for name, _ in headers}) == len(headers)
    assert models.provider.header("content-type") == "application/json"
    assert models.provider.header("x-a") == "1"


async def test_a_changed_secret_acts_from_the_next_call_on(models: Models) -> None:
    models.answers(Answer(CHAT))
    for key in ("one", "two"):
        models.use(model({"provider": "OpenAI"} | KEY, {"k": key}))
        await models.json()
        assert models.provider.header("authorization") == f"Bearer {key}"


async def test_a_caller_says_more_than_the_model_config(models: Models) -> None:
    models.use(model({"provider": "OpenAI", "openAI": {"temperature": "0.5", "maxTokens": 9}}))
    models.answers(Answer(CHAT))
    await models.json({"temperature": 1, "max_completion_tokens": 5})
    assert models.provider.body["temperature"] == 1
    assert "max_tokens" not in models.provider.body, "OpenAI refuses both names"


async def test_embeddings_get_no_fields_of_chat(models: Models) -> None:
    models.use(model({"provider": "OpenAI", "openAI": {"temperature": "0.5", "maxTokens": 9}}))
    models.answers(Answer({"data": [], "model": "x", "usage": {"prompt_tokens": 1, "total_tokens": 1}}))
    path = PATH.replace("chat/completions", "embeddings")
    await (await models.rig.request(path, {"input": "a"}, bearer=token("pod-a"))).read()
    assert models.provider.body == {"input": "a", "model": "x"}


def test_times_and_places() -> None:
    bedrock = {"region": "eu-west-1", "readTimeout": 7, "connectTimeout": 2, "promptCaching": True, "cacheTTL": "1h"}
    found = model({"provider": "Bedrock", "apiKeySecret": "s", "apiKeySecretKey": "k", "bedrock": bedrock})
    assert (found.timeout, found.connect_timeout, found.cache) == (7.0, 2.0, "1h")
    assert model({"provider": "OpenAI", "openAI": {"timeout": 12}}).timeout == 12.0
    assert model({"provider": "OpenAI"}).timeout == 300.0
    source = {"name": "cm", "key": "k"}
    foundry = {"deployment": "d", "endpointFrom": source}
    found = model({"provider": "Foundry", "foundry": foundry} | KEY, {"k": "https://f.example/"})
    assert found.base_url == "https://f.example/openai/deployments/d"
    found = model({"provider": "GeminiVertexAI", "geminiVertexAI": {"projectID": "p", "location": "eu"}} | KEY)
    assert "not a service account" in found.error


@pytest.fixture
async def secure(tmp_path: Path) -> AsyncIterator[tuple[int, str]]:
    """Port of a provider over TLS, and the PEM of its authority."""
    authority = Authority()
    (tmp_path / "tls.pem").write_text("".join(authority.sign("localhost")))
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(tmp_path / "tls.pem")

    def handle(exchange: Exchange) -> None:
        exchange.respond(200, msgspec.json.encode(CHAT))

    server = Server(handle)
    _, port = await server.listen("127.0.0.1", 0, tls=context)
    yield port, authority.pem
    await server.stop(0.1)


@pytest.mark.parametrize(
    ("tls", "status"),
    [
        ({}, 502),
        ({"disableVerify": True}, 200),
        ({"caCertSecretRef": "s", "caCertSecretKey": "ca"}, 200),
        ({"caCertSecretRef": "s", "caCertSecretKey": "ca", "disableSystemCAs": True}, 200),
    ],
)
async def test_tls_towards_the_provider(bare: Rig, secure: tuple[int, str], tls: dict[str, Any], status: int) -> None:
    port, ca = secure
    spec = {"provider": "OpenAI", "openAI": {"baseUrl": f"https://localhost:{port}/v1"}, "tls": tls}
    found = model(spec, {"ca": ca})
    assert found.tls_system is (status == 200 and "caCertSecretRef" in tls and "disableSystemCAs" not in tls)
    bare.gateway.use(snapshot(1, models=(found,), policies=(s.AgentPolicy("kagent", "a", models=("kagent/m",)),)))
    response = await bare.request(PATH, {"messages": []}, bearer=token("pod-a"))
    text = await response.read()
    assert response.status == status, text
    assert (b"certificate" in text.lower()) is (status == 502)


async def test_the_systems_authorities_count_unless_disabled() -> None:
    from quarterdeck.wire.tls import client_context

    pem = Authority().pem
    alone, beside = client_context(ca_pem=pem), client_context(ca_pem=pem, system=True)
    assert len(alone.get_ca_certs()) == 1
    assert beside.cert_store_stats()["x509_ca"] >= alone.cert_store_stats()["x509_ca"]


async def test_one_bad_model_config_costs_no_other(models: Models) -> None:
    good = model({"provider": "OpenAI"})
    bad = msgspec.structs.replace(good, name="bad", tls_ca="no PEM")
    models.use(good, bad)
    models.answers(Answer(CHAT))
    assert (await models.ask()).status == 200
    refused = await models.ask(path=PATH.replace("/m/", "/bad/"))
    assert refused.status == 503
    assert "not PEM" in msgspec.json.decode(await refused.read())["error"]["message"]


async def test_a_silent_provider_is_given_up(models: Models) -> None:
    gate = asyncio.Event()

    async def silent(exchange: Exchange) -> None:
        await gate.wait()
        exchange.respond(200, b"{}")

    server = Server(silent)
    _, models.provider.port = await server.listen("127.0.0.1", 0)
    models.use(msgspec.structs.replace(model({"provider": "Anthropic"} | KEY), timeout=0.01))
    response = await models.ask()
    assert response.status == 504
    assert "no sign of life" in msgspec.json.decode(await response.read())["error"]["message"]
    gate.set()
    await server.stop(0.1)
