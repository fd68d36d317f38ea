"""``qd demo``: the whole platform once, with the commands a person would type, in a temporary home.

Nothing here is special to the demo: each step is a ``qd`` command run as its own process, or a plain request to the
gateway. Anything that is not as stated ends it with a non-zero exit code.
"""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from quarterdeck.errors import Denied, QuarterdeckError, TimedOut

AGENT = "datetime-agent"
SERVER = "datetime-agent-mcp"
NAMESPACE = "kagent"
QUESTION = "What time is it?"
SECOND = "time"
_READY = 120.0

_UVX_SERVER = """\
apiVersion: kagent.dev/v1alpha1
kind: MCPServer
metadata: {name: time, namespace: kagent}
spec:
  transportType: stdio
  deployment: {cmd: uvx, args: [mcp-server-time], port: 3000}
"""
_OFFLINE_SERVER = """\
apiVersion: kagent.dev/v1alpha1
kind: MCPServer
metadata: {name: time, namespace: kagent}
spec:
  transportType: stdio
  deployment: {image: "datetime-server:latest", cmd: python, args: [src/main.py], port: 3000}
"""


class DemoFailed(QuarterdeckError):
    """Something was not as the demo says."""

    reason = "DemoFailed"


def register(app: typer.Typer) -> None:
    app.command()(demo)


def demo(
    keep: Annotated[bool, typer.Option("--keep", help="Leave the platform running and say how to go on.")] = False,
) -> None:
    """Build a server, start the platform, ask an agent, see the gateway refuse and record, stop."""
    run(keep=keep)


def run(*, keep: bool) -> None:
    """Raises DemoFailed, or what a step raised; leaves no process and no file behind unless ``keep``."""
    began = time.monotonic()
    examples = examples_directory()
    home = Path(tempfile.mkdtemp(prefix="quarterdeck-demo-"))
    stage = Stage(home)
    try:
        stage.title("1. Build an MCP server from a project folder, without Docker")
        stage.qd("mcp", "build", "--project-dir", str(examples / "datetime-server"), "-t", "datetime-server:latest")
        stage.title("2. Start the platform (free ports, temporary home)")
        stage.qd("up", "--detach", *(part for flag in _PORT_FLAGS for part in (flag, "0")))
        stage.title("3. Apply the MCP server and the agent, the YAML kagent users have")
        stage.qd("apply", "-f", str(examples / "seed" / "datetime-agent.yaml"))
        second = stage.second_server()
        asyncio.run(stage.wait_ready())
        stage.title("4. Ask the agent")
        answer = stage.qd("agent", "invoke", AGENT, "-n", NAMESPACE, QUESTION)
        check_answer(answer)
        stage.title("5. The same agent calls a tool that its YAML does not grant")
        asyncio.run(stage.refused_call(second))
        stage.title("6. What the gateway recorded")
        records = stage.qd("audit", "tail", "-n", "6")
        if "deny" not in records or f"{NAMESPACE}/{AGENT}" not in records:
            raise DemoFailed("the audit log does not show the refused call")
        print(f"\nAll as stated, in {time.monotonic() - began:.0f} s.")
        stage.go_on(keep)
    finally:
        if not keep:
            stage.end()


_PORT_FLAGS = ("--kubernetes-port", "--api-port", "--kagent-port", "--gateway-port", "--workloads-port")


def examples_directory() -> Path:
    """The examples of the checkout, or those shipped in the package. Raises DemoFailed."""
    package = Path(__file__).resolve().parent.parent
    for candidate in (package.parent.parent / "examples", package / "examples"):
        if (candidate / "datetime-server").is_dir():
            return candidate
    raise DemoFailed("the examples folder is not here; run the demo from a checkout: make demo")


