"""A skill's folder: its front matter read, its files checked (https://agentskills.io/specification).

Errors name the file and what to do. Pure but for reading the folder it is given.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePath, PurePosixPath
from typing import Any

import yaml

from quarterdeck.errors import ConfigError

FILE = "SKILL.md"
SCRIPTS = "scripts"
MOST_SKILLS = 64
"""Skills of one agent: each costs its description in every prompt."""
MOST_FILES = 1000
MOST_BYTES = 32 << 20
"""Of one skill, all its files together."""
FILE_BYTES = 8 << 20
SKILL_BYTES = 128 << 10
"""Of SKILL.md, which is read into the model's context as a whole."""
FRONT_BYTES = 16 << 10
_DEPTH = 10
_NAME_BYTES = 255
_NAME = re.compile(r"[a-z0-9]+(?:-[a-z0-9]+)*")
_NAME_MOST, _DESCRIPTION_MOST, _COMPATIBILITY_MOST = 64, 1024, 500


@dataclass(frozen=True, slots=True)
class Skill:
    """A checked skill. ``files``: paths below ``folder`` with sizes in bytes, sorted; ``body``: SKILL.md's text."""

    name: str
    description: str
    folder: Path
    files: tuple[tuple[str, int], ...]
    body: str = ""
    license: str = ""
    compatibility: str = ""
    allowed_tools: tuple[str, ...] = ()

    @property
    def scripts(self) -> tuple[str, ...]:
        """Files below ``scripts/``."""
        return tuple(path for path, _ in self.files if path.startswith(f"{SCRIPTS}/"))


def read(folder: Path, where: str) -> Skill:
    """The skill in ``folder``. ``where`` says in errors what the folder is. Raises ConfigError."""
    files = tuple(sorted(_files(folder, where)))
    return parsed(folder, where, _text(folder / FILE, where), files)


def parsed(folder: PurePath, where: str, text: str, files: tuple[tuple[str, int], ...]) -> Skill:
    """The skill whose SKILL.md has this text. Raises ConfigError."""
    front, body = split(text, f"{where}/{FILE}")
    at = f"{where}/{FILE}: front matter"
    name = _string(front, "name", at, _NAME_MOST)
    if not _NAME.fullmatch(name):
        raise ConfigError(
            f"{at}: name {name!r} is no skill name: use lower-case letters, digits and single hyphens between them, "
            "for example pdf-processing"
        )
    metadata = front.get("metadata")
    if metadata is not None and not isinstance(metadata, dict):
        raise ConfigError(f"{at}: metadata must be a mapping of names to texts")
    return Skill(
        name,
        " ".join(_string(front, "description", at, _DESCRIPTION_MOST).split()),
        Path(folder),
        files,
        body,
        _optional(front, "license", at, _DESCRIPTION_MOST),
        _optional(front, "compatibility", at, _COMPATIBILITY_MOST),
        _words(front.get("allowed-tools"), at),
    )


def split(text: str, where: str) -> tuple[dict[str, Any], str]:
    """Front matter and body of a SKILL.md. Raises ConfigError naming the line."""
    lines = text.removeprefix("\ufeff").splitlines()
    if not lines or lines[0].rstrip() != "---":
        raise ConfigError(f"{where}: line 1: begin the file with front matter: ---, name: …, description: …, ---")
    end = next((n for n, line in enumerate(lines[1:], 1) if line.rstrip() == "---"), 0)
    if not end:
        raise ConfigError(f"{where}: the front matter has no end: put a line --- after it")
    front = "\n".join(lines[1:end])
    if len(front.encode()) > FRONT_BYTES:
        raise ConfigError(f"{where}: the front matter is larger than {FRONT_BYTES} bytes; move text below it")
    try:
        found: Any = yaml.safe_load(front)
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise ConfigError(f"{where}: {_yaml_problem(error)}; quote texts that contain a colon") from error
    if not isinstance(found, dict):
        raise ConfigError(f"{where}: the front matter must be a YAML mapping with name and description")
    return found, "\n".join(lines[end + 1 :]).strip() + "\n"


