"""Containers of images that only a container engine can run: the client's command line (pure) and its files.

The client runs outside our sandbox, with the node's environment. What a Pod names goes to the engine as options and in
an environment file, never into the client's environment (LD_PRELOAD) and never as a value among process arguments.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from quarterdeck.kube.resource import Object
from quarterdeck.node.cgroups import Limits
from quarterdeck.node.environment import ConfigurationError
from quarterdeck.node.images.engine import RUN_LABEL, client_environment
from quarterdeck.node.images.spec import Engine, ImageSpec
from quarterdeck.node.sandbox.isolation import Mount
from quarterdeck.node.security import Security

EGRESS = "quarterdeck.dev/egress"
"""Pod annotation: ``none`` closes the way out."""


@dataclass(frozen=True, slots=True)
class Foreign:
    """A container ready for its engine. ``bridge``: the configuration of the bridge that starts it per session, on the
    node's side, where a foreign image could not run our bridge."""

    engine: Engine
    options: tuple[str, ...]
    image: str
    command: tuple[str, ...]
    env: Mapping[str, str]
    network: str
    pod_ip: str
    bridge: Mapping[str, Any] | None = None

    def line(self, run: str, env_file: Path) -> list[str]:
        """The client's command line. Containers of a bridge have no name: there is one for each session."""
        named = [] if self.bridge is not None else ["--name", run]
        return [
            self.engine.program, "run", "--rm", "-i", *named, "--label", f"{RUN_LABEL}={run}",
            "--env-file", str(env_file), *self.options, self.image, *self.command,
        ]  # fmt: skip

    def write(self, folder: Path, run: str) -> list[str]:
        """Write environment file and bridge configuration; the command line of the process to start."""
        env_file = folder / "engine.env"
        _write(env_file, "".join(f"{name}={value}\n" for name, value in self.env.items()))
        line = self.line(run, env_file)
        if self.bridge is None:
            return line
        config = folder / "engine-bridge.json"
        _write(config, json.dumps({**self.bridge, "command": line[0], "args": line[1:]}))
        return [sys.executable, "-m", "quarterdeck.bridge", "--config", str(config)]

    def instructions(self, argv: Sequence[str], cgroups: Sequence[str]) -> dict[str, Any]:
        """For :mod:`quarterdeck.node.sandbox.launcher`."""
        env = client_environment() | ({"POD_IP": self.pod_ip} if self.bridge is not None else {})
        return {"argv": list(argv), "env": env, "cwd": "/", "cgroups": list(cgroups), "client": True}

    def confinement(self, run: str) -> dict[str, Any]:
        """How commands join the container later, and how it is found when its client is gone."""
        engine: dict[str, Any] = {"kind": self.engine.kind, "program": self.engine.program, "run": run}
        engine["bridge"] = self.bridge is not None
        return {"engine": engine, "network": f"{self.engine.kind} container, {self.network}"}


def foreign(
    pod: Object,
    container: Object,
    image: ImageSpec,
    *,
    command: Sequence[str],
    args: Sequence[str],
    env: Mapping[str, str],
    mounts: Sequence[Mount],
    limits: Limits,
    ports: Sequence[int],
    pod_ip: str,
    security: Security,
    volumes_gid: int | None = None,
    bridge: Mapping[str, Any] | None = None,
) -> Foreign:
    """From a container of a Pod to its engine's options. Raises ConfigurationError."""
    assert image.engine is not None
    for name, value in env.items():
        if "\n" in value or "\r" in value or name.startswith("#"):
            raise ConfigurationError(
                f"environment variable {name} has several lines, which {image.engine.kind} cannot be told without "
                "showing the value in its process arguments: mount it as a file"
            )
    network, explained = _network(pod, ports, pod_ip, image.engine, publish=bridge is None)
    entrypoint: list[str] = []
    words = [*args]
    if bridge is not None:
        entrypoint = ["--entrypoint", str(bridge["command"])]
        words = [str(word) for word in bridge.get("args") or ()]
    elif command:
        entrypoint = ["--entrypoint", command[0]]
        words = [*command[1:], *args]
    options = [
        *_metadata(pod, container, image.engine),
        *network,
        *_confine(security, volumes_gid),
        *(["--memory", str(limits.memory)] if limits.memory else []),
        *(["--cpus", f"{limits.cpu:g}"] if limits.cpu else []),
        *(["--workdir", container["workingDir"]] if container.get("workingDir") else []),
        *(word for mount in mounts for word in ("-v", _volume(mount))),
        *entrypoint,
    ]
    return Foreign(
        image.engine, tuple(options), image.reference, tuple(words), env, explained, pod_ip, bridge
    )  # fmt: skip


