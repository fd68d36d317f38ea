"""Telling people that a call waits for them: a webhook of the policy, in the form that Slack and its kin take.

Public addresses only, unless an administrator allows others. The body is signed with the policy's key: header
``X-Quarterdeck-Signature: sha256=HEX`` is HMAC-SHA256 over ``TIMESTAMP.BODY`` (``X-Quarterdeck-Timestamp``).
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import hmac
import json
import logging
from collections.abc import Awaitable, Callable
from time import time
from typing import Any

from quarterdeck.errors import NotFound, QuarterdeckError
from quarterdeck.kube.client import KubeClient
from quarterdeck.kube.resource import APPROVAL_POLICY, SECRET
from quarterdeck.snapshot.consent import MATCHING

from . import approvals as a
from .approvals import Approval

log = logging.getLogger(__name__)
PAUSES = (1.0, 5.0, 30.0, 120.0, 600.0)
"""Seconds between attempts."""
_WAITING = 1000
_SHOWN = 1500
Send = Callable[[str, dict[str, str], bytes], Awaitable[int]]
"""POST; gives the status, raises OSError or TimeoutError."""


class Notifier:
    """``take`` is told of changes. What cannot be delivered is given up after the last pause, with a log line."""

    def __init__(
        self,
        client: KubeClient,
        send: Send,
        *,
        pause: Callable[[float], Awaitable[None]] = asyncio.sleep,
        clock: Callable[[], float] = time,
    ) -> None:
        self._client = client
        self._send = send
        self._pause = pause
        self._clock = clock
        self._tasks: set[asyncio.Task[None]] = set()

    async def take(self, approval: Approval) -> None:
        """Begin to tell; returns at once."""
        for rule in approval.wanted.rules:
            if rule.startswith(f"{MATCHING}/") and len(self._tasks) < _WAITING:
                task = asyncio.get_running_loop().create_task(self.tell(rule, approval), name="approval webhook")
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def tell(self, rule: str, approval: Approval) -> None:
        """Deliver one message."""
        _, namespace, name = rule.split("/", 2)
        try:
            policy = await self._client.get(APPROVAL_POLICY, name, namespace)
            webhook: dict[str, Any] = ((policy.get("spec") or {}).get("notify") or {}).get("webhook") or {}
            if not webhook:
                return
            key = await self._key(namespace, webhook.get("secretRef"))
        except QuarterdeckError as error:
            log.warning("webhook of %s: %s; nobody is told of %s", rule, error, approval.id)
            return
        body = json.dumps(message(approval), ensure_ascii=False).encode()
        problem = ""
        for pause in (*PAUSES, None):
            try:
                status = await self._send(str(webhook["url"]), self._headers(body, key), body)
                if status < 300:
                    return
                problem = f"HTTP {status}"
                if 400 <= status < 500 and status not in (408, 429):
                    break
            except (OSError, TimeoutError) as error:
                problem = str(error) or type(error).__name__
            if pause is not None:
                await self._pause(pause)
        log.warning("webhook of %s: %s; nobody is told of %s by it", rule, problem, approval.id)

    def _headers(self, body: bytes, key: bytes) -> dict[str, str]:
        headers = {"content-type": "application/json", "user-agent": "quarterdeck"}
        if key:
            stamp = str(int(self._clock()))
            headers["x-quarterdeck-timestamp"] = stamp
            headers["x-quarterdeck-signature"] = "sha256=" + signature(key, stamp, body)
        return headers

    async def _key(self, namespace: str, ref: dict[str, str] | None) -> bytes:
        if not ref:
            return b""
        secret = await self._client.get(SECRET, ref["name"], namespace)
        data: dict[str, str] = secret.get("data") or {}
        try:
            return base64.b64decode(data[ref["key"]], validate=True).strip()
        except (KeyError, binascii.Error) as error:
            raise NotFound(f"Secret {namespace}/{ref['name']} has no key {ref['key']}") from error


def signature(key: bytes, stamp: str, body: bytes) -> str:
    """Hex HMAC-SHA256, as receivers compute it."""
    return hmac.new(key, stamp.encode() + b"." + body, hashlib.sha256).hexdigest()


def message(approval: Approval) -> dict[str, Any]:
    """Slack's ``text`` and ``blocks``, and the facts for other receivers under ``approval``."""
    wanted = approval.wanted
    who = f"agent {wanted.agent}" if wanted.agent else wanted.principal
    asked = f" for {wanted.requester.id}" if wanted.requester.id and wanted.requester.id != wanted.principal else ""
    call = f"{wanted.tool} of {wanted.namespace}/{wanted.server}"
    if approval.state == "Pending":
        text = f"{who} wants to call {call}{asked}: {approval.id} waits for approval until {a.when(approval.expires)}"
    else:
        text = f"{call}, called by {who}{asked}: {approval.state.lower()} ({approval.message})"
    shown = json.dumps(wanted.arguments or {}, ensure_ascii=False, indent=1)[:_SHOWN]
    quoted = _plain(shown)
    decide = f"qd approvals approve {approval.name} -n {approval.namespace}"
    blocks: list[dict[str, Any]] = [
        {"type": "section", "text": {"type": "mrkdwn", "text": _plain(text)}},
        {"type": "section", "text": {"type": "mrkdwn", "text": f"```{quoted}```"}},
    ]
    if approval.state == "Pending":
        blocks.append({"type": "context", "elements": [{"type": "mrkdwn", "text": f"`{decide}`"}]})
    facts = {
        "id": approval.id,
        "state": approval.state,
        "server": f"{wanted.kind}/{wanted.namespace}/{wanted.server}",
        "tool": wanted.tool,
        "arguments": wanted.arguments or {},
        "argumentsHash": wanted.arguments_hash,
        "agent": wanted.agent,
        "requester": wanted.requester.id,
        "policies": list(wanted.rules),
        "expiresAt": a.when(approval.expires),
        "decisions": [{"by": d.person.name, "verdict": d.verdict, "reason": d.reason} for d in approval.decisions],
    }
    return {"text": text, "blocks": blocks, "approval": facts}


def _plain(text: str) -> str:
    """Text of others that must not become Slack's markup, nor end the quotation it is in."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace("```", "'''")
