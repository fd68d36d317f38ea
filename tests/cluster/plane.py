"""The real kube-apiserver with etcd as a peer of tests and benchmarks; build.py builds it."""

from __future__ import annotations

import contextlib
import ssl
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from socket import socket

from .build import built


@dataclass(frozen=True, slots=True)
class RealApiServer:
    """Processes whose CPU and memory count, and how to reach the server."""

    pids: tuple[int, ...]
    config: dict[str, str]
    version: str


def available() -> tuple[Path | None, str]:
    """Folder of the commands, or None and why there is none. Does not build: that takes minutes."""
    place = built()
    return place, "" if place else "not built here: python tests/cluster/build.py (needs Go)"


def _free_ports(count: int) -> list[int]:
    held = [socket() for _ in range(count)]
    for sock in held:
        sock.bind(("127.0.0.1", 0))
    ports = [int(sock.getsockname()[1]) for sock in held]
    for sock in held:
        sock.close()
    return ports


@contextlib.contextmanager
def running(commands: Path) -> Iterator[RealApiServer]:
    """Start etcd and kube-apiserver on free ports of loopback, in a temporary folder; end them afterwards."""
    with tempfile.TemporaryDirectory(prefix="qd-bench-real-") as temporary, contextlib.ExitStack() as stack:
        folder = Path(temporary)
        client, peer, secure = _free_ports(3)
        etcd_url = f"http://127.0.0.1:{client}"
        etcd = _start(
            stack, folder / "etcd.log", str(commands / "etcd"), f"--data-dir={folder / 'etcd'}",
            f"--listen-client-urls={etcd_url}", f"--advertise-client-urls={etcd_url}",
            f"--listen-peer-urls=http://127.0.0.1:{peer}", "--log-level=error",
        )  # fmt: skip
        key = folder / "sa.key"
        subprocess.run(["openssl", "genrsa", "-out", str(key), "2048"], check=True, capture_output=True)
        (folder / "tokens.csv").write_text('admintoken,admin,admin-uid,"system:masters"\n')
        server = _start(
            stack, folder / "apiserver.log", str(commands / "kube-apiserver"), f"--etcd-servers={etcd_url}",
            f"--secure-port={secure}", "--bind-address=127.0.0.1", f"--cert-dir={folder / 'certs'}",
            "--service-account-issuer=https://kubernetes.default.svc", f"--service-account-key-file={key}",
            f"--service-account-signing-key-file={key}", f"--token-auth-file={folder / 'tokens.csv'}",
            "--authorization-mode=Node,RBAC", "--allow-privileged=true", "--service-cluster-ip-range=10.97.0.0/16",
            "--max-requests-inflight=2000", "--max-mutating-requests-inflight=1000",
        )  # fmt: skip
        url = f"https://127.0.0.1:{secure}"
        _wait_ready(url, folder / "apiserver.log", server)
        config = {"base_url": url, "token": "admintoken", "ca_file": str(folder / "certs" / "apiserver.crt")}
        yield RealApiServer((etcd.pid, server.pid), config, commands.name.partition("-")[0])


def _start(stack: contextlib.ExitStack, log: Path, *command: str) -> subprocess.Popen[bytes]:
    output = stack.enter_context(log.open("wb"))
    process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)

    def end() -> None:
        process.terminate()
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    stack.callback(end)
    return process


def _wait_ready(url: str, log: Path, server: subprocess.Popen[bytes]) -> None:
    context = ssl._create_unverified_context()  # pyright: ignore[reportPrivateUsage]  # only asks whether it is ready
    deadline = time.monotonic() + 90
    while time.monotonic() < deadline and server.poll() is None:
        with contextlib.suppress(urllib.error.URLError, OSError):
            ask = urllib.request.Request(f"{url}/readyz", headers={"authorization": "Bearer admintoken"})
            with urllib.request.urlopen(ask, context=context, timeout=2) as answer:
                if answer.status == 200:
                    return
        time.sleep(0.2)
    raise RuntimeError(f"kube-apiserver did not become ready:\n{log.read_text()[-2000:]}")
