"""The work behind ``qd up``, ``qd down`` and ``qd status``."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from quarterdeck.errors import ConfigError, QuarterdeckError, TimedOut, UsageError
from quarterdeck.processes import alive
from quarterdeck.server.directory import close_to_others
from quarterdeck.server.endpoints import Endpoints, endpoints_path

from .home import NotRunning, endpoints, home, kubeconfig_path, supervisor_pid
from .supervise import STOP_GRACE, Ports, Supervisor

GATEWAY_TIMEOUT = 60.0
_LABELS = {
    "kubernetes": "Kubernetes API", "api": "management API", "gateway": "gateway",
    "gatewayWorkloads": "gateway for workloads", "kagent": "kagent API", "kubeconfig": "kubeconfig",
    "gatewayState": "gateway", "model": "model", "agents": "agents", "mcpServers": "mcpServers", "pods": "pods",
}  # fmt: skip


class Interrupted(BaseException):
    """A signal asked ``qd up`` to end; like KeyboardInterrupt no error to be handled on the way."""

    def __init__(self, signum: int) -> None:
        super().__init__(signum)
        self.signum = signum


def run(ports: Ports, *, detach: bool) -> None:
    """``qd up``: in the foreground until a signal, or handed to a background process."""
    if detach:
        _detach(home(), ports)
        return
    sys.stdout.flush()
    os.execv(sys.executable, _supervising(ports))  # noqa: S606 - the same program, without the command line's libraries


def _supervising(ports: Ports) -> list[str]:
    return [sys.executable, "-m", "quarterdeck.cli.up", *ports.arguments()]


def supervise(ports: Ports) -> None:
    """Start the platform and keep it running until a signal, whose number makes the exit code."""
    directory = home()
    supervisor = Supervisor(directory, ports, say)
    supervisor.acquire()
    for signum in (signal.SIGINT, signal.SIGTERM):
        signal.signal(signum, _interrupt)
    try:
        say(f"starting on {directory}")
        supervisor.start()
        found = supervisor.wait_started()
        announce(found, directory)
        say("Ctrl-C ends it")
        supervisor.run()
    except Interrupted as interrupted:
        say("stopping")
        supervisor.stop()
        say("stopped")
        sys.exit(128 + interrupted.signum)
    finally:
        supervisor.stop()


def announce(found: Endpoints, directory: Path) -> None:
    """Print where things are, as they come up."""
    say(f"Kubernetes API   {found.kubernetes}   export KUBECONFIG={kubeconfig_path(directory)}")
    say(f"management API   {found.api}")
    # asked by a process of its own: the client's libraries would stay in this one's memory as long as it runs
    command = [sys.executable, "-m", "quarterdeck.cli", "status", f"--wait={GATEWAY_TIMEOUT:g}s", "--output=json"]
    asked = subprocess.run(command, capture_output=True, text=True, timeout=2 * GATEWAY_TIMEOUT, check=False)
    state = json.loads(asked.stdout) if asked.stdout else {"gateway": asked.stderr.strip(), "model": "not known"}
    say(f"gateway          {found.gateway}/mcp   {state['gateway']}")
    say(f"model            {state['model']}")


def down() -> None:
    """End the platform of the data directory, whether a supervisor runs or only what one left behind."""
    directory = home()
    pid = supervisor_pid(directory)
    if pid is None:
        try:
            pid = endpoints(directory).pid
        except (NotRunning, ConfigError):
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
    from quarterdeck.node.remains import end_remains

    left = end_remains(directory / "node")
    for path in (endpoints_path(directory), directory / "run" / "kubernetes.sock"):
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            path.unlink()
    return left


def status(output: str, wait: float) -> None:
    """Print addresses and readiness, after ``wait`` seconds at most; exit code 1 when something is not ready."""
    import asyncio

    if output not in ("", "json", "yaml"):
        raise UsageError(f"--output={output}: must be json or yaml")
    directory = home()
    found = endpoints(directory)
    state = asyncio.run(_wait_ready(directory, wait) if wait else platform_state(directory))
    urls = {
        "kubernetes": found.kubernetes, "api": found.api, "gateway": found.gateway,
        "gatewayWorkloads": found.gateway_workloads, "kagent": found.kagent,
    }  # fmt: skip
    document = {"home": str(directory), "kubeconfig": str(kubeconfig_path(directory)), "pid": found.pid, "urls": urls}
    if output:
        from .output import to_json, to_yaml

        sys.stdout.write((to_json if output == "json" else to_yaml)(document | state))
    else:
        shown = document | state | urls | {"gatewayState": state["gateway"]}
        for name, label in _LABELS.items():
            print(f"{label:22} {shown[name]}")
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


async def _wait_ready(directory: Path, seconds: float) -> dict[str, Any]:
    import asyncio

    deadline = time.monotonic() + seconds
    while True:
        try:
            state = await platform_state(directory)
        except QuarterdeckError:
            if time.monotonic() > deadline:
                raise
        else:
            if state["ready"] or time.monotonic() > deadline:
                return state
        await asyncio.sleep(0.1)


def _detach(directory: Path, ports: Ports) -> None:
    """Start ``qd up`` in a session of its own and wait until it is up or has failed."""
    if supervisor_pid(directory) is not None:
        Supervisor(directory, ports, say).acquire()  # raises, naming the one that runs
    close_to_others(directory)
    log = directory / "run" / "up.log"
    with log.open("wb") as output:
        child = subprocess.Popen(
            _supervising(ports),
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
    del frame
    raise Interrupted(signum)


def main(arguments: list[str]) -> None:
    try:
        supervise(Ports(*(int(argument.partition("=")[2]) for argument in arguments)))
    except Exception as error:  # noqa: BLE001 - the outermost frame: every error becomes a message and an exit code
        from .main import fail

        fail(error)


if __name__ == "__main__":
    main(sys.argv[1:])
