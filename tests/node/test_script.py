"""The sandbox of scripts where a kernel offers less, and its system-call filter on both kinds of machine."""

from __future__ import annotations

import json
import os
import platform
import shutil
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import quarterdeck
from quarterdeck.node.sandbox import landlock, seccomp

FOLDER = Path(quarterdeck.__file__).parent / "node" / "sandbox"
ARCHES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
ALLOWED, REFUSED, NO_SUCH_CALL = 0x7FFF0000, 0x00050001, 0x00050026


def decide(program: bytes, machine: str, number: int, *arguments: int) -> int:
    """What a classic BPF program answers to one system call."""
    padded = [*arguments, 0, 0, 0, 0, 0, 0][:6]
    data = struct.pack("<IIQ6Q", number, ARCHES[machine], 0, *padded)
    code = list(struct.iter_unpack("<HBBI", program))
    value, at = 0, 0
    while True:
        operation, yes, no, operand = code[at]
        at += 1
        if operation == 0x20:
            value = struct.unpack_from("<I", data, operand)[0]
        elif operation == 0x54:
            value &= operand
        elif operation == 0x05:
            at += operand
        elif operation == 0x06:
            return operand
        else:
            holds = {0x15: value == operand, 0x25: value > operand, 0x45: bool(value & operand)}[operation]
            at += yes if holds else no


CALLS = {  # on x86_64 and aarch64
    "read": (0, 63), "socket": (41, 198), "kill": (62, 129), "tgkill": (234, 131), "ptrace": (101, 117),
    "prlimit64": (302, 261), "setpriority": (141, 140), "socketpair": (53, 199), "clone": (56, 220),
}  # fmt: skip


@pytest.mark.parametrize("machine", ARCHES)
def test_what_a_script_may_call(machine: str) -> None:
    column = list(ARCHES).index(machine)
    usual, alone = seccomp.program(machine), seccomp.program(machine, alone=True)
    mute = seccomp.program(machine, alone=True, signals=False)
    assert usual and alone and mute

    def answers(name: str, *arguments: int) -> tuple[int, int, int]:
        number = CALLS[name][column]
        return tuple(decide(each, machine, number, *arguments) for each in (usual, alone, mute))  # type: ignore[return-value]

    assert answers("read") == answers("socketpair", 1, 1) == answers("clone", 17) == (ALLOWED,) * 3
    assert answers("ptrace") == answers("clone", 0x10000000) == (REFUSED,) * 3
    assert answers("socket", 2, 1) == answers("socket", 1, 1) == (ALLOWED, REFUSED, REFUSED)
    assert answers("setpriority") == answers("prlimit64", 7) == (ALLOWED, REFUSED, REFUSED)
    assert answers("prlimit64", 0) == (ALLOWED,) * 3
    assert answers("kill", 1) == answers("tgkill", 1) == (ALLOWED, ALLOWED, REFUSED)
    assert decide(alone, machine, 435) == decide(alone, machine, 5000) == NO_SUCH_CALL


def test_no_other_machine_has_a_filter() -> None:
    assert seccomp.program("riscv64", alone=True) is None


@pytest.fixture
def older(tmp_path: Path) -> Path:
    """The sandbox as on a kernel with the first version of Landlock: files only."""
    for name in ("script.py", "landlock.py", "seccomp.py"):
        shutil.copy(FOLDER / name, tmp_path / name)
    with (tmp_path / "landlock.py").open("a") as file:
        file.write("\n\ndef abi():\n    return 1\n")
    return tmp_path / "script.py"


def run(program: Path, work: Path, code: str, report: int = 2) -> subprocess.CompletedProcess[str]:
    work.mkdir(exist_ok=True)
    read, write = os.pipe()
    spec: dict[str, Any] = {
        "argv": [sys.executable, "-c", code], "env": {"PATH": "/usr/bin:/bin"}, "cwd": str(work),
        "read": ["/usr", "/bin", "/lib", "/lib64", sys.prefix, sys.base_prefix, str(work)], "write": [str(work)],
        "seconds": 60, "memory": 1 << 28, "disk": 1 << 20, "processes": 16, "report": report,
    }  # fmt: skip
    os.write(write, json.dumps(spec).encode())
    os.close(write)
    try:
        return subprocess.run(
            [sys.executable, "-I", "-S", str(program), str(read)], pass_fds=(read, report), capture_output=True,
            text=True, timeout=50, check=False,
        )  # fmt: skip
    finally:
        os.close(read)


needs_landlock = pytest.mark.skipif(
    landlock.abi() == 0 or platform.machine() not in ARCHES, reason="no Landlock, or no filter for this machine"
)


@needs_landlock
def test_with_an_older_kernel_signals_are_refused_whole(older: Path, tmp_path: Path) -> None:
    code = f"import os\ntry: os.kill({os.getpid()}, 0)\nexcept PermissionError: print('refused')"
    assert run(older, tmp_path / "work", code).stdout == "refused\n"
    code = "import os\ntry: os.kill(os.getppid(), 9)\nexcept PermissionError: print('refused')"
    assert run(older, tmp_path / "work", code).stdout == "refused\n"
    assert run(older, tmp_path / "work", f"print(open({str(older)!r}).read())").returncode == 1


@needs_landlock
def test_with_an_older_kernel_what_it_starts_ends_with_it(older: Path, tmp_path: Path) -> None:
    marker = f"left-{os.getpid()}"
    code = (
        f"import os, sys\nif os.fork() == 0:\n  os.setsid()\n  if os.fork() == 0:\n"
        f"    os.execv(sys.executable, [sys.executable, '-c', 'import time; time.sleep(1000)', '{marker}'])\n"
        "  os._exit(0)\nprint('done')"
    )
    assert run(older, tmp_path / "work", code).stdout == "done\n"
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            assert marker.encode() not in entry.read_bytes().split(b"\0")[-2:-1]
        except OSError:
            continue


@needs_landlock
def test_a_script_inherits_no_descriptor_however_high(tmp_path: Path) -> None:
    """An agent with many connections has pipes with high numbers."""
    high = os.dup2(2, 1500, inheritable=True)
    code = f"import os\ntry: os.fstat({high})\nexcept OSError: print('none')"
    try:
        assert run(FOLDER / "script.py", tmp_path / "work", code, report=high).stdout == "none\n"
    finally:
        os.close(high)


def test_a_kernel_without_landlock_is_said_to_be_one(tmp_path: Path) -> None:
    for name in ("script.py", "landlock.py", "seccomp.py"):
        shutil.copy(FOLDER / name, tmp_path / name)
    with (tmp_path / "landlock.py").open("a") as file:
        file.write("\n\ndef abi():\n    return 0\n")
    done = subprocess.run(
        [sys.executable, "-I", "-S", str(tmp_path / "script.py"), "--probe"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (125, "the kernel here offers no Landlock to this container\n")
