"""A configuration file as a tree that knows its lines: YAML 1.2 scalars (JSON, too), variables of the environment.

agentgateway expands variables in the text of the whole file, before YAML sees it. Here they are expanded value by
value: a variable can never change the structure of the file, and one named in a comment need not exist.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from yaml.reader import ReaderError

from quarterdeck.errors import ConfigError

_NODES = 100_000  # aliases included: a short file can name a million nodes
_BYTES = 8 * 1024 * 1024
_INT = re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")
_CORE = "tag:yaml.org,2002:"
_TAGS = frozenset({"str", "int", "float", "bool", "null", "map", "seq", "timestamp", "merge", "value"})
"""Tags of scalars and collections that have none written, too. Others would be silently taken as text."""
_VARIABLE = re.compile(r"\$(?:(\$)|([A-Za-z_][A-Za-z0-9_]*)|\{([A-Za-z_][A-Za-z0-9_]*)(?::-([^}]*))?\})")

Path_ = tuple[str | int, ...]
"""Where a value is: keys and indexes from the root."""


@dataclass(frozen=True, slots=True)
class Problem:
    """Something to tell about one value."""

    line: int
    """1-based; 0: the file as a whole."""
    path: str
    message: str

    def text(self, name: str) -> str:
        where = f"{name}:{self.line}" if self.line else name
        return f"{where}: {self.path}: {self.message}" if self.path else f"{where}: {self.message}"


@dataclass(slots=True)
class Report:
    """What was found while a file was read. The file is usable when there are no errors."""

    name: str
    errors: list[Problem] = field(default_factory=list[Problem])
    refused: list[Problem] = field(default_factory=list[Problem])
    """Fields that are known and not served: errors that do not tell one generation from the other."""
    warnings: list[Problem] = field(default_factory=list[Problem])
    files: set[Path] = field(default_factory=set[Path])
    """Files that were read for values: a change of one of them is a change of the configuration."""

    def check(self) -> None:
        """Raises ConfigError that names every error with its line."""
        if self.errors or self.refused:
            errors = sorted(
                {*self.errors, *self.refused}, key=lambda problem: (problem.line, problem.path, problem.message)
            )
            raise ConfigError("\n".join(problem.text(self.name) for problem in errors))


class Document:
    """The tree of one file and the lines of its values."""

    def __init__(
        self, text: str, name: str, environment: Mapping[str, str] | None = None, *, form: str = "YAML"
    ) -> None:
        """``environment`` None: ``$`` has no meaning. ``form``: what it should be. Raises ConfigError with the line."""
        self.name = name
        self.environment = environment
        self.lines: dict[Path_, int] = {}
        """Line of each value that was looked at."""
        if len(text) > _BYTES:
            raise ConfigError(f"{name}: larger than {_BYTES >> 20} MiB")
        try:
            loader = yaml.SafeLoader(text)
            try:
                self.root: yaml.Node | None = loader.get_single_node()
            finally:
                loader.dispose()
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            line = f":{mark.line + 1}" if mark is not None else ""
            raise ConfigError(f"{name}{line}: not {form}: {_told(error)}") from error
        except ReaderError as error:
            line = text[: error.position].count("\n") + 1
            raise ConfigError(f"{name}:{line}: not {form}: the character {error.character!r} is not allowed") from error
        except RecursionError as error:
            raise ConfigError(f"{name}: not {form}: nested too deeply") from error
        except yaml.YAMLError as error:
            raise ConfigError(f"{name}: not {form}: {error}") from error
        _bounded(self.root, name)

    def line(self, path: Path_) -> int:
        """Line of the value at ``path``, or of the nearest one around it."""
        while path and path not in self.lines:
            path = path[:-1]
        return self.lines.get(path, 0)

    def text(self, node: yaml.ScalarNode) -> str:
        """The scalar's text with variables expanded. Raises ConfigError when one is not set."""
        if self.environment is None or "$" not in node.value:
            return _home(node.value, self.environment)
        environment = self.environment

        def value(match: re.Match[str]) -> str:
            if match[1]:
                return "$"
            name = match[2] or match[3]
            found = environment.get(name)
            if found is None:
                found = match[4]
            if found is None:
                raise ConfigError(f"variable {name} is not set; write $$ for a dollar sign that means itself")
            return found

        return _home(_VARIABLE.sub(value, node.value), environment)

    def scalar(self, node: yaml.ScalarNode) -> Any:
        """None, bool, int, float or str by YAML 1.2's core schema; quoted and block scalars are text."""
        text = self.text(node)
        if node.style is not None:
            return text
        if text in ("", "~", "null", "Null", "NULL"):
            return None
        if text in ("true", "True", "TRUE"):
            return True
        if text in ("false", "False", "FALSE"):
            return False
        if _INT.fullmatch(text):
            return int(text, 0) if text[:2] in ("0o", "0x") else int(text)
        if _FLOAT.fullmatch(text):
            return float(text.replace(".inf", "inf").replace(".nan", "nan").lower())
        return text


def show(path: Path_) -> str:
    """``binds[0].listeners[1].name``."""
    parts: list[str] = []
    for step in path:
        parts.append(f"[{step}]" if isinstance(step, int) else f".{step}" if parts else step)
    return "".join(parts)


def _told(error: yaml.MarkedYAMLError) -> str:
    text = error.problem or error.context or "it cannot be read"
    return f"{text}; indent with spaces" if "'\\t'" in text else text


def _home(text: str, environment: Mapping[str, str] | None) -> str:
    if environment is None or not (text == "~" or text.startswith("~/")):
        return text
    home = environment.get("HOME")
    return text if home is None or text == "~" else home + text[1:]


def _bounded(root: yaml.Node | None, name: str) -> None:
    """Aliases share nodes: what counts is how often they would be visited."""
    sizes: dict[int, int] = {}
    open_: set[int] = set()

    def size(node: yaml.Node) -> int:
        known = sizes.get(id(node))
        if known is not None:
            return known
        if id(node) in open_:
            raise ConfigError(f"{name}:{node.start_mark.line + 1}: an alias that contains itself")
        open_.add(id(node))
        if node.tag.removeprefix(_CORE) not in _TAGS:
            raise ConfigError(f"{name}:{node.start_mark.line + 1}: the tag {node.tag} means nothing here; remove it")
        total = 1
        if isinstance(node, yaml.MappingNode):
            total += sum(size(key) + size(value) for key, value in node.value)
        elif isinstance(node, yaml.SequenceNode):
            total += sum(size(item) for item in node.value)
        open_.discard(id(node))
        sizes[id(node)] = total
        if total > _NODES:
            raise ConfigError(f"{name}:{node.start_mark.line + 1}: more than {_NODES} values")
        return total

    if root is not None:
        size(root)