def check_answer(output: str) -> None:
    """The answer must show the tool that was called and a time of day that is the present one."""
    if "get_time" not in output and "get_datetime" not in output:
        raise DemoFailed("the agent answered without calling its tool")
    minutes = {time.strftime("%H:%M", time.gmtime(time.time() - 60 * n)) for n in range(3)}
    found = set(re.findall(r"\b(\d\d:\d\d):\d\d\b", output))
    if not found & minutes:
        raise DemoFailed(f"the answer holds no present time (found {sorted(found) or 'none'})")


class Stage:
    """One run of the demo in its own home."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.environment = {**os.environ, "QUARTERDECK_HOME": str(home)}
        os.environ["QUARTERDECK_HOME"] = str(home)

    def title(self, text: str) -> None:
        print(f"\n── {text}", flush=True)

    def qd(self, *arguments: str) -> str:
        """Run a ``qd`` command, show it and its output; returns the output. Raises DemoFailed when it fails."""
        shown = " ".join(f'"{a}"' if " " in a else a for a in arguments)
        print(f"$ qd {shown}", flush=True)
        command = [sys.executable, "-m", "quarterdeck.cli", *arguments]
        done = subprocess.run(
            command, env=self.environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
        )
        print(done.stdout.rstrip(), flush=True)
        if done.returncode != 0:
            raise DemoFailed(f"qd {arguments[0]} ended with code {done.returncode}")
        return done.stdout

    def second_server(self) -> str:
        """Apply a server that the agent is not granted: one from PyPI when the registry answers, else ours again."""
        reachable = registry_reachable(self.environment)
        source = "from PyPI, run by uvx" if reachable else "the same image again, as no package registry answers"
        print(f"and a second MCP server that the agent is not granted ({source}):")
        manifest = self.home / "second-server.yaml"
        manifest.write_text(_UVX_SERVER if reachable else _OFFLINE_SERVER)
        self.qd("apply", "-f", str(manifest))
        return "get_current_time" if reachable else "get_time"

    async def wait_ready(self) -> None:
        """Show each object as it becomes Ready. Raises TimedOut with the last condition."""
        from quarterdeck.kube.client import KubeClient
        from quarterdeck.kube.config import load_config
        from quarterdeck.kube.resource import AGENT as AGENTS
        from quarterdeck.kube.resource import MCP_SERVER

        waiting = {("mcpserver", SERVER): MCP_SERVER, ("agent", AGENT): AGENTS, ("mcpserver", SECOND): MCP_SERVER}
        client = KubeClient(load_config(str(self.home / "kubeconfig")))
        began, last = time.monotonic(), ""
        try:
            while waiting:
                for (kind, name), resource in list(waiting.items()):
                    missing = not_true(await client.get(resource, name, NAMESPACE))
                    last = f"{kind}/{name}: {missing}"
                    if not missing:
                        print(f"  {kind}/{name} is Ready after {time.monotonic() - began:.1f} s", flush=True)
                        del waiting[kind, name]
                if waiting and time.monotonic() - began > _READY:
                    raise TimedOut(f"not Ready within {_READY:g} s: {last}")
                await asyncio.sleep(0.1)
        finally:
            await client.close()

    async def refused_call(self, tool: str) -> None:
        """Call the second server with the agent's own identity; the gateway must refuse. Raises DemoFailed."""
        from quarterdeck.mcpclient import McpClient
        from quarterdeck.server.endpoints import read_endpoints
        from quarterdeck.wire.client import Pool

        token = await self.agent_token()
        url = f"{read_endpoints(self.home).gateway_workloads}/mcp/{NAMESPACE}/{SECOND}"

        async def headers() -> list[tuple[bytes, bytes]]:
            return [(b"authorization", b"Bearer " + token.encode())]

        pool = Pool()
        print(f"$ tools/call {tool} on {url}   (Authorization: the token of {AGENT}'s Pod)")
        try:
            await McpClient(pool, url, headers=headers).call_tool(tool, {})
        except Denied as error:
            print(f"  refused: {error}")
        else:
            raise DemoFailed("the gateway let a call through that the agent's YAML does not grant")
        finally:
            pool.close()

    async def agent_token(self) -> str:
        """A token bound to the agent's Pod, as the node mounts it there."""
        from quarterdeck.kube.client import KubeClient
        from quarterdeck.kube.config import load_config
        from quarterdeck.kube.resource import POD

        client = KubeClient(load_config(str(self.home / "kubeconfig")))
        try:
            pods = await client.list(POD, NAMESPACE, label_selector=f"kagent={AGENT}")
            pod: Any = next(p for p in pods.items if p["status"].get("phase") == "Running")
            bound = {"kind": "Pod", "apiVersion": "v1", "name": pod["metadata"]["name"], "uid": pod["metadata"]["uid"]}
            account = pod["spec"]["serviceAccountName"]
            path = f"/api/v1/namespaces/{NAMESPACE}/serviceaccounts/{account}/token"
            spec = {"audiences": ["quarterdeck"], "expirationSeconds": 600, "boundObjectRef": bound}
            body = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec}
            return str((await client.request("POST", path, body=body))["status"]["token"])
        finally:
            await client.close()

    def go_on(self, keep: bool) -> None:
        print(
            "\nGo on with plain kubectl:" if keep else "\nWith qd up (or qd demo --keep) you go on with plain kubectl:"
        )
        if keep:
            print(f"  export QUARTERDECK_HOME={self.home}")
        for line in (
            "export KUBECONFIG=$(qd kubeconfig)",
            "kubectl get agents,mcpservers,deploy,pods -n kagent",
            "kubectl describe agent datetime-agent -n kagent",
            "kubectl logs -n kagent deploy/datetime-agent-mcp",
            "kubectl explain agent.spec.declarative.tools",
            "qd agent chat datetime-agent -n kagent",
        ):
            print(f"  {line}")
        if keep:
            print("  qd down")

    def end(self) -> None:
        """Stop the platform and remove the home. Raises DemoFailed when a process stays."""
        command = [sys.executable, "-m", "quarterdeck.cli", "down"]
        subprocess.run(command, env=self.environment, stdout=subprocess.DEVNULL, check=False)
        deadline = time.monotonic() + 5
        while (left := processes_of(self.home)) and time.monotonic() < deadline:
            time.sleep(0.05)
        shutil.rmtree(self.home, ignore_errors=True)
        if left:
            raise DemoFailed(f"processes of the demo are still there: {', '.join(map(str, left))}")
        print("\nStopped; no process and no file is left.")


