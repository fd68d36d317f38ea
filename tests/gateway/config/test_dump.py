"""``/config_dump``: agentgateway's shape, as the seed prints it, and nothing secret in it."""

from __future__ import annotations

import re
from typing import Any, get_args, get_origin

import msgspec
import pytest
from msgspec import Struct

from quarterdeck import snapshot as s
from quarterdeck.gateway.config.dump import config_dump
from quarterdeck.snapshot import policies as p
from quarterdeck.snapshot import routing as r
from quarterdeck.snapshot.redaction import REDACTED, SECRETS

SEED = s.Snapshot(
    gateway="kgateway-system/agentgateway",
    mcp=(
        s.McpServer(
            "mcp",
            "github-mcp-target",
            "Target",
            "/mcp",
            endpoints=(s.Endpoint("github-mcp-server.mcp.svc.cluster.local", 3000),),
        ),
    ),
    listeners=(
        r.Listener(
            "http",
            80,
            routes=(
                r.Route(
                    "mcp/github-mcp-route",
                    backends=(
                        r.RouteBackend(
                            mcp=r.McpBackend(
                                "mcp/github-mcp-backend",
                                (r.McpTarget("github-mcp-target", "Target/mcp/github-mcp-target"),),
                            )
                        ),
                    ),
                ),
            ),
        ),
    ),
)
PRINTED = {
    "binds": [
        {
            "key": "80/kgateway-system/agentgateway",
            "address": "0.0.0.0:80",
            "listeners": {
                "kgateway-system/agentgateway.http": {
                    "key": "kgateway-system/agentgateway.http",
                    "name": "http",
                    "gatewayName": "kgateway-system/agentgateway",
                    "hostname": "",
                    "protocol": "HTTP",
                    "routes": {
                        "mcp/github-mcp-route.0.0.http": {
                            "key": "mcp/github-mcp-route.0.0.http",
                            "routeName": "mcp/github-mcp-route",
                            "matches": [{"path": {"pathPrefix": "/"}}],
                            "backends": [{"weight": 1, "backend": "mcp/github-mcp-backend"}],
                        }
                    },
                    "tcpRoutes": {},
                }
            },
        }
    ],
    "backends": [
        {
            "mcp": {
                "name": "mcp/github-mcp-backend",
                "target": {
                    "targets": [
                        {
                            "name": "github-mcp-target",
                            "mcp": {
                                "backend": {"backend": "mcp/github-mcp-backend/github-mcp-target"},
                                "path": "/mcp",
                            },
                        }
                    ],
                    "stateful": True,
                },
            }
        },
        {
            "host": {
                "name": "mcp/github-mcp-backend/github-mcp-target",
                "target": "github-mcp-server.mcp.svc.cluster.local:3000",
            }
        },
    ],
}


def test_the_seeds_dump() -> None:
    found = config_dump(SEED, None, {})
    assert {key: found[key] for key in PRINTED} == PRINTED
    assert set(found) == {"binds", "backends", "policies", "workloads", "services", "quarterdeck"}


SECRET = "hunter2-do-not-show"
PUBLIC = "shown-on-purpose"


