"""RemoteMCPServer: check its references; its tools are kept by the discovery loop."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from quarterdeck.errors import ConfigError
from quarterdeck.kube import resource as k
from quarterdeck.kube.controller import Controller, Result
from quarterdeck.kube.resource import Key, Object
from quarterdeck.resources.base import parse
from quarterdeck.resources.remote_mcp_server import RemoteMCPServerSpec
from quarterdeck.translate.snapshot import remote_server

from . import pinning
from .context import RESOLVED, Context, Verdict
from .discovery import DISABLED, Discovery

_REFERENCES = "references"
_ACCEPTED = "Remote MCP server configuration accepted"
_SIGN_IN = Verdict("Ready", True, "UsersSignIn", "Its tools are shown to users who have signed in")


def controller(context: Context, discovery: Discovery) -> Controller:
    servers = context.set.informer(k.REMOTE_MCP_SERVER)
    servers.add_index(_REFERENCES, lambda obj: [f"{obj['metadata']['namespace']}/{name}" for name in _references(obj)])

    def users(obj: Object) -> Iterable[Key]:
        metadata = obj["metadata"]
        return [k.key_of(s) for s in servers.by_index(_REFERENCES, f"{metadata['namespace']}/{metadata['name']}")]

    return Controller(
        "remotemcpserver",
        k.REMOTE_MCP_SERVER,
        RemoteMCPServerReconciler(context, discovery).reconcile,
        maps=((k.SECRET, users), (k.CONFIG_MAP, users)),
        reads=(k.SERVICE, k.ENDPOINT_SLICE),
        workers=8,
    )


def _references(obj: Object) -> set[str]:
    spec: Object = obj.get("spec") or {}
    found = {((h.get("valueFrom") or {}).get("name") or "") for h in spec.get("headersFrom") or ()}
    found.add((spec.get("tls") or {}).get("caCertSecretRef") or "")
    oauth = spec.get("oauth") or {}
    found |= {oauth.get(name) or "" for name in ("clientSecretRef", "signingKeySecretRef")}
    return found - {""}


@dataclass(slots=True)
class RemoteMCPServerReconciler:
    context: Context
    discovery: Discovery

    async def reconcile(self, key: Key) -> Result | None:
        obj = self.context.primary(k.REMOTE_MCP_SERVER, key)
        slot = ("RemoteMCPServer", key.namespace, key.name)
        if obj is None:
            self.context.tools.pop(slot, None)
            self.discovery.forget("RemoteMCPServer", key)
            return None
        hashes = self.context.hashes(key.namespace, (("Secret", name) for name in _references(obj)))
        fields: Object = {"secretHash": "".join(hashes.values())[:64] or None}
        try:
            spec = parse(RemoteMCPServerSpec, obj.get("spec") or {}, f"RemoteMCPServer {key}")
            server = remote_server(key.namespace, key.name, spec, self.context.services(), self.context.values())
        except ConfigError as error:
            failed = self.context.rejected(error, "ReconcileFailed")
            not_ready = Verdict("Ready", False, "ReconcileFailed", str(error))
            await self.context.set_status(k.REMOTE_MCP_SERVER, obj, [*failed, not_ready], fields)
            return None
        if (obj["metadata"].get("labels") or {}).get(DISABLED) == "disabled":
            verdicts = [
                Verdict("Accepted", True, "Reconciled", _ACCEPTED),
                RESOLVED,
                Verdict("Ready", None, "DiscoveryDisabled", "Discovery is disabled by label kagent.dev/discovery"),
            ]
            await self.context.set_status(k.REMOTE_MCP_SERVER, obj, verdicts, fields)
            return None
        if server.sign_in is not None:
            verdicts = [Verdict("Accepted", True, "Reconciled", _ACCEPTED), RESOLVED, _SIGN_IN]
            await self.context.set_status(k.REMOTE_MCP_SERVER, obj, verdicts, fields)
            return None
        found = self.discovery.tools(server)
        if found is None:
            return None
        if found.error:
            # kagent says so too: a server it cannot reach is not accepted. Tools found before are kept.
            verdicts = [
                Verdict("Accepted", False, "ReconcileFailed", found.error),
                RESOLVED,
                Verdict("Ready", False, "ServerUnreachable", found.error),
            ]
        else:
            fields["discoveredTools"] = found.listed()
            self.context.tools[slot] = found.names
            verdicts = [
                Verdict("Accepted", True, "Reconciled", _ACCEPTED),
                RESOLVED,
                *pinning.verdicts(obj, self.context.pins.get(slot, {}), found.tools),
                Verdict("Ready", True, "Ready", found.summary()),
            ]
        await self.context.set_status(k.REMOTE_MCP_SERVER, obj, verdicts, fields)
        return Result(found.again_in)
