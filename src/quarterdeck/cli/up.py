"""The work behind ``qd up``, ``qd down`` and ``qd status``."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from quarterdeck.errors import QuarterdeckError, TimedOut
from quarterdeck.node.remains import end_remains
from quarterdeck.server.endpoints import Endpoints, endpoints_path

from .home import NotRunning, alive, endpoints, home, kubeconfig_path
from .supervise import STOP_GRACE, Ports, Supervisor, supervisor_pid

GATEWAY_TIMEOUT = 60.0


def run(ports: Ports, *, detach: bool) -> None:
    """``qd up``: in the foreground until a signal, or handed to a background process."""
    directory = home()
    if detach:
        _detach(directory, ports)
        return
    supervisor = Supervisor(directory, ports, say)
    supervisor.acquire()
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        say(f"starting on {directory}")
        supervisor.start()
        found = supervisor.wait_started()
        announce(found, directory)
        say("Ctrl-C ends it")
        supervisor.run()
    except KeyboardInterrupt:
        say("stopping")
    finally:
        supervisor.stop()
    say("stopped")


def announce(found: Endpoints, directory: Path) -> None:
    """Print where things are, as they come up."""
    say(f"Kubernetes API   {found.kubernetes}   export KUBECONFIG={kubeconfig_path(directory)}")
    say(f"management API   {found.api}")
    state = asyncio.run(_wait_gateway(directory))
    say(f"gateway          {found.gateway}/mcp   {state['gateway']}")
    say(f"model            {state['model']}")


def down() -> None:
    """End the platform of the data directory, whether a supervisor runs or only what one left behind."""
    directory = home()
    pid = supervisor_pid(directory)
    if pid is None:
        try:
            pid = endpoints(directory).pid
        except NotRunning:
            left = _clean(directory)
            print(f"nothing runs on {directory}" + (f"; ended {left} processes left behind" if left else ""))
            return
    os.kill(pid, signal.SIGTERM)
    deadline = time.monotonic() + STOP_GRACE + 10
    while supervisor_pid(directory) is not None or alive(pid):
        if time.monotonic() > deadline:
            log = directory / "run" / "controlplane.log"
            raise TimedOut(f"process {pid} did not end within {STOP_GRACE + 10:g} s; its log: {log}")
        time.sleep(0.05)
    _clean(directory)
    print("stopped")


def _clean(directory: Path) -> int:
    """Take away what processes that were killed could not; how many they had left running."""
    left = end_remains(directory / "node")
    for path in (endpoints_path(directory), directory / "run" / "kubernetes.sock"):
        path.unlink(missing_ok=True)
    return left


def status() -> None:
    """Print addresses and readiness; exit code 1 when something is not ready."""
    directory = home()
    found = endpoints(directory)
    for label, url in (
        ("Kubernetes API", found.kubernetes),
        ("management API", found.api),
        ("gateway", found.gateway),
        ("gateway for workloads", found.gateway_workloads),
        ("kagent API", found.kagent),
    ):
        print(f"{label:22} {url}")
    print(f"{'kubeconfig':22} {kubeconfig_path(directory)}")
    state = asyncio.run(platform_state(directory))
    for label in ("gateway", "model", "agents", "mcpServers", "pods"):
        print(f"{label:22} {state[label]}")
    if not state["ready"]:
        sys.exit(1)


async def platform_state(directory: Path) -> dict[str, Any]:
    """Readiness of the parts, each as one short sentence."""
    from quarterdeck.kube.client import KubeClient
    from quarterdeck.kube.config import load_config
    from quarterdeck.kube.resource import AGENT, DEPLOYMENT, MCP_SERVER, MODEL_CONFIG, POD

    client = KubeClient(load_config(str(kubeconfig_path(directory))))
    try:
        deployments = await client.list(DEPLOYMENT, "quarterdeck-system")
        models = await client.list(MODEL_CONFIG, "kagent")
        agents, servers, pods = [await client.list(kind) for kind in (AGENT, MCP_SERVER, POD)]
    finally:
        await client.close()
    gateway = next((d for d in deployments.items if d["metadata"]["name"] == "quarterdeck"), None)
    gateway_ready = gateway is not None and bool(gateway.get("status", {}).get("readyReplicas"))
    model = next((m for m in models.items if m["metadata"]["name"] == "default-model-config"), None)
    running = sum(1 for pod in pods.items if pod.get("status", {}).get("phase") == "Running")
    return {
        "ready": gateway_ready and model is not None,
        "gateway": "ready" if gateway_ready else "not ready",
        "model": f"{model['spec'].get('provider', 'OpenAI')} {model['spec']['model']}" if model else "none yet",
        "agents": _ready_of(agents.items),
        "mcpServers": _ready_of(servers.items),
        "pods": f"{running}/{len(pods.items)} running",
    }


def _ready_of(items: list[dict[str, Any]]) -> str:
    ready = sum(
        1
        for item in items
        for condition in item.get("status", {}).get("conditions", [])
        if condition["type"] == "Ready" and condition["status"] == "True"
    )
    return f"{ready}/{len(items)} ready"


async def _wait_gateway(directory: Path) -> dict[str, Any]:
    deadline = time.monotonic() + GATEWAY_TIMEOUT
    state: dict[str, Any] = {"gateway": "not ready", "model": "none yet"}
    while time.monotonic() < deadline:
        try:
            state = await platform_state(directory)
        except QuarterdeckError as error:
            state = {"gateway": str(error), "model": "none yet", "ready": False}
        if state["ready"]:
            break
        await asyncio.sleep(0.1)
    return state


def _detach(directory: Path, ports: Ports) -> None:
    """Start ``qd up`` in a session of its own and wait until it is up or has failed."""
    if supervisor_pid(directory) is not None:
        Supervisor(directory, ports, say).acquire()  # raises, naming the one that runs
    log = directory / "run" / "up.log"
    log.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    flags = [argument.replace("=", " ", 1).split(" ") for argument in ports.arguments()]
    with log.open("wb") as output:
        child = subprocess.Popen(
            [sys.executable, "-m", "quarterdeck.cli", "up", *(part for pair in flags for part in pair)],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        text = log.read_text(errors="replace")
        if child.poll() is not None or "Ctrl-C ends it" in text:
            sys.stdout.write(text.replace("Ctrl-C ends it", "qd down ends it"))
            if child.poll() is not None:
                sys.exit(child.returncode or 1)
            return
        time.sleep(0.05)
    raise TimedOut(f"the platform was not up within 120 s; its log: {log}")


def say(line: str) -> None:
    print(line, flush=True)


def _interrupt(signum: int, frame: object) -> None:
    del signum, frame
    raise KeyboardInterrupt
