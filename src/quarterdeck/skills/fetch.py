"""All sources of an agent into one folder of checked skills. An unsound one keeps the agent from starting."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from quarterdeck.errors import ConfigError, QuarterdeckError, TimedOut

from . import git, oci, s3, unpack
from .format import MOST_SKILLS, read
from .report import Loaded
from .sources import ConfigMapSource, GitSource, OciSource, S3Source, Source, Sources, label

_AT_ONCE = 4
_SECONDS = 900.0
"""For one source, however slowly or endlessly its server answers."""
ALL_BYTES = 200 << 20
"""Of all skills of an agent together: what their volume holds."""


@dataclass(frozen=True, slots=True)
class Mounts:
    """Where ConfigMaps (in the order of ``skills.json``) and Secrets (``git``, ``s3``, those of ``pull``) are."""

    config_maps: tuple[Path, ...] = ()
    secrets: Mapping[str, Path] = field(default_factory=dict[str, Path])

    def secret(self, name: str) -> Path:
        """A folder that is not there stands for a Secret that nobody named."""
        return self.secrets.get(name, Path("/nonexistent"))


async def fetch(sources: Sources, mounts: Mounts, to: Path) -> list[Loaded]:
    """Fill ``to``; what an attempt before left there goes. Raises ConfigError that names every source and problem."""
    for entry in to.iterdir():
        shutil.rmtree(entry) if entry.is_dir() and not entry.is_symlink() else entry.unlink()
    gate = asyncio.Semaphore(_AT_ONCE)

    async def one(source: Source, found: Path) -> tuple[Path, str]:
        async with gate:
            with tempfile.TemporaryDirectory(prefix="skills-") as work:  # gone before the next source needs the room
                try:
                    async with asyncio.timeout(_SECONDS):
                        return found, await _get(source, sources, mounts, found, Path(work))
                except TimeoutError:
                    raise TimedOut(f"{label(source)}: not fetched within {_SECONDS:g} s") from None

    with tempfile.TemporaryDirectory(prefix="skills-") as fetched:
        tasks = [one(source, Path(fetched) / str(n)) for n, source in enumerate(sources.sources)]
        results = await asyncio.gather(*tasks, return_exceptions=True)
        problems: list[str] = []
        loaded: dict[str, Loaded] = {}
        for source, result in zip(sources.sources, results, strict=True):
            try:
                if isinstance(result, BaseException):
                    raise result
                install(source, *result, to, loaded)
            except QuarterdeckError as error:
                problems.append(str(error))
    if problems:
        raise ConfigError("; ".join(problems))
    return list(loaded.values())


async def _get(source: Source, sources: Sources, mounts: Mounts, to: Path, work: Path) -> str:
    """The revision of what is then in ``to``; ``work`` is empty."""
    target = unpack.Target(to, label(source))
    match source:
        case ConfigMapSource():
            unpack.tree(config_map(mounts.config_maps[source.mount]), target)
            return ""
        case GitSource():
            return await git.fetch(source, target, mounts.secret("git"), work, insecure=sources.insecure)
        case OciSource():
            logins = [mounts.secret(name) for name in sources.pull]
            return await oci.fetch(source, target, logins, insecure=sources.insecure)
        case S3Source():
            return await s3.fetch(source, target, mounts.secret("s3"), insecure=sources.insecure)


def config_map(folder: Path) -> Path:
    """A mounted ConfigMap's files without the links that make its updates atomic."""
    data = folder / "..data"
    return data.resolve() if data.is_symlink() else folder


def install(source: Source, fetched: Path, revision: str, to: Path, loaded: dict[str, Loaded]) -> None:
    """Check what was fetched, and put its skills into ``to``. Raises ConfigError."""
    where = label(source)
    folders = unpack.skill_folders(fetched, where)
    wanted = "" if isinstance(source, ConfigMapSource) else source.folder
    for folder in folders:
        alone = folder == fetched
        skill = read(folder, where if alone else f"{where}/{folder.name}")
        if not alone and folder.name != skill.name:
            raise ConfigError(
                f"{where}/{folder.name}/SKILL.md: front matter: name is {skill.name!r}, the folder {folder.name!r}; "
                "give both the same name"
            )
        if skill.name in loaded:
            raise ConfigError(
                f"{where}: skill {skill.name!r} is also in {loaded[skill.name].source}; leave one out or rename it"
            )
        if len(loaded) == MOST_SKILLS:
            raise ConfigError(f"{where}: more than {MOST_SKILLS} skills; an agent that needs so many is two agents")
        name = wanted if wanted and alone else skill.name
        if "/" in name or name.startswith(".") or (to / name).exists():
            raise ConfigError(f"{where}: folder name {name!r} is taken or none; choose another in name")
        shutil.copytree(folder, to / name)
        if sum(path.stat().st_size for path in to.rglob("*") if path.is_file()) > ALL_BYTES:
            raise ConfigError(f"{where}: all skills together have more than {ALL_BYTES} bytes; leave some out")
        loaded[skill.name] = Loaded(skill.name, where, revision[:80], len(skill.scripts))
