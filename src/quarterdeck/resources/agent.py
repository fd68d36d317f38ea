"""Agent (kagent.dev): v1alpha2, and v1alpha1 as the union of both published shapes (reference/kagent.md §2.1)."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from .base import (
    Affinity,
    AllowedNamespaces,
    Column,
    Containers,
    Env,
    EnvFrom,
    Json,
    Kind,
    Model,
    NameRef,
    PodSecurityContext,
    PullSecrets,
    Resources,
    SecurityContext,
    SpreadConstraints,
    Status,
    Tolerations,
    ValueRef,
    ValueSource,
    Version,
    VolumeMounts,
    Volumes,
    condition_column,
    rules,
)
from .replicas import DEFAULT as DEFAULT_REPLICAS
from .rollout import Duration, Rollout, RolloutStatus, ScaleToZero
from .run import RunSettings


def enum(*values: str) -> Any:
    return Field(json_schema_extra={"enum": list(values)})


class Provider(Model):
    organization: str = Field(min_length=1, description="Name of the organisation that provides the agent.")
    url: str = Field(json_schema_extra={"format": "uri"}, description="Its web address.")


class NetworkConfig(Model):
    allowed_domains: list[str] | None = Field(
        None, description="Domains the agent's code may reach. Empty denies all egress."
    )


class Sandbox(Model):
    network: NetworkConfig | None = Field(None, description="Outbound network of executed code.")


class GitSkill(Model):
    url: str = Field(description="Git repository.")
    ref: str = Field("main", description="Branch, tag or commit.")
    path: str | None = Field(None, description="Folder in the repository.")
    name: str | None = Field(None, description="Name of the skill's folder.")


class S3Skill(Model):
    uri: str = Field(pattern=r"^s3://.+", description="s3://bucket/prefix of the skill, or a .zip, .tgz or .tar.gz.")
    region: str | None = Field(None, description="Region of the bucket.")
    endpoint: str | None = Field(None, description="URL of a server that speaks S3; AWS when unset.")
    name: str | None = Field(None, description="Name of the skill's folder.")


class KeyPath(Model):
    key: str = Field(description="Key of the ConfigMap.")
    path: str = Field(description="The file's path in the skill's folder, for example scripts/convert.py.")


class ConfigMapSkill(Model):
    name: str = Field(min_length=1, description="Name of the ConfigMap; its key SKILL.md is required.")
    items: list[KeyPath] | None = Field(
        None, max_length=200, description="Where keys go in the skill's folder; every key is a file when unset."
    )


class SkillsInit(Model):
    resources: Resources | None = Field(None, description="Resources of the init container that fetches skills.")
    env: Env | None = Field(None, description="Variables of the init container that fetches skills.")


class Skills(Model):
    insecure_skip_verify: bool | None = Field(
        None, description="Verify neither certificates nor host keys, and allow http and git without TLS."
    )
    refs: list[str] | None = Field(None, min_length=1, max_length=20, description="OCI images that hold skills.")
    image_pull_secrets: list[NameRef] | None = Field(None, max_length=20, description="Secrets to pull them with.")
    git_auth_secret_ref: NameRef | None = Field(
        None, description="Secret with key token (and username), or ssh-privatekey and known_hosts, for git."
    )
    git_refs: list[GitSkill] | None = Field(None, min_length=1, max_length=20, description="Skills in git.")
    s3_refs: list[S3Skill] | None = Field(
        None, alias="s3Refs", min_length=1, max_length=20, description="Skills in S3 buckets."
    )
    s3_auth_secret_ref: NameRef | None = Field(
        None,
        alias="s3AuthSecretRef",
        description="Secret with keys AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and, if need be, AWS_SESSION_TOKEN.",
    )
    config_map_refs: list[ConfigMapSkill] | None = Field(
        None, min_length=1, max_length=20, description="Skills in ConfigMaps of the Agent's namespace."
    )
    init_container: SkillsInit | None = Field(None, description="The container that fetches the skills.")


class PromptSource(Model):
    kind: str | None = Field(None, description="ConfigMap.")
    api_group: str | None = Field(None, description="Empty for core objects.")
    name: str = Field(description="Name of the ConfigMap, in the Agent's namespace.")
    alias: str | None = Field(None, description="Name to use in include; the object's own name when empty.")


class PromptTemplate(Model):
    data_sources: list[PromptSource] | None = Field(
        None, max_length=20, description='ConfigMaps whose keys {{include "alias/key"}} can name.'
    )


class A2ASkill(Model):
    id: str = Field(description="Unique id of the skill on this agent.")
    name: str = Field(description="Name for people.")
    description: str | None = Field(None, description="What the skill does.")
    tags: list[str] = Field(description="Words to find the skill by.")
    examples: list[str] | None = Field(None, description="Requests the skill can answer.")
    input_modes: list[str] | None = Field(None, description="Media types accepted.")
    output_modes: list[str] | None = Field(None, description="Media types produced.")


class A2AConfig(Model):
    skills: list[A2ASkill] = Field(min_length=1, description="Skills on the agent's A2A card.")


class AgentMemory(Model):
    model_config_: str = Field(
        alias="modelConfig",
        description="ModelConfig of the embedding model; one of provider Scripted has a built-in one, without a key.",
    )
    ttl_days: int | None = Field(
        None,
        ge=1,
        description="Days from when it was saved until a memory expires, 15 when unset; often used ones live longer.",
    )


class Summarizer(Model):
    model_config_: str | None = Field(
        None, alias="modelConfig", description="ModelConfig that summarises; the agent's own when unset."
    )
    prompt_template: str | None = Field(None, description="Prompt of the summary.")


class Compaction(Model):
    compaction_interval: int = Field(5, ge=1, description="Turns between compactions.")
    overlap_size: int = Field(2, ge=0, description="Newest turns that stay as they are then.")
    token_threshold: int | None = Field(None, description="Compact when the context is longer than this.")
    event_retention_size: int | None = Field(None, description="Newest messages that tokenThreshold leaves.")
    summarizer: Summarizer | None = Field(None, description="How old turns are summarised; dropped when unset.")


class ToolResults(Model):
    page_size: int = Field(
        32000, ge=1000, le=1000000, description="Characters of a tool's result that the model gets at once."
    )
    max_size: int = Field(
        1000000, ge=1000, le=1000000, description="Characters of a tool's result that are kept to be read on in."
    )


class ContextConfig(Model):
    compaction: Compaction | None = Field(None, description="Shortening of long conversations.")
    max_tokens: int | None = Field(
        None, ge=1000, json_schema_extra={"format": "int64"},
        description="No model call has more tokens than these, by an estimate that follows the provider's count.",
    )  # fmt: skip
    images: Annotated[str, enum("Auto", "Always", "Never")] = Field(
        "Auto", description="Whether the model takes images; Auto: as far as its name tells."
    )
    tool_results: ToolResults | None = Field(None, description="How long results of tools are shown.")


class McpServerTool(Model):
    """Tools of one MCP server."""

    model_config = rules(
        (
            "!(has(self.requireApproval) && size(self.requireApproval) > 0 && "
            "(!has(self.toolNames) || self.requireApproval.exists(x, !(x in self.toolNames))))",
            "each tool in requireApproval must also appear in toolNames",
        )
    )
    kind: str | None = Field(None, description="MCPServer (default), RemoteMCPServer, or Service.")
    api_group: str | None = Field(None, description="kagent.dev, or empty for a Service.")
    name: str = Field(description="Name of the MCP server.")
    namespace: str | None = Field(None, description="Its namespace; the Agent's own when unset.")
    tool_names: list[Annotated[str, Field(max_length=253)]] | None = Field(
        None, max_length=50, description="Tools the agent may call; the gateway denies others. Empty means all."
    )
    require_approval: list[Annotated[str, Field(max_length=253)]] | None = Field(
        None, max_length=50, description="Tools a person must approve before each call."
    )
    allowed_headers: list[str] | None = Field(
        None, description="Headers of the user's request that are forwarded to the server."
    )


class AgentTool(Model):
    """Another agent, used as a tool."""

    kind: Annotated[str, enum("", "Agent", "SandboxAgent")] | None = Field(None, description="Agent or SandboxAgent.")
    api_group: str | None = Field(None, description="kagent.dev.")
    name: str = Field(description="Name of the agent.")
    namespace: str | None = Field(None, description="Its namespace; this Agent's own when unset.")


class LegacyMcpServerTool(McpServerTool):
    """v1alpha1: a ToolServer's tools; with the fields of v1alpha2 for mixed files."""

    name: str | None = Field(None, description="Name of the MCP server.")  # type: ignore[assignment]  # or the older field
    tool_server: str | None = Field(None, description="v1alpha1: [namespace/]name of a ToolServer.")


