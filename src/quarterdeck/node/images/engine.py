"""podman or docker, where one works: found by trying, and asked for images that only it can run."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from quarterdeck.node.images.spec import Engine, ImageNotRunnable, ImageSpec

RUN_LABEL = "quarterdeck.dev/run"
"""Label of an engine's container: which run of which Pod's container it is; see :func:`run_name`."""

_DETECT_SECONDS = 5.0
_AGAIN_SECONDS = 180.0
_PULL_SECONDS = 900.0
_END_SECONDS = 30.0
_REFERENCE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/:@+-]*")


def run_name(uid: str, container: str, attempt: int) -> str:
    """The engine's name for one run of a container."""
    return f"qd-{uid}-{container}-{attempt}"


@dataclass(slots=True)
class Engines:
    """Finds the engine. ``kinds`` in order of preference; none: this node uses no engine."""

    kinds: tuple[str, ...] = ("podman", "docker")
    clock: Callable[[], float] = time.monotonic
    _found: Engine | None = None
    _looked: float | None = None
    _lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def find(self) -> Engine | None:
        """The first engine that works; looked for again when the last look is some minutes old."""
        async with self._lock:
            now = self.clock()
            if self._looked is None or now - self._looked >= _AGAIN_SECONDS:
                self._found = await self._look()
                self._looked = now
            return self._found

    async def _look(self) -> Engine | None:
        for kind in self.kinds:
            program = shutil.which(kind)
            if program is None:
                continue
            code, _ = await call([program, "info"], _DETECT_SECONDS)
            if code == 0:
                return Engine(kind, program)
        return None


async def call(argv: Sequence[str], timeout: float) -> tuple[int, str]:
    """(exit code, output and errors together); 124 when it took longer than ``timeout`` seconds, 127 not started."""
    try:
        process = await asyncio.create_subprocess_exec(
            *argv,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
    except OSError as error:
        return 127, str(error)
    try:
        output, _ = await asyncio.wait_for(process.communicate(), timeout)
    except TimeoutError:
        return 124, f"no result in {timeout:g} s"
    finally:
        if process.returncode is None:
            process.kill()
    return process.returncode or 0, output.decode(errors="replace")


def names_of(image: str) -> list[str]:
    """How an engine may know ``image``: a name without registry is Docker Hub's, or one made on this machine."""
    first, slash, _ = image.partition("/")
    if slash and ("." in first or ":" in first or first == "localhost"):
        return [image]
    return [f"docker.io/{image}" if slash else f"docker.io/library/{image}", f"localhost/{image}"]


def policy_of(image: str, policy: str) -> str:
    """``imagePullPolicy``, by default Always for ``latest`` and for names without tag, as core/v1 says."""
    if policy:
        return policy
    last = image.rpartition("/")[2]
    return "Always" if "@" not in image and (":" not in last or last.endswith(":latest")) else "IfNotPresent"


async def ensure(engine: Engine, image: str, policy: str) -> ImageSpec:
    """The image in the engine's store, pulled when its policy asks for that.

    Raises ImageNotRunnable (InvalidImageName, ErrImagePull, ErrImageNeverPull) with the engine's last lines.
    """
    if not _REFERENCE.fullmatch(image):
        raise ImageNotRunnable("InvalidImageName", f"image {image!r} is no image reference")
    policy = policy_of(image, policy)
    present = None if policy == "Always" else await _present(engine, image)
    if present is None and policy == "Never":
        raise ImageNotRunnable(
            "ErrImageNeverPull", f"image {image!r} is not in {engine.kind}'s store and imagePullPolicy is Never"
        )
    if present is None:
        code, output = await call([engine.program, "pull", names_of(image)[0]], _PULL_SECONDS)
        if code:
            last = " | ".join(output.strip().splitlines()[-5:])
            raise ImageNotRunnable("ErrImagePull", f"{engine.kind} pull {names_of(image)[0]}: {last}")
        present = await _present(engine, image)
    if present is None:
        raise ImageNotRunnable("ErrImagePull", f"{engine.kind} pulled {image!r} but does not have it")
    reference, digest, user = present
    return ImageSpec(digest=digest, engine=engine, reference=reference, user=user)


async def _present(engine: Engine, image: str) -> tuple[str, str, str] | None:
    """(name, id, the configuration's user) of an image in the engine's store."""
    for name in names_of(image):
        code, output = await call([engine.program, "image", "inspect", name], _END_SECONDS)
        if code == 0:
            found = json.loads(output)[0]
            return name, str(found["Id"]), str((found.get("Config") or {}).get("User") or "")
    return None


async def stop(engine: Engine, run: str, grace: float) -> int:
    """The image's stop signal, the grace period, SIGKILL for the containers of that run; how many there were."""
    containers = await asyncio.to_thread(_containers, engine, run)
    if containers:
        await call([engine.program, "stop", "-t", str(int(grace)), *containers], grace + _END_SECONDS)
    return len(containers)


async def remove(engine: Engine, run: str) -> None:
    """Whatever the engine still has of a run, ended and removed."""
    await asyncio.to_thread(remove_now, engine, run)


def remove_now(engine: Engine, run: str) -> None:
    """:func:`remove` for callers without an event loop."""
    containers = _containers(engine, run)
    if containers:
        _quietly([engine.program, "rm", "-f", *containers])


def _containers(engine: Engine, run: str) -> list[str]:
    return _quietly([engine.program, "ps", "-aq", "--filter", f"label={RUN_LABEL}={run}"]).split()


def _quietly(argv: Iterable[str]) -> str:
    try:
        done = subprocess.run(
            list(argv), stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=_END_SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout if done.returncode == 0 else ""


def client_environment() -> dict[str, str]:
    """What the engine's client runs with: the node's own environment, and nothing a Pod could name."""
    return dict(os.environ)
