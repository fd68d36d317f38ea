"""A running platform as its user sees it: kubectl, the gateway, files. The tests know nothing else about it.

:func:`embedded` starts the real ``qd up`` in a home of its own; :func:`support.real.real` gives the same tests a real
control plane (``tests/cluster``) on which helm has installed the charts.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import httpx
import pytest
from mcp import Client
from mcp.client.streamable_http import streamable_http_client

SYSTEM = "quarterdeck-system"
ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent
EXAMPLES = ROOT / "examples"
SEED = EXAMPLES / "seed"
_KEYS = ("OPENAI_API_KEY", "ANTHROPIC_API_KEY", "GOOGLE_API_KEY", "KUBECONFIG", "XDG_DATA_HOME", "XDG_CONFIG_HOME")
FREE_PORTS = ("--kubernetes-port=0", "--api-port=0", "--kagent-port=0", "--gateway-port=0", "--workloads-port=0")

T = TypeVar("T")


class CommandFailed(AssertionError):
    """A command that had to work did not; the message is what it printed."""


@dataclass(frozen=True, slots=True)
class Ran:
    """What a command did."""

    code: int
    out: str
    err: str

    @property
    def text(self) -> str:
        return self.out + self.err


def eventually(check: Callable[[], T], what: str, seconds: float = 90, every: float = 0.1) -> T:
    """Poll until ``check`` returns something true; the last falsy value or assertion is in the failure.

    ``seconds`` is what it usually takes at most; a busy machine gets longer.
    """
    deadline = time.monotonic() + max(seconds, 90.0)
    while True:
        last: object
        try:
            found = check()
            if found:
                return found
            last = found
        except AssertionError as error:
            last = error
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {max(seconds, 90.0):g} s: {what}; last: {last}")
        time.sleep(every)


@dataclass(slots=True)
class Platform:
    """``home`` is None for a real cluster: what looks into the data directory is skipped there (:meth:`own_home`).
    ``token`` is for people at the gateway, empty where it asks them for none."""

    kubeconfig: Path
    gateway: str
    scratch: Path
    home: Path | None = None
    token: str = ""
    api: str = ""
    """URL of the management API in a cluster; empty: ``qd`` finds it by itself."""
    person: Path | None = None
    """The kubeconfig of a person with a token; None where the first one has a token."""
    place: Path | None = None
    """What the arguments and mounts of all processes of a real cluster have in them; None for an embedded platform."""
    figures: dict[str, float] = field(default_factory=dict[str, float])

    @property
    def environment(self) -> dict[str, str]:
        env = {k: v for k, v in os.environ.items() if k not in _KEYS}
        env |= {"KUBECONFIG": str(self.kubeconfig), "KUBECACHEDIR": str(self.scratch / "kube-cache")}
        env["PATH"] = f"{BIN}:{env['PATH']}"
        env["OLLAMA_HOST"] = "http://127.0.0.1:9"  # a model server of this machine would be chosen otherwise
        if self.home is not None:
            return env | {"QUARTERDECK_HOME": str(self.home)}
        here = {"QUARTERDECK_HOME": str(self.scratch / "home"), "QUARTERDECK_GATEWAY_URL": self.gateway}
        here |= {"QUARTERDECK_API_URL": self.api} if self.api else {}
        return env | here | {"QUARTERDECK_TOKEN": self.token, "NO_PROXY": "*", "no_proxy": "*"}

    def processes(self, pattern: str) -> list[int]:
        """Those that do the work of a role, by a regular expression of their command lines; no sandboxes around."""
        place = self.home or self.place
        assert place is not None
        return sorted(
            pid
            for pid, line in processes_of(place).items()
            if re.search(pattern, line) and "bwrap" not in line and not line.startswith(str(BIN / "qd"))
        )

    @property
    def headers(self) -> dict[str, str]:
        """What a person's client sends to the gateway."""
        return {"Authorization": f"Bearer {self.token}"} if self.token else {}

    def mcp(self, path: str, mode: Any = "auto") -> Client:
        """The MCP SDK's client at the gateway."""
        url = self.gateway + path
        if not self.token:
            return Client(url, mode=mode)
        return Client(streamable_http_client(url, http_client=self.http()), mode=mode)

    def served(self, path: str) -> None:
        """Wait until the gateway knows ``path``: what is Ready reaches it a moment later."""
        with httpx.Client(headers=self.headers, trust_env=False, timeout=60) as client:
            eventually(lambda: client.post(self.gateway + path, json={}).status_code != 404, f"{path} is served")

    def http(self, **options: Any) -> httpx.AsyncClient:
        """A client with :attr:`headers`."""
        return httpx.AsyncClient(headers=self.headers, trust_env=False, **{"timeout": 60} | options)

    def own_home(self, why: str = "looks into the data directory of the embedded platform") -> Path:
        """The data directory. Skips the test on a real cluster, with the reason."""
        if self.home is None:
            pytest.skip(why)
        return self.home

    def run(
        self, *argv: str, stdin: str | None = None, ok: bool = True, timeout: float = 60, env: Mapping[str, str] = {}
    ) -> Ran:
        """Run a command of the virtual environment. Raises CommandFailed unless it exits with 0 or not ``ok``."""
        done = subprocess.run(
            list(argv), input=stdin, capture_output=True, text=True, timeout=timeout, env=self.environment | dict(env),
            stdin=subprocess.DEVNULL if stdin is None else None,
        )  # fmt: skip
        if ok and done.returncode != 0:
            raise CommandFailed(f"{' '.join(argv)}: exit {done.returncode}\n{done.stdout}{done.stderr}")
        return Ran(done.returncode, done.stdout, done.stderr)

    def kubectl(
        self, *args: str, stdin: str | None = None, ok: bool = True, timeout: float = 60, env: Mapping[str, str] = {}
    ) -> Ran:
        return self.run(str(BIN / "kubectl"), *args, stdin=stdin, ok=ok, timeout=timeout, env=env)

    def qd(self, *args: str, ok: bool = True, timeout: float = 120) -> Ran:
        env = {"KUBECONFIG": str(self.person)} if self.person is not None else {}
        return self.run(str(BIN / "qd"), *args, ok=ok, timeout=timeout, env=env)

    def start(self, *args: str, **options: Any) -> subprocess.Popen[str]:
        """A kubectl that goes on running: watches, port-forward, logs -f."""
        pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        return subprocess.Popen([str(BIN / "kubectl"), *args], env=self.environment, **(pipes | options))

    def apply(self, *documents: dict[str, Any] | str) -> Ran:
        texts = [d if isinstance(d, str) else json.dumps(d) for d in documents]
        return self.kubectl("apply", "-f", "-", stdin="\n---\n".join(texts))

    def get(self, kind: str, name: str = "", namespace: str = "kagent", selector: str = "") -> Any:
        args = ["get", kind, *([name] if name else []), "-n", namespace, "-o", "json"]
        return json.loads(self.kubectl(*args, *(["-l", selector] if selector else [])).out)

    def condition(self, kind: str, name: str, type_: str, namespace: str = "kagent") -> dict[str, Any]:
        for condition in self.get(kind, name, namespace).get("status", {}).get("conditions", []):
            if condition["type"] == type_:
                return condition
        return {}

    def wait(self, target: str, namespace: str = "kagent", condition: str = "Ready", seconds: int = 60) -> None:
        self.kubectl("wait", f"--for=condition={condition}", target, "-n", namespace, f"--timeout={seconds}s",
                     timeout=seconds + 10)  # fmt: skip

    def pod(self, selector: str, namespace: str = "kagent") -> dict[str, Any]:
        """The one running Pod of a selector that is not going away."""

        def find() -> dict[str, Any] | None:
            pods = [
                p for p in self.get("pods", namespace=namespace, selector=selector)["items"]
                if not p["metadata"].get("deletionTimestamp") and p["status"].get("phase") == "Running"
            ]  # fmt: skip
            return pods[0] if len(pods) == 1 else None

        return eventually(find, f"one running Pod of {selector}")

    def audit(self) -> list[dict[str, Any]]:
        """All audit records of the gateway so far: files, or its standard output in a cluster."""
        if self.home is not None:
            lines = [line for path in audit_files(self.home) for line in path.read_text().splitlines()]
        else:
            logs = self.kubectl("logs", "-n", SYSTEM, "deploy/quarterdeck").out
            lines = [line for line in logs.splitlines() if line.startswith("{") and '"decision"' in line]
        return [json.loads(line) for line in lines]

    def endpoints(self) -> dict[str, Any]:
        return json.loads((self.own_home() / "run" / "endpoints.json").read_text())