class LegacyAgentTool(AgentTool):
    """v1alpha1: an agent by ref; with the fields of v1alpha2 for mixed files."""

    name: str | None = Field(None, description="Name of the agent.")  # type: ignore[assignment]  # or the older field
    ref: str | None = Field(None, min_length=1, description="v1alpha1: [namespace/]name of the agent.")


_TOOL_RULES = rules(
    ("!has(self.mcpServer) || self.type == 'McpServer'", "type.mcpServer must be nil if the type is not McpServer"),
    (
        "!(!has(self.mcpServer) && self.type == 'McpServer')",
        "type.mcpServer must be specified for McpServer filter.type",
    ),
    ("!has(self.agent) || self.type == 'Agent'", "type.agent must be nil if the type is not Agent"),
    ("!(!has(self.agent) && self.type == 'Agent')", "type.agent must be specified for Agent filter.type"),
    (
        "!(has(self.isolateSessions) && self.isolateSessions && self.type != 'Agent')",
        "isolateSessions can only be set when type is Agent",
    ),
)


class Tool(Model):
    """One source of tools: an MCP server or another agent."""

    model_config = _TOOL_RULES
    type: Annotated[str, enum("McpServer", "Agent")] = Field("McpServer", description="McpServer or Agent.")
    mcp_server: McpServerTool | None = Field(None, description="The MCP server, for type McpServer.")
    agent: AgentTool | None = Field(None, description="The agent, for type Agent.")
    isolate_sessions: bool | None = Field(None, description="Give every call of the agent its own session.")
    timeout: Duration | None = Field(
        None,
        description="The longest that one call may take; the server's own timeout, or 10m of an agent, when unset.",
    )
    headers_from: list[ValueRef] | None = Field(
        None, description="Headers the gateway adds to the tool's requests; they win over the server's own."
    )


