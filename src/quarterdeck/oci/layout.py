"""An OCI image layout directory (image-spec v1.1, image-layout.md): blobs by digest and one index of names."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from quarterdeck.errors import ConfigError, StorageError

from .reference import Reference

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"
_REF_NAME = "org.opencontainers.image.ref.name"


@dataclass(frozen=True, slots=True)
class Image:
    """An image in the store. ``config`` is the image configuration, ``layers`` are descriptors, lowest first."""

    digest: str
    manifest: dict[str, Any]
    config: dict[str, Any]

    @property
    def layers(self) -> list[dict[str, Any]]:
        return list(self.manifest["layers"])


class Layout:
    """The store below ``root``; safe against concurrent writers and a kill at any moment."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def blob_path(self, digest: str) -> Path:
        algorithm, _, value = digest.partition(":")
        return self.root / "blobs" / algorithm / value

    def put_file(self, path: Path, media_type: str) -> dict[str, Any]:
        """Move a file into the store; returns its descriptor."""
        digest = hashlib.sha256()
        with path.open("rb") as file:
            while chunk := file.read(1 << 20):
                digest.update(chunk)
        name = f"sha256:{digest.hexdigest()}"
        descriptor = {"mediaType": media_type, "digest": name, "size": path.stat().st_size}
        target = self.blob_path(name)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(path, target)
        return descriptor

    def put_bytes(self, data: bytes, media_type: str) -> dict[str, Any]:
        self.root.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=self.root, prefix=".blob-", delete=False) as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        return self.put_file(Path(file.name), media_type)

    def put_image(self, reference: Reference, config: dict[str, Any], layers: list[dict[str, Any]]) -> str:
        """Store an image under a name, replacing what had the name. Returns the manifest's digest."""
        encoded = _encode(config)
        manifest = {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": self.put_bytes(encoded, CONFIG),
            "layers": layers,
        }
        descriptor = self.put_bytes(_encode(manifest), MANIFEST)
        with self._locked_index() as index:
            kept = [m for m in index["manifests"] if m.get("annotations", {}).get(_REF_NAME) != str(reference)]
            index["manifests"] = [*kept, {**descriptor, "annotations": {_REF_NAME: str(reference)}}]
        return str(descriptor["digest"])

    def find(self, reference: Reference) -> Image | None:
        """The image of that name or digest; None when the store has none."""
        for entry in self._read_index()["manifests"]:
            named = entry.get("annotations", {}).get(_REF_NAME) == str(reference)
            if named or (reference.digest and entry["digest"] == reference.digest):
                return self._load(str(entry["digest"]))
        return None

    def names(self) -> list[str]:
        return sorted(m.get("annotations", {}).get(_REF_NAME, "") for m in self._read_index()["manifests"])

    def _load(self, digest: str) -> Image:
        try:
            manifest = json.loads(self.blob_path(digest).read_bytes())
            config = json.loads(self.blob_path(manifest["config"]["digest"]).read_bytes())
        except (OSError, ValueError, KeyError) as error:
            raise ConfigError(
                f"image store {self.root}: image {digest} is damaged ({error}); build it again"
            ) from error
        return Image(digest, manifest, config)

    def _read_index(self) -> dict[str, Any]:
        try:
            return json.loads((self.root / "index.json").read_bytes())
        except FileNotFoundError:
            return {"schemaVersion": 2, "mediaType": INDEX, "manifests": []}
        except ValueError as error:
            raise ConfigError(
                f"{self.root}/index.json is not JSON: {error}; remove it and build the images again"
            ) from error

    @contextmanager
    def _locked_index(self) -> Generator[dict[str, Any]]:
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            with (self.root / ".lock").open("w") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                (self.root / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}')
                index = self._read_index()
                yield index
                partial = self.root / ".index.json"
                partial.write_bytes(_encode(index))
                partial.replace(self.root / "index.json")
        except OSError as error:
            raise StorageError(
                f"image store {self.root}: {error.strerror}; free space or set QUARTERDECK_HOME"
            ) from error


def _encode(document: dict[str, Any]) -> bytes:
    return json.dumps(document, sort_keys=True, separators=(",", ":")).encode()
