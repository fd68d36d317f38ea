"""Running a skill's script (``node/sandbox/script.py``): without network, environment, token or other files.

Each run has a folder of its own that goes with it, so a script leaves nothing behind and may be run again.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import shutil
import stat
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from quarterdeck.errors import UsageError
from quarterdeck.processes import end, first_bytes
from quarterdeck.skills.format import inside
from quarterdeck.skills.probe import PROGRAM

log = logging.getLogger("quarterdeck.agents.skills")
SECONDS = 60.0
MEMORY = 256 << 20
"""Two runs at once and the host itself stay below the 1 GiB that an agent's container may use."""
DISK = 64 << 20
PROCESSES = 32
OUTPUT = 64 << 10
"""Bytes of standard output, of standard error, and of all files that are shown."""
_AT_ONCE = 2
_LATE = 30.0
_GRACE = 10.0
_SYSTEM = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/etc/alternatives", "/etc/ld.so.cache",
           "/etc/localtime", "/etc/mime.types", "/etc/ssl/certs", "/dev/null", "/dev/zero", "/dev/random",
           "/dev/urandom")  # fmt: skip
_PATH = "/usr/local/bin:/usr/bin:/bin"
_STOPPED = {
    "time": "it ran longer than {seconds:g} s",
    "memory": "its processes used more than {memory} bytes of memory",
    "disk": "it wrote more than {disk} bytes",
    "processes": "it had more than {processes} processes",
}


@dataclass(frozen=True, slots=True)
class Limits:
    """What one run may use; ``memory`` and ``disk`` in bytes, ``output`` of each stream."""

    seconds: float = SECONDS
    memory: int = MEMORY
    disk: int = DISK
    processes: int = PROCESSES
    output: int = OUTPUT


@dataclass(frozen=True, slots=True)
class Finished:
    """How a run ended. ``stopped`` says why it was ended; ``files``: what it made, texts whole where they fit."""

    code: int
    out: str
    err: str
    stopped: str = ""
    files: Mapping[str, str] = field(default_factory=dict[str, str])


class ScriptSandbox:
    """Runs scripts, few at once."""

    def __init__(self, limits: Limits = Limits()) -> None:
        self.limits = limits
        self._gate = asyncio.Semaphore(_AT_ONCE)

    async def run(
        self, script: Path, folder: Path, arguments: Sequence[str], stdin: str, files: Mapping[str, str]
    ) -> Finished:
        """Run ``script`` of the skill in ``folder``; ``files`` lie in its working folder. Raises UsageError."""
        async with self._gate:
            work = Path(tempfile.mkdtemp(prefix="script-"))
            try:
                _put(work, files)
                return await self._run([*interpreter(script), str(script), *arguments], folder, work, stdin, set(files))
            finally:
                await asyncio.to_thread(_remove, work)

    async def _run(self, argv: list[str], folder: Path, work: Path, stdin: str, given: set[str]) -> Finished:
        limits = self.limits
        environment = {
            "PATH": _PATH, "HOME": str(work), "TMPDIR": str(work), "LANG": "C.UTF-8", "SKILL_DIR": str(folder),
            "PYTHONDONTWRITEBYTECODE": "1",
        }  # fmt: skip
        with contextlib.ExitStack() as ours:
            with contextlib.ExitStack() as theirs:
                report, told = os.pipe()
                ours.callback(os.close, report)
                theirs.callback(os.close, told)
                instructions, given_to = os.pipe()
                theirs.callback(os.close, instructions)
                channel = ours.enter_context(os.fdopen(given_to, "wb"))
                spec = {
                    "argv": argv, "env": environment, "cwd": str(work),
                    "read": [*_SYSTEM, sys.prefix, sys.base_prefix, str(folder), str(work)],
                    "write": [str(work), "/dev/null"], "seconds": limits.seconds, "memory": limits.memory,
                    "disk": limits.disk, "processes": limits.processes, "report": told,
                }  # fmt: skip
                process = await asyncio.create_subprocess_exec(
                    sys.executable, "-I", "-S", str(PROGRAM), str(instructions), pass_fds=(instructions, told), env={},
                    stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
                    start_new_session=True,
                )  # fmt: skip
            out, err, why = "", "", "time"
            try:
                with contextlib.suppress(BrokenPipeError), channel:  # where it ended at once, it says why
                    channel.write(json.dumps(spec).encode())
                async with asyncio.timeout(limits.seconds + _LATE):  # the sandbox itself was stopped in its work
                    out, err = await self._talk(process, stdin)
                    why = _said(report)
            except TimeoutError:
                log.error("the sandbox of %s did not end in time and was killed", argv[-1])
            finally:
                if process.returncode is None:
                    await end(process, _GRACE)  # it ends what it has started
        stopped = _STOPPED.get(why, "").format(
            seconds=limits.seconds, memory=limits.memory, disk=limits.disk, processes=limits.processes
        )
        made = await asyncio.to_thread(_made, work, given, limits.output)
        return Finished(process.returncode or 0, out, err, stopped, made)

    async def _talk(self, process: asyncio.subprocess.Process, stdin: str) -> tuple[str, str]:
        assert process.stdin is not None and process.stdout is not None and process.stderr is not None
        writer = asyncio.create_task(_feed(process.stdin, stdin.encode()))
        try:
            out, err = await asyncio.gather(
                _bounded(process.stdout, self.limits.output), _bounded(process.stderr, self.limits.output)
            )
            await process.wait()
            return out, err
        finally:
            writer.cancel()


