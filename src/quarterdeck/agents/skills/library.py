"""The skills in the folder that the init container filled; what a model may read of them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from html import escape
from pathlib import Path, PurePosixPath

from quarterdeck.errors import ConfigError, UsageError
from quarterdeck.skills.format import FILE, Skill, read

FOLDER = "KAGENT_SKILLS_FOLDER"
"""Variable of the Pod: where its skills are (kagent's name)."""
_LINES = 2000
_LINE = 2000
"""Characters of a line that are shown, as kagent's read_file does."""
_LISTED = 500


class Library:
    """Skills by name. Raises ConfigError naming the file of one that is not sound."""

    def __init__(self, root: Path) -> None:
        self.root = root
        folders = sorted(path.parent for path in root.glob(f"*/{FILE}"))
        self.skills: dict[str, Skill] = {skill.name: skill for skill in (read(f, f.name) for f in folders)}

    @property
    def has_scripts(self) -> bool:
        return any(skill.scripts for skill in self.skills.values())

    def described(self) -> str:
        """The part of the system prompt: names and descriptions, nothing else of a skill."""
        entries = [
            f"<skill>\n<name>{skill.name}</name>\n<description>{escape(skill.description, quote=False)}</description>\n"
            "</skill>"
            for skill in self.skills.values()
        ]
        return (
            "You have skills: instructions and files for particular tasks. When a skill's description fits what you "
            "are asked to do, load it with the tool `skills` before you begin, once in a conversation, and follow it. "
            "Files that it mentions are read with `read_file`; its scripts are run with `run_skill_script`, where you "
            "have that tool.\n<available_skills>\n" + "\n".join(entries) + "\n</available_skills>"
        )

    def load(self, name: str) -> str:
        """A skill's instructions and the files it has besides. Raises UsageError naming the skills there are."""
        skill = self.skill(name)
        others = [(path, size) for path, size in skill.files if path != FILE]
        lines = [f'The "{name}" skill is loaded.', "", f"Folder: {skill.folder.name}", ""]
        if skill.compatibility:
            lines += [f"It needs: {skill.compatibility}", ""]
        lines.append(skill.body)
        if others:
            shown = [f"- {skill.folder.name}/{path} ({size} bytes)" for path, size in others[:_LISTED]]
            lines += ["Its other files:", *shown]
            lines += [f"- and {len(others) - _LISTED} more"] if len(others) > _LISTED else []
        return "\n".join(lines)

    def skill(self, name: str) -> Skill:
        found = self.skills.get(name)
        if found is None:
            raise UsageError(f"there is no skill {name[:100]!r}; the skills are: {', '.join(self.skills) or 'none'}")
        return found

    def find(self, path: str) -> Path:
        """What a path of the model's leads to: ``skill/file``, also below ``skills/`` or the folder's own path.

        Raises UsageError for what is not there, or not in the folder of skills.
        """
        given = path.strip()
        for start in (f"{self.root}/", "/skills/", "skills/", "./"):
            given = given.removeprefix(start)
        if given in (str(self.root), "/skills", "skills", "."):
            given = ""
        parts = PurePosixPath(given).parts
        if given.startswith("/") or ".." in parts or "\0" in given or len(given) > 4096:
            raise UsageError(f"{path[:200]!r} is not in the folder of skills; write SKILL/FILE")
        found = self.root.joinpath(*self._renamed(parts))
        if not found.resolve().is_relative_to(self.root.resolve()) or not found.exists():
            raise UsageError(f"there is no {path[:200]!r}; list_files shows what there is")
        return found

    def _renamed(self, parts: tuple[str, ...]) -> tuple[str, ...]:
        """A skill may be named by its name where its folder has another."""
        if parts and parts[0] in self.skills:
            return (self.skills[parts[0]].folder.name, *parts[1:])
        return parts

    def listing(self, path: str) -> str:
        """Folders (with a slash) and files (with sizes) at a path. Raises UsageError."""
        found = self.find(path)
        if not found.is_dir():
            raise UsageError(f"{path[:200]!r} is a file; read it with read_file")
        lines = [
            f"{entry.name}/" if entry.is_dir() else f"{entry.name} ({entry.stat().st_size} bytes)"
            for entry in sorted(found.iterdir())
        ]
        more = [f"and {len(lines) - _LISTED} more"] if len(lines) > _LISTED else []
        return "\n".join([*lines[:_LISTED], *more]) or "(empty)"

    def text(self, path: str, offset: int = 1, limit: int = _LINES) -> str:
        """Lines of a text file with their numbers, as kagent's read_file gives them. Raises UsageError."""
        found = self.find(path)
        if found.is_dir():
            raise UsageError(f"{path[:200]!r} is a folder; list_files shows what is in it")
        data = found.read_bytes()
        if b"\0" in data:
            raise UsageError(f"{path[:200]!r} is no text ({len(data)} bytes); scripts of the skill may use it")
        lines = data.decode("utf-8", "replace").splitlines()
        first, last = max(1, offset), max(1, offset) + min(max(1, limit), _LINES) - 1
        shown = [
            f"{number:6d}|{line if len(line) <= _LINE else line[:_LINE] + '…'}"
            for number, line in enumerate(lines[first - 1 : last], first)
        ]
        rest = [f"[{len(lines) - last} more lines; go on with offset {last + 1}]"] if len(lines) > last else []
        return "\n".join([*shown, *rest]) or "(the file has no such lines)" if lines else "(the file is empty)"


def library(environment: Mapping[str, str] = os.environ) -> Library | None:
    """The Pod's skills; None where it has none. Raises ConfigError for a folder that is not what it was made to be."""
    folder = environment.get(FOLDER, "")
    if not folder:
        return None
    if not Path(folder).is_dir():
        raise ConfigError(f"{FOLDER}: there is no folder {folder}; the Pod's init container skills-init makes it")
    found = Library(Path(folder))
    return found if found.skills else None
