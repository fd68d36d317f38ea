"""Checks of one binding each, of the card, of notifications and of what the gateway does for the agent."""

from __future__ import annotations

import base64
import hashlib
import json
from typing import Any

from a2a.types import a2a_pb2
from a2a_checks import WEBHOOK, Peer, check, state
from a2a_checks import _config as config_of
from a2a_checks import _request as request
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from joserfc import jws, jwt
from joserfc.errors import JoseError
from joserfc.jwk import KeySet

from fixtures.tck_agent.stack import CARD, OPTIONAL
from quarterdeck.a2atypes import operations as op
from quarterdeck.agents.a2a.schema import METHODS, SERVICE
from quarterdeck.mcptypes.canonical import canonical
from quarterdeck.server.a2a_delivery import ATTEMPTS, SIGNATURE, Guard, pause


def lines(p: Peer, **more: str) -> dict[str, str]:
    return {"a2a-version": "1.0"} | {k.replace("_", "-"): v for k, v in (p.headers | more).items()}


async def rpc(p: Peer, method: str, params: Any = None, **headers: str) -> Any:
    body = {"jsonrpc": "2.0", "id": 7, "method": method} | ({"params": params} if params is not None else {})
    return (await p.world.http.post("/", json=body, headers=lines(p, **headers))).json()


# -- JSON-RPC
@check("JSONRPC-FORMAT")
async def _(p: Peer) -> None:
    for ident in (1, "a", None):
        body = {"jsonrpc": "2.0", "id": ident, "method": "GetTask", "params": {"id": "gone"}}
        answer = (await p.world.http.post("/", json=body, headers=lines(p))).json()
        assert answer["jsonrpc"] == "2.0" and answer["id"] == ident and "result" not in answer
    for body in (b"{", b"[]", b'{"id":1}', b'{"jsonrpc":"1.0","id":1,"method":"GetTask"}'):
        answer = (await p.world.http.post("/", content=body, headers=lines(p))).json()
        assert answer["error"]["code"] in (-32700, -32600) and answer["id"] in (None, 1)


@check("JSONRPC-HEADERS", "HTTP-HEADERS")
async def _(p: Peer) -> None:
    headers = {k.upper(): v for k, v in lines(p, a2a_extensions=OPTIONAL).items()}
    if p.driver.binding == "jsonrpc":
        body = {"jsonrpc": "2.0", "id": 1, "method": op.SEND, "params": request("tck-complete-task", None, {})}
        answer = await p.world.http.post("/", json=body, headers=headers)
    else:
        answer = await p.world.http.post("/message:send", json=request("tck-complete-task", None, {}), headers=headers)
    assert answer.headers["a2a-extensions"] == OPTIONAL and "TASK_STATE_COMPLETED" in answer.text


@check("JSONRPC-METHODS")
async def _(p: Peer) -> None:
    for name in op.OPERATIONS:
        if name not in op.STREAMS:
            answer = await rpc(p, name, {"id": "gone", "taskId": "gone"})
            assert answer.get("error", {}).get("code") != -32601, name
    assert (await rpc(p, "NoSuchMethod"))["error"]["code"] == -32601
    assert (await rpc(p, "message/send"))["error"]["code"] == -32601


@check("JSONRPC-ERRORS")
async def _(p: Peer) -> None:
    for answer, code in ((await rpc(p, "GetTask", {"id": "gone"}), -32001), (await rpc(p, "GetTask", {}), -32602)):
        assert answer["error"]["code"] == code and answer["error"]["message"]
        assert all("@type" in each for each in answer["error"]["data"])
    info = (await rpc(p, "GetTask", {"id": "gone"}))["error"]["data"][0]
    assert info["@type"] == "type.googleapis.com/google.rpc.ErrorInfo"
    assert info["reason"] == "TASK_NOT_FOUND" and info["domain"] == "a2a-protocol.org"
    bad = await rpc(p, "SendMessage", {"message": {"messageId": "m", "role": "ROLE_USER", "parts": []}})
    assert bad["error"]["data"][1]["fieldViolations"][0]["field"] == "message.parts"
    plain = lines(p) | {"content-type": "text/plain"}
    wrong = await p.world.http.post("/", content=b'{"jsonrpc":"2.0","id":1,"method":"GetTask"}', headers=plain)
    assert wrong.json()["error"]["code"] == -32005


