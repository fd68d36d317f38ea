"""What a project folder is: its language, its dependencies, its start command, what of it belongs into an image."""

from __future__ import annotations

import fnmatch
import json
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from quarterdeck.errors import ConfigError

_NEVER = (
    ".git", ".venv", "venv", "node_modules", "__pycache__", "*.pyc", ".env", ".env.*", ".pytest_cache", ".ruff_cache",
    ".mypy_cache", ".DS_Store", "*.egg-info", "Dockerfile", ".dockerignore",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Project:
    """A folder that can be built. ``command`` is the image's Cmd, empty when the folder does not tell."""

    directory: Path
    language: Literal["python", "node"]
    command: tuple[str, ...]
    ignore: tuple[str, ...]

    def keeps(self, relative: str) -> bool:
        """Whether a path below the folder goes into the image. Secrets files (``.env``) never do."""
        name = relative.rpartition("/")[2]
        if any(fnmatch.fnmatch(name, pattern) for pattern in _NEVER):
            return False
        return not any(fnmatch.fnmatch(relative, pattern) or fnmatch.fnmatch(name, pattern) for pattern in self.ignore)


def inspect(directory: Path) -> Project:
    """Raises ConfigError naming what is missing."""
    if not directory.is_dir():
        raise ConfigError(
            f"{directory} is not a folder; --project-dir takes the folder that holds pyproject.toml or package.json"
        )
    ignore = _ignore_file(directory / ".dockerignore")
    if (directory / "pyproject.toml").is_file() or (directory / "requirements.txt").is_file():
        return Project(directory, "python", _python_command(directory), ignore)
    if (directory / "package.json").is_file():
        return Project(directory, "node", _node_command(directory / "package.json"), ignore)
    raise ConfigError(
        f"{directory}: neither pyproject.toml, requirements.txt nor package.json is there; "
        "qd mcp build knows Python and Node projects, others build with docker or podman"
    )


def _ignore_file(path: Path) -> tuple[str, ...]:
    if not path.is_file():
        return ()
    lines = (line.strip() for line in path.read_text().splitlines())
    patterns = [line.strip("/") for line in lines if line and not line.startswith("#")]
    negated = [p for p in patterns if p.startswith("!")]
    if negated:
        raise ConfigError(f"{path}: patterns with '!' are not supported ({negated[0]}); list what to leave out")
    return tuple(patterns)


def _python_command(directory: Path) -> tuple[str, ...]:
    for candidate in ("src/main.py", "main.py", "server.py"):
        if (directory / candidate).is_file():
            return ("python", candidate)
    return ()


def _node_command(path: Path) -> tuple[str, ...]:
    try:
        package: dict[str, Any] = json.loads(path.read_text())
    except ValueError as error:
        raise ConfigError(f"{path}: not JSON: {error}") from error
    binary = package.get("bin")
    if isinstance(binary, dict):
        binary = next(iter(binary.values()), None)
    entry = binary or package.get("main")
    return ("node", str(entry)) if entry else ()


def python_constraint(directory: Path) -> str:
    """``requires-python`` of the project, or empty."""
    path = directory / "pyproject.toml"
    if not path.is_file():
        return ""
    try:
        document = tomllib.loads(path.read_text())
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path}: {error}") from error
    return str(document.get("project", {}).get("requires-python", ""))


def dockerfile(project: Project) -> str:
    """A Dockerfile for clusters that builds the same image on a base with the language in it."""
    command = json.dumps(list(project.command))
    if project.language == "python":
        source = "-r requirements.txt" if not (project.directory / "pyproject.toml").is_file() else "-r pyproject.toml"
        return (
            "FROM python:3.11-slim\nWORKDIR /app\n"
            "RUN pip install --no-cache-dir uv\n"
            "COPY . .\n"
            f"RUN uv pip install --system --no-cache {source}\n"
            f"USER 65532\nCMD {command}\n"
        )
    return (
        "FROM node:22-slim\nWORKDIR /app\nCOPY . .\n"
        "RUN if [ -f package-lock.json ]; then npm ci; else npm install; fi\n"
        "RUN npm run build --if-present && npm prune --omit=dev\n"
        f"USER 65532\nCMD {command}\n"
    )
