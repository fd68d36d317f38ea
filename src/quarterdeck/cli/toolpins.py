"""The work behind ``qd tools approve``, ``diff``, ``scan`` and ``withdraw``."""

from __future__ import annotations

import difflib
import getpass
import time
from pathlib import Path
from typing import Any, Protocol

import msgspec

from quarterdeck.errors import Conflict, NotFound, QuarterdeckError, UsageError
from quarterdeck.snapshot.approvals import compared
from quarterdeck.snapshot.pins import (
    Approved,
    Lock,
    LockedServer,
    definition,
    digest,
    lock_path,
    read_lock,
    write_lock,
)
from quarterdeck.snapshot.scan import visible

from . import rest
from .local import part
from .output import emit, note, to_json
from .target import agents_namespace

Entry = dict[str, Any]


class Source(Protocol):
    """Where approvals are kept. ``look`` gives what ``GET /v1/tools/{namespace}/{name}`` does."""

    def look(self) -> dict[str, Any]: ...
    def approve(self, digests: dict[str, str]) -> None: ...
    def withdraw(self, tool: str) -> int: ...


class ControlPlane:
    """Approvals of a server in the cluster, or on the platform of this machine."""

    def __init__(self, server: str, namespace: str) -> None:
        where, slash, name = server.partition("/")
        namespace = where if slash else agents_namespace(namespace)
        self._path = f"/v1/tools/{part(namespace)}/{part(name or where)}"

    def look(self) -> dict[str, Any]:
        return rest.control_plane("GET", self._path)

    def approve(self, digests: dict[str, str]) -> None:
        rest.control_plane("POST", f"{self._path}/approvals", {"tools": digests})

    def withdraw(self, tool: str) -> int:
        query = f"?tool={part(tool)}" if tool else ""
        return int(rest.control_plane("DELETE", f"{self._path}/approvals{query}")["withdrawn"])


class LockFile:
    """Approvals beside a configuration file. What the server lists is asked of the gateway that serves the file."""

    def __init__(self, config: Path, admin: str, server: str) -> None:
        self._path = lock_path(config)
        self._admin = admin
        self._name = server.rpartition("/")[2]

    def look(self) -> dict[str, Any]:
        found = rest.admin(self._admin, "GET", f"/tools/{part(self._name)}")
        tools = {str(tool.get("name", "")): tool for tool in found["tools"]}
        approved = {one.tool: one for one in self._locked().tools}
        return {**found, "tools": compared(approved, tools), "error": ""}

    def approve(self, digests: dict[str, str]) -> None:
        tools = {
            str(tool.get("name", "")): tool
            for tool in rest.admin(self._admin, "GET", f"/tools/{part(self._name)}")["tools"]
        }
        kept = {one.tool: one for one in self._locked().tools}
        for name, seen in digests.items():
            if name not in tools or digest(tools[name]) != seen:
                raise Conflict(f"tool {name!r} has changed since you looked; look again: qd tools diff {self._name}")
            kept[name] = Approved(name, seen, definition(tools[name]), getpass.getuser(), round(time.time(), 3))
        self._keep(tuple(kept[name] for name in sorted(kept)))

    def withdraw(self, tool: str) -> int:
        before = self._locked().tools
        left = tuple(one for one in before if tool and one.tool != tool)
        self._keep(left)
        return len(before) - len(left)

    def _locked(self) -> LockedServer:
        found = next((one for one in read_lock(self._path).servers if one.name == self._name), None)
        return found or LockedServer(self._name)

    def _keep(self, tools: tuple[Approved, ...]) -> None:
        lock = read_lock(self._path)
        mine = msgspec.structs.replace(self._locked(), tools=tools)
        others = [one for one in lock.servers if one.name != self._name]
        servers = sorted([*others, mine] if tools or mine.pin else others, key=lambda one: one.name)
        write_lock(self._path, Lock(tuple(servers)))