def audit_files(home: Path) -> list[Path]:
    return sorted(p for p in files_below(home) if p.match("audit*.jsonl"))


def files_below(home: Path) -> Iterator[Path]:
    """Its regular files; folders of Pods may go while they are looked at (Path.rglob of Python 3.11 gives up then)."""
    for folder, _, names in os.walk(home):
        yield from (p for name in names if (p := Path(folder, name)).is_file() and not p.is_symlink())


# -- what a platform must not leave behind


def processes_of(home: Path) -> dict[int, str]:
    """Every process that belongs to a home: by argument, by environment, or by what is mounted in it."""
    needle = str(home).encode()
    found: dict[int, str] = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            command = (entry / "cmdline").read_bytes()
            parts = (command, (entry / "environ").read_bytes(), (entry / "mountinfo").read_bytes())
        except OSError:
            continue
        if command and any(needle in part for part in parts):
            found[int(entry.name)] = command.replace(b"\0", b" ").decode(errors="replace")
    return found


def routes() -> set[str]:
    """Address ranges that are local to this machine."""
    shown = subprocess.run(["ip", "route", "show", "table", "local"], capture_output=True, text=True).stdout
    return set(re.findall(r"10\.244\.\d+\.0/24", shown))


def cgroups_of(home: Path) -> list[Path]:
    key = hashlib.sha256(str((home / "node").resolve()).encode()).hexdigest()[:12]
    return [p for pattern in ("*", "*/*") for p in Path("/sys/fs/cgroup").glob(pattern) if p.name.endswith(key)]


