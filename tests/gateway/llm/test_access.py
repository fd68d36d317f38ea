"""Tokens and signatures: what providers without a plain key are shown."""

from __future__ import annotations

import asyncio
import json
from typing import Any
from urllib.parse import parse_qs

import msgspec
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from joserfc import jwt
from joserfc.jwk import ECKey, RSAKey

from quarterdeck.errors import UpstreamError
from quarterdeck.gateway.llm.access import Tokens
from quarterdeck.gateway.llm.signature import sign
from quarterdeck.gateway.upstream import Upstreams
from quarterdeck.snapshot import ModelAccess
from quarterdeck.snapshot.revocations import Revocation
from quarterdeck.wire.http import Exchange, Server

from .conftest import Models, model
from .doubles import ANSWERS, Answer
from .test_fields import CHAT, PEM, VERTEX

KEY = {"apiKeySecret": "s", "apiKeySecretKey": "k"}


def account(port: int, **more: Any) -> dict[str, str]:
    found = {
        "type": "service_account", "client_email": "a@p.iam.gserviceaccount.com", "private_key": PEM,
        "private_key_id": "kid-1", "token_uri": f"http://127.0.0.1:{port}/token",
    }  # fmt: skip
    return {"k": json.dumps(found | more)}


def form(exchange: Exchange) -> dict[str, str]:
    return {name: values[0] for name, values in parse_qs(exchange.body.decode()).items()}


async def test_vertex_is_called_with_a_service_accounts_token(models: Models) -> None:
    """One token for many calls; another Secret, another token."""
    spec = {"provider": "AnthropicVertexAI", "anthropicVertexAI": VERTEX} | KEY
    models.use(model(spec, account(models.provider.port)))
    models.answers(Answer({"access_token": "ya29", "expires_in": 3600}), Answer(ANSWERS["anthropic"]))
    await models.json()
    await models.json()
    asked, first, second = models.provider.seen
    assert (asked.method, asked.path) == ("POST", "/token")
    fields = form(asked)
    assert fields["grant_type"] == "urn:ietf:params:oauth:grant-type:jwt-bearer"
    shown = jwt.decode(fields["assertion"], RSAKey.import_key(PEM), algorithms=["RS256"])
    assert shown.header["kid"] == "kid-1"
    assert shown.claims["iss"] == "a@p.iam.gserviceaccount.com"
    assert shown.claims["aud"] == f"http://127.0.0.1:{models.provider.port}/token"
    assert shown.claims["scope"] == "https://www.googleapis.com/auth/cloud-platform"
    assert [e.header(b"authorization") for e in (first, second)] == [b"Bearer ya29"] * 2
    body = json.loads(first.body)
    assert (body["anthropic_version"], "model" in body) == ("vertex-2023-10-16", False)
    models.use(model(spec, account(models.provider.port, client_email="b@p")))
    models.answers(Answer({"access_token": "other"}), Answer(ANSWERS["anthropic"]))
    await models.json()
    assert models.provider.header("authorization") == "Bearer other"


async def test_a_token_that_the_provider_refuses_is_not_used_again(models: Models) -> None:
    models.use(model({"provider": "GeminiVertexAI", "geminiVertexAI": VERTEX} | KEY, account(models.provider.port)))
    models.answers(Answer({"access_token": "old"}), Answer({}, 401), Answer({"access_token": "new"}),
                   Answer(ANSWERS["gemini"]))  # fmt: skip
    assert (await models.ask()).status == 502
    assert (await models.ask()).status == 200
    assert models.provider.header("authorization") == "Bearer new"


async def test_a_token_endpoint_that_says_no_is_named(models: Models) -> None:
    models.use(model({"provider": "GeminiVertexAI", "geminiVertexAI": VERTEX} | KEY, account(models.provider.port)))
    models.answers(Answer({"error": "invalid_grant"}, 400))
    response = await models.ask()
    assert response.status == 502
    message = msgspec.json.decode(await response.read())["error"]["message"]
    assert "no token could be obtained" in message and "invalid_grant" in message
    assert models.rig.records()[-1]["outcome"] == "error"


