"""What an Agent refers to: found, permitted and read, or a ConfigError that says what to do about it."""

from __future__ import annotations

from quarterdeck.errors import ConfigError
from quarterdeck.kube import resource as k
from quarterdeck.kube.resource import Object, Resource
from quarterdeck.resources.agent import AgentSpec, Declarative, Tool
from quarterdeck.resources.conversion import agent_spec, model_spec
from quarterdeck.translate import prompt
from quarterdeck.translate.agent_config import AgentInputs, ResolvedModel, ToolTarget
from quarterdeck.translate.objects import duration
from quarterdeck.translate.reference import Target, allowed, model_key, tool_target_key, tool_target_keys

from .context import Context, Verdict
from .sources import Source, hashes, sources_in_pod

_TARGETS: dict[str, Resource] = {
    "MCPServer": k.MCP_SERVER,
    "RemoteMCPServer": k.REMOTE_MCP_SERVER,
    "Service": k.SERVICE,
    "Agent": k.AGENT,
}
_MAX_DEPTH = 10


def references(obj: Object, context: Context) -> set[str]:
    """``kind/namespace/name`` of everything an Agent's translation reads."""
    namespace = obj["metadata"]["namespace"]
    options = context.options
    try:
        spec = agent_spec(obj)
    except ConfigError:
        return set()
    found: set[str] = {f"Namespace//{namespace}"}
    names = _model_names(spec)
    for name in names:
        found.add(f"ModelConfig/{namespace}/{name or options.default_model}")
        if name in ("", options.default_model):
            found.add(f"ModelConfig/{options.default_namespace}/{options.default_model}")
    declarative = spec.declarative
    for tool in (declarative.tools if declarative else None) or ():
        try:
            found.update("/".join(key) for key in tool_target_keys(namespace, tool))
        except ConfigError:
            continue
    if declarative is not None:
        if declarative.system_message_from is not None:
            source = declarative.system_message_from
            found.add(f"{source.type}/{namespace}/{source.name}")
        template = declarative.prompt_template
        found.update(f"ConfigMap/{namespace}/{s.name}" for s in (template.data_sources if template else None) or ())
    found.update(f"{source.kind}/{namespace}/{source.name}" for source in _sources(spec))
    return found


def _sources(spec: AgentSpec) -> set[Source]:
    """What the Pods mount or have in their environment, beyond what we make ourselves."""
    settings = _settings(spec)
    if settings is None:
        return set()
    own: Object = {"env": settings.env, "envFrom": settings.env_from}
    return sources_in_pod({"volumes": settings.volumes, "containers": [own, *(settings.extra_containers or ())]})


def _settings(spec: AgentSpec):
    if spec.type == "BYO":
        return spec.byo.deployment if spec.byo else None
    return spec.declarative.deployment if spec.declarative else None


def _model_names(spec: AgentSpec) -> list[str]:
    declarative = spec.declarative
    if declarative is None:
        return []
    names = [declarative.model_config_ or ""]
    if declarative.memory is not None:
        names.append(declarative.memory.model_config_)
    compaction = declarative.context.compaction if declarative.context else None
    if compaction is not None and compaction.summarizer is not None and compaction.summarizer.model_config_:
        names.append(compaction.summarizer.model_config_)
    return names


def resolve(context: Context, obj: Object) -> AgentInputs:
    """Raises ConfigError for what is missing or may not be used."""
    spec = agent_spec(obj)
    namespace = obj["metadata"]["namespace"]
    mounted = hashes(context, namespace, obj["metadata"]["name"], _sources(spec))
    declarative = spec.declarative
    if spec.type == "BYO":
        if spec.byo is None or spec.byo.deployment is None or not spec.byo.deployment.image:
            raise ConfigError(f"Agent {obj['metadata']['name']}: spec.byo.deployment.image is required for type BYO")
        return AgentInputs(obj, spec, mounted=mounted)
    if declarative is None:
        raise ConfigError(f"Agent {obj['metadata']['name']}: spec.declarative is required for type Declarative")
    targets = [_target(context, namespace, tool) for tool in declarative.tools or ()]
    _check_cycles(context, obj, spec)
    memory = declarative.memory
    compaction = declarative.context.compaction if declarative.context else None
    summarizer = compaction.summarizer.model_config_ if compaction and compaction.summarizer else None
    return AgentInputs(
        obj,
        spec,
        _model(context, namespace, declarative.model_config_ or ""),
        _instruction(context, obj, spec, declarative),
        targets,
        _model(context, namespace, memory.model_config_) if memory else None,
        _model(context, namespace, summarizer) if summarizer else None,
        mounted,
    )


def _model(context: Context, namespace: str, wanted: str) -> ResolvedModel:
    informer = context.set.informer(k.MODEL_CONFIG)
    options = context.options
    existing = (
        {(namespace, wanted or options.default_model)}
        if informer.get(namespace, wanted or options.default_model)
        else set[tuple[str, str]]()
    )
    key = model_key(namespace, wanted, existing, options)
    found = informer.get(*key)
    if found is None:
        raise ConfigError(f"ModelConfig {'/'.join(key)} not found; create it or name another in modelConfig")
    return ResolvedModel(*key, model_spec({"kind": "ModelConfig"} | found).model)


def _exists(context: Context, key: Target) -> bool:
    return context.get(_TARGETS[key[0]], key[1], key[2]) is not None


