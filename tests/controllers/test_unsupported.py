from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from quarterdeck.controllers.unsupported import TABLE, unsupported
from quarterdeck.resources.agent import AgentSpec
from quarterdeck.resources.crd import structural
from quarterdeck.resources.mcp_server import MCPServerSpec
from quarterdeck.resources.model_config import ModelConfigSpec
from quarterdeck.resources.remote_mcp_server import RemoteMCPServerSpec

SPECS = {
    "Agent": AgentSpec, "ModelConfig": ModelConfigSpec, "RemoteMCPServer": RemoteMCPServerSpec,
    "MCPServer": MCPServerSpec,
}  # fmt: skip
_VALUE_REF = "name value valueFrom.type valueFrom.name valueFrom.key"
_NAMESPACES = (
    "from selector.matchExpressions[].key selector.matchExpressions[].operator "
    "selector.matchExpressions[].values selector.matchLabels"
)
_TLS = "disableVerify caCertSecretRef caCertSecretKey disableSystemCAs"
_DEPLOYMENT = (
    "replicas imagePullSecrets volumes[] volumeMounts labels annotations deploymentAnnotations env envFrom "
    "imagePullPolicy resources tolerations affinity nodeSelector topologySpreadConstraints securityContext "
    "podSecurityContext serviceAccountName serviceAccountConfig.labels serviceAccountConfig.annotations "
    "extraContainers[]"
)
_SAMPLING = "temperature topP maxTokens"


def under(prefix: str, names: str) -> set[str]:
    return {f"{prefix}{name}" for name in names.split()}


ACTED_ON = {
    "Agent": (
        under("", "type description iconUrl documentationUrl version replicas rollout.strategy")
        | under("scaleToZero.", "after hold")
        | under("rollout.steps[].", "weight pause")
        | under("rollout.match[].headers[].", "name exact regex")
        | under("rollout.match[].claims[].", "name exact regex")
        | under("rollout.analysis.", "maxErrorRate minRequests requireTraffic progressDeadline")
        | under("provider.", "organization url")
        | under("skills.", "insecureSkipVerify refs imagePullSecrets[].name gitAuthSecretRef.name s3AuthSecretRef.name")
        | under("skills.gitRefs[].", "url ref path name")
        | under("skills.s3Refs[].", "uri region endpoint name")
        | under("skills.configMapRefs[].", "name items[].key items[].path")
        | under("skills.initContainer.", "resources env")
        | under("declarative.runs.", "onUnknownOutcome repeatTools")
        | under("declarative.runs.budget.", "cost price.input price.output steps tokens toolCalls wallTime")
        | under("allowedNamespaces.", _NAMESPACES)
        | under("declarative.", "runtime systemMessage modelConfig stream")
        | under("declarative.systemMessageFrom.", "type name key")
        | under("declarative.memory.", "modelConfig ttlDays")
        | under("declarative.promptTemplate.dataSources[].", "kind apiGroup name alias")
        | under("declarative.", "outputSchema")
        | under("declarative.context.", "maxTokens images toolResults.pageSize toolResults.maxSize")
        | under("declarative.context.compaction.", "compactionInterval overlapSize tokenThreshold eventRetentionSize")
        | under("declarative.context.compaction.summarizer.", "modelConfig promptTemplate")
        | under("declarative.tools[].", "type isolateSessions timeout")
        | under("declarative.tools[].mcpServer.", "kind apiGroup name namespace toolNames requireApproval")
        | under("declarative.tools[].mcpServer.", "allowedHeaders")
        | under("declarative.tools[].agent.", "kind apiGroup name namespace")
        | under("declarative.tools[].headersFrom[].", _VALUE_REF)
        | under("declarative.a2aConfig.skills[].", "id name description tags examples inputModes outputModes")
        | under("declarative.deployment.", f"{_DEPLOYMENT} imageRegistry")
        | under("byo.deployment.", f"{_DEPLOYMENT} image cmd args workingDir")
    ),
    "ModelConfig": (
        under("", "model provider apiKeySecret apiKeySecretKey apiKeyPassthrough defaultHeaders")
        | under(
            "openAI.",
            f"baseUrl organization {_SAMPLING} maxCompletionTokens frequencyPenalty presencePenalty seed n timeout "
            "reasoningEffort apiFormat tokenExchange.type tokenExchange.gdchServiceAccount.audience",
        )
        | under("anthropic.", f"baseUrl topK {_SAMPLING}")
        | under("azureOpenAI.", f"azureEndpoint azureDeployment azureAdToken apiVersion {_SAMPLING}")
        | under("ollama.", "host options")
        | under("gemini.", "maxOutputTokens")
        | under(
            "geminiVertexAI.",
            "projectID location temperature topP topK stopSequences maxOutputTokens candidateCount responseMimeType",
        )
        | under("anthropicVertexAI.", f"projectID location topK stopSequences {_SAMPLING}")
        | under(
            "bedrock.",
            "region additionalModelRequestFields promptCaching cacheTTL readTimeout connectTimeout "
            "guardrail.identifier guardrail.version guardrail.trace",
        )
        | under("sapAICore.", "baseUrl authUrl resourceGroup")
        | under("foundry.", "endpoint endpointFrom.name endpointFrom.key endpointFrom.optional deployment apiVersion")
        | under("scripted.", "replicas scriptFrom.name scriptFrom.key scriptFrom.optional")
        | under("tls.", _TLS)
    ),
    "RemoteMCPServer": (
        under("", "description url protocol timeout auth")
        | under(
            "oauth.",
            "clientId clientSecretKey clientSecretRef issuer method scopes signingKeySecretKey signingKeySecretRef "
            "trustedHosts",
        )
        | under("headersFrom[].", _VALUE_REF)
        | under("allowedNamespaces.", _NAMESPACES)
        | under("tls.", _TLS)
    ),
    "MCPServer": (
        under("scaleToZero.", "after hold")
        | under("", "transportType stdioTransport timeout replicas httpTransport.targetPort httpTransport.path")
        | under(
            "deployment.",
            "image imagePullPolicy port cmd args env secretRefs[].name configMapRefs[].name volumes[] volumeMounts "
            "initContainer.image initContainer.imagePullPolicy initContainer.resources initContainer.securityContext "
            "serviceAccount.labels serviceAccount.annotations serviceAccountName sidecars[] labels annotations "
            "resources securityContext podSecurityContext tolerations affinity nodeSelector replicas imagePullSecrets",
        )
    ),
}