def exchanged(models: Models, curve: ec.EllipticCurve) -> bytes:
    """A ModelConfig of Google Distributed Cloud whose account has a key of that curve; gives the key as PEM."""
    exchange = {"type": "GDCHServiceAccount", "gdchServiceAccount": {"audience": "https://llm.gdc"}}
    key = ec.generate_private_key(curve).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    secret = account(
        models.provider.port, type="gdch_service_account", project="p", name="sa", private_key=key.decode()
    )
    models.use(model({"provider": "OpenAI", "openAI": {"tokenExchange": exchange}} | KEY, secret))
    return key


async def test_a_key_is_exchanged_on_google_distributed_cloud(models: Models) -> None:
    """``openAI.tokenExchange``."""
    key = exchanged(models, ec.SECP256R1())
    models.answers(Answer({"access_token": "gdc"}), Answer(CHAT))
    await models.json()
    asked = json.loads(models.provider.seen[0].body)
    assert (asked["audience"], asked["grant_type"]) == (
        "https://llm.gdc", "urn:ietf:params:oauth:token-type:token-exchange",
    )  # fmt: skip
    claims = jwt.decode(asked["subject_token"], ECKey.import_key(key), algorithms=["ES256"]).claims
    assert claims["iss"] == claims["sub"] == "system:serviceaccount:p:sa"
    assert models.provider.header("authorization") == "Bearer gdc"


async def test_sap_ai_core_is_asked_for_its_newest_deployment(models: Models) -> None:
    base = f"http://127.0.0.1:{models.provider.port}"
    spec = {"provider": "SAPAICore", "apiKeySecret": "s", "sapAICore": {"baseUrl": base, "authUrl": base}}
    models.use(model(spec, {"client_id": "me", "client_secret": "x"}))
    listed = [
        {"scenarioId": "orchestration", "status": status, "createdAt": when, "deploymentUrl": f"{base}/{name}"}
        for name, status, when in (("old", "RUNNING", "2025"), ("new", "RUNNING", "2026"), ("off", "STOPPED", "2027"))
    ]
    models.answers(Answer({"access_token": "sap"}), Answer({"resources": listed}), Answer(ANSWERS["orchestration"]))
    answer = await models.json({"temperature": 0.5})
    assert answer["usage"]["prompt_tokens_details"]["cached_tokens"] == 80
    assert answer["choices"][0]["message"]["tool_calls"][0]["function"]["name"] == "add"
    asked, found, sent = models.provider.seen
    assert (asked.path, form(asked)["client_id"]) == ("/oauth/token", "me")
    assert (found.path, found.header(b"ai-resource-group")) == ("/v2/lm/deployments", b"default")
    assert (sent.path, sent.header(b"authorization")) == ("/new/v2/completion", b"Bearer sap")
    module = json.loads(sent.body)["config"]["modules"]["prompt_templating"]
    assert module["model"] == {"name": "x", "params": {"temperature": 0.5}, "version": "latest"}
    models.answers(Answer({"message": "gone"}, 404), Answer({"access_token": "sap"}), Answer({"resources": listed[:1]}),
                   Answer(ANSWERS["orchestration"]))  # fmt: skip
    assert [(await models.ask()).status for _ in range(2)] == [404, 200]
    assert models.provider.seen[-1].path == "/old/v2/completion"


async def test_many_calls_wait_for_one_token(models: Models) -> None:
    access = ModelAccess("client_credentials", "i", "s", f"http://127.0.0.1:{models.provider.port}/token")
    models.answers(Answer({"access_token": "one", "expires_in": 100}), Answer({"access_token": "two"}))
    now = [0.0]
    upstreams = Upstreams()
    tokens = Tokens(upstreams, lambda: now[0])
    pool = upstreams.pool()
    assert await asyncio.gather(*(tokens.token(access, pool) for _ in range(5))) == ["one"] * 5
    now[0] = 39.0
    assert await tokens.token(access, pool) == "one"
    now[0] = 41.0  # a minute before its end
    assert await tokens.token(access, pool) == "two"
    assert len(models.provider.seen) == 2
    upstreams.close()


async def test_calls_that_wait_for_one_token_share_its_failure(models: Models) -> None:
    """They do not ask one after the other: of an endpoint that says nothing the last would hear for ever."""
    access = ModelAccess("client_credentials", "i", "s", f"http://127.0.0.1:{models.provider.port}/token")
    models.answers(Answer({"error": "down"}, 503), Answer({"access_token": "one"}))
    upstreams = Upstreams()
    tokens = Tokens(upstreams)
    pool = upstreams.pool()
    failed = await asyncio.gather(*(tokens.token(access, pool) for _ in range(5)), return_exceptions=True)
    assert [type(error) for error in failed] == [UpstreamError] * 5
    assert len(models.provider.seen) == 1
    assert await tokens.token(access, pool) == "one"
    upstreams.close()