def _metadata(pod: Object, container: Object, engine: Engine) -> list[str]:
    meta = pod["metadata"]
    labels = {"pod-uid": meta["uid"], "pod": f"{meta['namespace']}/{meta['name']}", "container": container["name"]}
    found = [word for key, value in labels.items() for word in ("--label", f"quarterdeck.dev/{key}={value}")]
    found += ["--pull", "never", "--log-driver", "none"]
    return [*found, "--http-proxy=false"] if engine.kind == "podman" else found


def _network(pod: Object, ports: Sequence[int], pod_ip: str, engine: Engine, *, publish: bool) -> tuple[list[str], str]:
    """(options, what they mean). The engine's network cannot be limited to what the egress proxy lets through."""
    closed = (pod["metadata"].get("annotations") or {}).get(EGRESS) == "none"
    if pod["spec"].get("hostNetwork"):
        return ["--network", "host"], "host network"
    name = ["--hostname", _hostname(pod)]
    if not ports or (closed and not publish):
        return ["--network", "none", *name], "no network"
    if closed:
        raise ConfigurationError(
            f"{EGRESS}: none cannot be kept for a container of {engine.kind} with ports: remove the ports or the "
            "annotation, or use an image this node runs itself"
        )
    published = [word for port in ports for word in ("-p", f"{pod_ip}:{port}:{port}")] if publish else []
    return [*name, *published], "the engine's default network with unrestricted egress"


def _hostname(pod: Object) -> str:
    return str(pod["spec"].get("hostname") or pod["metadata"]["name"])[:63].rstrip("-.")


def _confine(security: Security, volumes_gid: int | None) -> list[str]:
    """The engine's own default system-call filter holds. ``volumes_gid``: the machine's group of the Pod's volumes."""
    found = ["--cap-drop=ALL", *(f"--cap-add={name}" for name in security.capabilities)]
    found += ["--security-opt", "no-new-privileges"]
    found += [] if security.filtered else ["--security-opt", "seccomp=unconfined"]
    if security.given:
        found += ["--user", str(security.uid) + (f":{security.gid}" if security.gid is not None else "")]
    groups = [*security.groups, *([volumes_gid] if volumes_gid is not None else [])]
    found += [word for group in groups for word in ("--group-add", str(group))]
    return [*found, "--read-only"] if security.read_only else found


def _volume(mount: Mount) -> str:
    if ":" in mount.source or ":" in mount.target:
        raise ConfigurationError(f"volume at {mount.target}: container engines take no path with a colon")
    return f"{mount.source}:{mount.target}" + (":ro" if mount.read_only else "")


def _write(path: Path, text: str) -> None:
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        file.write(text)


@dataclass(frozen=True, slots=True)
class EngineRun:
    """One run of a container in an engine. ``bridge``: there are as many containers as the bridge has sessions."""

    engine: Engine
    run: str
    bridge: bool


def engine_of(confinement: Mapping[str, Any]) -> EngineRun | None:
    """Which run an engine has, from a saved confinement; None: no engine runs that container."""
    saved = confinement.get("engine")
    return None if saved is None else EngineRun(Engine(saved["kind"], saved["program"]), saved["run"], saved["bridge"])


def engine_at(folder: Path) -> EngineRun | None:
    """:func:`engine_of` for a container's folder, where it has ever been started."""
    try:
        return engine_of(json.loads((folder / "confinement.json").read_text()))
    except FileNotFoundError:
        return None


def exec_line(confinement: Mapping[str, Any], argv: Sequence[str], *, tty: bool) -> list[str] | None:
    """The client's command line for another command in the container; None: no engine runs it.

    Raises OSError for a bridge's containers, of which none is the container.
    """
    saved = engine_of(confinement)
    if saved is None:
        return None
    if saved.bridge:
        raise OSError(f"its image runs in {saved.engine.kind}, one container for each session: there is none to enter")
    return [saved.engine.program, "exec", "-it" if tty else "-i", saved.run, *argv]
