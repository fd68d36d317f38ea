"""Lines 21 and 22: every decision leaves one record that cannot be changed unseen, and no secret leaves at all."""

from __future__ import annotations

import logging
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from gateway.conftest import Rig, snapshot, token
from gateway.federation.servers import Upstream
from gateway.policy.rig import ISSUER, provider
from gateway.policy.rig import token as person
from quarterdeck import snapshot as s
from quarterdeck.gateway.audit.options import AuditOptions
from quarterdeck.snapshot.policies import (
    ApiKey,
    ApiKeys,
    Authorization,
    BackendCredential,
    BasicUsers,
    CelRule,
    Jwt,
    Location,
    McpAuthentication,
    Policies,
)
from quarterdeck.snapshot.revocations import Revocation
from quarterdeck.telemetry.audit import verify

from .conftest import FOREVER, bearer, guard, running, target

PATH = "/mcp/kagent/peer"


async def test_s21_every_decision_is_one_record(bare: Rig, one: Upstream) -> None:
    """Who, what, by which rule, with what outcome; refusals of all stages, too."""
    rules = (Authorization((CelRule("allow", 'mcp.tool.name == "echo"'),), where="rules"),)
    await guard(bare, one, policies=Policies(jwt=Jwt((provider(),)), mcp_authorization=rules))
    alice = bearer()
    session = await bare.initialize("/mcp", listener="front", headers=alice)
    before = len(bare.records())
    sent = {**alice, "mcp-session-id": session}

    def call(name: str) -> dict[str, Any]:
        return {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": name, "arguments": {"a": "b"}}}

    asked: list[tuple[Any, dict[str, str], tuple[str, str, int]]] = [
        (call("echo"), sent, ("allow", "ok", 200)),
        (call("hidden"), sent, ("deny", "denied", 200)),
        (call("echo"), {}, ("deny", "denied", 401)),
        (call("echo"), {**bearer("eve"), "mcp-session-id": session}, ("allow", "error", 404)),
        (b"{", sent, ("allow", "error", 400)),
    ]
    for body, headers, _ in asked:
        await (await bare.request("/mcp", body, listener="front", headers=headers)).read()
    records = bare.records()[before:]
    assert [(r["decision"], r["outcome"], r["status"]) for r in records] == [wanted for *_, wanted in asked]
    allowed, denied = records[:2]
    for record in (allowed, denied):
        assert record["principal"] == "alice@issuer.example.org/realms/demo" and record["server"] == "ns/one"
        assert record["argumentsHash"] and "trace" in str(record) and record["route"] == "ns/all"
    assert (allowed["tool"] == "echo" and denied["rule"].startswith("rules")) or denied["rule"]
    assert records[2]["principal"] in ("unknown", "anybody", "anonymous")


async def test_s21_an_edited_record_is_found(bare: Rig, one: Upstream, tmp_path: Path) -> None:
    await guard(bare, one)
    for _ in range(6):
        await bare.initialize("/mcp", listener="front", headers=bearer())
    lines = [line + b"\n" for line in (bare.records() and bare.audit_file.read_bytes().splitlines())]
    assert verify(bare.audit_file).ok and len(lines) >= 12
    forged = {
        "edited": [*lines[:4], lines[4].replace(b"alice", b"elsie"), *lines[5:]],
        "removed": [*lines[:4], *lines[5:]],
        "swapped": [*lines[:4], lines[5], lines[4], *lines[6:]],
        "repeated": [*lines[:5], *lines[4:]],
    }
    for name, changed in forged.items():
        file = tmp_path / f"{name}.jsonl"
        file.write_bytes(b"".join(changed))
        assert not verify(file).ok, name


async def test_s22_no_secret_leaves_the_gateway(
    tmp_path: Path, one: Upstream, caplog: pytest.LogCaptureFixture
) -> None:
    """Each secret is written in its own way; then everything the gateway wrote or answered is searched."""
    caplog.set_level(logging.DEBUG)
    upstream_key, backend_key, api_key = "sk-upstream-5551", "sk-backend-5552", "sk-apikey-5553"
    client_secret, password, argument = "cs-5554", "pw-5555", "arg-5556"
    audit = AuditOptions(arguments=True, access_log=str(tmp_path / "access.log"))
    async with running(tmp_path / "gw", audit=audit) as rig:
        secret = s.HeaderValue("authorization", f"Bearer {upstream_key}", secret=True)
        down = target("down", 1, headers=(secret,))
        policies = Policies(
            mcp_authentication=McpAuthentication(
                Jwt((provider(),), "permissive"), ISSUER, client_id="c", client_secret=client_secret
            ),
            api_keys=ApiKeys((ApiKey(sha256(api_key.encode()).hexdigest(), {"name": "ci"}),), "permissive",
                             Location("header", "x-api-key", "")),
            basic=BasicUsers("alice:{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ=", mode="permissive"),
            credential=BackendCredential("key", backend_key, location=Location("header", "x-key", "")),
        )  # fmt: skip
        await guard(rig, target("one", one.port, headers=(secret,)), down, policies=policies, fail_open=True)
        jwt = person(exp=FOREVER)
        answers: list[bytes] = []
        for headers in (
            {"authorization": f"Bearer {jwt}"}, {"authorization": f"Bearer {jwt[:-6]}AAAAAA"}, {"x-api-key": api_key},
            {"x-api-key": api_key + "x"}, {"authorization": f"Basic YWxpY2U6{password}"}, {"authorization": password},
        ):  # fmt: skip
            sent = {**headers, "accept": "application/json, text/event-stream"}
            session = await rig.initialize("/mcp", listener="front", headers=sent)
            for name in ("one_echo", "down_echo", "nonsense"):
                call = {"name": name, "arguments": {"password": argument, "nested": {"api_key": argument}}}
                body = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": call}
                response = await rig.request(
                    "/mcp", body, listener="front", headers={**sent, "mcp-session-id": session}
                )
                data = await response.read()
                answers.append(data if name != "one_echo" else b"")  # that one is told what it said
            answers.append(session.encode())
        for listener, path in (
            ("admin", "/config_dump"), ("admin", "/revocations"), ("stats", "/metrics"), ("ready", "/healthz/ready"),
            ("admin", "/breakers"), ("front", "/.well-known/oauth-protected-resource/mcp"),
        ):  # fmt: skip
            response = await rig.request(path, method="GET", listener=listener)
            answers.append(await response.read())
        rig.gateway.audit.flush()
    seen = {"answers": b"\n".join(answers), "log": caplog.text.encode()}
    seen |= {str(path.relative_to(tmp_path)): path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert b"one_echo" in seen["gw/audit.jsonl"] and b"one" in seen["access.log"]
    for name, data in seen.items():
        for word in (upstream_key, backend_key, api_key, client_secret, password, jwt.rpartition(".")[2], argument):
            assert word.encode() not in data, f"{word} is in {name}"
    assert any(b"x-key" in head and head[b"x-key"] == backend_key.encode() for head in one.heads), "it was used"


async def test_s22_what_is_kept_on_disk_is_encrypted_or_ours_alone(bare: Rig, tmp_path: Path) -> None:
    from quarterdeck.gateway.config.lastgood import LastGood, load_key

    key = s.HeaderValue("authorization", "Bearer sk-kept", secret=True)
    server = s.McpServer("kagent", "peer", "MCPServer", "/mcp", headers=(key,))
    folder = tmp_path / "kept"
    folder.mkdir()
    LastGood(folder / "snapshot.bin", load_key(folder / "key")).save(s.encode(snapshot(1, mcp=(server,))))
    bare.gateway.use(snapshot(1, revocations=(Revocation("r", "agent", "kagent/b", created=1.0),)))
    await (await bare.request(PATH, b"{}", bearer=token("pod-b"))).read()
    for path in (*folder.iterdir(), *tmp_path.glob("data/*")):
        if path.is_file():
            assert b"sk-kept" not in path.read_bytes() and path.stat().st_mode & 0o077 == 0, path
    assert bare.audit_file.stat().st_mode & 0o077 == 0