@check("JSONRPC-STREAM", "HTTP-STREAM")
async def _(p: Peer) -> None:
    given = request("tck-stream-001", None, {})
    body: Any = {"jsonrpc": "2.0", "id": 9, "method": op.STREAM, "params": given}
    path = "/"
    if p.driver.binding == "http_json":
        path, body = "/message:stream", given
    async with p.world.http.stream("POST", path, json=body, headers=lines(p)) as answer:
        assert answer.status_code == 200 and answer.headers["content-type"].startswith("text/event-stream")
        events = [json.loads(line[6:]) async for line in answer.aiter_lines() if line.startswith("data: ")]
    if p.driver.binding == "jsonrpc":
        assert all(e["jsonrpc"] == "2.0" and e["id"] == 9 for e in events)
        events = [e["result"] for e in events]
    assert "task" in events[0] and state(events[-1]["statusUpdate"]) == "TASK_STATE_COMPLETED"


# -- HTTP+JSON
@check("HTTP-PATHS")
async def _(p: Peer) -> None:
    http, headers = p.world.http, lines(p)
    sent = await http.post("/message:send", json=request("tck-input-required", None, {}), headers=headers)
    ident = sent.json()["task"]["id"]
    configs = f"/tasks/{ident}/pushNotificationConfigs"
    assert (await http.get(f"/tasks/{ident}", headers=headers)).json()["id"] == ident
    assert (await http.get("/tasks", headers=headers)).json()["tasks"][0]["id"] == ident
    made = (await http.post(configs, json={"url": WEBHOOK}, headers=headers)).json()
    assert (await http.get(f"{configs}/{made['id']}", headers=headers)).json() == made
    assert (await http.get(configs, headers=headers)).json()["configs"] == [made]
    assert (await http.delete(f"{configs}/{made['id']}", headers=headers)).status_code == 200
    for method in ("GET", "POST"):
        assert (await http.request(method, f"/tasks/{ident}:subscribe", headers=headers)).status_code == 200
    assert state((await http.post(f"/tasks/{ident}:cancel", headers=headers)).json()) == "TASK_STATE_CANCELED"
    assert (await http.get("/extendedAgentCard", headers=headers)).json()["name"]
    assert (await http.get("/no/such/path/at/all", headers=headers)).status_code == 404


@check("HTTP-QUERY")
async def _(p: Peer) -> None:
    task = await p.task("tck-artifact-text")
    where = (
        f"?contextId={task['contextId']}&pageSize=1&includeArtifacts=true&historyLength=0&status=TASK_STATE_COMPLETED"
    )
    found = (await p.world.http.get(f"/tasks{where}", headers=lines(p))).json()
    assert found["pageSize"] == 1 and found["tasks"][0]["artifacts"] and "history" not in found["tasks"][0]
    headers = {k: v for k, v in lines(p).items() if k != "a2a-version"}
    by_query = await p.world.http.get(f"/tasks/{task['id']}?historyLength=0&A2A-Version=1.0", headers=headers)
    assert by_query.json()["id"] == task["id"]
    assert (await p.world.http.get("/tasks?pageSize=many", headers=lines(p))).status_code == 400


@check("HTTP-ERRORS")
async def _(p: Peer) -> None:
    answer = await p.world.http.get("/tasks/gone", headers=lines(p))
    error = answer.json()["error"]
    assert answer.status_code == error["code"] == 404 and error["status"] == "NOT_FOUND" and error["message"]
    assert error["details"][0]["@type"] == "type.googleapis.com/google.rpc.ErrorInfo"
    assert error["details"][0]["reason"] == "TASK_NOT_FOUND"
    assert (await p.world.http.post("/message:send", content=b"{", headers=lines(p))).status_code == 400


@check("HTTP-MEDIA-TYPE")
async def _(p: Peer) -> None:
    body = json.dumps(request("tck-complete-task", None, {})).encode()
    for kind in ("application/a2a+json", "application/json"):
        answer = await p.world.http.post("/message:send", content=body, headers=lines(p) | {"content-type": kind})
        assert answer.headers["content-type"] == "application/a2a+json"
    plain = await p.world.http.post("/message:send", content=body, headers=lines(p) | {"accept": "application/json"})
    assert plain.headers["content-type"] == "application/json"
    wrong = await p.world.http.post("/message:send", content=body, headers=lines(p) | {"content-type": "text/plain"})
    assert wrong.status_code == 400 and "CONTENT_TYPE_NOT_SUPPORTED" in wrong.text


