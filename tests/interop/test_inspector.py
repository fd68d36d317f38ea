"""MCP Inspector's command line against six public servers, from npm and PyPI, behind one endpoint, in both eras."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
MODULES = ROOT / ".cache" / "node" / "node_modules"
NODE = MODULES / ".bin" / "node"
"""Node 22 from npm: the inspector asks for it."""
INSPECTOR = MODULES / ".bin" / "inspector"
BIN = Path(sys.executable).parent
ERAS = ("legacy", "modern")

CALLS: dict[str, tuple[str, dict[str, Any], str]] = {
    "everything_echo": ("everything", {"message": "hello"}, "hello"),
    "filesystem_list_allowed_directories": ("filesystem", {}, "{folder}"),
    "memory_read_graph": ("memory", {}, "entities"),
    "thinking_sequentialthinking": (
        "thinking",
        {"thought": "first", "nextThoughtNeeded": False, "thoughtNumber": 1, "totalThoughts": 1},
        "thoughtHistoryLength",
    ),
    "time_convert_time": (
        "time",
        {"source_timezone": "UTC", "time": "12:00", "target_timezone": "Asia/Tokyo"},
        "21:00",
    ),
    "git_git_status": ("git", {"repo_path": "{folder}/repo"}, "nothing to commit"),
}
"""Exposed name → target, arguments, what the answer must contain."""


PAIRS = [
    pytest.param(tool, era, marks=pytest.mark.slow if (number + place) % 2 else ())
    for number, tool in enumerate(CALLS)
    for place, era in enumerate(ERAS)
]
"""Each tool in one era in the fast tier, in both in the slow one."""


def npm(name: str, *args: str) -> dict[str, Any]:
    return {"cmd": str(NODE), "args": [str(MODULES / ".bin" / name), *args]}


def pypi(name: str, *args: str) -> dict[str, Any]:
    return {"cmd": str(BIN / "uvx"), "args": ["--quiet", name, *args]}


def targets(folder: Path) -> dict[str, dict[str, Any]]:
    memory = {**npm("mcp-server-memory"), "env": {"MEMORY_FILE_PATH": str(folder / "memory.json")}}
    return {
        "everything": npm("mcp-server-everything"),
        "filesystem": npm("mcp-server-filesystem", str(folder)),
        "memory": memory,
        "thinking": npm("mcp-server-sequential-thinking"),
        "time": pypi("mcp-server-time", "--local-timezone=UTC"),
        "git": pypi("mcp-server-git"),
    }


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = tmp_path_factory.mktemp("files").resolve()
    git = ("git", "-c", "user.name=t", "-c", "user.email=t@example.org")
    subprocess.run([*git, "init", "-q", str(found / "repo")], check=True)
    subprocess.run([*git, "-C", str(found / "repo"), "commit", "-q", "--allow-empty", "-m", "first"], check=True)
    return found


@pytest.fixture(scope="module")
def endpoint(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of ``qd gateway -f`` with one MCP backend of six stdio targets."""
    home = tmp_path_factory.mktemp("gateway")
    backend = {"mcp": {"targets": [{"name": name, "stdio": stdio} for name, stdio in targets(folder).items()]}}
    config = {"binds": [{"port": 0, "listeners": [{"routes": [{"backends": [backend]}]}]}]}
    file, endpoints = home / "config.yaml", home / "endpoints.json"
    file.write_text(json.dumps(config))
    flags = [f"--{name}=off" for name in ("admin", "stats", "ready")]
    command = [str(BIN / "qd"), "gateway", "-f", str(file), f"--data-dir={home}", f"--endpoints-file={endpoints}"]
    with (home / "log").open("wb") as log:
        process = subprocess.Popen([*command, *flags], stdout=log, stderr=log)
        try:
            deadline = time.monotonic() + 60
            while not endpoints.exists():
                assert process.poll() is None and time.monotonic() < deadline, (home / "log").read_text()
                time.sleep(0.1)
            address = next(v for k, v in json.loads(endpoints.read_text()).items() if k.startswith("bind/"))
            yield f"{address.replace('0.0.0.0', '127.0.0.1')}/mcp"
        finally:
            process.terminate()
            process.wait(90)


def inspect(url: str, era: str, method: str, *more: str) -> Any:
    """What the inspector prints."""
    command = [str(NODE), str(INSPECTOR), "--cli", url, "--transport", "http", "--protocol-era", era,
               "--connect-timeout", "60000"]  # fmt: skip
    done = subprocess.run(
        [*command, "--method", method, "--format", "json", *more], capture_output=True, text=True, timeout=90,
        env={**os.environ, "MCP_CATALOG_PATH": os.devnull},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(done.stdout)
    return found.get("result", found)


@pytest.mark.parametrize("era", ERAS)
def test_tools_of_all_six_are_listed_under_their_servers_names(endpoint: str, era: str) -> None:
    names = [tool["name"] for tool in inspect(endpoint, era, "tools/list")["tools"]]
    assert {name.partition("_")[0] for name in names} == {target for target, _, _ in CALLS.values()}
    assert set(CALLS) <= set(names) and len(names) == len(set(names))


@pytest.mark.parametrize(("tool", "era"), PAIRS)
def test_a_tool_of_each_answers(endpoint: str, folder: Path, tool: str, era: str) -> None:
    _, arguments, expected = CALLS[tool]
    given = [
        f"{key}={value.format(folder=folder) if isinstance(value, str) else json.dumps(value)}"
        for key, value in arguments.items()
    ]
    answer = inspect(endpoint, era, "tools/call", "--tool-name", tool, *(["--tool-arg", *given] if given else []))
    assert not answer.get("isError") and expected.format(folder=folder) in json.dumps(answer)


@pytest.mark.parametrize("era", ERAS)
def test_prompts_and_resources_lead_to_their_owner(endpoint: str, era: str) -> None:
    prompts = [prompt["name"] for prompt in inspect(endpoint, era, "prompts/list")["prompts"]]
    name = next(prompt for prompt in prompts if prompt.startswith("everything_") and "simple" in prompt)
    assert inspect(endpoint, era, "prompts/get", "--prompt-name", name)["messages"]
    resources = inspect(endpoint, era, "resources/list")["resources"]
    uri = next(resource["uri"] for resource in resources if resource["uri"].startswith("everything+"))
    assert inspect(endpoint, era, "resources/read", "--uri", uri)["contents"]


def test_the_merged_list_has_no_schema_that_clients_refuse(endpoint: str) -> None:
    inspect(endpoint, "legacy", "tools/list", "--strict")
