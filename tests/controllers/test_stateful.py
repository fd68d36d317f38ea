"""Random lives of Agents, MCPServers and Secrets under faults: the cluster ends as the translation of what is left.

The oracle shares no state with the controllers: it reads the cluster once and translates, without watches, queues,
hashes or history.
"""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
import threading
from collections.abc import Coroutine, Generator
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test

from cluster.plane import Plane
from quarterdeck.controllers import ControllerOptions
from quarterdeck.controllers.agent_inputs import resolve
from quarterdeck.controllers.context import Context
from quarterdeck.controllers.sources import hashes, sources_in_pod
from quarterdeck.errors import AlreadyExists, ConfigError, NotFound
from quarterdeck.kube import resource as k
from quarterdeck.kube.apply import covers
from quarterdeck.kube.conditions import get_condition
from quarterdeck.kube.controller import ControllerSet
from quarterdeck.kube.owner import controller_of, is_controlled_by, owner_reference
from quarterdeck.kube.resource import Object, Resource
from quarterdeck.resources.base import parse
from quarterdeck.resources.mcp_server import MCPServerSpec
from quarterdeck.translate.agent import translate_agent
from quarterdeck.translate.mcp_server import translate_mcp_server
from support.fault_proxy import FaultProxy

from . import fleet, servers
from .servers import World, quiet

T = TypeVar("T")
CHILDREN = {r.kind: r for r in (k.DEPLOYMENT, k.SERVICE, k.SERVICE_ACCOUNT, k.SECRET, k.CONFIG_MAP)}
READ = (k.AGENT, k.MCP_SERVER, k.REMOTE_MCP_SERVER, k.MODEL_CONFIG, k.NAMESPACE, *CHILDREN.values())
AGENTS = st.sampled_from(["a0", "a1", "a2"])
SERVERS = st.sampled_from(["m0", "m1"])
MODELS = st.sampled_from(["default-model-config", "keyed"])
OWNED = st.sampled_from([k.DEPLOYMENT, k.SERVICE, k.SERVICE_ACCOUNT])
KEYED = {"provider": "OpenAI", "model": "m", "apiKeySecret": "s", "apiKeySecretKey": "KEY"}


