"""Gateways and the control plane's approvals in one process, talking over HTTP; an MCP server that counts its calls."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator, Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import msgspec
import pytest

from gateway.conftest import Rig, snapshot, token
from quarterdeck import snapshot as s
from quarterdeck.errors import Conflict, NotFound, Unauthorized
from quarterdeck.gateway.acting import HEADER
from quarterdeck.gateway.app import Gateway
from quarterdeck.gateway.config.stream import ControlPlane
from quarterdeck.gateway.options import Options
from quarterdeck.gateway.policy.principal import Principal
from quarterdeck.server.approvals_service import ApprovalOptions, ApprovalService
from quarterdeck.server.database import Database
from quarterdeck.server.http import Router
from quarterdeck.server.identity import Identity
from quarterdeck.server.management import failure
from quarterdeck.server.runs_store import RunStore
from quarterdeck.snapshot.consent import ApprovalRule, ServerPattern
from quarterdeck.snapshot.runs import Event
from quarterdeck.wire.client import Pool
from quarterdeck.wire.http import Exchange, Server

GATEWAY = "quarterdeck-system/quarterdeck"
PATH = "/mcp/kagent/peer"
RULE = "ApprovalPolicy/kagent/deletes"
POLICY = ApprovalRule(RULE, (ServerPattern("peer", "kagent"),), ("delete*",), users=("alice", "bob"))


class Tools:
    """An MCP server: what it was asked to do, word for word."""

    def __init__(self) -> None:
        self.calls: list[dict[str, Any]] = []
        self.raw: list[bytes] = []
        self.port = 0

    def handle(self, exchange: Exchange) -> None:
        if exchange.method != "POST":
            exchange.respond(405)
            return
        request = msgspec.json.decode(exchange.body)
        if "id" not in request:
            exchange.respond(202)
            return
        headers = [(b"content-type", b"application/json")]
        result: dict[str, Any] = {"content": [{"type": "text", "text": "done"}]}
        if request["method"] == "initialize":
            info = {"name": "c", "version": "1"}
            result = {"protocolVersion": "2025-11-25", "capabilities": {"tools": {}}, "serverInfo": info}
            headers.append((b"mcp-session-id", b"s1"))
        elif request["method"] == "tools/call":
            self.calls.append(request["params"])
            self.raw.append(exchange.body)
        body = {"jsonrpc": "2.0", "id": request["id"], "result": result}
        exchange.respond(200, msgspec.json.encode(body), headers)


class Clock:
    now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


def jwt(**claims: Any) -> str:
    """Looks like a token; the reviews below know it by its text."""
    parts = [base64.urlsafe_b64encode(msgspec.json.encode(part)).decode().rstrip("=") for part in ({}, claims)]
    return f"{parts[0]}.{parts[1]}.x"


ACTING = jwt(sub="alice", act={"sub": "agent:kagent/a"})


class Reviews:
    """Who is who by their token: everybody known may approve but mallory."""

    async def workload(self, token: str, audience: str) -> dict[str, Any]:
        del audience
        pods = {"gw": ("quarterdeck-system:quarterdeck", ""), "pod-a": ("kagent:shared", "pod-a"),
                "other-gw": ("tenant:gw", "")}  # fmt: skip
        if token not in pods:
            raise Unauthorized("no")
        account, pod = pods[token]
        extra = {"authentication.kubernetes.io/pod-uid": [pod]} if pod else {}
        return {"username": f"system:serviceaccount:{account}", "groups": [], "extra": extra}

    async def person(self, token: str, attributes: dict[str, str]) -> tuple[dict[str, Any], bool]:
        if token in ("gw", "pod-a", "nobody"):
            raise Unauthorized("not for this audience")
        names = {ACTING: "alice", "sa": "system:serviceaccount:kagent:shared"}
        groups = ["oncall"] if token == "carol" else []
        allowed = token != "mallory" and attributes.get("namespace", "kagent") == "kagent"
        return {"username": names.get(token, token), "groups": groups}, allowed


class Configuration:
    """What the control plane knows of its gateways and policies."""

    def __init__(self) -> None:
        self.snapshot = s.Snapshot(approvals=(POLICY,))

    def current(self, gateway: str) -> bytes | None:
        return b"{}" if gateway in (GATEWAY, "tenant/gw") else None


class Runs:
    """What runs wait for, and what they were told."""

    def __init__(self) -> None:
        self.waits: dict[str, tuple[str, int, dict[str, Any]]] = {}
        """By run: its A2A task, the step, and the question."""
        self.answers: list[tuple[str, int, dict[str, Any], str]] = []

    async def run(self, ident: str) -> dict[str, Any]:
        if ident not in self.waits:
            raise NotFound(f"no run {ident}")
        return {"id": ident, "task_id": self.waits[ident][0], "state": "waiting", "source": "chat", "user_id": "u"}

    async def events(self, row: dict[str, Any]) -> list[Event]:
        _, step, question = self.waits[row["id"]]
        return [Event(1, "waiting", step, 0.0, 1, {"question": question})]

    async def answer(self, ident: str, step: int, data: dict[str, Any], by: str) -> None:
        if self.waits.get(ident, ("", -1))[1] != step:
            raise Conflict(f"run {ident} does not wait there")
        self.answers.append((ident, step, data, by))


class Platform:
    """One control plane, any number of gateways."""

    journal: RunStore

    def __init__(self, service: ApprovalService, configuration: Configuration, tools: Tools, clock: Clock) -> None:
        self.service = service
        self.configuration = configuration
        self.tools = tools
        self.clock = clock
        self.server = Server(Router([*service.routes, *service.agent_routes], failure).handle)
        self.pool = Pool()
        self.port = 0
        self.rigs: list[Rig] = []
        self.audit_file = Path()
        self.runs = Runs()
        self.agents: tuple[s.Agent, ...] = ()

    @property
    def rig(self) -> Rig:
        return self.rigs[0]

    def policies(self, *rules: ApprovalRule) -> None:
        """What holds from now on, for all of them."""
        self.configuration.snapshot = msgspec.structs.replace(self.configuration.snapshot, approvals=rules)
        for rig in self.rigs:
            made = snapshot(self.tools.port, approvals=rules, version=f"v{len(rules)}", agents=self.agents)
            people = msgspec.structs.replace(made.identities, local_token_hashes=(sha256(b"secret").hexdigest(),))
            first, *others = made.policies
            asking = msgspec.structs.replace(first, agents=("kagent/b",))
            rig.gateway.use(msgspec.structs.replace(made, identities=people, policies=(asking, *others)))

    async def rest(self, method: str, path: str, body: Any = None, who: str = "alice") -> tuple[int, Any]:
        data = b"" if body is None else msgspec.json.encode(body)
        headers = [(b"authorization", f"Bearer {who}".encode())]
        response = await self.pool.request(method, ("127.0.0.1", self.port, False), path, headers, data)
        return response.status, msgspec.json.decode(await response.read())

    async def decide(self, approval: str, verdict: str = "approve", who: str = "alice", **body: Any) -> tuple[int, Any]:
        return await self.rest("POST", f"/v1/approvals/{approval}/{verdict}", body, who)

    async def call(
        self, tool: str = "delete", arguments: Any = None, *, rig: Rig | None = None, bearer: str = "pod-b",
        run: str = "r1", step: int = 1, approval: str = "", user: str = "carol@idp", **meta: Any,
    ) -> dict[str, Any]:  # fmt: skip
        """An agent's call in a run, for a user; the JSON-RPC answer."""
        rig = rig or self.rig
        given = {f"dev.quarterdeck/{name}": value for name, value in meta.items()}
        given |= {"dev.quarterdeck/run": run, "dev.quarterdeck/step": step} if run else {}
        given |= {"dev.quarterdeck/approval": approval} if approval else {}
        params: dict[str, Any] = {"name": tool, "_meta": given}
        if arguments is not None:
            params["arguments"] = arguments
        headers = dict(given.pop("dev.quarterdeck/headers", {}))
        if user and not headers:
            acting = rig.gateway.approvals.acting
            agent = {"pod-a": "kagent/a", "pod-b": "kagent/b"}.get(bearer, "")
            headers[HEADER.decode()] = acting.token(Principal(user), {}, agent).decode()
        return await rig.rpc(PATH, "tools/call", params, bearer=token(bearer), headers=headers)

    async def ask(self, arguments: Any = None, **options: Any) -> str:
        """The id of the approval that a call is told to wait for."""
        answer = await self.call(arguments=arguments, **options)
        assert answer["error"]["code"] == 4001, answer
        return str(answer["error"]["data"]["approval"])

    def records(self) -> list[dict[str, Any]]:
        """Of the control plane's audit log."""
        return [msgspec.json.decode(line) for line in self.audit_file.read_bytes().splitlines()]