def leaves(schema: dict[str, Any], path: str = "") -> Iterator[str]:
    if schema.get("properties") and not schema.get("x-kubernetes-preserve-unknown-fields"):
        for name, child in schema["properties"].items():
            yield from leaves(child, f"{path}.{name}" if path else name)
    elif schema.get("items", {}).get("properties"):
        yield from leaves(schema["items"], f"{path}[]")
    else:
        yield path


@pytest.mark.parametrize("kind", SPECS)
def test_every_field_is_acted_on_or_declared_unsupported(kind: str) -> None:
    paths = set(leaves(structural(SPECS[kind], embed=False)))
    declared = tuple(field.path for field in TABLE[kind])
    silent = {path for path in paths if not any(path == p or path.startswith((f"{p}.", f"{p}[]")) for p in declared)}
    assert silent == ACTED_ON[kind]
    unknown = [p for p in declared if not any(path == p or path.startswith((f"{p}.", f"{p}[]")) for path in paths)]
    assert not unknown, "the table names fields that the schema does not have"


@pytest.mark.parametrize(
    ("kind", "spec", "named"),
    [
        ("Agent", {"declarative": {"systemMessage": "x", "runtime": "go", "stream": False}}, []),
        ("Agent", {"declarative": {"memory": {"modelConfig": "m"}}}, []),
        ("Agent", {"declarative": {"tools": [{"mcpServer": {"name": "a"}}, {"mcpServer": {"requireApproval": ["t"]}}]}},
         []),
        ("ModelConfig", {"openAI": {"apiFormat": "responses"}}, []),
        ("ModelConfig", {"ollama": {"options": {"num_ctx": "1"}}}, []),
        ("RemoteMCPServer", {"terminateOnClose": True}, []),
        ("RemoteMCPServer", {"terminateOnClose": False}, ["terminateOnClose"]),
        ("MCPServer", {"httpTransport": {"tls": {"secretRef": "s"}}}, ["httpTransport.tls"]),
        ("Unknown", {"a": 1}, []),
    ],
)  # fmt: skip
def test_unsupported(kind: str, spec: Any, named: list[str]) -> None:
    notes = unsupported(kind, spec)
    assert [note.partition(":")[0] for note in notes.split("; ") if note] == named
