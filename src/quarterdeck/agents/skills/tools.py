"""The tools by which a model uses skills: ``skills``, ``read_file``, ``list_files`` as kagent names them, and
``run_skill_script`` in place of kagent's ``bash``: scripts of skills only, each in a sandbox of its own.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from quarterdeck.agents.parts import Asked
from quarterdeck.agents.tool import Context, Outcome, Tool
from quarterdeck.errors import QuarterdeckError, UsageError

from .library import Library
from .sandbox import Finished, ScriptSandbox

_MOST_ARGUMENTS = 64
_ARGUMENTS_BYTES = 64 << 10
_INPUT_BYTES = 1 << 20
_PATH = {"type": "string", "description": "Path of the form SKILL/FILE."}


class SkillTool:
    """One of the tools. What the first three give are instructions of whoever set the agent up."""

    server = ""
    repeatable = True

    def __init__(
        self,
        name: str,
        description: str,
        schema: dict[str, Any],
        work: Callable[[dict[str, Any]], Awaitable[Outcome]],
        *,
        trusted: bool = True,
    ) -> None:
        self.name = self.upstream = name
        self.description = description
        self.schema = schema
        self.trusted = trusted
        self._work = work

    async def call(self, arguments: dict[str, Any], context: Context) -> Outcome:
        try:
            return await self._work(arguments)
        except QuarterdeckError as error:
            return Outcome(f"Error: {self.name}: {error}", failed=True)
        except OSError as error:  # a name that is too long, a full disk: no reason to end the run
            return Outcome(f"Error: {self.name}: {error.strerror or error}", failed=True)


class Skills:
    """The plug-in. ``sandbox`` is None where scripts cannot be confined: then nobody is offered to run them."""

    name = "skills"

    def __init__(self, library: Library, sandbox: ScriptSandbox | None) -> None:
        self._library = library
        self._sandbox = sandbox

    async def before(self, asked: Asked) -> str:
        return self._library.described()

    def tools(self) -> Sequence[Tool]:
        tools: list[Tool] = [
            SkillTool(
                "skills",
                "Load a skill: its instructions and the list of its files. Only for skills in <available_skills>, and "
                "not again for one that is loaded.",
                _object({"command": {"type": "string", "description": "The skill's name, nothing else."}}, "command"),
                self._load,
            ),
            SkillTool(
                "read_file",
                "Read a text file of a skill, with line numbers. Skills' files are all there is to read.",
                _object(
                    {
                        "file_path": _PATH,
                        "offset": {"type": "integer", "minimum": 1, "description": "First line. 1 when left out."},
                        "limit": {"type": "integer", "minimum": 1, "description": "Lines. 2000 when left out."},
                    },
                    "file_path",
                ),
                self._read,
            ),
            SkillTool(
                "list_files",
                "List folders and files of the skills.",
                _object({"path": {"type": "string", "description": "A folder; all skills when left out."}}),
                self._list,
            ),
        ]
        if self._sandbox is not None and self._library.has_scripts:
            tools.append(
                SkillTool("run_skill_script", _RUN, _RUN_SCHEMA, self._run, trusted=False)  # it says what it computed
            )
        return tools

    async def _load(self, arguments: dict[str, Any]) -> Outcome:
        return Outcome(self._library.load(_text(arguments, "command").strip()))

    async def _read(self, arguments: dict[str, Any]) -> Outcome:
        offset, limit = _number(arguments, "offset", 1), _number(arguments, "limit", 2000)
        return Outcome(self._library.text(_text(arguments, "file_path"), offset, limit))

    async def _list(self, arguments: dict[str, Any]) -> Outcome:
        return Outcome(self._library.listing(str(arguments.get("path") or "")))

    async def _run(self, arguments: dict[str, Any]) -> Outcome:
        assert self._sandbox is not None
        skill = self._library.skill(_text(arguments, "skill"))
        wanted = _text(arguments, "script")
        name = wanted.removeprefix(f"{skill.folder.name}/").removeprefix("./")
        path = name if name in skill.scripts else f"scripts/{name}"
        if path not in skill.scripts:
            known = ", ".join(skill.scripts) or "none"
            raise UsageError(f"skill {skill.name} has no script {wanted[:200]!r}; its scripts are: {known}")
        words, files = _strings(arguments), _inputs(arguments)
        stdin = str(arguments.get("stdin") or "")
        if len(stdin.encode()) > _INPUT_BYTES:
            raise UsageError(f"stdin is larger than {_INPUT_BYTES} bytes; give less")
        return told(await self._sandbox.run(skill.folder / path, skill.folder, words, stdin, files))


_RUN = (
    "Run a script of a skill, in a sandbox: without network, and in an empty folder that is gone afterwards. What it "
    "prints and the text files it makes are the result. Files it needs besides the skill's own go into `files`."
)


def _object(properties: dict[str, Any], *required: str) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(required), "additionalProperties": False}


_RUN_SCHEMA = _object(
    {
        "skill": {"type": "string", "description": "The skill's name."},
        "script": {"type": "string", "description": "The script's path in the skill, for example scripts/convert.py."},
        "args": {"type": "array", "items": {"type": "string"}, "description": "Arguments."},
        "stdin": {"type": "string", "description": "Text for its standard input."},
        "files": {
            "type": "object",
            "additionalProperties": {"type": "string"},
            "description": "Text files by name, put into the folder it runs in.",
        },
    },
    "skill",
    "script",
)


def told(finished: Finished) -> Outcome:
    """A run as the model is told of it."""
    parts = [finished.out] if finished.out else []
    if finished.err:
        parts.append(f"Standard error:\n{finished.err}")
    parts += [f"File {name}:\n{text}" for name, text in finished.files.items()]
    if finished.stopped:
        return Outcome("\n".join([f"Error: the script was stopped: {finished.stopped}", *parts]), failed=True)
    if finished.code:
        return Outcome("\n".join([f"Error: the script ended with exit code {finished.code}", *parts]), failed=True)
    return Outcome("\n".join(parts) or "(the script printed nothing)")


def _text(arguments: dict[str, Any], name: str) -> str:
    value = arguments.get(name)
    if not isinstance(value, str) or not value.strip():
        raise UsageError(f"{name} must be a text that is not empty")
    return value


def _number(arguments: dict[str, Any], name: str, usual: int) -> int:
    value = arguments.get(name, usual)
    if isinstance(value, bool) or not isinstance(value, int):
        raise UsageError(f"{name} must be a whole number")
    return value


def _strings(arguments: dict[str, Any]) -> list[str]:
    words = arguments.get("args") or []
    if not isinstance(words, list) or not all(isinstance(word, str) and "\0" not in word for word in words):
        raise UsageError("args must be a list of texts")
    if len(words) > _MOST_ARGUMENTS or sum(len(word.encode()) for word in words) > _ARGUMENTS_BYTES:
        raise UsageError(f"args: more than {_MOST_ARGUMENTS} or {_ARGUMENTS_BYTES} bytes; use stdin or files")
    return words


def _inputs(arguments: dict[str, Any]) -> dict[str, str]:
    files = arguments.get("files") or {}
    if (
        not isinstance(files, dict)
        or not all(isinstance(v, str) for v in files.values())
        or len(files) > _MOST_ARGUMENTS
    ):
        raise UsageError(f"files must be an object of names and texts, {_MOST_ARGUMENTS} at most")
    if sum(len(text.encode()) for text in files.values()) > _INPUT_BYTES:
        raise UsageError(f"files: more than {_INPUT_BYTES} bytes; give less")
    return {str(name): text for name, text in files.items()}