def not_true(obj: dict[str, Any]) -> str:
    """What keeps an object from use (Ready, and for agents its tools found); empty when nothing does."""
    conditions = {c["type"]: c for c in obj.get("status", {}).get("conditions", [])}
    for wanted in ("Ready", "ResolvedRefs"):
        condition = conditions.get(wanted)
        if condition is None or condition["status"] != "True":
            return f"{wanted}: {condition['message'] if condition else 'not known yet'}"
    return ""


def registry_reachable(environment: dict[str, str]) -> bool:
    """Whether the Python package index of this machine answers, asked the way the node will ask."""
    from quarterdeck.oci.build import find_uv

    with tempfile.TemporaryDirectory() as scratch:
        requirement = Path(scratch) / "requirements.in"
        requirement.write_text("mcp-server-time\n")
        command = [*find_uv(), "pip", "compile", "--quiet", "--no-deps", str(requirement)]
        try:
            done = subprocess.run(command, env=environment, capture_output=True, timeout=20, check=False)
        except subprocess.TimeoutExpired:
            return False
    return done.returncode == 0


def processes_of(home: Path) -> list[int]:
    """Processes whose command line or environment names the home."""
    needle, found = str(home).encode(), list[int]()
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if needle in (entry / "cmdline").read_bytes() and int(entry.name) != os.getpid():
                found.append(int(entry.name))
        except OSError:
            continue
    return found
