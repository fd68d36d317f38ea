"""From a :class:`Document` to a typed model, with every problem at its line."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args, get_origin

import msgspec
import yaml

from quarterdeck.errors import ConfigError
from quarterdeck.gateway.policy.expressions import compile_expression

from .document import Document, Path_, Problem, Report, show
from .fields import Field, Harmless, Kind, Model, Refused, alternatives, fields_of, is_model, seconds

M = TypeVar("M", bound=Model)
_FILE_BYTES = 1024 * 1024
_UNUSABLE = object()


def decode(document: Document, model: type[M], report: Report, base: Path) -> M | None:
    """The document as ``model``; None when ``report`` holds errors afterwards. Paths are relative to ``base``."""
    reader = _Reader(document, report, base)
    if document.root is None:
        report.errors.append(Problem(0, "", "the file is empty"))
        return None
    data = reader.read(document.root, model, ())
    if report.errors or data is _UNUSABLE:
        return None
    try:
        return msgspec.convert(data, type=model)
    except msgspec.ValidationError as error:
        message, _, path = str(error).partition(" - at `$")
        steps = _steps(path.rstrip("`"))
        missing = message.removeprefix("Object missing required field ")
        told = f"{missing} is required" if missing != message else message
        report.errors.append(Problem(document.line(steps), show(steps), told.replace("`", "")))
        return None


def generic(document: Document) -> Any:
    """The document as plain data. Raises ConfigError naming every problem."""
    report = Report(document.name)
    data = None if document.root is None else _Reader(document, report, Path()).read(document.root, Any, ())
    report.check()
    return data


class _Reader:
    """Turns nodes into the plain data that the model's decoder takes."""

    def __init__(self, document: Document, report: Report, base: Path) -> None:
        self._document = document
        self._report = report
        self._base = base

    def read(self, node: yaml.Node, annotation: Any, path: Path_) -> Any:
        self._document.lines[path] = node.start_mark.line + 1
        kinds = alternatives(annotation)
        try:
            if isinstance(node, yaml.ScalarNode):
                return self._scalar(node, kinds, path)
            if isinstance(node, yaml.SequenceNode):
                return self._sequence(node, kinds, path)
            assert isinstance(node, yaml.MappingNode)
            return self._mapping(node, kinds, path)
        except (ConfigError, ValueError) as error:
            return self._fail(path, str(error))

    def _fail(self, path: Path_, message: str) -> Any:
        self._report.errors.append(Problem(self._document.line(path), show(path), message))
        return _UNUSABLE

    # -- scalars
    def _scalar(self, node: yaml.ScalarNode, kinds: tuple[tuple[Any, Kind | None], ...], path: Path_) -> Any:
        if any(kind == "raw" for _, kind in kinds) and node.value:
            return node.value
        value = self._document.scalar(node)
        if value is None and any(plain is type(None) or plain is Any for plain, _ in kinds):
            return None
        if value is None and node.style is None and any(is_model(plain) or _container(plain) for plain, _ in kinds):
            # `stdio:` with nothing below it: an empty mapping or list, so that what is missing in it is told
            return [] if any(_container(plain) is list for plain, _ in kinds) else {}
        for plain, kind in kinds:
            if kind is not None:
                return self._special(self._document.text(node), kind)
            if plain is Any or (isinstance(plain, type) and type(value) is plain):
                return value
            if plain is float and type(value) is int:
                return float(value)
            if get_origin(plain) is Literal and value in get_args(plain):
                return value
        if any(plain is str for plain, _ in kinds):
            return self._document.text(node)
        shown = node.value if "$" in node.value else value  # what a variable holds may be a secret
        return self._fail(path, f"expected {_wanted(kinds)}, found {_named(shown)}")

    def _special(self, text: str, kind: Kind) -> Any:
        if kind == "duration":
            return seconds(text)
        if kind == "file":
            return self._file(text)
        if kind == "cel":
            compile_expression(text, "CEL")
        return text

    def _file(self, name: str) -> str:
        path = self._base / Path(name).expanduser()
        self._report.files.add(path)
        try:
            with path.open("rb") as file:
                data = file.read(_FILE_BYTES + 1)
        except OSError as error:
            raise ConfigError(f"{path}: {error.strerror}; paths are relative to the working directory") from error
        if len(data) > _FILE_BYTES:
            raise ConfigError(f"{path}: larger than {_FILE_BYTES} bytes")
        try:
            return data.decode()
        except UnicodeDecodeError as error:
            raise ConfigError(f"{path}: not text in UTF-8") from error

    # -- lists
    def _sequence(self, node: yaml.SequenceNode, kinds: tuple[tuple[Any, Kind | None], ...], path: Path_) -> Any:
        for plain, _ in kinds:
            if plain is Any:
                return [self.read(item, Any, (*path, index)) for index, item in enumerate(node.value)]
            if _container(plain) is list:
                inner = get_args(plain)[0]
                return [self.read(item, inner, (*path, index)) for index, item in enumerate(node.value)]
        return self._fail(path, f"expected {_wanted(kinds)}, found a list")

    # -- mappings
    def _mapping(self, node: yaml.MappingNode, kinds: tuple[tuple[Any, Kind | None], ...], path: Path_) -> Any:
        pairs = self._pairs(node, path)
        for plain, kind in kinds:
            if kind == "secret":
                return self._secret(pairs, path)
            if is_model(plain):
                return self._model(pairs, plain, path)
            if plain is Any or _container(plain) is dict:
                inner = Any if plain is Any else get_args(plain)[1]
                return {key: self.read(value, inner, (*path, key)) for key, value in pairs.items()}
        return self._fail(path, f"expected {_wanted(kinds)}, found a mapping")

    def _pairs(self, node: yaml.MappingNode, path: Path_) -> dict[str, yaml.Node]:
        pairs: dict[str, yaml.Node] = {}
        for key, value in node.value:
            line = key.start_mark.line + 1
            name = str(key.value) if isinstance(key, yaml.ScalarNode) else ""
            if not isinstance(key, yaml.ScalarNode):
                self._report.errors.append(Problem(line, show(path), "a key must be text"))
            elif name in pairs:
                self._report.errors.append(Problem(line, show((*path, name)), "given twice"))
            pairs[name] = value
            self._document.lines[(*path, name)] = line
        return pairs

    def _secret(self, pairs: dict[str, yaml.Node], path: Path_) -> Any:
        node = pairs.get("file")
        if set(pairs) != {"file"} or not isinstance(node, yaml.ScalarNode):
            return self._fail(path, "expected text or {file: PATH}")
        return self._file(self._document.text(node)).rstrip("\r\n")

    def _model(self, pairs: dict[str, yaml.Node], model: type[Model], path: Path_) -> Any:
        known = fields_of(model)
        data: dict[str, Any] = {}
        for name, node in pairs.items():
            field = known.get(name)
            line = self._document.line((*path, name))
            if field is None and model.lenient:
                self._report.warnings.append(Problem(line, show((*path, name)), "unknown, and left alone"))
                continue
            if field is None:
                self._report.errors.append(Problem(line, show((*path, name)), _unknown(name, known)))
                continue
            value = self.read(node, field.type, (*path, name))
            if value is not None and value is not _UNUSABLE and value != []:
                self._classify(field, Problem(line, show((*path, name)), ""))
            if value is not _UNUSABLE:
                data[name] = value
        return data

    def _classify(self, field: Field, at: Problem) -> None:
        if isinstance(field.cls, Refused):
            self._report.refused.append(Problem(at.line, at.path, f"not served: {field.cls.instead}"))
        elif isinstance(field.cls, Harmless):
            self._report.warnings.append(Problem(at.line, at.path, f"has no effect: {field.cls.why}"))