class LegacyTool(Tool):
    mcp_server: LegacyMcpServerTool | None = Field(  # pyright: ignore[reportIncompatibleVariableOverride]
        None, description="The MCP server, for type McpServer."
    )
    agent: LegacyAgentTool | None = Field(  # pyright: ignore[reportIncompatibleVariableOverride]
        None, description="The agent, for type Agent."
    )


class ServiceAccountConfig(Model):
    labels: dict[str, str] | None = Field(None, description="Labels of the ServiceAccount.")
    annotations: dict[str, str] | None = Field(None, description="Annotations of the ServiceAccount.")


class SharedDeployment(Model):
    """Pod and Deployment settings of declarative and BYO agents."""

    model_config = rules(
        (
            "!(has(self.serviceAccountName) && has(self.serviceAccountConfig))",
            "serviceAccountName and serviceAccountConfig are mutually exclusive",
        ),
        (
            "!has(self.extraContainers) || self.extraContainers.all(c, c.name != 'kagent')",
            "extraContainers must not contain a container named 'kagent'",
        ),
    )
    replicas: int | None = Field(None, json_schema_extra={"format": "int32"}, description="Pods to run.")
    image_pull_secrets: PullSecrets | None = Field(None, description="Secrets to pull images with.")
    volumes: Volumes | None = Field(None, description="Further volumes of the Pod.")
    volume_mounts: VolumeMounts | None = Field(None, description="Where the agent's container mounts them.")
    labels: dict[str, str] | None = Field(None, description="Further labels of the Pod.")
    annotations: dict[str, str] | None = Field(None, description="Further annotations of the Pod.")
    deployment_annotations: dict[str, str] | None = Field(None, description="Annotations of the Deployment.")
    env: Env | None = Field(None, description="Further variables of the agent's container.")
    env_from: EnvFrom | None = Field(None, description="ConfigMaps and Secrets whose keys become variables.")
    image_pull_policy: str | None = Field(None, description="Always, Never or IfNotPresent.")
    resources: Resources | None = Field(None, description="CPU and memory of the agent's container.")
    tolerations: Tolerations | None = Field(None, description="Taints the Pod tolerates.")
    affinity: Affinity | None = Field(None, description="Scheduling constraints.")
    node_selector: dict[str, str] | None = Field(None, description="Labels of the nodes the Pod may run on.")
    topology_spread_constraints: SpreadConstraints | None = Field(None, description="How Pods spread over nodes.")
    security_context: SecurityContext | None = Field(None, description="Of the agent's container.")
    pod_security_context: PodSecurityContext | None = Field(None, description="Of the Pod.")
    service_account_name: str | None = Field(None, description="An existing ServiceAccount; none is created then.")
    service_account_config: ServiceAccountConfig | None = Field(None, description="Of the ServiceAccount created.")
    extra_containers: (
        Annotated[
            Containers,
            Field(json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]}),
        ]
        | None
    ) = Field(None, description="Sidecars of the agent's Pod.")


