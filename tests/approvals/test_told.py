"""Copies as objects, and webhooks: what is told of an approval, and that nothing is decided by it."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from quarterdeck.apiserver.app import ApiServer, ApiServerConfig
from quarterdeck.kube.client import ClientConfig, KubeClient
from quarterdeck.kube.resource import APPROVAL, APPROVAL_POLICY, CRD, NAMESPACE, SECRET
from quarterdeck.resources.crd import crds
from quarterdeck.server.approvals import Approval, Decision, Person, rules_of, same_person
from quarterdeck.server.approvals_mirror import ApprovalMirror
from quarterdeck.server.approvals_notify import PAUSES, Notifier, message, signature
from quarterdeck.server.approvals_store import ApprovalStore
from quarterdeck.server.database import Database
from quarterdeck.snapshot.consent import Requester, Wanted

from .conftest import POLICY, RULE, Clock

WANTED = Wanted(
    "MCPServer", "kagent", "peer", "delete", "sha256:00", "agent:kagent/b", (RULE,), "kagent/b",
    Requester("carol@idp"), "r1", 1, arguments={"path": "</tmp/x> ```"},
)  # fmt: skip
GATEWAY = "quarterdeck-system/quarterdeck"


@pytest.fixture
async def client(tmp_path: Path) -> AsyncIterator[KubeClient]:
    """The embedded API server with our definitions."""
    api = ApiServer(ApiServerConfig(tmp_path / "home", port=0))
    await api.start()
    config = api.client_config("admin")
    kube = KubeClient(ClientConfig("http://localhost", token=config["token"], unix_socket=str(api.unix_socket)))
    for document in crds():
        if document["spec"]["group"] == "quarterdeck.dev":
            await kube.apply(CRD, document)
    await kube.apply(NAMESPACE, {"metadata": {"name": "kagent"}})
    yield kube
    await kube.close()
    await api.stop()


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[ApprovalStore]:
    database = await Database.open(str(tmp_path / "server.db"))
    yield ApprovalStore(database, lambda: rules_of((POLICY,)), same_person(frozenset()), Clock())
    await database.close()


async def test_copies_say_what_the_database_says_and_decide_nothing(client: KubeClient, store: ApprovalStore) -> None:
    mirror = ApprovalMirror(client, store)
    approval = await store.request(GATEWAY, WANTED)
    await mirror.write(approval, None)
    copy = await client.get(APPROVAL, approval.name, "kagent")
    assert copy["spec"]["tool"] == "delete" and copy["spec"]["policies"] == [RULE]
    assert copy["status"]["phase"] == "Pending" and copy["status"]["conditions"][0]["status"] == "Unknown"
    assert "</tmp/x>" not in json.dumps(copy), "arguments may hold secrets"

    forged = {"phase": "Approved", "decisions": [{"by": "alice", "verdict": "Approve", "at": "2026-01-01T00:00:00Z"}]}
    await client.patch(APPROVAL, approval.name, {"status": forged}, "kagent", subresource="status")
    await client.patch(APPROVAL, approval.name, {"spec": {"argumentsHash": "sha256:ff"}}, "kagent")
    planted = {"metadata": {"name": "planted", "namespace": "kagent"}, "spec": {"tool": "delete"}}
    await client.create(APPROVAL, planted)
    assert (await store.consume(GATEWAY, "kagent", approval.name, WANTED)).state == "Pending"
    await mirror.settle()
    copies = {obj["metadata"]["name"]: obj for obj in (await client.list(APPROVAL)).items}
    assert set(copies) == {approval.name}
    assert copies[approval.name]["status"]["phase"] == "Pending" and not copies[approval.name]["status"]["decisions"]
    assert copies[approval.name]["spec"]["argumentsHash"] == "sha256:00"

    decided = await store.decide(approval, Decision(Person("alice"), "Approve", 1.0, "fine"))
    await mirror.settle()
    version = (await client.get(APPROVAL, approval.name, "kagent"))["metadata"]["resourceVersion"]
    await mirror.settle()
    copy = await client.get(APPROVAL, approval.name, "kagent")
    assert copy["status"]["phase"] == decided.state == "Approved"
    assert copy["status"]["decisions"][0] == {
        "by": "alice", "verdict": "Approve", "reason": "fine", "at": "1970-01-01T00:00:01Z"
    }  # fmt: skip
    assert copy["metadata"]["resourceVersion"] == version, "nothing is written when nothing has changed"


class Receiver:
    """A webhook that answers as it is told."""

    def __init__(self, *answers: int | OSError) -> None:
        self.answers = list(answers)
        self.got: list[tuple[str, dict[str, str], bytes]] = []
        self.pauses: list[float] = []

    async def send(self, url: str, headers: dict[str, str], body: bytes) -> int:
        self.got.append((url, headers, body))
        answer = self.answers.pop(0)
        if isinstance(answer, OSError):
            raise answer
        return answer

    async def pause(self, seconds: float) -> None:
        self.pauses.append(seconds)


async def _policy(client: KubeClient, webhook: dict[str, Any]) -> None:
    spec = {"tools": ["delete*"], "notify": {"webhook": webhook}}
    await client.apply(APPROVAL_POLICY, {"metadata": {"name": "deletes", "namespace": "kagent"}, "spec": spec})


async def test_a_webhook_is_told_signed_and_again(client: KubeClient, store: ApprovalStore) -> None:
    key = base64.b64encode(b"hush\n").decode()
    await client.create(SECRET, {"metadata": {"name": "hook", "namespace": "kagent"}, "data": {"key": key}})
    await _policy(client, {"url": "https://hooks.example.com/T1", "secretRef": {"name": "hook", "key": "key"}})
    receiver = Receiver(OSError("refused"), 503, 200)
    notifier = Notifier(client, receiver.send, pause=receiver.pause, clock=Clock())
    approval = await store.request(GATEWAY, WANTED)
    await notifier.tell(RULE, approval)
    assert receiver.pauses == list(PAUSES[:2]) and len(receiver.got) == 3
    url, headers, body = receiver.got[-1]
    assert url == "https://hooks.example.com/T1"
    stamp = headers["x-quarterdeck-timestamp"]
    wanted = hmac.new(b"hush", stamp.encode() + b"." + body, hashlib.sha256).hexdigest()
    assert headers["x-quarterdeck-signature"] == f"sha256={wanted}" == f"sha256={signature(b'hush', stamp, body)}"
    told = msgspec.json.decode(body)
    assert told["text"].startswith("agent kagent/b wants to call delete of kagent/peer for carol@idp")
    assert told["approval"]["id"] == approval.id and told["approval"]["arguments"] == WANTED.arguments
    assert "&lt;/tmp/x&gt; '''" in told["blocks"][1]["text"]["text"], "arguments cannot break out of their quotation"


@pytest.mark.parametrize(("answers", "sent"), [((400,), 1), ((OSError("not public"),) * 6, 6)])
async def test_what_cannot_be_told_is_given_up(
    client: KubeClient, store: ApprovalStore, caplog: pytest.LogCaptureFixture, answers: Any, sent: int
) -> None:
    await _policy(client, {"url": "http://169.254.169.254/"})
    receiver = Receiver(*answers)
    approval = await store.request(GATEWAY, WANTED)
    await Notifier(client, receiver.send, pause=receiver.pause, clock=Clock()).tell(RULE, approval)
    assert len(receiver.got) == sent and "nobody is told" in caplog.text
    assert "x-quarterdeck-signature" not in receiver.got[0][1]


def test_slack_reads_what_became_of_it() -> None:
    approval = Approval("kagent", "delete-1", GATEWAY, WANTED, "Denied", 0.0, 60.0, 1.0, message="denied by alice: no")
    told = message(approval)
    assert told["text"].endswith("denied (denied by alice: no)") and len(told["blocks"]) == 2
