"""``qd logs``: the output of Pods, and of what Pods belong to."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .target import As, Context, Kubeconfig, Namespace, Selector, agents_namespace, connect, run

if TYPE_CHECKING:
    from quarterdeck.kube.client import KubeClient

    from .kinds import Kinds

_BEHIND_DEPLOYMENT = ("Agent", "MCPServer", "ModelConfig")
_SELECTOR_TAIL = 10


def register(app: typer.Typer) -> None:
    app.command()(logs)


def logs(
    target: Annotated[str, typer.Argument(help="POD, deploy/NAME, agent/NAME, mcpserver/NAME …")] = "",
    namespace: Namespace = "",
    selector: Selector = "",
    container: Annotated[str, typer.Option("--container", "-c", help="Container of the Pod.")] = "",
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with new lines.")] = False,
    tail: Annotated[int, typer.Option("--tail", help="Newest lines only; -1: all.")] = -1,
    since: Annotated[str, typer.Option("--since", help="Only lines newer than 5s, 2m or 3h.")] = "",
    previous: Annotated[
        bool, typer.Option("--previous", "-p", help="Of the container before its last restart.")
    ] = False,
    timestamps: Annotated[bool, typer.Option("--timestamps", help="The time of each line.")] = False,
    prefix: Annotated[bool, typer.Option("--prefix", help="The Pod and container before each line.")] = False,
    kubeconfig: Kubeconfig = "",
    context: Context = "",
    as_user: As = "",
) -> None:
    """Print the logs of a Pod, or of one Pod of a workload, an Agent or an MCPServer."""
    from quarterdeck.errors import UsageError

    from .durations import seconds

    if bool(target) == bool(selector):
        raise UsageError("name a Pod, a KIND/NAME, or Pods by -l SELECTOR")
    params: dict[str, str] = {}
    if follow:
        params["follow"] = "true"
    if previous:
        params["previous"] = "true"
    if timestamps:
        params["timestamps"] = "true"
    if since:
        params["sinceSeconds"] = str(max(1, int(seconds(since, "--since"))))
    lines = tail if tail >= 0 else _SELECTOR_TAIL if selector else -1
    if lines >= 0:
        params["tailLines"] = str(lines)
    kind = target.partition("/")[0].lower() if "/" in target else ""
    if kind.startswith(("agent", "ag", "mcps", "mcpserver")) and not (kubeconfig or context):
        namespace = agents_namespace(namespace)

    async def work() -> None:
        async with connect(kubeconfig, context, as_user, namespace) as client:
            pods = await _pods(client, target, selector)
            sources = [Source(pod["metadata"]["name"], each) for pod in pods for each in _containers(pod, container)]
            await asyncio.gather(
                *(_print(client, source, params, prefix=prefix) for source in sources)
            ) if follow else await _in_turn(client, sources, params, prefix=prefix)

    run(work())


@dataclass(frozen=True, slots=True)
class Source:
    pod: str
    container: str


async def _in_turn(client: KubeClient, sources: list[Source], params: dict[str, str], *, prefix: bool) -> None:
    for source in sources:
        await _print(client, source, params, prefix=prefix)


async def _print(client: KubeClient, source: Source, params: dict[str, str], *, prefix: bool) -> None:
    """Copy one log to standard output; with ``prefix`` only whole lines, so that streams do not mix within one."""
    import sys

    from quarterdeck.kube.resource import POD

    path = POD.path(client.config.namespace, source.pod, "log")
    lead = f"[pod/{source.pod}/{source.container}] ".encode() if prefix else b""
    pending = b""
    async for chunk in client.stream(
        path, params=params | ({"container": source.container} if source.container else {})
    ):
        data = chunk
        if prefix:
            *whole, pending = (pending + chunk).split(b"\n")
            data = b"".join(lead + line + b"\n" for line in whole)
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
    if pending:
        sys.stdout.buffer.write(lead + pending + b"\n")
        sys.stdout.buffer.flush()


async def _pods(client: KubeClient, target: str, selector: str) -> list[dict[str, Any]]:
    """The Pods meant: one, or with a selector all that match. Raises NotFound, UsageError."""
    from quarterdeck.errors import NotFound
    from quarterdeck.kube.resource import POD

    from .kinds import discover
    from .output import note

    namespace = client.config.namespace
    if selector:
        found = (await client.list(POD, namespace, label_selector=selector)).items
        if not found:
            note(f"No resources found in {namespace} namespace.")
        return found
    kind_name, slash, name = target.partition("/")
    if not slash or kind_name.lower() in ("pod", "pods", "po"):
        return [await client.get(POD, name if slash else target, namespace)]
    wanted = await _selector_of(client, await discover(client), kind_name, name)
    pods = (await client.list(POD, namespace, label_selector=wanted)).items
    if not pods:
        raise NotFound(f"{target} has no Pods in namespace {namespace}; see: qd get {target} -n {namespace} -o yaml")
    chosen = max(pods, key=lambda pod: (_ready(pod), pod["metadata"].get("creationTimestamp", "")))
    if len(pods) > 1:
        note(f"Found {len(pods)} pods, using pod/{chosen['metadata']['name']}")
    return [chosen]


async def _selector_of(client: KubeClient, kinds: Kinds, kind_name: str, name: str) -> str:
    """The label selector of the Pods of an object; Agents, MCPServers and scripted models run in a Deployment."""
    from quarterdeck.errors import UsageError
    from quarterdeck.kube.resource import DEPLOYMENT

    res = kinds.find(kind_name).resource
    obj = await client.get(res, name, client.config.namespace)
    if res.kind in _BEHIND_DEPLOYMENT:
        obj = await client.get(DEPLOYMENT, name, client.config.namespace)
    chosen: Any = (obj.get("spec") or {}).get("selector")
    labels: Any = chosen.get("matchLabels", chosen) if isinstance(chosen, dict) else None
    if not labels or not all(isinstance(value, str) for value in labels.values()):
        raise UsageError(f"{kind_name}/{name} selects no Pods; name one: qd get pods")
    return ",".join(f"{key}={value}" for key, value in labels.items())


def _containers(pod: dict[str, Any], wanted: str) -> list[str]:
    """The container meant: the one named, the annotated default, else the first (saying so when there are more)."""
    from .output import note

    names = [str(each["name"]) for each in pod["spec"]["containers"]]
    if wanted:
        return [wanted]
    annotations = pod["metadata"].get("annotations") or {}
    default = str(annotations.get("kubectl.kubernetes.io/default-container") or names[0])
    if len(names) > 1 and default not in annotations.values():
        note(f'Defaulted container "{default}" out of: {", ".join(names)}')
    return [default]


def _ready(pod: dict[str, Any]) -> bool:
    conditions = (pod.get("status") or {}).get("conditions") or []
    return any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)