def test_no_secret_of_a_snapshot_is_shown() -> None:
    everything = p.Policies(
        jwt=p.Jwt((p.JwtProvider("i", jwks={"keys": [{"kty": "oct", "k": SECRET, "kid": PUBLIC}]}),)),
        api_keys=p.ApiKeys((p.ApiKey(SECRET, {"user": PUBLIC}),)),
        basic=p.BasicUsers(SECRET, PUBLIC),
        mcp_authentication=p.McpAuthentication(p.Jwt(()), "i", client_id=PUBLIC, client_secret=SECRET),
        ext_auth=p.ExtAuth(f"http://me:{SECRET}@auth/", add_headers=(("x-api-key", SECRET), ("x-a", PUBLIC))),
        request_headers=p.HeaderModifier(set=(("Authorization", SECRET), ("x-a", PUBLIC)), add=(("cookie", SECRET),)),
        transformation=p.Transformation(p.Transform(set=(("x-auth-token", SECRET), ("x-a", PUBLIC)))),
        credential=p.BackendCredential(
            "key", SECRET, oauth=p.OAuthClient("https://t", client_id=PUBLIC, client_secret=SECRET)
        ),
    )
    tls = r.Tls(certificate=PUBLIC, key=SECRET)
    backend = r.HttpBackend("b", (r.Endpoint("h", 1),), tls)
    route = r.Route("a", policies=everything, backends=(r.RouteBackend(http=backend, policies=everything),),
                    mirrors=(r.Mirror(backend),))  # fmt: skip
    child = r.Child(
        "Target/file/c", "cmd", ("--token", SECRET, f"--api-key={SECRET}", f"PASSWORD={SECRET}", PUBLIC),
        env=(("ANY", SECRET),),
    )  # fmt: skip
    headers = (s.HeaderValue("x-one", SECRET, True), s.HeaderValue("Authorization", SECRET), s.HeaderValue("x", PUBLIC))
    made = s.Snapshot(
        mcp=(
            s.McpServer("f", "c", "Target", "/mcp", headers=headers),
            s.McpServer("f", "d", "Target", f"/mcp?apiKey={SECRET}&team={PUBLIC}", endpoints=(s.Endpoint("h", 1),)),
        ),
        models=(s.Model("n", "m", "OpenAI", "gpt", f"https://u:{SECRET}@api/v1", headers=headers),),
        identities=s.Identities(local_token_hashes=(SECRET,), jwks={"keys": [{"kty": "EC", "d": SECRET, "x": PUBLIC}]}),
        listeners=(
            r.Listener("l", 1, certificates=(r.Certificate(PUBLIC, SECRET),), policies=everything, routes=(route,)),
        ),
        children=(child,),
    )
    text = msgspec.json.encode(config_dump(made, None, {})).decode()
    assert SECRET not in text
    assert text.count(PUBLIC) > 20 and text.count(REDACTED) > 20


def structs(annotation: Any, found: dict[str, type[Struct]]) -> None:
    if isinstance(annotation, type) and issubclass(annotation, Struct):
        if annotation.__name__ not in found:
            found[annotation.__name__] = annotation
            for field in msgspec.structs.fields(annotation):
                structs(field.type, found)
        return
    if get_origin(annotation) is not None or type(annotation).__name__ == "UnionType":
        for part in get_args(annotation):
            structs(part, found)


TELLING = re.compile(r"key|secret|password|token|hash|htpasswd|credential|\benv\b|^value$|private")
NOT_SECRET = {
    "HeaderValue.value": "by its flag and name, see redaction",
    "HeaderValue.secret": "a flag",
    "BackendCredential.secret": "a flag",
    "ValueMatch.value": "what a header must be",
    "TextMatch.value": "what a header must be",
    "PathMatch.value": "a path",
    "RateLimit.max_tokens": "a number",
    "RateLimit.tokens_per_fill": "a number",
    "RateLimit.key": "an expression",
    "ApiKeys.keys": "structs of their own",
    "Policies.api_keys": "a struct of its own",
    "Policies.credential": "a struct of its own",
    "OAuthClient.token_url": "an address",
    "OAuthClient.requested_token_type": "a name",
    "OAuthClient.subject_token_type": "a name",
    "Child.env": "redacted value by value",
    "Child.clear_env": "a flag",
    "Cors.allow_credentials": "a flag",
    "Snapshot.permit_keys": "public",
    "Model.key_header": "a name",
    "ModelAccess.key_id": "a name",
}


def test_every_telling_field_is_in_the_table_or_known_to_be_harmless() -> None:
    """A new secret field that nobody thought of fails here."""
    found: dict[str, type[Struct]] = {}
    structs(s.Snapshot, found)
    assert set(SECRETS) <= set(found)
    unknown = [
        f"{name}.{field.name}"
        for name, struct in found.items()
        for field in msgspec.structs.fields(struct)
        if TELLING.search(field.name)
        and field.name not in SECRETS.get(name, ())
        and f"{name}.{field.name}" not in NOT_SECRET
    ]
    assert unknown == []


@pytest.mark.parametrize("name", SECRETS)
def test_the_table_names_fields_that_exist(name: str) -> None:
    found: dict[str, type[Struct]] = {}
    structs(s.Snapshot, found)
    assert SECRETS[name] <= {field.name for field in msgspec.structs.fields(found[name])}
