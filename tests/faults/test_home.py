"""Data directories that cannot be used as they are: a message that names the file and the remedy, never a traceback."""

from __future__ import annotations

import json
import os
import shutil
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from support.platform import BIN, FREE_PORTS, Platform, embedded, own_route, processes_of, routes


def platform_of(home: Path) -> Platform:
    return Platform(home / "kubeconfig", "", home.parent, home)


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A home as a platform leaves it after ``qd down``, with a Secret and a conversation's database in it."""
    kept = tmp_path_factory.mktemp("stopped") / "home"
    with embedded(build=False) as platform:
        assert platform.home is not None
        platform.kubectl("create", "secret", "generic", "kept", "-n", "kagent", "--from-literal=key=value")
        platform.qd("down")
        shutil.copytree(platform.home, kept, symlinks=True, ignore=shutil.ignore_patterns("*.sock"))
    yield kept


@pytest.fixture
def home(stopped: Path, tmp_path: Path) -> Iterator[Path]:
    copy = tmp_path / "home"
    shutil.copytree(stopped, copy, symlinks=True, ignore=shutil.ignore_patterns("*.sock"))
    yield copy
    platform_of(copy).qd("down", ok=False)
    assert not processes_of(copy)


def noise(path: Path) -> None:
    path.write_bytes(b"\x00not what belongs here\xff" * 200)


def newer(path: Path, statement: str) -> None:
    with closing(sqlite3.connect(path)) as database:
        database.execute(statement)
        database.commit()


DAMAGE: list[Any] = [
    ("pki/ca.crt", noise, "restore"),
    pytest.param("pki/ca.key", noise, "restore", marks=pytest.mark.slow),
    pytest.param("pki/sa.key", noise, "restore", marks=pytest.mark.slow),
    pytest.param("pki/apiserver.crt", noise, "remove", marks=pytest.mark.slow),
    pytest.param("pki/secrets.key", noise, "original", marks=pytest.mark.slow),
    ("pki/secrets.key", lambda path: path.unlink(), "missing"),
    pytest.param("kubeconfig", noise, "remove it", marks=pytest.mark.slow),
    ("state.db", noise, "move"),
    pytest.param("state.db", lambda path: newer(path, "PRAGMA user_version=99"), "newer", marks=pytest.mark.slow),
    pytest.param("server.db", noise, "move", marks=pytest.mark.slow),
    ("server.db", lambda path: newer(path, "UPDATE schema_version SET version=99"), "newer"),
]