# -- gRPC
@check("GRPC-METADATA")
async def _(p: Peer) -> None:
    await p.fails("VERSION_NOT_SUPPORTED", op.GET, {"id": "x"}, a2a_version="0.3")
    assert await p.call(op.SEND, request("tck-complete-task", None, {}), a2a_extensions=OPTIONAL)


@check("GRPC-SERVICE")
async def _(p: Peer) -> None:
    from google.protobuf import descriptor_pool

    from quarterdeck.agents.a2a import protobuf

    official = a2a_pb2.DESCRIPTOR.services_by_name["A2AService"]
    assert official.full_name == SERVICE
    assert {m.name: (m.input_type.name, m.output_type.name) for m in official.methods} == METHODS
    theirs, ours = FileDescriptorProto(), FileDescriptorProto()
    a2a_pb2.DESCRIPTOR.CopyToProto(theirs)
    protobuf._pool().FindFileContainingSymbol(SERVICE.rpartition(".")[0] + ".Task").CopyToProto(ours)
    for message in [*theirs.message_type, *ours.message_type]:
        message.ClearField("options")
        for each in message.field:
            each.ClearField("options")
    assert {m.name: m for m in ours.message_type} == {m.name: m for m in theirs.message_type}
    assert list(ours.enum_type) == list(theirs.enum_type)
    assert descriptor_pool.Default() is not protobuf._pool()


@check("GRPC-ERRORS")
async def _(p: Peer) -> None:
    error = await p.fails("TASK_NOT_FOUND", op.GET, {"id": "gone"})
    assert error.code == "NOT_FOUND"
    assert (await p.fails("INVALID_PARAMS", op.SEND, {})).code == "INVALID_ARGUMENT"


# -- the card
def carried(p: Peer) -> bool:
    return p.world.gateway != p.world.served.url


@check("CARD-AVAILABLE", "CARD-REQUIRED-FIELDS")
async def _(p: Peer) -> None:
    for path in ("/.well-known/agent-card.json", "/.well-known/agent.json"):
        answer = await p.world.http.get(path, headers=lines(p))
        assert answer.status_code == 200 and answer.headers["content-type"].startswith("application/json")
        card = answer.json()
    for name in ("name", "description", "version", "supportedInterfaces", "capabilities"):
        assert card[name], name
    assert card["defaultInputModes"] and card["defaultOutputModes"] and card["skills"]
    assert all(s["id"] and s["name"] and s["description"] and s["tags"] for s in card["skills"])
    assert card["protocolVersion"] == "0.3.0" and card["url"] and card["preferredTransport"] == "JSONRPC"


@check("CARD-INTERFACES", "PROTOCOLS-DECLARED")
async def _(p: Peer) -> None:
    found = {(i["protocolBinding"], i["protocolVersion"]): i["url"] for i in p.world.card["supportedInterfaces"]}
    http = {(b, v) for b in ("JSONRPC", "HTTP+JSON") for v in ("1.0", "0.3")}
    assert set(found) == http | (set() if carried(p) else {("GRPC", "1.0")})
    if carried(p):
        assert all(url.rstrip("/") == p.world.gateway for url in found.values())
    else:
        assert found[("GRPC", "1.0")] == f"127.0.0.1:{p.world.served.grpc_port}"
    body = {"jsonrpc": "2.0", "id": 1, "method": "GetTask", "params": {"id": "gone"}}
    answer = await p.world.http.post(found[("JSONRPC", "1.0")], json=body, headers=lines(p))
    assert answer.json()["error"]["code"] == -32001
    assert (await p.world.http.get(f"{found[('HTTP+JSON', '1.0')]}/tasks/gone", headers=lines(p))).status_code == 404
    assert (
        await p.world.http.get(f"{found[('HTTP+JSON', '0.3')]}/v1/tasks/gone", headers={**lines(p), "a2a-version": ""})
    ).status_code == 404


