"""What an Agent refers to: found, permitted and read, or a ConfigError that says what to do about it."""

from __future__ import annotations

from collections.abc import Iterator

from quarterdeck.errors import CircularReference, ConfigError, RefNotFound, RefNotPermitted
from quarterdeck.kube import resource as k
from quarterdeck.kube.resource import Object, Resource
from quarterdeck.resources.agent import AgentSpec, Declarative, Tool
from quarterdeck.resources.conversion import agent_spec, model_spec
from quarterdeck.snapshot.virtual import KIND as VIRTUAL
from quarterdeck.translate import prompt
from quarterdeck.translate.agent_config import AgentInputs, ResolvedModel, ToolTarget
from quarterdeck.translate.model import silence
from quarterdeck.translate.objects import duration
from quarterdeck.translate.reference import Target, allowed, model_key, tool_target_key, tool_target_keys
from quarterdeck.translate.skills import names_of
from quarterdeck.translate.snapshot import models_of

from . import output_schema, skills, virtual_server
from .context import RESOLVED, Context, Verdict
from .sources import Source, hashes, missing, sources_in_pod

_TARGETS: dict[str, Resource] = {
    "MCPServer": k.MCP_SERVER,
    "RemoteMCPServer": k.REMOTE_MCP_SERVER,
    "VirtualServer": k.VIRTUAL_SERVER,
    "Service": k.SERVICE,
    "Agent": k.AGENT,
}
_SHAREABLE = ("Agent", "RemoteMCPServer")
"""Kinds with ``allowedNamespaces``; others are used in their own namespace only."""
_MAX_DEPTH = 10
Name = tuple[str, str]
"""namespace, name"""


def references(obj: Object, context: Context) -> set[str]:
    """``kind/namespace/name`` of everything an Agent's translation reads."""
    namespace = obj["metadata"]["namespace"]
    options = context.options
    try:
        spec = agent_spec(obj)
    except ConfigError:
        return set()
    found: set[str] = {f"Namespace//{namespace}"}
    for name in models_of(spec):
        found.add(f"ModelConfig/{namespace}/{name or options.default_model}")
        if name in ("", options.default_model):
            found.add(f"ModelConfig/{options.default_namespace}/{options.default_model}")
    declarative = spec.declarative
    for tool in (declarative.tools if declarative else None) or ():
        try:
            found.update("/".join(key) for key in tool_target_keys(namespace, tool))
        except ConfigError:
            continue
        headers = [header.value_from for header in tool.headers_from or () if header.value_from is not None]
        found.update(f"{source.type}/{namespace}/{source.name}" for source in headers)
    if declarative is not None:
        if declarative.system_message_from is not None:
            source = declarative.system_message_from
            found.add(f"{source.type}/{namespace}/{source.name}")
        template = declarative.prompt_template
        found.update(f"ConfigMap/{namespace}/{s.name}" for s in (template.data_sources if template else None) or ())
    found.update(f"{source.kind}/{namespace}/{source.name}" for source in _sources(spec) | skills.secrets(spec))
    return found


def _sources(spec: AgentSpec) -> set[Source]:
    """What the Pods mount or have in their environment, beyond what we make ourselves."""
    settings = _settings(spec)
    own = sources_in_pod({"containers": [skills.init_container(spec)]}) | skills.config_maps(spec)
    if settings is None:
        return own
    container: Object = {"env": settings.env, "envFrom": settings.env_from}
    containers = [container, *(settings.extra_containers or ())]
    return own | sources_in_pod({"volumes": settings.volumes, "containers": containers})


def _settings(spec: AgentSpec):
    if spec.type == "BYO":
        return spec.byo.deployment if spec.byo else None
    return spec.declarative.deployment if spec.declarative else None