def start_control_plane(home: Path) -> subprocess.CompletedProcess[str]:
    """The process that ``qd up`` starts and whose last words it prints; for starts that are refused."""
    server = [sys.executable, "-m", "quarterdeck.server", f"--home={home}", *FREE_PORTS]
    env = platform_of(home).environment
    return subprocess.run(server, env=env, stdin=subprocess.PIPE, capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize(("file", "damage", "remedy"), DAMAGE)
def test_a_damaged_file_is_named_with_its_remedy(
    home: Path, file: str, damage: Callable[[Path], None], remedy: str
) -> None:
    damage(home / file)
    ran = start_control_plane(home)
    assert ran.returncode == 1, ran.stderr
    assert "Traceback" not in ran.stderr, ran.stderr
    assert str(home / file) in ran.stderr and remedy in ran.stderr, ran.stderr
    assert not processes_of(home)
    assert own_route(home) not in routes()


def test_up_repeats_why_the_control_plane_does_not_start(home: Path) -> None:
    newer(home / "state.db", "PRAGMA user_version=99")
    ran = platform_of(home).qd("up", "--detach", *FREE_PORTS, ok=False)
    assert ran.code == 1
    assert str(home / "state.db") in ran.text and "newer" in ran.text and "Traceback" not in ran.text, ran.text


def test_files_that_can_be_made_again_are(home: Path) -> None:
    last_good = next(iter((home / "gateway").glob("*.enc")), None) or next((home / "gateway").iterdir())
    for file in (
        home / "node" / "addresses.json",
        home / "run" / "up.lock",
        home / "lock",
        last_good,
    ):
        noise(file)
    noise(home / "run" / "endpoints.json")
    platform = platform_of(home)
    shown = platform.qd("status", ok=False)
    assert shown.code == 1 and "endpoints.json" in shown.text and "Traceback" not in shown.text
    platform.qd("up", "--detach", *FREE_PORTS)
    assert platform.kubectl("get", "secret", "kept", "-n", "kagent", "-o", "jsonpath={.data.key}").out == "dmFsdWU="
    noise(home / "kubeconfig")
    shown = platform.qd("get", "pods", ok=False)
    assert shown.code == 1 and str(home / "kubeconfig") in shown.text and "Traceback" not in shown.text, shown.text


_slowly = [pytest.param(flag, marks=pytest.mark.slow) for flag in ("--api-port", "--kagent-port", "--workloads-port")]


@pytest.mark.parametrize("flag", ["--kubernetes-port", "--gateway-port", *_slowly])
def test_a_port_in_use_is_named_with_its_flag(tmp_path: Path, flag: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        flags = [f for f in FREE_PORTS if not f.startswith(flag)]
        ran = platform_of(tmp_path / "home").qd("up", *flags, f"{flag}={port}", ok=False)
    assert ran.code == 1
    assert f"port {port}" in ran.text and flag in ran.text and "Traceback" not in ran.text, ran.text
    assert not processes_of(tmp_path / "home")


def test_down_where_nothing_runs(tmp_path: Path) -> None:
    platform = platform_of(tmp_path / "home")
    assert platform.qd("down").out == f"nothing runs on {tmp_path / 'home'}\n"
    shown = platform.qd("status", ok=False)
    assert shown.code == 1 and "qd up" in shown.text
    assert not (tmp_path / "home").exists(), "asking must not create a home"


in_namespace = pytest.mark.skipif(
    subprocess.run(["unshare", "--user", "--map-root-user", "--mount", "true"], capture_output=True).returncode != 0,
    reason="this machine allows no mount namespaces",
)


def up_in_namespace(home: Path, mount: str) -> subprocess.CompletedProcess[str]:
    """``qd up`` where ``mount`` (shell, ``$H`` is the home) was run before, seen by it alone."""
    script = f'set -e; {mount}; exec "{BIN}/qd" up {" ".join(FREE_PORTS)}'
    command = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", script]
    env = platform_of(home).environment | {"H": str(home)}
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL)


@in_namespace
def test_a_read_only_home_is_named(home: Path) -> None:
    ran = up_in_namespace(home, 'mount --bind "$H" "$H"; mount -o remount,bind,ro "$H"')
    assert ran.returncode == 1, ran.stderr
    assert str(home) in ran.stderr and "QUARTERDECK_HOME" in ran.stderr and "Traceback" not in ran.stderr, ran.stderr


@in_namespace
def test_a_full_disk_is_named(home: Path) -> None:
    ran = up_in_namespace(
        home, 'mount -t tmpfs -o size=64k none "$H"; dd if=/dev/zero of="$H/fill" bs=1k count=60 2>/dev/null'
    )
    output = ran.stdout + ran.stderr
    assert ran.returncode == 1, output
    assert str(home) in output and "space" in output and "Traceback" not in output, output


def test_no_secret_can_be_read_by_others(home: Path) -> None:
    for folder, _, files in os.walk(home):
        for name in files:
            path = Path(folder, name)
            if path.is_symlink() or "pods" in path.parts:
                continue
            text = path.read_bytes() if path.stat().st_size < 1 << 20 else b""
            secret = name in ("server.db", "state.db", "kubeconfig", "local-token") or b"PRIVATE KEY" in text
            assert not secret or path.stat().st_mode & 0o077 == 0, f"{path}: {oct(path.stat().st_mode)}"
    assert json.loads((home / "node" / "addresses.json").read_text())
