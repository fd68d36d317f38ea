"""Images of BYO agents, built once: ``~/.cache/quarterdeck/byo`` keeps what took minutes and a package registry."""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
from pathlib import Path

import pytest

from quarterdeck.oci.layout import Layout
from quarterdeck.oci.reference import parse
from support.platform import Platform

CACHE = Path.home() / ".cache" / "quarterdeck" / "byo" / "images"
_OFFLINE = ("error sending request", "dns error", "Network connectivity is disabled", "Failed to fetch")


def build(platform: Platform, source: Path, tag: str) -> None:
    """``qd mcp build`` of a folder into the platform's store. Skips, with the reason, where packages cannot be had."""
    files = sorted(path for path in source.iterdir() if path.is_file() and path.name != "Dockerfile")
    digest = hashlib.sha256(sys.version.encode() + tag.encode())
    for path in files:
        digest.update(path.name.encode() + path.read_bytes())
    kept = CACHE / digest.hexdigest()[:16]
    if not (kept / "done").exists():
        project = platform.scratch / f"build-{source.name}"
        shutil.rmtree(project, ignore_errors=True)
        project.mkdir(parents=True)
        for path in files:
            shutil.copy(path, project)
        kept.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "quarterdeck.cli", "mcp", "build", "-t", tag, "-d", str(project)]
        done = platform.run(*command, ok=False, timeout=840, env={"QUARTERDECK_HOME": str(kept)})
        if done.code != 0 and any(word in done.text for word in _OFFLINE):
            pytest.skip(f"{source.name}: its packages cannot be had here: {done.text.strip().splitlines()[-1]}")
        assert done.code == 0, done.text
        (kept / "done").touch()
    _copy(Layout(kept / "node" / "images"), Layout(platform.own_home() / "node" / "images"), tag)


def _copy(stored: Layout, to: Layout, tag: str) -> None:
    image = stored.find(parse(tag))
    assert image is not None, f"{stored.root} has no {tag}: remove {CACHE}"
    for layer in image.layers:
        target = to.blob_path(layer["digest"])
        target.parent.mkdir(parents=True, exist_ok=True)
        if not target.exists():
            partial = target.with_suffix(f".{os.getpid()}")
            shutil.copyfile(stored.blob_path(layer["digest"]), partial)
            partial.replace(target)
    to.put_image(parse(tag), image.config, image.layers)