def resolve(context: Context, obj: Object) -> AgentInputs:
    """Raises ConfigError for what is missing or may not be used."""
    spec = agent_spec(obj)
    namespace = obj["metadata"]["namespace"]
    mounted = hashes(context, namespace, obj["metadata"]["name"], _sources(spec))
    skills.check(context, namespace, spec)
    declarative = spec.declarative
    if spec.type == "BYO":
        if spec.byo is None or spec.byo.deployment is None or not spec.byo.deployment.image:
            raise ConfigError(f"Agent {obj['metadata']['name']}: spec.byo.deployment.image is required for type BYO")
        if declarative is None:
            return AgentInputs(obj, spec, _default_model(context, namespace), mounted=mounted)
    if declarative is None:
        raise ConfigError(f"Agent {obj['metadata']['name']}: spec.declarative is required for type Declarative")
    output_schema.check(declarative.output_schema)
    targets = [_target(context, namespace, tool) for tool in declarative.tools or ()]
    _check_nesting(context, obj)
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
    if found is None and "/" in wanted:
        raise RefNotPermitted(
            f"modelConfig: {wanted}: an Agent uses ModelConfigs of its own namespace; create one in {namespace} and "
            "give its name alone"
        )
    if found is None:
        raise RefNotFound(f"ModelConfig {'/'.join(key)} not found; create it or name another in modelConfig")
    spec = model_spec({"kind": "ModelConfig"} | found)
    return ResolvedModel(*key, spec.model, silence(spec))


def _default_model(context: Context, namespace: str) -> ResolvedModel | None:
    """The model a BYO agent may call that names none; it need not call any."""
    try:
        return _model(context, namespace, "")
    except ConfigError:
        return None


def _exists(context: Context, key: Target) -> bool:
    return context.get(_TARGETS[key[0]], key[1], key[2]) is not None


def _target(context: Context, namespace: str, tool: Tool) -> ToolTarget:
    kind, target_namespace, name = tool_target_key(namespace, tool, lambda key: _exists(context, key))
    if tool.type == "Agent" and tool.agent is not None and tool.agent.kind == "SandboxAgent":
        raise ConfigError(f"tools: SandboxAgent {name} cannot be called yet; use an Agent")
    found = context.get(_TARGETS[kind], target_namespace, name)
    if target_namespace != namespace and not _admitted(context, kind, found, target_namespace, namespace):
        raise _not_permitted(kind, target_namespace, name, namespace)
    if found is None and tool.mcp_server is not None and tool.mcp_server.kind == "ToolServer":
        raise RefNotFound(
            f"tools: there is no RemoteMCPServer and no MCPServer {target_namespace}/{name}, and a ToolServer of "
            "that name is stored only; create one of them"
        )
    if found is None:
        raise RefNotFound(
            f"tools: {kind} {target_namespace}/{name} not found; create it, or correct the name and kind in "
            "spec.declarative.tools"
        )
    spec = found.get("spec") or {}
    values = context.values() if tool.headers_from else None
    for header in tool.headers_from or ():
        if values is not None:
            values.header(namespace, header)
    if kind == VIRTUAL:
        seconds = virtual_server.timeout(context, found)
    else:
        seconds = duration(str(spec.get("timeout") or "") if kind in ("MCPServer", "RemoteMCPServer") else "")
    sse = spec.get("sseReadTimeout")
    return ToolTarget(
        tool,
        kind,
        target_namespace,
        name,
        str(spec.get("description") or ""),
        seconds,
        duration(sse) if sse else None,
        bool(spec.get("terminateOnClose", True)),
        kind == "Agent" and spec.get("type", "Declarative") != "BYO",
    )


def _admitted(context: Context, kind: str, target: Object | None, target_namespace: str, namespace: str) -> bool:
    """Whether an object of another namespace is there and lets ``namespace`` use it."""
    if target is None or kind not in _SHAREABLE:
        return False
    rule = (target.get("spec") or {}).get("allowedNamespaces")
    return allowed(rule, target_namespace, namespace, context.namespace_labels(namespace))