def _put(work: Path, files: Mapping[str, str]) -> None:
    """The files a run is given. Raises UsageError for names that cannot be."""
    for name, text in files.items():
        path = work / inside(name, "files")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        except OSError as error:
            raise UsageError(f"files: {name[:200]!r} cannot be a file: {error.strerror}") from None


def interpreter(script: Path) -> list[str]:
    """What runs a script: by its ending, else itself where it may be executed. Raises UsageError."""
    known = {".py": [sys.executable], ".sh": [shutil.which("bash", path=_PATH) or "/bin/sh"]}
    if script.suffix in known:
        return known[script.suffix]
    if script.suffix in (".js", ".mjs"):
        node = shutil.which("node", path=_PATH)
        if node is None:
            raise UsageError(f"{script.name}: there is no node here; scripts in Python and shell can be run")
        return [node]
    if os.access(script, os.X_OK):
        return []
    raise UsageError(f"{script.name}: neither a Python nor a shell script, and not executable; it cannot be run")


def _said(report: int) -> str:
    """What stopped the run. It has ended: there is something to read, or nothing will come."""
    os.set_blocking(report, False)
    try:
        return os.read(report, 100).decode("utf-8", "replace")
    except BlockingIOError:
        return ""


async def _feed(writer: asyncio.StreamWriter, data: bytes) -> None:
    with contextlib.suppress(OSError):  # a script need not read what it is given
        writer.write(data)
        await writer.drain()
        writer.close()


async def _bounded(reader: asyncio.StreamReader, most: int) -> str:
    """What a stream says first; the rest is read and dropped."""
    kept, total = await first_bytes(reader, most)
    text = kept.decode("utf-8", "replace")
    return text if total <= most else f"{text}\n[cut: {total} bytes in all]"


def _made(work: Path, given: set[str], most: int) -> dict[str, str]:
    """Files the script made, by their paths; nothing it links to. All its processes have ended."""
    found: dict[str, str] = {}
    left = most
    for root, folders, names in os.walk(work):
        folders.sort()
        for name in sorted(names):
            path = os.path.join(root, name)
            shown = os.fsencode(os.path.relpath(path, work)).decode("utf-8", "replace")
            if len(found) >= 50:
                return found
            try:
                handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
            except OSError:
                continue
            with os.fdopen(handle, "rb") as file:
                about = os.fstat(file.fileno())
                if shown in given or not stat.S_ISREG(about.st_mode):
                    continue
                data = file.read(left + 1) if about.st_size <= left else b"\0"
            left -= 0 if b"\0" in data else len(data)
            found[shown] = f"[{about.st_size} bytes]" if b"\0" in data else data.decode("utf-8", "replace")
    return found


def _remove(work: Path) -> None:
    """A script may have taken its own folders' permissions away."""
    os.chmod(work, 0o700)
    for root, folders, _ in os.walk(work):
        for name in folders:
            path = os.path.join(root, name)
            if not os.path.islink(path):
                os.chmod(path, 0o700)
    shutil.rmtree(work, ignore_errors=True)