async def test_who_stops_waiting_for_a_token_leaves_it_to_the_others(models: Models) -> None:
    access = ModelAccess("client_credentials", "i", "s", f"http://127.0.0.1:{models.provider.port}/token")
    models.answers(Answer({"access_token": "one"}))
    upstreams = Upstreams()
    tokens = Tokens(upstreams)
    first, second = (asyncio.create_task(tokens.token(access, upstreams.pool())) for _ in range(2))
    await asyncio.sleep(0)
    first.cancel()
    assert await second == "one"
    assert len(models.provider.seen) == 1
    upstreams.close()


async def test_who_is_revoked_while_a_token_is_obtained_gets_no_further(models: Models) -> None:
    asked, go_on = asyncio.Event(), asyncio.Event()

    async def endpoint(exchange: Exchange) -> None:
        asked.set()
        await go_on.wait()
        exchange.respond(200, b'{"access_token":"t"}')

    server = Server(endpoint)
    _, port = await server.listen("127.0.0.1", 0)
    models.use(model({"provider": "GeminiVertexAI", "geminiVertexAI": VERTEX} | KEY, account(port)))
    models.answers(Answer(ANSWERS["gemini"]))
    waiting = asyncio.create_task(models.ask())
    await asked.wait()
    models.rig.gateway.revocations.use((Revocation("r1", "agent", "kagent/a"),))
    response = await waiting
    assert response.status == 403
    assert msgspec.json.decode(await response.read())["error"]["type"] == "permission_error"
    go_on.set()
    await server.stop(1)
    assert not models.provider.seen


async def test_a_key_that_cannot_sign_is_told(models: Models) -> None:
    exchanged(models, ec.BrainpoolP256R1())
    response = await models.ask()
    assert response.status == 502
    assert b"cannot sign" in await response.read()


def test_the_signature_is_that_of_the_documentation() -> None:
    """The example of AWS's "Create a signed request"."""
    access = ModelAccess("aws", "AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY", audience="us-east-1")
    headers = {"Host": "iam.amazonaws.com", "Content-Type": "application/x-www-form-urlencoded; charset=utf-8"}
    added = sign(
        access, "GET", "/", headers, b"", 1440938160, query="Action=ListUsers&Version=2010-05-08", service="iam"
    )
    assert added["x-amz-date"] == "20150830T123600Z"
    assert added["authorization"].endswith(
        "SignedHeaders=content-type;host;x-amz-date, "
        "Signature=5d672d79c15b13162d9279b0855cfba6789a8edb4c82c400e06b5924a6f2b5d7"
    )


async def test_bedrock_is_called_with_a_signature(models: Models) -> None:
    spec = {"provider": "Bedrock", "model": "eu.anthropic.claude:0", "bedrock": {"region": "eu-west-1"},
            "apiKeySecret": "s"}  # fmt: skip
    secret = {"AWS_ACCESS_KEY_ID": "AKIA", "AWS_SECRET_ACCESS_KEY": "x", "AWS_SESSION_TOKEN": "session"}
    models.use(model(spec, secret))
    models.answers(Answer(ANSWERS["converse"]))
    await models.json()
    seen = models.provider.seen[-1]
    assert seen.target == b"/model/eu.anthropic.claude%3A0/converse"
    shown = models.provider.header("authorization") or ""
    assert shown.startswith("AWS4-HMAC-SHA256 Credential=AKIA/")
    assert "SignedHeaders=content-type;host;x-amz-date;x-amz-security-token" in shown
    assert models.provider.header("x-amz-security-token") == "session"


async def test_bedrock_takes_a_key_of_its_own(models: Models) -> None:
    spec = {"provider": "Bedrock", "bedrock": {"region": "eu-west-1"}, "apiKeySecret": "s"}
    models.use(model(spec, {"AWS_BEARER_TOKEN_BEDROCK": "bedrock-key"}))
    models.answers(Answer(ANSWERS["converse"]))
    await models.json()
    assert models.provider.header("authorization") == "Bearer bedrock-key"