def _not_permitted(kind: str, target_namespace: str, name: str, namespace: str) -> RefNotPermitted:
    """The same words whether the object exists: whose namespace it is not, learns nothing about it."""
    where = f"{kind} {target_namespace}/{name}"
    if kind not in _SHAREABLE:
        return RefNotPermitted(f"tools: {where}: a {kind} is used in its own namespace only; create one in {namespace}")
    return RefNotPermitted(
        f"tools: {where} is not there, or does not allow namespace {namespace}; its owner allows it in "
        "spec.allowedNamespaces"
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
            raise RefNotFound(f"promptTemplate: ConfigMap {namespace}/{item.name} not found; create it")
        sources[item.alias or item.name] = found.get("data") or {}
    names = [n for tool in declarative.tools or () if tool.mcp_server for n in tool.mcp_server.tool_names or ()]
    return prompt.render(
        text, sources, prompt.PromptContext(name, namespace, spec.description or "", names, names_of(spec.skills))
    )


def _check_nesting(context: Context, obj: Object) -> None:
    """Raises ConfigError when the agent calls itself through others, or others through too many.

    A circle that it only reaches is the matter of the agents in it. Each agent is visited once, however many ways lead
    to it.
    """
    root: Name = (obj["metadata"]["namespace"], obj["metadata"]["name"])
    paths: dict[Name, tuple[Name, ...]] = {root: (root,)}
    level = [root]
    while level:
        following: list[Name] = []
        for key in level:
            called = obj if key == root else context.get(k.AGENT, *key)
            for target in _agents_called(called, key[0]):
                path = (*paths[key], target)
                if target == root:
                    raise CircularReference(_nested(context, obj, path, "agents call each other in a circle"))
                if target in paths:
                    continue
                if len(path) > _MAX_DEPTH:
                    raise ConfigError(_nested(context, obj, path, f"agents are nested deeper than {_MAX_DEPTH}"))
                paths[target] = path
                following.append(target)
        level = following


def _agents_called(obj: Object | None, namespace: str) -> Iterator[Name]:
    declarative: Object = ((obj or {}).get("spec") or {}).get("declarative") or {}
    for tool in declarative.get("tools") or ():
        agent = tool.get("agent") or {}
        if tool.get("type") == "Agent" and agent.get("name"):
            yield agent.get("namespace") or namespace, agent["name"]


def _nested(context: Context, obj: Object, path: tuple[Name, ...], what: str) -> str:
    """The message; whichever agent on the path changes, ``obj`` is looked at again."""
    for key in path:
        context.holders.wait(obj, k.AGENT, *key)
    shown = " → ".join("/".join(key) for key in path)
    return f"tools: {what}: {shown}; take one of the calls out of spec.declarative.tools"


def resolved_refs(context: Context, inputs: AgentInputs) -> Verdict:
    """Whether what the Pods read is there, and every named tool is known to exist."""
    absent = missing(context, inputs.namespace, _sources(inputs.spec) | skills.secrets(inputs.spec))
    if absent:
        return Verdict("ResolvedRefs", False, "RefNotFound", f"not found: {', '.join(absent)}; create them")
    unknown: list[str] = []
    unheard = True
    for target in inputs.targets:
        server = target.tool.mcp_server
        if server is None or not server.tool_names:
            continue
        if (known := _known_tools(context, target)) is None:
            continue
        lacking = ", ".join(name for name in server.tool_names if name not in known)
        if lacking:
            verb = "offers no" if known else "has not been heard of yet, so these tools are missing:"
            unheard = unheard and not known
            unknown.append(f"{target.kind} {target.namespace}/{target.name} {verb} {lacking}")
    if unknown:
        return Verdict("ResolvedRefs", False, "ToolsNotFound", "; ".join(unknown), early=unheard)
    return RESOLVED


def _known_tools(context: Context, target: ToolTarget) -> set[str] | None:
    """Names of the server's tools; None when it is excluded from discovery or was never asked."""
    obj = context.get(_TARGETS[target.kind], target.namespace, target.name)
    if obj is None or (obj["metadata"].get("labels") or {}).get("kagent.dev/discovery") == "disabled":
        return None
    names = context.tools.get((target.kind, target.namespace, target.name))
    if names is not None or target.kind == "Service":
        return set(names) if names is not None else None
    return {tool["name"] for tool in (obj.get("status") or {}).get("discoveredTools") or ()}