def source(server: str, namespace: str, config: Path | None, admin: str) -> Source:
    """By ``--file`` the lock file, else the control plane."""
    if config is None:
        return ControlPlane(server, namespace)
    if not config.is_file():
        raise UsageError(f"--file {config}: no such file")
    return LockFile(config, admin, server)


def diff(where: Source, output: str) -> bool:
    """Print what differs from what was approved; False when something does."""
    looked = _looked(where)
    entries: list[Entry] = looked["tools"]
    if output:
        emit(to_json(looked))
    else:
        emit("".join(difference(entry) for entry in entries if entry["state"] != "approved"))
    differing = [entry for entry in entries if entry["state"] != "approved"]
    if not differing and not output:
        note(f"all {len(entries)} tools are as they were approved")
    return not differing


def approve(where: Source, tools: list[str], *, yes: bool, accept_findings: bool) -> None:
    """Show what is new and approve it. Raises UsageError when nobody can be asked, QuarterdeckError for findings."""
    entries: list[Entry] = [entry for entry in _looked(where)["tools"] if "digest" in entry]
    unknown = sorted(set(tools) - {entry["name"] for entry in entries})
    if unknown:
        raise NotFound(
            f"the server has no tool {unknown[0]!r}; it has: {', '.join(e['name'] for e in entries) or 'none'}"
        )
    wanted = [e for e in entries if e["state"] != "approved" and (not tools or e["name"] in tools)]
    if not wanted:
        note("nothing to approve: all is as it was approved")
        return
    emit("".join(difference(entry) for entry in wanted))
    odd = [entry["name"] for entry in wanted if entry["findings"]]
    if odd and not accept_findings:
        raise QuarterdeckError(
            f"not approved: look at what was found in {', '.join(odd)}; approve the others with --tool, "
            "or all of it with --accept-findings"
        )
    if not yes and not _agreed(len(wanted)):
        note("nothing was approved")
        return
    where.approve({entry["name"]: entry["digest"] for entry in wanted})
    emit(f"{len(wanted)} tools approved: {', '.join(entry['name'] for entry in wanted)}\n")


def scan(where: Source) -> bool:
    """Print what is suspicious in the definitions; False when something is."""
    entries: list[Entry] = _looked(where)["tools"]
    found = [(entry["name"], finding) for entry in entries for finding in entry.get("findings", ())]
    emit("".join(f"{name}: {finding}\n" for name, finding in found))
    if not found:
        note(f"nothing suspicious in {len(entries)} tools")
    return not found


def difference(entry: Entry) -> str:
    """One tool for people: the changed lines of its definition, and what was found in it."""
    name, state = visible(entry["name"]), entry["state"]
    before = _lines(entry.get("approved", {}).get("definition"))
    after = _lines(entry.get("definition"))
    if state in ("gone", "unknown"):
        text = f"{name}: {'is not listed any more' if state == 'gone' else 'the server could not be asked'}\n"
    else:
        title = {"new": "was never approved", "changed": "has changed since it was approved"}.get(state, state)
        lines = difflib.unified_diff(before, after, "approved", "now", lineterm="", n=2)
        text = f"{name}: {title}\n" + "".join(f"  {line}\n" for line in lines)
    return text + "".join(f"  ! {finding}\n" for finding in entry.get("findings", ()))


def _lines(found: Any) -> list[str]:
    if not found:
        return []
    return visible(msgspec.json.format(msgspec.json.encode(found, order="sorted"), indent=2).decode()).split("\n")


def _looked(where: Source) -> dict[str, Any]:
    looked = where.look()
    if looked.get("error"):
        raise QuarterdeckError(looked["error"])
    return looked


def _agreed(count: int) -> bool:
    import sys

    if not sys.stdin.isatty():
        raise UsageError("nobody to ask: give --yes to approve without a question")
    return input(f"approve {count} tools? [y/N] ").strip().lower() in ("y", "yes")
