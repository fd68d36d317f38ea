"""Agent: resolve what it refers to, apply its objects, report."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from quarterdeck.errors import ApiError, ConfigError
from quarterdeck.kube import resource as k
from quarterdeck.kube.controller import Controller, Result
from quarterdeck.kube.resource import Key, Object, Resource
from quarterdeck.resources.agent import AgentSpec, Declarative, Tool
from quarterdeck.resources.conversion import agent_spec, model_spec
from quarterdeck.translate import prompt
from quarterdeck.translate.agent import replicas, selector, translate_agent
from quarterdeck.translate.agent_config import AgentInputs, ResolvedModel, ToolTarget
from quarterdeck.translate.objects import duration
from quarterdeck.translate.reference import Target, allowed, model_key, tool_target_key, tool_target_keys

from .context import Context, Verdict, references_in_pod
from .workload import Workload, workload

_TARGETS: dict[str, Resource] = {
    "MCPServer": k.MCP_SERVER,
    "RemoteMCPServer": k.REMOTE_MCP_SERVER,
    "Service": k.SERVICE,
    "Agent": k.AGENT,
}
_MAX_DEPTH = 10
_REFERENCES = "references"
_RETRY = 60.0


def controller(context: Context) -> Controller:
    reconciler = AgentReconciler(context)
    agents = context.set.informer(k.AGENT)
    agents.add_index(_REFERENCES, lambda obj: references(obj, context))

    def users(kind: str):
        def keys(obj: Object) -> Iterable[Key]:
            metadata = obj["metadata"]
            name = f"{kind}/{metadata.get('namespace', '')}/{metadata['name']}"
            return [_key(agent) for agent in agents.by_index(_REFERENCES, name)]

        return keys

    def hpa_target(obj: Object) -> Iterable[Key]:
        target = (obj.get("spec") or {}).get("scaleTargetRef") or {}
        return [Key(obj["metadata"]["namespace"], target["name"])] if target.get("kind") == "Deployment" else []

    def pod_agent(obj: Object) -> Iterable[Key]:
        name = (obj["metadata"].get("labels") or {}).get("kagent")
        return [Key(obj["metadata"]["namespace"], name)] if name else []

    return Controller(
        "agent",
        k.AGENT,
        reconciler.reconcile,
        owns=(k.DEPLOYMENT, k.SERVICE, k.SECRET, k.SERVICE_ACCOUNT),
        maps=(
            (k.MODEL_CONFIG, users("ModelConfig")),
            (k.MCP_SERVER, users("MCPServer")),
            (k.REMOTE_MCP_SERVER, users("RemoteMCPServer")),
            (k.SERVICE, users("Service")),
            (k.AGENT, users("Agent")),
            (k.SECRET, users("Secret")),
            (k.CONFIG_MAP, users("ConfigMap")),
            (k.NAMESPACE, users("Namespace")),
            (k.HPA, hpa_target),
            (k.POD, pod_agent),
        ),
    )


def _key(obj: Object) -> Key:
    return Key(obj["metadata"].get("namespace", ""), obj["metadata"]["name"])


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
    settings = _settings(spec)
    pod = (
        {"volumes": settings.volumes, "containers": [{"env": settings.env, "envFrom": settings.env_from}]}
        if settings
        else {}
    )
    found.update(f"{kind}/{namespace}/{name}" for kind, name in references_in_pod(pod))
    return found


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


@dataclass(slots=True)
class AgentReconciler:
    context: Context

    async def reconcile(self, key: Key) -> Result | None:
        obj = self.context.primary(k.AGENT, key)
        if obj is None:
            return None
        verdicts: list[Verdict] = []
        failure: ApiError | None = None
        seeded = (obj.get("status") or {}).get("seededReplicas")
        try:
            inputs = self._resolve(obj)
            release = self.context.autoscaled(key.namespace, key.name)
            objects = translate_agent(inputs, self.context.options, release_replicas=release)
            if release:
                self.context.keep_replicas(objects)
            await self.context.apply(obj, objects)
            seeded = await self.context.seed(k.AGENT, obj, replicas(inputs))
            verdicts.append(Verdict("Accepted", True, "Reconciled", "Agent configuration accepted"))
            verdicts.append(self._resolved_tools(inputs))
        except (ConfigError, ApiError) as error:
            verdicts.append(Verdict("Accepted", False, "ReconcileFailed", str(error)))
            failure = error if isinstance(error, ApiError) else None
        state = workload(self.context, key.namespace, key.name, selector(key.name))
        verdicts.append(ready(state))
        labels = ",".join(f"{name}={value}" for name, value in selector(key.name).items())
        fields = {"replicas": state.total, "selector": labels, "seededReplicas": seeded}
        await self.context.set_status(k.AGENT, obj, verdicts, fields)
        if failure is not None:
            raise failure
        return None if verdicts[0].status else Result(_RETRY)

    def _resolve(self, obj: Object) -> AgentInputs:
        """Raises ConfigError for what is missing or may not be used."""
        spec = agent_spec(obj)
        namespace = obj["metadata"]["namespace"]
        settings = _settings(spec)
        mounted: dict[str, str] = {}
        if settings is not None:
            pod = {"volumes": settings.volumes, "containers": [{"env": settings.env, "envFrom": settings.env_from}]}
            mounted = self.context.hashes(namespace, references_in_pod(pod))
        declarative = spec.declarative
        if spec.type == "BYO":
            if spec.byo is None or spec.byo.deployment is None or not spec.byo.deployment.image:
                raise ConfigError(
                    f"Agent {obj['metadata']['name']}: spec.byo.deployment.image is required for type BYO"
                )
            return AgentInputs(obj, spec, mounted=mounted)
        if declarative is None:
            raise ConfigError(f"Agent {obj['metadata']['name']}: spec.declarative is required for type Declarative")
        targets = [self._target(namespace, tool) for tool in declarative.tools or ()]
        self._check_cycles(obj, spec)
        memory = declarative.memory
        compaction = declarative.context.compaction if declarative.context else None
        summarizer = compaction.summarizer.model_config_ if compaction and compaction.summarizer else None
        return AgentInputs(
            obj,
            spec,
            self._model(namespace, declarative.model_config_ or ""),
            self._instruction(obj, spec, declarative),
            targets,
            self._model(namespace, memory.model_config_) if memory else None,
            self._model(namespace, summarizer) if summarizer else None,
            mounted,
        )

    def _model(self, namespace: str, wanted: str) -> ResolvedModel:
        informer = self.context.set.informer(k.MODEL_CONFIG)
        options = self.context.options
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

    def _exists(self, key: Target) -> bool:
        return self.context.get(_TARGETS[key[0]], key[1], key[2]) is not None

    def _target(self, namespace: str, tool: Tool) -> ToolTarget:
        kind, target_namespace, name = tool_target_key(namespace, tool, self._exists)
        if tool.type == "Agent" and tool.agent is not None and tool.agent.kind == "SandboxAgent":
            raise ConfigError(f"tools: SandboxAgent {name} cannot be called yet; use an Agent")
        found = self.context.get(_TARGETS[kind], target_namespace, name)
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
            if not allowed(rule, target_namespace, namespace, self.context.namespace_labels(namespace)):
                raise ConfigError(
                    f"tools: {where} does not allow namespace {namespace}; "
                    + (
                        "set its spec.allowedNamespaces"
                        if kind in ("Agent", "RemoteMCPServer")
                        else "use the same namespace"
                    )
                )
        values = self.context.values() if tool.headers_from else None
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

    def _instruction(self, obj: Object, spec: AgentSpec, declarative: Declarative) -> str:
        namespace, name = obj["metadata"]["namespace"], obj["metadata"]["name"]
        text = declarative.system_message or ""
        source = declarative.system_message_from
        if source is not None:
            values = self.context.values()
            read = values.secret if source.type == "Secret" else values.config_map
            text = read(namespace, source.name, source.key)
        template = declarative.prompt_template
        if template is None:
            return text
        sources: dict[str, dict[str, str]] = {}
        for item in template.data_sources or ():
            found = self.context.get(k.CONFIG_MAP, namespace, item.name)
            if found is None:
                raise ConfigError(f"promptTemplate: ConfigMap {namespace}/{item.name} not found")
            sources[item.alias or item.name] = found.get("data") or {}
        names = [n for tool in declarative.tools or () if tool.mcp_server for n in tool.mcp_server.tool_names or ()]
        return prompt.render(text, sources, prompt.PromptContext(name, namespace, spec.description or "", names))

    def _check_cycles(self, obj: Object, spec: AgentSpec) -> None:
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
                found = self.context.get(k.AGENT, *target)
                if found is not None:
                    visit(target, agent_spec(found), (*path, key))

        visit((obj["metadata"]["namespace"], obj["metadata"]["name"]), spec, ())

    def _resolved_tools(self, inputs: AgentInputs) -> Verdict:
        """Whether every named tool is known to exist."""
        missing: list[str] = []
        for target in inputs.targets:
            server = target.tool.mcp_server
            if server is None or not server.tool_names:
                continue
            if (known := self._known_tools(target)) is None:
                continue
            absent = ", ".join(name for name in server.tool_names if name not in known)
            if absent:
                verb = "offers no" if known else "has not been heard of yet, so these tools are missing:"
                missing.append(f"{target.kind} {target.namespace}/{target.name} {verb} {absent}")
        if missing:
            return Verdict("ResolvedRefs", False, "ToolsNotFound", "; ".join(missing))
        return Verdict("ResolvedRefs", True, "ResolvedRefs", "All references are resolved")

    def _known_tools(self, target: ToolTarget) -> set[str] | None:
        """Names of the server's tools; None when it is excluded from discovery or was never asked."""
        obj = self.context.get(_TARGETS[target.kind], target.namespace, target.name)
        if obj is None or (obj["metadata"].get("labels") or {}).get("kagent.dev/discovery") == "disabled":
            return None
        if target.kind == "Service":
            names = self.context.tools.get((target.kind, target.namespace, target.name))
            return set(names) if names is not None else None
        return {tool["name"] for tool in (obj.get("status") or {}).get("discoveredTools") or ()}


def ready(state: Workload) -> Verdict:
    if not state.found:
        return Verdict("Ready", None, "DeploymentNotFound", "Deployment does not exist yet")
    if state.available >= 1:
        return Verdict("Ready", True, "DeploymentReady", "Deployment is ready")
    if state.trouble is not None:
        return Verdict("Ready", False, *state.trouble)
    return Verdict("Ready", False, "DeploymentNotReady", state.not_ready)