async def _gateway(tmp_path: Path, plane: str, number: int) -> Rig:
    zero = ("127.0.0.1", 0)
    directory = tmp_path / f"gateway-{number}"
    directory.mkdir()
    config, token_file = directory / "snapshot.json", directory / "token"
    config.write_bytes(msgspec.json.encode(s.Snapshot(version="v0")))
    token_file.write_text("gw")
    audit = directory / "audit.jsonl"
    options = Options(
        zero, zero, zero, zero, zero, data_dir=directory / "data", config=config, audit_file=audit,
        key_file=tmp_path / "gateway.key",
    )  # fmt: skip
    gateway = Gateway(options)
    await gateway.start()
    client = ControlPlane(plane, GATEWAY, token_file, lambda *_: None, lambda _: None)
    gateway.approvals.ask = client.ask
    return Rig(gateway, audit)


@pytest.fixture
async def platform(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Platform]:
    """Two gateways of one key, policies for ``delete*`` and, for agent a, ``requireApproval`` of ``echo``.

    Indirectly with ``journal``: runs are in the real journal, :attr:`Platform.journal`.
    """
    database = await Database.open(str(tmp_path / "server.db"))
    configuration, clock = Configuration(), Clock()
    audit = tmp_path / "control-plane.jsonl"
    pods, runs = {"pod-a": "kagent/a"}, Runs()
    journal = RunStore(database, lambda agent: True)
    await journal.open()
    service = ApprovalService(
        database, Identity(Reviews(), pods.get, lambda gateway: True), configuration,  # type: ignore[arg-type]  # the part that is used
        ApprovalOptions(audit=audit, local=frozenset({"kubernetes-admin", "user@local"})), _unsent,
        journal if getattr(request, "param", "") == "journal" else runs,  # type: ignore[arg-type]
    )  # fmt: skip
    _use(service, clock)
    tools = Tools()
    server = Server(tools.handle)
    _, tools.port = await server.listen("127.0.0.1", 0)
    made = Platform(service, configuration, tools, clock)
    made.audit_file, made.runs, made.journal = audit, runs, journal
    _, made.port = await made.server.listen("127.0.0.1", 0)
    for number in range(2):
        made.rigs.append(await _gateway(tmp_path, f"http://127.0.0.1:{made.port}", number))
    made.policies(POLICY)
    yield made
    for rig in made.rigs:
        rig.pool.close()
        await rig.gateway.stop(0.2)
    made.pool.close()
    await made.server.stop(0)
    await server.stop(0)
    await service.stop()
    await database.close()


def _use(service: ApprovalService, clock: Callable[[], float]) -> None:
    service.store.clock = clock


async def _unsent(url: str, headers: dict[str, str], body: bytes) -> int:
    raise AssertionError(f"nothing is to be sent to {url}")
