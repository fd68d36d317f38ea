"""``uvx`` and ``npx`` commands resolved like an image pull: install once into a cache, then run offline.

Installing uses the machine's index, proxy and CA settings; the Pod that runs the result gets none of them.
"""

from __future__ import annotations

import asyncio
import fcntl
import hashlib
import json
import os
import re
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from quarterdeck.node.images.spec import ImageNotRunnable
from quarterdeck.node.process import base_python

_TIMEOUT = 600.0
_UVX_VALUES = {"--from": "from", "--with": "with", "--python": "python", "-p": "python", "--index-url": "index"}
_SPEC = re.compile(r"^([A-Za-z0-9._-]+)(\[[^\]]*\])?@(.+)$")


@dataclass(frozen=True, slots=True)
class Package:
    """What to install (``requirements``) and which of its commands to run with which arguments."""

    tool: str
    requirements: tuple[str, ...]
    command: str
    args: tuple[str, ...]
    python: str = ""

    @property
    def key(self) -> str:
        text = json.dumps([self.tool, self.requirements, self.python, base_python()])
        return hashlib.sha256(text.encode()).hexdigest()[:24]


def parse(argv: Sequence[str]) -> Package | None:
    """The package a ``uvx …``, ``uv tool run …`` or ``npx …`` command line names; None when it is something else."""
    words = list(argv)
    if words[:3] == ["uv", "tool", "run"]:
        return _uvx(words[3:])
    if not words:
        return None
    name = os.path.basename(words[0])
    if name == "uvx":
        return _uvx(words[1:])
    if name == "npx":
        return _npx(words[1:])
    return None


def _uvx(words: list[str]) -> Package | None:
    options: dict[str, list[str]] = {}
    while words and words[0].startswith("-"):
        name, equals, value = words.pop(0).partition("=")
        if name in _UVX_VALUES:
            options.setdefault(_UVX_VALUES[name], []).append(value if equals else words.pop(0) if words else "")
    if not words:
        return None
    target, args = words[0], tuple(words[1:])
    match = _SPEC.match(target)
    if "from" in options:
        requirement, command = options["from"][0], target
    elif match:
        name, extras, version = match.groups()
        requirement = f"{name}{extras or ''}" + ("" if version == "latest" else f"=={version}")
        command = name
    else:
        requirement, command = target, re.split(r"[\[<>=!~ ]", target, maxsplit=1)[0]
    wanted = (requirement, *options.get("with", ()))
    return Package("uvx", wanted, command, args, (options.get("python") or [""])[0])


def _npx(words: list[str]) -> Package | None:
    requirements: list[str] = []
    while words and words[0].startswith("-"):
        name, equals, value = words.pop(0).partition("=")
        if name in ("-p", "--package"):
            requirements.append(value if equals else words.pop(0) if words else "")
        elif name == "--":
            break
    if not words:
        return None
    target, args = words[0], tuple(words[1:])
    if requirements:
        return Package("npx", tuple(requirements), target, args)
    return Package("npx", (target,), "", args)


class PackageCache:
    """Installed packages under ``root``, one read-only folder each."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._locks: dict[str, asyncio.Lock] = {}

    async def resolve(self, package: Package) -> tuple[Path, list[str]]:
        """(folder, command line to run offline). Raises ImageNotRunnable with the package manager's last lines."""
        folder = self.root / package.tool / package.key
        async with self._locks.setdefault(package.key, asyncio.Lock()):
            if not (folder / ".complete").exists():
                await asyncio.to_thread(folder.parent.mkdir, parents=True, exist_ok=True)
                await self._install(package, folder)
        return folder, self._command(package, folder)

    async def _install(self, package: Package, folder: Path) -> None:
        with (folder.parent / f"{package.key}.lock").open("w") as lock:
            await asyncio.to_thread(fcntl.flock, lock, fcntl.LOCK_EX)  # several instances may share a cache
            if (folder / ".complete").exists():
                return
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
            if package.tool == "uvx":
                uv = _uv()
                python = package.python or base_python()
                await _run(package, [*uv, "venv", "--quiet", "--python", python, str(folder / "venv")])
                interpreter = str(folder / "venv" / "bin" / "python")
                await _run(package, [*uv, "pip", "install", "--python", interpreter, *package.requirements])
            else:
                npm = shutil.which("npm")
                if npm is None:
                    raise ImageNotRunnable(
                        "ErrImagePull", "npx packages need Node.js: install nodejs and npm (apt install nodejs npm)"
                    )
                await _run(
                    package, [npm, "install", "--no-audit", "--no-fund", "--prefix", str(folder), *package.requirements]
                )
            (folder / ".complete").write_text(json.dumps(package.requirements))

    def _command(self, package: Package, folder: Path) -> list[str]:
        bins = folder / "venv" / "bin" if package.tool == "uvx" else folder / "node_modules" / ".bin"
        command = package.command or _npm_command(package.requirements[0], folder)
        path = bins / command
        if not path.exists():
            offered = sorted(p.name for p in bins.iterdir()) if bins.is_dir() else []
            raise ImageNotRunnable(
                "ErrImagePull",
                f"package {package.requirements[0]!r} has no command {command!r}; it has: {', '.join(offered[:20])}",
            )
        return [str(path), *package.args]


def _npm_command(requirement: str, folder: Path) -> str:
    """npx's rule: the only command of the package, else the one named like it."""
    name = re.sub(r"(?<=.)@[^/@]*$", "", requirement)
    manifest = folder / "node_modules" / name / "package.json"
    try:
        commands = json.loads(manifest.read_text()).get("bin") or {}
    except OSError as error:
        raise ImageNotRunnable("ErrImagePull", f"npm package {name!r} is not where npm should have put it") from error
    short = name.rpartition("/")[2]
    if isinstance(commands, str) or not commands:
        return short
    return next(iter(commands)) if len(commands) == 1 else short


def _uv() -> list[str]:
    beside = Path(sys.executable).parent / "uv"
    found = shutil.which("uv") or (str(beside) if beside.exists() else None)
    if found is None:
        raise ImageNotRunnable("ErrImagePull", "uvx packages need uv: pip install uv")
    return [found]


async def _run(package: Package, argv: list[str]) -> None:
    process = await asyncio.create_subprocess_exec(
        *argv,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env={k: v for k, v in os.environ.items() if k != "VIRTUAL_ENV"},
    )
    try:
        output, _ = await asyncio.wait_for(process.communicate(), _TIMEOUT)
    except TimeoutError as error:
        process.kill()
        raise ImageNotRunnable(
            "ErrImagePull", f"{package.tool} {package.requirements[0]}: no result in {_TIMEOUT:g} s"
        ) from error
    if process.returncode:
        last = " | ".join(output.decode(errors="replace").strip().splitlines()[-5:])
        raise ImageNotRunnable("ErrImagePull", f"{package.tool} {package.requirements[0]}: {last}")