def _container(plain: Any) -> type | None:
    origin = get_origin(plain)
    return list if origin in (list, tuple) else dict if origin is dict else None


def _unknown(name: str, known: dict[str, Field]) -> str:
    if name == "<<":
        return "merge keys are no part of YAML 1.2; write the fields out, or repeat them with an alias"
    lower = {field.lower(): field for field in known}
    near = lower.get(name.lower().replace("_", "").replace("-", ""))
    near = near or next(iter(difflib.get_close_matches(name, known, n=1, cutoff=0.5)), None)
    return f"unknown field; did you mean {near}?" if near else f"unknown field; known here: {', '.join(sorted(known))}"


def _wanted(kinds: tuple[tuple[Any, Kind | None], ...]) -> str:
    names: list[str] = []
    for plain, kind in kinds:
        if kind == "duration":
            names.append("a duration")
        elif get_origin(plain) is Literal:
            names.append("one of " + ", ".join(str(value) for value in get_args(plain)))
        elif is_model(plain) or _container(plain) is dict:
            names.append("a mapping")
        elif _container(plain) is list:
            names.append("a list")
        elif plain is not type(None):
            names.append({str: "text", int: "a whole number", float: "a number", bool: "true or false"}[plain])
    return " or ".join(dict.fromkeys(names))


def _named(value: Any) -> str:
    return "nothing" if value is None else f"{value!r}" if isinstance(value, str) else str(value).lower()


def _steps(path: str) -> Path_:
    """msgspec's ``.binds[0].port`` as steps."""
    steps: list[str | int] = []
    for part in path.split("."):
        name, *indexes = part.replace("]", "").split("[")
        if name:
            steps.append(name)
        steps.extend(int(index) if index.isdigit() else "…" for index in indexes)
    return tuple(steps)