def inside(path: str, where: str) -> str:
    """A relative path in its plain form. Raises ConfigError when it leads out of its folder, or is no usable name."""
    pure = PurePosixPath(path)
    if pure.is_absolute() or ".." in pure.parts:
        raise ConfigError(f"{where}: {path!r} leads out of the skill's folder; use a path below it")
    for part in pure.parts:
        if len(part.encode("utf-8", "surrogateescape")) > _NAME_BYTES or not part.isprintable() or "\\" in part:
            raise ConfigError(f"{where}: {path!r}: a name in it is too long or has unprintable characters; rename it")
    if len(pure.parts) > _DEPTH:
        raise ConfigError(f"{where}: {path!r} is nested deeper than {_DEPTH} folders; make it flatter")
    return str(pure)


def _files(folder: Path, where: str) -> Iterator[tuple[str, int]]:
    """Path and size of every file. Raises ConfigError for what is neither file nor folder, and for too much."""
    count = total = 0
    pending = [folder]
    while pending:
        here = pending.pop()
        for entry in sorted(here.iterdir()):
            path = inside(entry.relative_to(folder).as_posix(), where)
            if entry.is_symlink() or not (entry.is_dir() or entry.is_file()):
                raise ConfigError(f"{where}/{path}: neither a file nor a folder; put a copy of the file there")
            if entry.is_dir():
                pending.append(entry)
                continue
            size = entry.stat().st_size
            count, total = count + 1, total + size
            check_size(path, size, where)
            check_total(count, total, where)
            yield path, size


def check_size(path: str, size: int, where: str) -> None:
    """Raises ConfigError for a file that is too large."""
    most = SKILL_BYTES if path == FILE else FILE_BYTES
    if size > most:
        hint = "move details into files below references/" if path == FILE else "leave it out, or make it smaller"
        raise ConfigError(f"{where}/{path}: {size} bytes, {most} are the most; {hint}")


def check_total(count: int, total: int, where: str) -> None:
    """Raises ConfigError for a skill with too many files or bytes."""
    if count > MOST_FILES:
        raise ConfigError(f"{where}: more than {MOST_FILES} files; leave out what the skill does not need")
    if total > MOST_BYTES:
        raise ConfigError(f"{where}: more than {MOST_BYTES} bytes; leave out what the skill does not need")


def _text(path: Path, where: str) -> str:
    try:
        return path.read_bytes().decode()
    except FileNotFoundError:
        raise ConfigError(f"{where}: there is no {FILE}; a skill is a folder with that file in it") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{where}/{FILE}: not UTF-8 at byte {error.start}; save it as UTF-8") from None


def _string(front: dict[str, Any], field: str, at: str, most: int) -> str:
    value = front.get(field)
    if not isinstance(value, str) or not value.strip():
        raise ConfigError(f"{at}: {field} is missing or no text; write `{field}: …`")
    if len(value) > most:
        raise ConfigError(f"{at}: {field} has {len(value)} characters, {most} are the most; shorten it")
    return value.strip()


def _optional(front: dict[str, Any], field: str, at: str, most: int) -> str:
    return _string(front, field, at, most) if front.get(field) is not None else ""


def _words(value: Any, at: str) -> tuple[str, ...]:
    if value is None:
        return ()
    words = value.split() if isinstance(value, str) else value
    if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
        raise ConfigError(f"{at}: allowed-tools must be tool names separated by spaces")
    return tuple(words)


def _yaml_problem(error: Exception) -> str:
    mark = getattr(error, "problem_mark", None)
    line = f"line {mark.line + 2}: " if mark is not None else ""
    return f"{line}the front matter is not YAML: {getattr(error, 'problem', None) or error}"
