"""``qd up`` in the foreground, and what others see of it: signals, modes of its files, restarts, memory."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from quarterdeck.cli.supervise import Ports, last_line
from quarterdeck.errors import UsageError
from support.platform import BIN, FREE_PORTS, Platform, assert_nothing_left, eventually, own_route, processes_of

SUPERVISOR_MEGABYTES = 25
_WALK = """
import os, sys
paths = sys.stdin.read()
os.setgroups([]); os.setgid(int(sys.argv[1])); os.setuid(int(sys.argv[1]))
for path in paths.split("\\0"):
    try:
        os.scandir(path).close() if os.path.isdir(path) else open(path, "rb").close()
    except OSError:
        continue
    print(path)
"""


class Up:
    """A ``qd up`` of our own, in a home that an older version left open to others."""

    def __init__(self) -> None:
        self.scratch = Path(tempfile.mkdtemp(prefix="qd-life-"))
        self.scratch.chmod(0o755)  # so that only the home's own mode keeps others out
        self.home = self.scratch / "home"
        (self.home / "node").mkdir(parents=True)
        (self.home / "run").mkdir()
        for path in (self.home, self.home / "node", self.home / "run"):
            path.chmod(0o755)
        self.platform = Platform(self.home / "kubeconfig", "", self.scratch, self.home)
        self.process = self.start()

    def start(self) -> subprocess.Popen[str]:
        self.process = subprocess.Popen(
            [str(BIN / "qd"), "up", *FREE_PORTS], env=self.platform.environment, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True, start_new_session=True,
        )  # fmt: skip
        assert self.process.stdout is not None
        said: list[str] = []
        for line in self.process.stdout:
            said.append(line)
            if "Ctrl-C ends it" in line:
                return self.process
        raise AssertionError("".join(said))

    def end(self, signum: int) -> tuple[int, str]:
        route = own_route(self.home)
        self.process.send_signal(signum)
        said, _ = self.process.communicate(timeout=60)
        assert_nothing_left(self.home, route)
        return self.process.returncode, said


@pytest.fixture(scope="module")
def up() -> Iterator[Up]:
    started = Up()
    yield started
    if started.process.poll() is None:
        started.process.send_signal(signal.SIGCONT)
        started.process.terminate()
        started.process.communicate(timeout=60)
    started.platform.qd("down", ok=False)
    assert not processes_of(started.home)
    shutil.rmtree(started.scratch)


pytestmark = pytest.mark.timeout(180)


@pytest.mark.e2e
def test_status_as_data(up: Up) -> None:
    shown = json.loads(up.platform.qd("status", "-o", "json").out)
    assert shown["ready"] is True and shown["home"] == str(up.home)
    assert shown["urls"]["kubernetes"] == up.platform.endpoints()["kubernetes"]
    assert "ready: true" in up.platform.qd("status", "-o", "yaml").out
    assert up.platform.qd("status", "-o", "xml", ok=False).code == 2


@pytest.mark.e2e
def test_the_supervisor_is_small(up: Up) -> None:
    (line,) = [x for x in Path(f"/proc/{up.process.pid}/status").read_text().splitlines() if x.startswith("VmRSS")]
    assert int(line.split()[1]) <= SUPERVISOR_MEGABYTES * 1024, line


@pytest.mark.e2e
@pytest.mark.skipif(os.getuid() != 0, reason="only root can become another user")
def test_other_users_of_the_machine_read_nothing(up: Up) -> None:
    found = [str(up.home)]
    for folder, folders, files in os.walk(up.home):
        found += [os.path.join(folder, name) for name in (*folders, *files)]
    assert any(path.endswith("state.db-wal") for path in found)

    def readable_by(uid: int) -> list[str]:
        command = [sys.executable, "-I", "-c", _WALK, str(uid)]  # becomes the other user once Python is loaded
        ran = subprocess.run(command, input="\0".join(found), capture_output=True, text=True, check=True)
        return ran.stdout.splitlines()

    assert str(up.home) in readable_by(0)  # the question is a good one
    assert readable_by(65534) == []
    assert (up.home / "state.db-wal").stat().st_mode & 0o777 == 0o600


@pytest.mark.e2e
def test_a_control_plane_that_starts_again_is_waited_for(up: Up) -> None:
    before = up.platform.endpoints()
    os.kill(before["pid"], signal.SIGKILL)
    shown = up.platform.qd("status", "-o", "json", ok=False)  # the gateway may not have been seen ready yet
    assert json.loads(shown.out)["pid"] != before["pid"], shown.err
    assert up.platform.endpoints() | {"pid": 0} == before | {"pid": 0}


@pytest.mark.e2e
def test_a_control_plane_that_does_not_come_back_is_named(up: Up) -> None:
    up.process.send_signal(signal.SIGSTOP)  # this supervisor starts nothing
    try:
        os.kill(up.platform.endpoints()["pid"], signal.SIGKILL)
        shown = up.platform.qd("status", ok=False)
        assert shown.code == 1
        assert f"starting again (supervisor {up.process.pid}); try again" in shown.err, shown.err
    finally:
        up.process.send_signal(signal.SIGCONT)
    eventually(lambda: up.platform.qd("status", ok=False).code == 0, "ready again")


@pytest.mark.e2e
def test_signals_end_it_cleanly_and_show_in_the_exit_code(up: Up) -> None:
    code, said = up.end(signal.SIGINT)
    assert (code, said.splitlines()[-1]) == (130, "stopped")
    up.start()
    code, said = up.end(signal.SIGTERM)
    assert (code, said.splitlines()[-1]) == (143, "stopped")
    for _ in range(2):
        assert up.platform.qd("down").out == f"nothing runs on {up.home}\n"


@pytest.mark.parametrize(("home", "why"), [("/proc/nope", "No such file"), ("file", "it is a file")])
@pytest.mark.parametrize("flags", [[], ["--detach"]])
def test_a_home_that_cannot_be_one(tmp_path: Path, home: str, why: str, flags: list[str]) -> None:
    (tmp_path / "file").touch()
    platform = Platform(tmp_path / "kubeconfig", "", tmp_path, tmp_path / home)
    ran = platform.qd("up", *flags, *FREE_PORTS, ok=False)
    assert ran.code == 1
    assert f"data directory {tmp_path / home}: {why}" in ran.err and "QUARTERDECK_HOME" in ran.err
    assert ran.err.count("\n") == 1, ran.err
    down = platform.qd("down", ok=False)
    assert "nothing runs on" in down.text and "Traceback" not in down.text


@pytest.mark.parametrize("flag", ["--kubernetes-port", "--api-port", "--kagent-port", "--gateway-port"])
@pytest.mark.parametrize("port", ["-1", "65536", "99999", "http"])
def test_ports_that_are_none(tmp_path: Path, flag: str, port: str) -> None:
    platform = Platform(tmp_path / "kubeconfig", "", tmp_path, tmp_path / "home")
    server = [sys.executable, "-m", "quarterdeck.server", f"--home={tmp_path / 'home'}", f"{flag}={port}"]
    for command in ([str(BIN / "qd"), "up", f"{flag}={port}"], server):
        ran = platform.run(*command, ok=False)
        assert ran.code == 2 and flag in ran.err and "Traceback" not in ran.err, ran.err
    assert not (tmp_path / "home").exists()


def test_ports_that_are_the_same(tmp_path: Path) -> None:
    platform = Platform(tmp_path / "kubeconfig", "", tmp_path, tmp_path / "home")
    ran = platform.qd("up", "--api-port=0", "--kagent-port=0", "--gateway-port=8702", ok=False)
    assert ran.code == 2 and "--gateway-port and --workloads-port are both 8702" in ran.err
    assert not (tmp_path / "home").exists()
    with pytest.raises(UsageError):
        Ports(api=8701)


@pytest.mark.parametrize(
    ("log", "line"),
    [
        ("2026 INFO x started\ncontrol plane: /h/state.db is newer; upgrade\n", "/h/state.db is newer; upgrade"),
        ('Traceback (most recent call last):\n  File "a.py", line 1\n    x()\nValueError: bad\n', "ValueError: bad"),
        ("Traceback (most recent call last):\n  File\nsqlite3.OperationalError: locked\n", "OperationalError: locked"),
        ("", "it said nothing"),
    ],
)
def test_last_words_are_one_line(log: str, line: str) -> None:
    assert last_line(log) == line


def test_asking_does_not_look_like_a_supervisor(tmp_path: Path) -> None:
    from quarterdeck.cli.home import supervisor_pid

    (tmp_path / "run").mkdir()
    path = tmp_path / "run" / "up.lock"
    path.write_text(str(os.getpid()))
    with path.open() as asking:
        fcntl.flock(asking, fcntl.LOCK_SH)
        assert supervisor_pid(tmp_path) is None
    with path.open("a") as holding:
        fcntl.flock(holding, fcntl.LOCK_EX)
        assert supervisor_pid(tmp_path) == os.getpid()


def test_a_directory_shared_with_others_keeps_its_mode(tmp_path: Path) -> None:
    from quarterdeck.server.directory import close_to_others

    shared = tmp_path / "shared"
    (shared / "other").mkdir(parents=True)
    shared.chmod(0o755)
    close_to_others(shared)
    assert shared.stat().st_mode & 0o777 == 0o755 and (shared / "run").stat().st_mode & 0o777 == 0o700
    (shared / "state.db").touch()
    close_to_others(shared)
    assert shared.stat().st_mode & 0o777 == 0o700