class DeclarativeDeployment(SharedDeployment):
    image_registry: str | None = Field(None, description="Registry to take the runtime's image from.")


class ByoDeployment(SharedDeployment):
    image: str | None = Field(None, min_length=1, description="Image that serves A2A on port 8080.")
    cmd: str | None = Field(None, description="Command of the container.")
    args: list[str] | None = Field(None, description="Arguments of the command.")
    working_dir: str | None = Field(None, description="Working directory of the container.")


class Declarative(Model):
    """An agent made of a prompt, a model and tools."""

    model_config = rules(
        (
            "!has(self.systemMessage) || !has(self.systemMessageFrom)",
            "systemMessage and systemMessageFrom are mutually exclusive",
        )
    )
    runtime: Annotated[str, enum("python", "go")] = Field(
        "go", description="Kept for kagent's files; Quarterdeck has one runtime."
    )
    system_message: str | None = Field(None, description="The system prompt; a template when promptTemplate is set.")
    system_message_from: ValueSource | None = Field(None, description="Where the system prompt is read from.")
    prompt_template: PromptTemplate | None = Field(None, description="Makes the system prompt a Go text/template.")
    model_config_: str | None = Field(
        None, alias="modelConfig", description="ModelConfig in the same namespace; default-model-config when empty."
    )
    stream: bool = Field(False, description="Stream the model's answer.")
    tools: list[Tool] | None = Field(None, max_length=20, description="MCP servers and agents this agent may use.")
    a2a_config: A2AConfig | None = Field(None, alias="a2aConfig", description="Skills on the A2A card.")
    execute_code_blocks: bool | None = Field(None, description="Deprecated; accepted and ignored with a condition.")
    share_tools: bool | None = Field(None, description="Give the agent tools that manage share links.")
    memory: AgentMemory | None = Field(
        None, description="What the agent remembers of each user from one conversation to the next."
    )
    context: ContextConfig | None = Field(None, description="Handling of long conversations.")
    output_schema: Json | None = Field(
        None, description="JSON Schema of the agent's answers: each is one JSON document that matches it."
    )
    runs: RunSettings | None = Field(None, description="What one run may use, and what happens when it is interrupted.")
    deployment: DeclarativeDeployment | None = Field(None, description="Settings of the Deployment.")


class LegacyDeclarative(Declarative):
    tools: list[LegacyTool] | None = Field(  # type: ignore[assignment]  # the union widens the element
        None, max_length=20, description="MCP servers and agents this agent may use."
    )


class Byo(Model):
    deployment: ByoDeployment | None = Field(None, description="The image and its Deployment.")


