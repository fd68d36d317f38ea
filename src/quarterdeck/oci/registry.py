"""A client of container registries (OCI distribution-spec v1.1): enough to put a built image on a base and push it."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import subprocess
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

import aiohttp

from quarterdeck.errors import ConfigError, Denied, UpstreamError

from .layout import INDEX, MANIFEST
from .reference import Reference

_DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
_DOCKER_INDEX = "application/vnd.docker.distribution.manifest.list.v2+json"
_ACCEPT = ", ".join((MANIFEST, INDEX, _DOCKER_MANIFEST, _DOCKER_INDEX))
_CHALLENGE = re.compile(r'(\w+)="([^"]*)"')
_HUB = "registry-1.docker.io"
_HUB_KEY = "https://index.docker.io/v1/"
_CHUNK = 1 << 20
_DOCUMENT_BYTES = 4 << 20
"""The largest manifest a registry must take (distribution-spec v1.1); configurations are smaller."""
_HELPER_SECONDS = 30


@dataclass(frozen=True, slots=True)
class Credentials:
    username: str
    password: str

    def header(self) -> str:
        return "Basic " + base64.b64encode(f"{self.username}:{self.password}".encode()).decode()


class Registry:
    """One registry. Loopback ones are spoken to without TLS, as docker does; ``plain``: this one, too."""

    def __init__(
        self, session: aiohttp.ClientSession, host: str, credentials: Credentials | None = None, *, plain: bool = False
    ) -> None:
        self.host = host or _HUB
        self._session = session
        self._credentials = credentials or stored_credentials(host)
        self._tokens: dict[str, str] = {}
        name = self.host.rpartition(":")[0] or self.host
        plain = plain or name in ("localhost", "[::1]") or name.startswith("127.")
        self._base = f"{'http' if plain else 'https'}://{self.host}"

    def repository(self, reference: Reference) -> str:
        """The repository's name there; Docker Hub's official images live below ``library/``."""
        hub = self.host == _HUB and "/" not in reference.name
        return f"library/{reference.name}" if hub else reference.name

    async def manifest(self, repository: str, reference: str, platform: tuple[str, str]) -> dict[str, Any]:
        """The image manifest for ``(os, architecture)``. Raises ConfigError when there is none for it."""
        document = await self._json(f"/v2/{repository}/manifests/{reference}", repository)
        entries: list[dict[str, Any]] | None = document.get("manifests")
        if entries is None:
            return document
        for entry in entries:
            found: dict[str, Any] = entry.get("platform") or {}
            if (found.get("os"), found.get("architecture")) == platform:
                return await self._json(f"/v2/{repository}/manifests/{entry['digest']}", repository)
        known = ", ".join(
            f"{e.get('platform', {}).get('os')}/{e.get('platform', {}).get('architecture')}" for e in entries
        )
        raise ConfigError(f"{self.host}/{repository}:{reference} has no image for {'/'.join(platform)}, only {known}")

    async def pinned(self, repository: str, reference: str, platform: tuple[str, str]) -> tuple[str, dict[str, Any]]:
        """Digest and manifest of an image; of any platform where there is none for ``platform``.

        What is asked for by digest has that digest. Raises UpstreamError, ConfigError for a list without images.
        """
        digest, document = await self._verified(repository, reference)
        entries: list[dict[str, Any]] | None = document.get("manifests")
        if entries is None:
            return digest, document
        images = [e for e in entries if (e.get("platform") or {}).get("os", "") != "unknown"]
        if not images:
            raise ConfigError(f"{self.host}/{repository}:{reference} lists no image")
        fits = [e for e in images if _platform(e) == platform]
        return digest, (await self._verified(repository, str((fits or images)[0]["digest"])))[1]

    async def _verified(self, repository: str, reference: str) -> tuple[str, dict[str, Any]]:
        data, document = await self._document(f"/v2/{repository}/manifests/{reference}", repository)
        digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
        if reference.startswith("sha256:") and reference != digest:
            raise UpstreamError(f"{self.host}/{repository}@{reference}: the registry answered with something else")
        return digest, document

    async def blob_json(self, repository: str, digest: str) -> dict[str, Any]:
        return await self._json(f"/v2/{repository}/blobs/{digest}", repository)

    async def has_blob(self, repository: str, digest: str) -> bool:
        async with self._request("HEAD", f"/v2/{repository}/blobs/{digest}", repository, ok=(200, 404)) as response:
            return response.status == 200

    @asynccontextmanager
    async def blob(self, repository: str, digest: str) -> AsyncGenerator[AsyncIterator[bytes]]:
        async with self._request("GET", f"/v2/{repository}/blobs/{digest}", repository) as response:
            yield response.content.iter_chunked(_CHUNK)

    async def mount(self, repository: str, digest: str, source: str) -> str:
        """Take a blob over from another repository of this registry; "" when done, else where to upload it."""
        path = f"/v2/{repository}/blobs/uploads/?mount={digest}&from={source}"
        async with self._request("POST", path, repository, ok=(201, 202), source=source) as response:
            return "" if response.status == 201 else urljoin(str(response.url), response.headers["Location"])

    async def upload(self, repository: str, digest: str, data: Any, size: int, *, location: str = "") -> None:
        """Send a blob, ``data`` being bytes, a file or an asynchronous iterator."""
        if not location:
            async with self._request("POST", f"/v2/{repository}/blobs/uploads/", repository, ok=(202,)) as response:
                location = urljoin(str(response.url), response.headers["Location"])
        separator = "&" if "?" in location else "?"
        headers = {"Content-Type": "application/octet-stream", "Content-Length": str(size)}
        target = f"{location}{separator}digest={digest}"
        async with self._request("PUT", target, repository, ok=(201,), data=data, headers=headers):
            pass

    async def put_manifest(self, repository: str, tag: str, manifest: bytes) -> str:
        """Give the image its tag; returns the digest the registry computed."""
        path = f"/v2/{repository}/manifests/{tag}"
        headers = {"Content-Type": MANIFEST}
        async with self._request("PUT", path, repository, ok=(201,), data=manifest, headers=headers) as response:
            return response.headers.get("Docker-Content-Digest", "")

    async def _json(self, path: str, repository: str) -> dict[str, Any]:
        return (await self._document(path, repository))[1]

    async def _document(self, path: str, repository: str) -> tuple[bytes, dict[str, Any]]:
        """A JSON object as it was sent, and read."""
        data = bytearray()
        async with self._request("GET", path, repository, headers={"Accept": _ACCEPT}) as response:
            async for chunk in response.content.iter_any():
                data += chunk
                if len(data) > _DOCUMENT_BYTES:
                    raise UpstreamError(f"{self._base}{path}: answered with more than {_DOCUMENT_BYTES} bytes")
        try:
            document: Any = json.loads(data)
        except (ValueError, RecursionError) as error:
            raise UpstreamError(f"{self._base}{path}: answered with what is not JSON") from error
        if not isinstance(document, dict):
            raise UpstreamError(f"{self._base}{path}: answered with what is not a JSON object")
        return bytes(data), document

    @asynccontextmanager
    async def _request(
        self,
        method: str,
        path: str,
        repository: str,
        *,
        ok: tuple[int, ...] = (200,),
        data: Any = None,
        headers: dict[str, str] | None = None,
        source: str = "",
    ) -> AsyncGenerator[aiohttp.ClientResponse]:
        """One call, after authentication when the registry asks for it. A body is only sent once authenticated."""
        url = urljoin(self._base, path)
        try:
            for attempt in range(2):
                sent = dict(headers or {})
                if repository in self._tokens:
                    sent["Authorization"] = self._tokens[repository]
                response = await self._session.request(method, url, data=data, headers=sent)
                try:
                    if response.status == 401 and attempt == 0 and (data is None or isinstance(data, bytes)):
                        await self._authenticate(response.headers.get("WWW-Authenticate", ""), repository, source)
                        continue
                    if response.status not in ok:
                        raise await self._problem(response, method, url)
                    yield response
                    return
                finally:
                    response.release()
        except aiohttp.ClientError as error:
            raise UpstreamError(f"registry {self.host}: {error}") from error

    async def _authenticate(self, challenge: str, repository: str, source: str) -> None:
        """Basic, or a bearer token for pull and push (https://distribution.github.io/distribution/spec/auth/token/)."""
        scheme, _, rest = challenge.partition(" ")
        credentials = self._credentials
        if scheme.lower() == "basic":
            if credentials is None:
                raise Denied(f"registry {self.host} wants a login: docker login {self.host}, or --username")
            self._tokens[repository] = credentials.header()
            return
        values = dict(_CHALLENGE.findall(rest))
        if scheme.lower() != "bearer" or "realm" not in values:
            raise Denied(f"registry {self.host} wants an authentication that is not known here: {challenge!r}")
        scopes = [("scope", values.get("scope") or f"repository:{repository}:pull,push")]
        if source:
            scopes.append(("scope", f"repository:{source}:pull"))
        params = [("service", values.get("service", "")), *scopes]
        headers = {"Authorization": credentials.header()} if credentials else {}
        async with self._session.get(values["realm"], params=params, headers=headers) as response:
            if response.status != 200:
                raise Denied(f"registry {self.host}: no token for {repository} (HTTP {response.status}); log in first")
            found = await response.json(content_type=None)
        self._tokens[repository] = f"Bearer {found.get('token') or found.get('access_token')}"

    async def _problem(self, response: aiohttp.ClientResponse, method: str, url: str) -> UpstreamError | Denied:
        text = (await response.read())[:500].decode("utf-8", "replace").strip()
        message = f"registry {self.host}: {method} {url}: HTTP {response.status} {text}"
        if response.status in (401, 403):
            return Denied(f"{message}; log in with: docker login {self.host}, or give --username")
        return UpstreamError(message)


def _platform(entry: dict[str, Any]) -> tuple[str, str]:
    found: dict[str, Any] = entry.get("platform") or {}
    return str(found.get("os")), str(found.get("architecture"))


def stored_credentials(host: str) -> Credentials | None:
    """What ``docker login`` left in ``$DOCKER_CONFIG/config.json``, credential helpers included."""
    folder = Path(os.environ.get("DOCKER_CONFIG") or Path.home() / ".docker")
    try:
        document: dict[str, Any] = json.loads((folder / "config.json").read_text())
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError) as error:
        raise ConfigError(f"{folder / 'config.json'} cannot be read: {error}") from error
    key = host if host and host != _HUB else _HUB_KEY
    helper = (document.get("credHelpers") or {}).get(key) or document.get("credsStore")
    if helper:
        found = _from_helper(str(helper), key)
        if found is not None:
            return found
    entry = (document.get("auths") or {}).get(key) or {}
    if not entry.get("auth"):
        return None
    try:
        username, _, password = base64.b64decode(entry["auth"], validate=True).decode().partition(":")
    except ValueError as error:
        raise ConfigError(f"{folder / 'config.json'}: auths[{key!r}].auth is not base64 of user:password") from error
    return Credentials(username, password)


def _from_helper(helper: str, key: str) -> Credentials | None:
    try:
        done = subprocess.run(
            [f"docker-credential-{helper}", "get"], input=key, capture_output=True, text=True,
            timeout=_HELPER_SECONDS, check=False,
        )  # fmt: skip
    except FileNotFoundError:
        return None
    except subprocess.TimeoutExpired as error:
        raise ConfigError(f"docker-credential-{helper} gave no answer within {_HELPER_SECONDS} s") from error
    if done.returncode != 0:
        return None  # helpers answer so for a registry without a login
    found = json.loads(done.stdout)
    return Credentials(str(found["Username"]), str(found["Secret"]))