@check("CARD-CANONICAL", "CARD-SIGNATURES-EXCLUDED", "CARD-SIGNATURE-HEADER")
async def _(p: Peer) -> None:
    card = p.world.card
    if carried(p):
        assert not card.get("signatures"), "this gateway has no control plane: a card it changed must not be signed"
        return
    keys = KeySet.import_key_set(p.world.served.stack.control_plane.key.jwks())
    header = json.loads(base64.urlsafe_b64decode(card["signatures"][0]["protected"] + "=="))
    assert header["alg"] == "ES256" and header["kid"] and header["typ"] == "JOSE"
    unsigned = {k: v for k, v in card.items() if k != "signatures"}
    payload = base64.urlsafe_b64encode(canonical(_without_defaults(unsigned))).decode().rstrip("=")
    whole = [s for s in card["signatures"] if _verifies(s, payload, keys)]
    assert len(whole) == 1, "readers of plain JSON verify one"
    from a2a.utils.signing import InvalidSignaturesError, create_signature_verifier
    from google.protobuf.json_format import ParseDict
    from jwt import PyJWK

    jwk = p.world.served.stack.control_plane.key.jwks()["keys"][0]
    verifier = create_signature_verifier(lambda kid, jku: PyJWK.from_dict(jwk), ["ES256"])
    parsed = ParseDict(card, a2a_pb2.AgentCard(), ignore_unknown_fields=True)
    verifier(parsed)
    parsed.description = parsed.description + "!"
    try:
        verifier(parsed)
    except InvalidSignaturesError:
        return
    raise AssertionError("a changed card verifies")


def _without_defaults(value: Any) -> Any:
    if isinstance(value, dict):
        kept = {k: _without_defaults(v) for k, v in value.items()}
        return {k: v for k, v in kept.items() if v not in ("", [], {}, None)}
    return [_without_defaults(v) for v in value] if isinstance(value, list) else value


def _verifies(signature: Any, payload: str, keys: KeySet) -> bool:
    token = f"{signature['protected']}.{payload}.{signature['signature']}"
    try:
        jws.deserialize_compact(token, keys, algorithms=["ES256"])
    except JoseError:
        return False
    return True


@check("CARD-CACHING")
async def _(p: Peer) -> None:
    path, bearer = "/.well-known/agent-card.json", {"authorization": p.headers["authorization"]}
    first = await p.world.http.get(path, headers=bearer)
    assert "max-age=" in first.headers["cache-control"] and first.headers["etag"]
    again = await p.world.http.get(path, headers=bearer | {"if-none-match": first.headers["etag"]})
    assert again.status_code == 304 and not again.content
    assert (await p.world.http.get(path, headers=bearer | {"if-none-match": '"other"'})).status_code == 200


@check("EQUIVALENCE")
async def _(p: Peer) -> None:
    user = p.user
    names = ("jsonrpc", "http_json") if carried(p) else ("jsonrpc", "http_json", "grpc")
    peers = [Peer(p.world, p.world.drivers[name], user, p.token) for name in names]
    task = await peers[0].task("tck-artifact-text")
    seen = [await peer.call(op.GET, {"id": task["id"]}) for peer in peers]
    assert all(_comparable(each) == _comparable(seen[0]) for each in seen)
    for peer in peers:
        await peer.fails("TASK_NOT_CANCELABLE", op.CANCEL, {"id": task["id"]})
        listed = await peer.call(op.LIST, {"contextId": task["contextId"]})
        assert [t["id"] for t in listed["tasks"]] == [task["id"]]


def _comparable(task: Any) -> Any:
    return {k: task[k] for k in ("id", "contextId", "artifacts")} | {"state": state(task), "said": task["history"]}


# -- push notifications
PRIVATE = [
    "127.0.0.1",
    "10.1.2.3",
    "169.254.169.254",
    "192.168.0.1",
    "172.16.0.1",
    "100.64.0.1",
    "::1",
    "fd00::1",
    "::ffff:127.0.0.1",
    "0.0.0.0",
    "224.0.0.1",
]
FORBIDDEN = [
    "http://localhost/x",
    "http://[::1]/",
    "http://user:pw@example.com/",
    "ftp://example.com/",
    "http://169.254.169.254/latest",
]


@check("PUSH-ATTEMPTED", "PUSH-PAYLOAD")
async def _(p: Peer) -> None:
    task = await p.hold()
    ids = [(await p.call(op.PUSH_CREATE, config_of(task, url=f"{WEBHOOK}/{n}")))["id"] for n in (1, 2)]
    await p.call(op.CANCEL, {"id": task["id"]})
    sent = await _delivered(p)
    assert sorted(url for url, _, _ in sent) == [f"{WEBHOOK}/1", f"{WEBHOOK}/2"] and len(set(ids)) == 2
    for _, headers, body in sent:
        payload = json.loads(body)
        assert len(payload) == 1 and set(payload) <= {"task", "message", "statusUpdate", "artifactUpdate"}
        assert payload["statusUpdate"]["taskId"] == task["id"]
        assert state(payload["statusUpdate"]) == "TASK_STATE_CANCELED"
        assert headers["Content-Type"] == "application/a2a+json"


