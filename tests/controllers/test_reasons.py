"""Every condition reason and Event of the controllers is explained in docs/operate.md, and nothing else is."""

from __future__ import annotations

import ast
import re
from pathlib import Path

from quarterdeck import errors
from quarterdeck.errors import ConfigError

ROOT = Path(__file__).parents[2]
SOURCES = ROOT / "src/quarterdeck/controllers"
WORD = re.compile(r"[A-Z][A-Za-z]+")
OTHER = {
    # kinds, and what manifests and protocols say
    "Agent", "Agents", "BYO", "VirtualServer", "ConfigMap", "Deployment", "MCPServer", "ModelConfig",
    "ModelProviderConfig",
    "Namespace", "NetworkPolicy", "PersistentVolumeClaim", "RemoteMCPServer", "SandboxAgent", "Secret", "Service",
    "ServiceAccount", "ToolServer", "SubjectAccessReview", "LocalSubjectAccessReview", "TokenReview", "Declarative",
    "Apply", "Canary", "GET", "POST", "SSE",
    "EndpointSlice", "Gateway", "GatewayClass", "Hostname", "IPAddress", "SupportedVersion",
    "TCP", "Opaque", "ReadWriteOnce", "Recreate", "ReplicaFailure", "ControllerOptions", "GatewayConfig",
    # values of conditions and Events
    "True", "False", "None", "Unknown", "Normal", "Warning",
    # providers
    "Anthropic", "AnthropicVertexAI", "Gemini", "Ollama", "OpenAI", "SAPAICore", "Scripted",
    # phases of a canary, in status.rollout
    "Aborted", "Progressing", "Promoting", "Stable",
}  # fmt: skip
"""Words in the source that are neither a condition's type nor a reason. A new word has to be put here or explained."""
TYPES = {
    "Accepted", "ResolvedRefs", "Programmed", "Ready", "SecretResolved", "ModelsDiscovered", "UnsupportedFeatures",
    "Paused", "RolledOut", "RolloutPaused", "ToolsPinned", "Conflicted", "SkillsLoaded", "SkillScripts", "Authorized",
    "Embeddings",
}  # fmt: skip


def words_in_source() -> set[str]:
    found = {cls.reason for cls in vars(errors).values() if isinstance(cls, type) and issubclass(cls, ConfigError)}
    for path in SOURCES.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and WORD.fullmatch(node.value):
                found.add(node.value)
    return found - OTHER


def tables() -> tuple[set[str], set[str]]:
    """(condition types, reasons) of the page's tables."""
    page = (ROOT / "docs/operate.md").read_text().partition("## Troubleshooting")[2]
    types: set[str] = set()
    reasons: set[str] = set()
    for line in page.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")] if line.startswith("|") else []
        if len(cells) == 5 and "`" in cells[1]:
            types |= set(cells[0].split(", "))
            reasons |= set(re.findall(r"`(\w+)`", cells[1])) | _kubelet(cells[3])
        elif len(cells) == 4 and "`" in cells[0]:
            reasons |= set(re.findall(r"`(\w+)`", cells[0]))
    return types, reasons


def _kubelet(text: str) -> set[str]:
    """The kubelet's own words, told under the reason that we give them."""
    return set(re.findall(r"`(\w+)`", text.partition("(kubelet: ")[2].partition(")")[0]))


def test_every_reason_is_explained_and_none_is_made_up() -> None:
    types, reasons = tables()
    assert types == TYPES
    source = words_in_source()
    assert source - reasons - TYPES == set(), "add a row to docs/operate.md, or the word to OTHER"
    assert reasons - source == set(), "docs/operate.md explains what no controller says"