class AgentSpec(Model):
    """What the agent is."""

    model_config = rules(
        ("has(self.type)", "type must be specified"),
        ("self.type == 'Declarative' || self.type == 'BYO'", "type must be either Declarative or BYO"),
        (
            "(self.type == 'Declarative' && has(self.declarative)) || (self.type == 'BYO' && has(self.byo))",
            "declarative must be specified if type is Declarative, or byo must be specified if type is BYO",
        ),
    )
    type: Annotated[str, enum("Declarative", "BYO")] = Field("Declarative", description="Declarative or BYO.")
    description: str | None = Field(None, description="What the agent does, for people and other agents.")
    icon_url: str | None = Field(None, json_schema_extra={"format": "uri"}, description="Icon on the A2A card.")
    documentation_url: str | None = Field(
        None, json_schema_extra={"format": "uri"}, description="Documentation on the A2A card."
    )
    version: str | None = Field(None, description="Version on the A2A card.")
    provider: Provider | None = Field(None, description="Provider on the A2A card.")
    allowed_namespaces: AllowedNamespaces | None = Field(
        None, description="Namespaces whose agents may use this agent as a tool."
    )
    sandbox: Sandbox | None = Field(None, description="Sandbox of executed code.")
    skills: Skills | None = Field(None, description="Skills the agent loads.")
    declarative: Declarative | None = Field(None, description="The agent, for type Declarative.")
    byo: Byo | None = Field(None, description="The agent, for type BYO.")
    replicas: int = Field(
        DEFAULT_REPLICAS,
        ge=0,
        json_schema_extra={"format": "int32"},
        description="Pods to run; what `kubectl scale agent` sets. Seeded from deployment.replicas.",
    )
    rollout: Rollout | None = Field(None, description="How a new spec takes the place of the old one.")
    scale_to_zero: ScaleToZero | None = Field(None, description="End the Pods while nobody calls the agent.")


class LegacyDeployment(SharedDeployment):
    image_registry: str | None = Field(None, description="Registry to take the runtime's image from.")


class AgentSpecV1Alpha1(AgentSpec):
    """Both published shapes: v1alpha1's flat fields, and v1alpha2's `declarative`/`byo`."""

    model_config = rules()
    declarative: LegacyDeclarative | None = Field(  # pyright: ignore[reportIncompatibleVariableOverride]
        None, description="The agent, in the shape of v1alpha2."
    )
    system_message: str | None = Field(None, min_length=1, description="The system prompt.")
    model_config_: str | None = Field(None, alias="modelConfig", description="ModelConfig in the same namespace.")
    stream: bool | None = Field(None, description="Stream the model's answer.")
    memory: list[str] | None = Field(None, description="Names of Memory objects; kept, not used.")
    a2a_config: A2AConfig | None = Field(None, alias="a2aConfig", description="Skills on the A2A card.")
    deployment: LegacyDeployment | None = Field(None, description="Settings of the Deployment.")
    tools: list[LegacyTool] | None = Field(None, max_length=20, description="Tools this agent may use.")


class AgentStatus(Status):
    replicas: int | None = Field(None, json_schema_extra={"format": "int32"}, description="Pods that exist.")
    seeded_replicas: int | None = Field(
        None, json_schema_extra={"format": "int32"}, description="The deployment.replicas last copied to spec.replicas."
    )
    selector: str | None = Field(None, description="Label selector of the Pods, for autoscalers.")
    config_hash: str | None = Field(None, description="Hash of the configuration the Pods run with.")
    rollout: RolloutStatus | None = Field(None, description="A canary, or how the last one ended.")


class Agent(Model):
    """An AI agent: a Deployment that answers over A2A and reaches tools and models through the gateway."""

    spec: AgentSpec | None = Field(None, description="What the agent is.")
    status: AgentStatus | None = Field(None, description="Observed state.")


class AgentV1Alpha1(Model):
    """An AI agent, in the older version."""

    spec: AgentSpecV1Alpha1 | None = Field(None, description="What the agent is.")
    status: AgentStatus | None = Field(None, description="Observed state.")


KIND = Kind(
    "Agent",
    "agents",
    (
        Version(
            "v1alpha2",
            Agent,
            (
                Column("Type", ".spec.type", description="Declarative or BYO."),
                Column("Runtime", ".spec.declarative.runtime", description="Runtime of a declarative agent."),
                condition_column("Ready"),
                condition_column("Accepted"),
            ),
        ),
        Version(
            "v1alpha1",
            AgentV1Alpha1,
            (Column("ModelConfig", ".spec.modelConfig"), condition_column("Ready"), condition_column("Accepted")),
            storage=False,
        ),
    ),
    scale=True,
)