def _target(context: Context, namespace: str, tool: Tool) -> ToolTarget:
    kind, target_namespace, name = tool_target_key(namespace, tool, lambda key: _exists(context, key))
    if tool.type == "Agent" and tool.agent is not None and tool.agent.kind == "SandboxAgent":
        raise ConfigError(f"tools: SandboxAgent {name} cannot be called yet; use an Agent")
    found = context.get(_TARGETS[kind], target_namespace, name)
    where = f"{kind} {target_namespace}/{name}"
    if found is None and tool.mcp_server is not None and tool.mcp_server.kind == "ToolServer":
        raise ConfigError(
            f"tools: there is no RemoteMCPServer and no MCPServer {target_namespace}/{name}, and a ToolServer of "
            "that name is stored only; create one of them"
        )
    if found is None:
        raise ConfigError(
            f"tools: {where} not found; create it, or correct the name and kind in spec.declarative.tools"
        )
    spec = found.get("spec") or {}
    if target_namespace != namespace:
        rule = spec.get("allowedNamespaces") if kind in ("Agent", "RemoteMCPServer") else None
        if not allowed(rule, target_namespace, namespace, context.namespace_labels(namespace)):
            raise ConfigError(
                f"tools: {where} does not allow namespace {namespace}; "
                + (
                    "set its spec.allowedNamespaces"
                    if kind in ("Agent", "RemoteMCPServer")
                    else "use the same namespace"
                )
            )
    values = context.values() if tool.headers_from else None
    for header in tool.headers_from or ():
        if values is not None:
            values.header(namespace, header)
    sse = spec.get("sseReadTimeout")
    return ToolTarget(
        tool,
        kind,
        target_namespace,
        name,
        str(spec.get("description") or ""),
        duration(str(spec.get("timeout") or "") if kind in ("MCPServer", "RemoteMCPServer") else ""),
        duration(sse) if sse else None,
        bool(spec.get("terminateOnClose", True)),
    )


def _instruction(context: Context, obj: Object, spec: AgentSpec, declarative: Declarative) -> str:
    namespace, name = obj["metadata"]["namespace"], obj["metadata"]["name"]
    text = declarative.system_message or ""
    source = declarative.system_message_from
    if source is not None:
        values = context.values()
        read = values.secret if source.type == "Secret" else values.config_map
        text = read(namespace, source.name, source.key)
    template = declarative.prompt_template
    if template is None:
        return text
    sources: dict[str, dict[str, str]] = {}
    for item in template.data_sources or ():
        found = context.get(k.CONFIG_MAP, namespace, item.name)
        if found is None:
            raise ConfigError(f"promptTemplate: ConfigMap {namespace}/{item.name} not found")
        sources[item.alias or item.name] = found.get("data") or {}
    names = [n for tool in declarative.tools or () if tool.mcp_server for n in tool.mcp_server.tool_names or ()]
    return prompt.render(text, sources, prompt.PromptContext(name, namespace, spec.description or "", names))


def _check_cycles(context: Context, obj: Object, spec: AgentSpec) -> None:
    """Raises ConfigError when agents call each other in a circle or too deep."""

    def visit(key: tuple[str, str], own: AgentSpec, path: tuple[tuple[str, str], ...]) -> None:
        if key in path:
            circle = " → ".join("/".join(item) for item in (*path[path.index(key) :], key))
            raise ConfigError(f"tools: agents call each other in a circle: {circle}")
        if len(path) >= _MAX_DEPTH:
            raise ConfigError(f"tools: agents are nested deeper than {_MAX_DEPTH}")
        for tool in (own.declarative.tools if own.declarative else None) or ():
            if tool.type != "Agent" or tool.agent is None:
                continue
            target = (tool.agent.namespace or key[0], tool.agent.name)
            found = context.get(k.AGENT, *target)
            if found is not None:
                visit(target, agent_spec(found), (*path, key))

    visit((obj["metadata"]["namespace"], obj["metadata"]["name"]), spec, ())


def resolved_tools(context: Context, inputs: AgentInputs) -> Verdict:
    """Whether every named tool is known to exist."""
    missing: list[str] = []
    for target in inputs.targets:
        server = target.tool.mcp_server
        if server is None or not server.tool_names:
            continue
        if (known := _known_tools(context, target)) is None:
            continue
        absent = ", ".join(name for name in server.tool_names if name not in known)
        if absent:
            verb = "offers no" if known else "has not been heard of yet, so these tools are missing:"
            missing.append(f"{target.kind} {target.namespace}/{target.name} {verb} {absent}")
    if missing:
        return Verdict("ResolvedRefs", False, "ToolsNotFound", "; ".join(missing))
    return Verdict("ResolvedRefs", True, "ResolvedRefs", "All references are resolved")


def _known_tools(context: Context, target: ToolTarget) -> set[str] | None:
    """Names of the server's tools; None when it is excluded from discovery or was never asked."""
    obj = context.get(_TARGETS[target.kind], target.namespace, target.name)
    if obj is None or (obj["metadata"].get("labels") or {}).get("kagent.dev/discovery") == "disabled":
        return None
    if target.kind == "Service":
        names = context.tools.get((target.kind, target.namespace, target.name))
        return set(names) if names is not None else None
    return {tool["name"] for tool in (obj.get("status") or {}).get("discoveredTools") or ()}
