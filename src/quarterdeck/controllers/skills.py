"""An Agent's skills: what they are read from, checked as far as it is here, and what the Pods made of them."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from quarterdeck.errors import ConfigError
from quarterdeck.kube import resource as k
from quarterdeck.kube.conditions import get_condition
from quarterdeck.kube.resource import Object
from quarterdeck.resources.agent import AgentSpec
from quarterdeck.skills.report import Report
from quarterdeck.translate.agent import selector
from quarterdeck.translate.skills import CONTAINER, check_config_map, secrets_of, sources_of

from .context import Context, Verdict
from .sources import Source

_LOADED, _SCRIPTS = "SkillsLoaded", "SkillScripts"
_SHOWN = 12


def config_maps(spec: AgentSpec) -> set[Source]:
    """ConfigMaps with skills in them, whose content rolls the Pods."""
    refs = (spec.skills.config_map_refs if spec.skills else None) or ()
    return {Source("ConfigMap", ref.name, item.key) for ref in refs for item in ref.items or ()} | {
        Source("ConfigMap", ref.name) for ref in refs if not ref.items
    }


def secrets(spec: AgentSpec) -> set[Source]:
    """Secrets that only the fetching needs: a new value is used by the next Pod, and rolls none."""
    return {Source("Secret", name) for name in secrets_of(spec.skills).values()}


def init_container(spec: AgentSpec) -> Object:
    """What the user adds to the container that fetches."""
    extra = spec.skills.init_container if spec.skills else None
    return {"env": extra.env} if extra is not None and extra.env else {}


def check(context: Context, namespace: str, spec: AgentSpec) -> None:
    """Raises ConfigError for sources that cannot be meant, and for unsound skills in ConfigMaps that are there."""
    sources_of(spec.skills)
    names: dict[str, str] = {}
    for ref in (spec.skills.config_map_refs if spec.skills else None) or ():
        found = context.get(k.CONFIG_MAP, namespace, ref.name)
        if found is None:
            continue
        name = check_config_map(ref, found.get("data") or {}, found.get("binaryData") or {})
        if name in names:
            raise ConfigError(
                f"skills.configMapRefs: ConfigMaps {names[name]} and {ref.name} both hold skill {name!r}; rename one"
            )
        names[name] = ref.name


def verdicts(context: Context, obj: Object) -> list[Verdict]:
    """Whether the newest Pod has its skills, and whether their scripts can be run."""
    namespace, name = obj["metadata"]["namespace"], obj["metadata"]["name"]
    if not (obj.get("spec") or {}).get("skills"):
        known = {c.get("type") for c in (obj.get("status") or {}).get("conditions") or ()}
        gone = "the agent has no skills any more"
        return [Verdict(kind, True, "NoSkills", gone, quiet=True) for kind in (_LOADED, _SCRIPTS) if kind in known]
    for pod in _newest(context.pods(namespace, selector(name))):
        found = _of_pod(pod)
        if found:
            return found
    known = get_condition((obj.get("status") or {}).get("conditions"), _LOADED) or {}
    if known and known.get("observedGeneration") == obj["metadata"].get("generation"):
        return []  # it sleeps: what its last Pods had is what the next will have
    return [Verdict(_LOADED, None, "SkillsPending", "no Pod has fetched the skills yet", early=True, quiet=True)]


def _newest(pods: Iterable[Object]) -> list[Object]:
    alive = [pod for pod in pods if not pod["metadata"].get("deletionTimestamp")]
    return sorted(alive, key=lambda pod: str(pod["metadata"].get("creationTimestamp") or ""), reverse=True)


def _of_pod(pod: Object) -> list[Verdict]:
    """What the init container of a Pod said at its end; nothing while it is at work for the first time."""
    statuses = (pod.get("status") or {}).get("initContainerStatuses") or ()
    status: Object = next((s for s in statuses if s.get("name") == CONTAINER), {})
    ended: Object = (
        (status.get("state") or {}).get("terminated") or (status.get("lastState") or {}).get("terminated") or {}
    )
    if not ended:
        return []
    said = str(ended.get("message") or "").strip()
    if ended.get("exitCode") != 0:
        where = f"kubectl logs -n {pod['metadata']['namespace']} {pod['metadata']['name']} -c {CONTAINER}"
        return [Verdict(_LOADED, False, "SkillsNotLoaded", said or f"exit code {ended.get('exitCode')}; see `{where}`")]
    try:
        report = msgspec.json.decode(said or "{}", type=Report)
    except msgspec.DecodeError:
        report = Report()
    return [_loaded(report), *_scripts(report)]


def _loaded(report: Report) -> Verdict:
    names = [
        f"{skill.name} ({skill.source}{' ' if skill.revision else ''}{skill.revision[:19]})"
        for skill in report.skills[:_SHOWN]
    ]
    more = [f"and {len(report.skills) - _SHOWN} more"] if len(report.skills) > _SHOWN else []
    return Verdict(_LOADED, True, _LOADED, ", ".join([*names, *more]) or "the skills are there", quiet=True)


def _scripts(report: Report) -> list[Verdict]:
    with_scripts = [skill.name for skill in report.skills if skill.scripts]
    if report.sandbox:
        text = f"scripts of skills are not offered to the model: {report.sandbox}"
        return [Verdict(_SCRIPTS, False, "SandboxUnavailable", text)]
    if not with_scripts:
        return []
    text = f"scripts of {', '.join(with_scripts[:_SHOWN])} run in a sandbox"
    return [Verdict(_SCRIPTS, True, "Sandboxed", text, quiet=True)]