@check("PUSH-AUTHENTICATION")
async def _(p: Peer) -> None:
    secret = {"scheme": "Bearer", "credentials": "s3cret"}
    configuration = {"taskPushNotificationConfig": {"url": WEBHOOK, "token": "t0k", "authentication": secret}}
    done = await p.task(configuration=configuration)
    bare = {"taskPushNotificationConfig": {"url": WEBHOOK, "authentication": {"scheme": "Bearer"}}}
    other = await p.task(configuration=bare)
    await _delivered(p)
    (_, headers, body), *_ = _mine(p, done["id"])
    (_, signed, _), *_ = _mine(p, other["id"])
    assert headers["Authorization"] == "Bearer s3cret" and headers["X-A2A-Notification-Token"] == "t0k"
    keys = KeySet.import_key_set(p.world.served.stack.control_plane.key.jwks())
    claims = jwt.decode(headers[SIGNATURE], keys, algorithms=["ES256"]).claims
    assert claims["aud"] == "https://client.example.com" and claims["exp"] > claims["iat"]
    assert claims["task_id"] == done["id"] and claims["request_body_sha256"] == hashlib.sha256(body).hexdigest()
    assert signed["Authorization"] == f"Bearer {signed[SIGNATURE]}"


@check("PUSH-RETRIES")
async def _(p: Peer) -> None:
    assert [pause(n) for n in range(1, 5)] == [1.0, 2.0, 4.0, 8.0] and pause(ATTEMPTS * 3) == 600.0
    pusher = p.world.served.stack.control_plane.pusher
    task = await p.hold()
    await p.call(op.PUSH_CREATE, config_of(task))
    p.world.answers.extend([500, 302])
    real, now = pusher._clock, 0.0
    pusher._clock = lambda: real() + now
    try:
        await p.call(op.CANCEL, {"id": task["id"]})
        tries = []
        for later in (0.0, 0.5, 1.5, 4.0):
            now = later
            tries.append(await pusher.step())
        assert tries == [1, 0, 1, 1], "at once, after a second, after two more"
    finally:
        pusher._clock = real
    assert len(_mine(p, task["id"])) == 3 and await pusher.store.waiting() == 0


@check("PUSH-SSRF")
async def _(p: Peer) -> None:
    guard = Guard()
    for address in PRIVATE:
        assert not guard.may(address), address
    assert guard.may("93.184.216.34") and guard.may("2606:2800:220:1::1")
    assert Guard(["10.1.0.0/16"]).may("10.1.2.3") and not Guard(["10.1.0.0/16"]).may("10.2.0.1")
    for url in FORBIDDEN:
        assert await guard.problem(url), url
    task = await p.task()
    await p.fails("INVALID_PARAMS", op.PUSH_CREATE, config_of(task, url="http://169.254.169.254/latest"))


async def _delivered(p: Peer) -> list[Any]:
    before = len(p.world.sent)
    while await p.world.served.stack.control_plane.pusher.step():
        pass
    return p.world.sent[before:]


def _mine(p: Peer, task_id: str) -> list[Any]:
    return [each for each in p.world.sent if task_id.encode() in each[2]]


# -- what the gateway does
@check("ERROR-AUTHENTICATION", "AUTHENTICATE-ALL", world="gateway")
async def _(p: Peer) -> None:
    http = p.world.http
    for token in ("", "Bearer nonsense", "Basic eDp5"):
        headers = {"a2a-version": "1.0"} | ({"authorization": token} if token else {})
        base = p.world.workloads
        for method, path in (
            ("POST", "/"),
            ("POST", "/message:send"),
            ("GET", "/tasks/x"),
            ("GET", "/extendedAgentCard"),
        ):
            answer = await http.request(method, base + path, json={} if method == "POST" else None, headers=headers)
            assert answer.status_code == 401 and "bearer" in answer.headers["www-authenticate"].lower(), (path, token)


@check("ERROR-AUTHORIZATION", world="gateway")
async def _(p: Peer) -> None:
    headers = {"authorization": f"Bearer {p.world.stranger}", "a2a-version": "1.0"}
    for path in ("/tasks/x", "/.well-known/agent-card.json"):
        refused = await p.world.http.get(p.world.workloads + path, headers=headers)
        assert refused.status_code == 403 and CARD["description"] not in refused.text