class Loop:
    """An event loop in a thread: server and controllers go on while Hypothesis thinks."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()

    def call(self, job: Coroutine[Any, Any, T], seconds: float = 120) -> T:
        return asyncio.run_coroutine_threadsafe(job, self._loop).result(seconds)

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()


async def wanted(world: World, namespace: str) -> tuple[dict[tuple[str, str], Object], list[str]]:
    """(owner → its desired objects by kind and name, problems) of the surviving resources, from one look."""
    context = Context(ControllerSet(world.client), ControllerOptions(discovery_interval=3600))
    for res in READ:
        for obj in (await world.client.list(res, namespace if res.namespaced else None)).items:
            context.set.informer(res).observe(obj)
    expected: dict[tuple[str, str], Object] = {}
    problems: list[str] = []
    for res in (k.AGENT, k.MCP_SERVER):
        for obj in context.list(res, namespace):
            owner = f"{res.kind} {obj['metadata']['name']}"
            try:
                objects = _translated(context, res, {"apiVersion": res.api_version, "kind": res.kind} | obj)
            except ConfigError as error:
                problems += _says(obj, owner, "False", str(error))
                continue
            taken = [_taken(context, obj, desired) for desired in objects]
            problems += _says(obj, owner, "False" if any(taken) else "True", f"taken: {taken}")
            if not any(taken):
                expected |= {(d["kind"], d["metadata"]["name"]): d | {"owner": obj} for d in objects}
    return expected, problems + [p for item in expected.items() for p in _differs(context, namespace, *item)] + (
        _surplus(context, namespace, expected)
    )


def _translated(context: Context, res: Resource, obj: Object) -> list[Object]:
    if res is k.AGENT:
        return translate_agent(resolve(context, obj), context.options)
    spec = parse(MCPServerSpec, obj["spec"], "MCPServer")
    metadata, deployment = obj["metadata"], obj["spec"]["deployment"]
    pod = {"containers": [{"envFrom": [{"secretRef": ref} for ref in deployment.get("secretRefs") or ()]}]}
    mounted = hashes(context, metadata["namespace"], metadata["name"], sources_in_pod(pod))
    return translate_mcp_server(obj, spec, context.options, mounted)


def _says(obj: Object, owner: str, status: str, why: str) -> list[str]:
    """A problem unless Accepted and Programmed together are ``status`` for the newest generation."""
    conditions = (obj.get("status") or {}).get("conditions")
    found = [get_condition(conditions, kind) or {} for kind in ("Accepted", "Programmed")]
    said = [c.get("status") for c in found if c.get("observedGeneration") == obj["metadata"]["generation"]]
    right = said == ["True", "True"] if status == "True" else "False" in said
    return [] if right else [f"{owner} says {said} and should say {status}: {why}"]


def _taken(context: Context, owner: Object, desired: Object) -> bool:
    live = context.get(CHILDREN[desired["kind"]], desired["metadata"]["namespace"], desired["metadata"]["name"])
    return live is not None and not is_controlled_by(live, owner)


def _differs(context: Context, namespace: str, key: tuple[str, str], desired: Object) -> list[str]:
    live = context.get(CHILDREN[key[0]], namespace, key[1])
    if live is None:
        return [f"{'/'.join(key)} is missing"]
    fields = {name: value for name, value in desired.items() if name not in ("owner", "apiVersion", "kind")}
    return [] if covers(fields, live) else [f"{'/'.join(key)} is not what it should be"]


def _surplus(context: Context, namespace: str, expected: dict[tuple[str, str], Object]) -> list[str]:
    """Objects whose owner is gone."""
    owners = {obj["metadata"]["uid"] for res in (k.AGENT, k.MCP_SERVER, k.MODEL_CONFIG) for obj in context.list(res)}
    return [
        f"{kind}/{obj['metadata']['name']} is left over"
        for kind, res in CHILDREN.items()
        for obj in context.list(res, namespace)
        if (owner := controller_of(obj)) is not None
        and owner["apiVersion"].startswith("kagent.dev/")
        and owner["uid"] not in owners
    ]


class Lives(RuleBasedStateMachine):
    """Each example has a namespace, a proxy and controllers of its own."""

    loop: ClassVar[Loop]
    world: ClassVar[World]
    compared: ClassVar[int] = 0
    """Objects found to be as they should be, in all examples."""

    @initialize()
    def begin(self) -> None:
        self.stack = contextlib.AsyncExitStack()
        self.controllers: ControllerSet | None = None
        self.loop.call(self._begin())

    async def _begin(self) -> None:
        self.namespace = await self.world.namespace("lives")
        await self.world.model(self.namespace)
        for name in ("m0", "m1"):
            await self._create(k.MCP_SERVER, fleet.mcp_server(self.namespace, name))
        for name in ("a0", "a1"):
            await self._create(k.AGENT, fleet.agent(self.namespace, name, server="m0"))
        self.proxy = FaultProxy(self.world.config, seed=1)
        folder = self.stack.enter_context(tempfile.TemporaryDirectory())
        self.config = await self.stack.enter_async_context(self.proxy.serve(Path(folder)))
        await self._start()

    async def _start(self) -> None:
        self.running = contextlib.AsyncExitStack()
        self.controllers, _ = await self.running.enter_async_context(fleet.operator(self.config))

    async def _create(self, res: Resource, body: Object) -> None:
        with contextlib.suppress(AlreadyExists):
            await self.world.create(res, body)

    async def _patch(self, res: Resource, name: str, body: Object) -> None:
        with contextlib.suppress(NotFound):
            await self.world.client.patch(res, name, body, self.namespace)

    async def _delete(self, res: Resource, name: str, how: Any = "Background") -> None:
        with contextlib.suppress(NotFound):
            await self.world.client.delete(res, name, self.namespace, propagation=how)

    @rule(name=AGENTS, server=st.one_of(st.just(""), SERVERS))
    def make_agent(self, name: str, server: str) -> None:
        self.loop.call(self._create(k.AGENT, fleet.agent(self.namespace, name, server=server)))

    @rule(name=SERVERS, secret=st.sampled_from(["", "s"]))
    def make_server(self, name: str, secret: str) -> None:
        self.loop.call(self._create(k.MCP_SERVER, fleet.mcp_server(self.namespace, name, secret=secret)))

    @rule(name=AGENTS, says=st.text(alphabet="abc", min_size=1, max_size=3))
    def change_agent(self, name: str, says: str) -> None:
        self.loop.call(self._patch(k.AGENT, name, {"spec": {"declarative": {"systemMessage": says}}}))

    @rule(name=SERVERS, port=st.integers(3000, 3003))
    def change_server(self, name: str, port: int) -> None:
        self.loop.call(self._patch(k.MCP_SERVER, name, {"spec": {"deployment": {"port": port}}}))

    @rule(value=st.sampled_from(["", "1", "2"]))
    def rotate_secret(self, value: str) -> None:
        async def rotate() -> None:
            if not value:
                await self._delete(k.SECRET, "s")
                return
            await self._create(k.SECRET, {"metadata": {"name": "s", "namespace": self.namespace}})
            await self._patch(k.SECRET, "s", {"stringData": {"KEY": value}})

        self.loop.call(rotate())

    @rule(name=AGENTS, how=st.sampled_from(["Background", "Foreground", "Orphan"]))
    def delete_agent(self, name: str, how: str) -> None:
        self.loop.call(self._delete(k.AGENT, name, how))

    @rule(name=SERVERS)
    def replace_server(self, name: str) -> None:
        """A new owner of the same name: what the old one had goes with it."""

        async def replace() -> None:
            await self._delete(k.MCP_SERVER, name)
            await self._create(k.MCP_SERVER, fleet.mcp_server(self.namespace, name))

        self.loop.call(replace())

    @rule(name=AGENTS, model=MODELS, server=st.sampled_from(["", "m0", "m1", "never"]))
    def refer_elsewhere(self, name: str, model: str, server: str) -> None:
        """Another model and another server, which may be there, come later, or never."""
        declarative = fleet.agent(self.namespace, name, server=server)["spec"]["declarative"]
        changed = {"modelConfig": model, "tools": declarative.get("tools") or []}
        self.loop.call(self._patch(k.AGENT, name, {"spec": {"declarative": changed}}))

    @rule(name=SERVERS, secrets=st.lists(st.sampled_from(["s", "never"]), max_size=2, unique=True))
    def mount_elsewhere(self, name: str, secrets: list[str]) -> None:
        refs = [{"name": secret} for secret in secrets]
        self.loop.call(self._patch(k.MCP_SERVER, name, {"spec": {"deployment": {"secretRefs": refs}}}))

    @rule(name=MODELS)
    def delete_model(self, name: str) -> None:
        self.loop.call(self._delete(k.MODEL_CONFIG, name))

    @rule(name=MODELS, keyed=st.booleans())
    def make_model(self, name: str, keyed: bool) -> None:
        """Of the same name, and now and then of another kind: what one leaves behind is not the other's."""
        body = {"metadata": {"name": name, "namespace": self.namespace}, "spec": KEYED if keyed else servers.MODEL}
        self.loop.call(self._create(k.MODEL_CONFIG, body))

    @rule(name=SERVERS)
    def delete_server(self, name: str) -> None:
        self.loop.call(self._delete(k.MCP_SERVER, name))

    @rule(name=st.one_of(AGENTS, SERVERS), res=OWNED, to=st.one_of(st.none(), AGENTS, SERVERS))
    def give_away(self, name: str, res: Resource, to: str | None) -> None:
        """A child that belongs to nobody any more, or to another of ours: it is left alone until that one goes."""

        async def give() -> None:
            owner = k.AGENT if to is not None and to.startswith("a") else k.MCP_SERVER
            found = await self.world.find(owner, self.namespace, to) if to is not None else None
            full = {"apiVersion": owner.api_version, "kind": owner.kind} | (found or {})
            references = [owner_reference(full)] if found is not None else []
            if to is None or found is not None:
                await self._patch(res, name, {"metadata": {"ownerReferences": references}})

        self.loop.call(give())

    @rule(name=st.one_of(AGENTS, SERVERS), res=OWNED)
    def delete_child(self, name: str, res: Resource) -> None:
        self.loop.call(self._delete(res, name))

    @rule(name=st.one_of(AGENTS, SERVERS))
    def meddle(self, name: str) -> None:
        self.loop.call(self._patch(k.DEPLOYMENT, name, {"spec": {"template": {"metadata": {"labels": {"x": "y"}}}}}))

    @rule(share=st.sampled_from([0.0, 0.3]))
    def writes_fail(self, share: float) -> None:
        self.proxy.failing = share

    @rule(forgotten=st.booleans())
    def cut(self, forgotten: bool) -> None:
        self.proxy.expired = 20 if forgotten else 0
        self.loop.call(self.proxy.cut())

    @rule()
    def restart(self) -> None:
        async def again() -> None:
            await self.running.aclose()
            await self._start()

        self.loop.call(again())

    def teardown(self) -> None:
        if getattr(self, "controllers", None) is not None:
            self.loop.call(self._end())

    async def _end(self) -> None:
        self.proxy.failing, self.proxy.expired = 0.0, 0
        problems: list[str] = []
        try:
            async with asyncio.timeout(60):
                while True:
                    _, problems = await wanted(self.world, self.namespace)
                    if not problems:
                        break
                    await asyncio.sleep(0.1)
            assert self.controllers is not None
            await quiet(self.controllers, turns=50)
            expected, problems = await wanted(self.world, self.namespace)
            assert problems == [], "; ".join(problems)
            Lives.compared += len(expected)
        except TimeoutError:
            raise AssertionError("; ".join(problems)) from None
        finally:
            await self.running.aclose()
            await self.stack.aclose()
        await fleet.silent(self.world)
        await self.world.client.delete(k.NAMESPACE, self.namespace)


@contextlib.contextmanager
def living(open_world: Any) -> Generator[None]:
    """The machine with a world in a loop of its own."""
    loop = Loop()
    try:
        Lives.loop, Lives.world = loop, loop.call(open_world.__aenter__())
        try:
            yield
        finally:
            loop.call(open_world.__aexit__(None, None, None))
    finally:
        loop.close()


def run(examples: int, steps: int) -> None:
    Lives.compared = 0
    run_state_machine_as_test(
        Lives,
        settings=settings(
            max_examples=examples, stateful_step_count=steps, deadline=None, derandomize=True, database=None,
            suppress_health_check=(HealthCheck.too_slow, HealthCheck.data_too_large),
        ),
    )  # fmt: skip
    assert Lives.compared > examples, "something is left at the end of most lives"


@pytest.mark.timeout(300)
def test_the_cluster_ends_as_the_translation_of_what_is_left(tmp_path: Path) -> None:
    with living(servers.embedded(tmp_path)):
        run(examples=8, steps=16)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_same_on_a_real_control_plane(cluster: Plane) -> None:
    with living(servers.real(cluster)):
        run(examples=25, steps=25)
