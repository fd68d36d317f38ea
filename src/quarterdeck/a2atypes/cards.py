"""Agent cards: one document for readers of 1.0 and of 0.3, and what of it is signed (specification 1.0.1 §8.4).

Members of both versions stand side by side, since a client fetches the card before it knows a version. So there are
two canonical forms: that of the members 1.0 knows (what readers that parse into the protocol's types verify), and that
of the document as it is (what readers of plain JSON verify). A signed card carries a signature of each.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from quarterdeck.mcptypes.canonical import canonical

from . import Json

JSONRPC, HTTP_JSON, GRPC = "JSONRPC", "HTTP+JSON", "GRPC"
_MODES = {"text": "text/plain", "data": "application/json", "json": "application/json"}
_SCHEME = "quarterdeck"

_SKILL = ("id", "name", "description", "tags", "examples", "inputModes", "outputModes", "securityRequirements")
_V1: dict[str, Any] = {
    "name": None, "description": None, "version": None, "documentationUrl": None, "iconUrl": None,
    "supportedInterfaces": ("url", "protocolBinding", "tenant", "protocolVersion"),
    "provider": ("url", "organization"),
    "capabilities": ("streaming", "pushNotifications", "extensions", "extendedAgentCard"),
    "securitySchemes": None, "securityRequirements": None,
    "defaultInputModes": None, "defaultOutputModes": None, "skills": _SKILL,
}  # fmt: skip
_V1_SCHEMES = (
    "apiKeySecurityScheme", "httpAuthSecurityScheme", "oauth2SecurityScheme", "openIdConnectSecurityScheme",
    "mtlsSecurityScheme",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Interface:
    """One way to reach an agent. ``versions`` in the order of preference."""

    url: str
    binding: str
    versions: tuple[str, ...] = ("1.0", "0.3")


def served(card: Json, interfaces: Iterable[Interface], *, push: bool, extended: bool) -> Json:
    """The card of an agent as both versions read it. ``card``: kagent's ``agent-card.json`` (0.3) or one of 1.0."""
    interfaces = list(interfaces)
    name = str(card.get("name") or "agent")
    capabilities = dict(card.get("capabilities") or {})
    capabilities |= {"streaming": capabilities.get("streaming", True), "pushNotifications": push}
    capabilities["extendedAgentCard"] = extended
    out = {k: v for k, v in card.items() if k not in ("signatures", "url") and v not in ("", [], None)}
    out |= {
        "name": name,
        "description": str(card.get("description") or f"The agent {name}."),
        "version": str(card.get("version") or "1"),
        "capabilities": capabilities,
        "defaultInputModes": _modes([*(card.get("defaultInputModes") or ["text"]), "application/json"]),
        "defaultOutputModes": _modes(card.get("defaultOutputModes")),
        "skills": [_skill(skill) for skill in card.get("skills") or ()] or [_general(name, out_of(card))],
        "supportsAuthenticatedExtendedCard": extended,
    }
    return out | addresses(interfaces, tenant_of(card))


def addresses(interfaces: Iterable[Interface], tenant: str = "") -> Json:
    """The members of both versions that say where the agent is; the first interface is the preferred one."""
    interfaces = list(interfaces)
    current = [(i, v) for v in ("1.0", "0.3") for i in interfaces if v in i.versions]
    old = [i for i in interfaces if "0.3" in i.versions]
    extra: Json = {"tenant": tenant} if tenant else {}
    out: Json = {
        "supportedInterfaces": [
            {"url": i.url, "protocolBinding": i.binding, "protocolVersion": v} | extra for i, v in current
        ]
    }
    if old:
        out |= {
            "url": old[0].url,
            "preferredTransport": old[0].binding,
            "protocolVersion": "0.3.0",
            "additionalInterfaces": [{"url": i.url, "transport": i.binding} for i in old],
        }
    return out


def with_bearer(card: Json, description: str) -> Json:
    """The card with a bearer token as what is needed, as both versions say it."""
    scheme: Json = {
        "httpAuthSecurityScheme": {"description": description, "scheme": "Bearer"},
        "type": "http", "scheme": "Bearer", "description": description,
    }  # fmt: skip
    return card | {
        "securitySchemes": {_SCHEME: scheme},
        "securityRequirements": [{"schemes": {_SCHEME: {"list": []}}}],
        "security": [{_SCHEME: []}],
    }


def tenant_of(card: Json) -> str:
    """The tenant that requests to the agent carry (``AgentInterface.tenant``), empty for none."""
    for interface in card.get("supportedInterfaces") or ():
        if isinstance(interface, dict) and interface.get("tenant"):
            return str(interface["tenant"])
    return ""


def out_of(card: Json) -> str:
    return str(card.get("description") or "")


def etag(body: bytes) -> str:
    return f'"{hashlib.sha256(body).hexdigest()[:32]}"'


def matches(if_none_match: str | None, tag: str) -> bool:
    """Whether a conditional request needs no body (RFC 9110 §13.1.2)."""
    if not if_none_match:
        return False
    given = [each.strip().removeprefix("W/") for each in if_none_match.split(",")]
    return "*" in given or tag in given


def payloads(card: Json) -> list[bytes]:
    """The canonical forms to sign: of the members that 1.0 knows, and of the whole document."""
    forms = [
        canonical(_stripped(_known(card))),
        canonical(_stripped({k: v for k, v in card.items() if k != "signatures"})),
    ]
    return forms if forms[0] != forms[1] else forms[:1]


def encoded(card: Json) -> bytes:
    return json.dumps(card, ensure_ascii=False, separators=(",", ":")).encode()


def _known(card: Json) -> Json:
    out: Json = {}
    for name, members in _V1.items():
        if name not in card:
            continue
        value = card[name]
        if members is not None and isinstance(value, list):
            value = [{k: each[k] for k in members if k in each} for each in value]
        elif members is not None and isinstance(value, dict):
            value = {k: value[k] for k in members if k in value}
            if value.get("extensions"):  # a plain bool is not written when it is false
                value["extensions"] = [{k: v for k, v in e.items() if v is not False} for e in value["extensions"]]
        elif name == "securitySchemes":
            value = {k: {m: v[m] for m in _V1_SCHEMES if m in v} for k, v in value.items()}
        out[name] = value
    return out


def _stripped(value: Any) -> Any:
    """Without default values; what is required is never empty in our cards. ``optional`` booleans stay."""
    if isinstance(value, dict):
        kept = {k: _stripped(v) for k, v in value.items()}
        return {k: v for k, v in kept.items() if v not in ("", [], {}, None)}
    if isinstance(value, list):
        return [_stripped(each) for each in value]
    return value


def _modes(value: Any) -> list[str]:
    given = [str(each) for each in value or ()] or ["text"]
    return list(dict.fromkeys(_MODES.get(each, each) for each in given))


def _skill(skill: Json) -> Json:
    out = {k: v for k, v in skill.items() if v not in ("", [], None)}
    name = str(skill.get("name") or skill.get("id") or "skill")
    return out | {
        "id": str(skill.get("id") or name),
        "name": name,
        "description": str(skill.get("description") or name),
        "tags": list(skill.get("tags") or ["agent"]),
    }


def _general(name: str, description: str) -> Json:
    """A card must name a skill: what an agent without ``a2aConfig`` does."""
    return {"id": name, "name": name, "description": description or f"What the agent {name} does.", "tags": ["agent"]}
