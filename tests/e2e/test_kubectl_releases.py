"""logs, exec, attach, port-forward by each release of kubectl, over WebSockets and the SPDY it falls back to."""

from __future__ import annotations

import hashlib
import json
import os
import pty
import re
import select
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from support import kubectls
from support.platform import Platform, Ran, eventually

from .test_kubectl import WEB, read_until, running

SPACE = ("-n", "releases")
WEB_SOCKETS = ("KUBECTL_REMOTE_COMMAND_WEBSOCKETS", "KUBECTL_PORT_FORWARD_WEBSOCKETS")
METHOD = {"websocket": "GET", "spdy": "POST"}


@dataclass(frozen=True, slots=True)
class Kubectl:
    """One release that speaks one transport to the server."""

    platform: Platform
    binary: Path
    version: str
    transport: str

    @property
    def environment(self) -> dict[str, str]:
        return dict.fromkeys(WEB_SOCKETS, str(self.transport == "websocket").lower())

    def __call__(self, *args: str, ok: bool = True, stdin: str | None = None) -> Ran:
        return self.platform.run(str(self.binary), *args, ok=ok, stdin=stdin, env=self.environment)

    def start(self, *args: str, **options: Any) -> subprocess.Popen[str]:
        pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        env = self.platform.environment | self.environment
        return subprocess.Popen([str(self.binary), *args], env=env, **(pipes | options))


@pytest.fixture(scope="module")
def files(platform: Platform) -> Iterator[Platform]:
    """A server of the files in its Pod's /tmp."""
    document: dict[str, Any] = deepcopy(WEB)
    document["metadata"]["namespace"] = "releases"
    document["spec"]["template"]["spec"]["containers"][0]["command"][-1] = "/tmp"
    platform.kubectl("create", "namespace", "releases")
    platform.apply(document)
    platform.kubectl("rollout", "status", "deploy/web", *SPACE, "--timeout=90s")
    yield platform
    platform.kubectl("delete", "namespace", "releases", "--timeout=90s")


@pytest.fixture(scope="module", params=kubectls.params())
def release(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module", params=METHOD)
def kubectl(request: pytest.FixtureRequest, release: str, files: Platform) -> Kubectl:
    return Kubectl(files, kubectls.kubectl(release), release, request.param)


def assert_transport(kubectl: Kubectl, log: str, path: str) -> None:
    """What ``-v=6`` printed shows the transport that was asked for, and that it was not given up for the other."""
    methods = re.findall(rf'verb="(\w+)" url="[^"]*/{path}\b', log)
    assert set(methods) == {METHOD[kubectl.transport]}, log
    assert "fallback" not in log, log


def test_exec(kubectl: Kubectl) -> None:
    assert f"Client Version: v{kubectl.version}" in kubectl("version").out
    target = (*SPACE, "deploy/web", "--")
    ran = kubectl("exec", "-v=6", *target, "sh", "-c", "echo out; echo err >&2; exit 7", ok=False)
    assert (ran.code, ran.out) == (7, "out\n") and "\nerr\n" in f"\n{ran.err}"
    assert_transport(kubectl, ran.err, "exec")
    text = "".join(f"{n}\n" for n in range(100_000))
    assert kubectl("exec", "-i", *target, "cat", stdin=text).out == text
    assert len(kubectl("exec", *target, "sh", "-c", "head -c 5000000 /dev/zero | tr '\\0' x").out) == 5_000_000


def test_exec_with_a_terminal(kubectl: Kubectl) -> None:
    leader, follower = pty.openpty()
    process = kubectl.start("exec", "-it", *SPACE, "deploy/web", "--", "sh", "-c", "test -t 0 && echo tty; read x; "
                            "echo got $x", stdin=follower, stdout=follower, stderr=follower)  # fmt: skip
    os.close(follower)
    text, deadline = "", time.monotonic() + 15
    try:
        for wanted, answer in (("tty", b"word\n"), ("got word", b"")):
            while wanted not in text:
                assert time.monotonic() < deadline, text
                if select.select([leader], [], [], 0.2)[0]:
                    text += os.read(leader, 4096).decode()
            os.write(leader, answer)
        assert process.wait(90) == 0
    finally:
        process.kill()
        process.wait()
        os.close(leader)


def test_files_are_copied_both_ways(kubectl: Kubectl, tmp_path: Path) -> None:
    pod = kubectl.platform.pod("app=web", "releases")["metadata"]["name"]
    (tmp_path / "sent").write_bytes(bytes(range(256)) * 4000)
    kubectl("cp", *SPACE, str(tmp_path / "sent"), f"{pod}:/tmp/copied")
    kubectl("cp", *SPACE, f"{pod}:/tmp/copied", str(tmp_path / "back"))
    assert (tmp_path / "back").read_bytes() == (tmp_path / "sent").read_bytes()


def test_port_forward_carries_much_and_says_what_is_refused(kubectl: Kubectl) -> None:
    made = kubectl("exec", *SPACE, "deploy/web", "--", "sh", "-c",
                   "head -c 8000000 /dev/urandom > /tmp/big; sha256sum /tmp/big").out.split()[0]  # fmt: skip
    with running(kubectl.start("port-forward", "-v=6", *SPACE, "deploy/web", ":8000", ":9")) as forward:
        log = read_until(forward, r"(?s)Forwarding from 127.*-> 8000.*Forwarding from 127.*-> 9\n")
        port, closed = re.findall(r"127\.0\.0\.1:(\d+) ->", log)
        for _ in range(2):
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/big", timeout=20) as answer:
                assert hashlib.sha256(answer.read()).hexdigest() == made
        with pytest.raises((urllib.error.URLError, ConnectionError)):
            urllib.request.urlopen(f"http://127.0.0.1:{closed}/", timeout=10)
        log += read_until(forward, r"error forwarding port 9 to pod web-")
    assert_transport(kubectl, log, "portforward")


def test_logs_and_attach(kubectl: Kubectl) -> None:
    mark = f"{kubectl.version}-{kubectl.transport}"
    ask = ("exec", *SPACE, "deploy/web", "--", "python", "-c",
           f"import urllib.request as u; u.urlopen('http://127.0.0.1:8000/?{mark}').read()")  # fmt: skip
    with running(kubectl.start("attach", "-v=6", *SPACE, "deploy/web")) as attached:
        log = read_until(attached, r'"GET / HTTP')  # the readiness probe's: it is attached
        kubectl(*ask)
        log += read_until(attached, re.escape(mark))
    assert_transport(kubectl, log, "attach")
    eventually(lambda: mark in kubectl("logs", *SPACE, "deploy/web", "--tail=50").out, "the request is logged")
    with running(kubectl.start("logs", "-f", *SPACE, "deploy/web", "--tail=0")) as follow:
        kubectl(*ask)
        read_until(follow, re.escape(mark))
    pods = json.loads(kubectl("get", "pods", *SPACE, "-o", "json").out)["items"]
    assert len(pods) == 1