def own_route(home: Path) -> str:
    return str(json.loads((home / "node" / "addresses.json").read_text())["cidr"])


def assert_nothing_left(home: Path, route: str) -> None:
    assert eventually(lambda: not processes_of(home), f"no process of {home}: {processes_of(home)}")
    assert route not in routes(), f"the route to {route} was left behind"
    assert cgroups_of(home) == []
    run = home / "run"
    left = [p.name for p in run.iterdir() if p.suffix == ".sock" or p.name == "endpoints.json"] if run.exists() else []
    assert left == [], f"left in {run}: {left}"


@contextmanager
def embedded(*flags: str, build: bool = True) -> Iterator[Platform]:
    """``qd up`` in a temporary home, ended and checked for leftovers at the end."""
    scratch = Path(tempfile.mkdtemp(prefix="qd-e2e-"))
    home = scratch / "home"
    platform = Platform(home / "kubeconfig", "", scratch, home)
    builder = None
    try:
        if build:
            project = str(EXAMPLES / "datetime-server")
            builder = subprocess.Popen(
                [str(BIN / "qd"), "mcp", "build", "-d", project, "-t", "datetime-server:latest"],
                env=platform.environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            )  # fmt: skip
        began = time.monotonic()
        platform.qd("up", "--detach", *FREE_PORTS, *flags)
        platform.figures["start"] = time.monotonic() - began
        platform.gateway = platform.endpoints()["gateway"]
        if builder is not None:
            output, _ = builder.communicate(timeout=120)
            assert builder.returncode == 0, output
        route = own_route(home)
        yield platform
        platform.qd("down")
        assert_nothing_left(home, route)
    finally:
        if builder is not None and builder.poll() is None:
            builder.kill()
        if processes_of(home):
            platform.qd("down", ok=False)
        for pid in processes_of(home):
            os.kill(pid, 9)
        keep = os.environ.get("QUARTERDECK_KEEP_E2E")
        if not keep:
            shutil.rmtree(scratch, ignore_errors=True)
