"""Skills from S3 and what speaks like it: all objects below a prefix, or one .zip, .tgz or .tar.gz (as kagent).

Requests are signed with the keys of ``s3AuthSecretRef``, of the environment, or of a web identity (IRSA); without any
they go out unsigned, which public buckets answer.
"""

from __future__ import annotations

import io
import os
import re
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import IO
from xml.etree import ElementTree

import aiohttp

from quarterdeck.errors import ConfigError, Denied, UpstreamError
from quarterdeck.wire.sigv4 import Keys

from . import unpack
from .bucket import REGION, Bucket, bucket_at, domain_of, parse, region_of
from .sigv4 import path_of, query_string, signed
from .sources import S3Source

OBJECT_BYTES = 64 << 20
_LISTING_BYTES = 8 << 20
_MOST_OBJECTS = 4000
_ARCHIVES = (".zip", ".tgz", ".tar.gz")
_NAMES = {"access": "AWS_ACCESS_KEY_ID", "secret": "AWS_SECRET_ACCESS_KEY", "token": "AWS_SESSION_TOKEN"}
_CHUNK = 1 << 16


async def keys(secret: Path, environment: Mapping[str, str], session: aiohttp.ClientSession) -> Keys | None:
    """What to sign with; None for nothing. Raises ConfigError for half a key, Denied, UpstreamError."""
    files = {part: secret / name for part, name in _NAMES.items()}
    found = {part: path.read_text().strip() for part, path in files.items() if path.is_file()}
    if not found:
        found = {part: environment[name] for part, name in _NAMES.items() if environment.get(name)}
    if found:
        if "access" not in found or "secret" not in found:
            raise ConfigError(f"S3 keys: {_NAMES['access']} and {_NAMES['secret']} are both needed")
        return Keys(**found)
    role, token = environment.get("AWS_ROLE_ARN", ""), environment.get("AWS_WEB_IDENTITY_TOKEN_FILE", "")
    return await _web_identity(role, Path(token), environment, session) if role and token else None


async def fetch(
    source: S3Source,
    target: unpack.Target,
    secret: Path,
    *,
    insecure: bool = False,
    environment: Mapping[str, str] = os.environ,
    now: Callable[[], datetime] = lambda: datetime.now(UTC),
) -> str:
    """Put the source's files into ``target``; returns what tells versions apart (the archive's ETag, or "").

    Raises ConfigError, Denied, UpstreamError.
    """
    _, key = parse(source)
    timeout = aiohttp.ClientTimeout(total=300, sock_connect=30)
    connector = aiohttp.TCPConnector(ssl=not insecure)
    async with aiohttp.ClientSession(timeout=timeout, connector=connector, trust_env=True) as session:
        place = bucket_at(source, environment, insecure=insecure)
        client = _Client(session, place, await keys(secret, environment, session), now, source.uri)
        if key.endswith(_ARCHIVES):
            return await _archive(client, key, target)
        return await _prefix(client, key, target)


async def _archive(client: _Client, key: str, target: unpack.Target) -> str:
    with tempfile.TemporaryFile() as file:
        tag = await client.get(key, {}, file, OBJECT_BYTES)
        file.seek(0)
        if key.endswith(".zip"):
            unpack.zip_file(file, target)
        else:
            unpack.tar(file, target)
    return tag


async def _prefix(client: _Client, prefix: str, target: unpack.Target) -> str:
    found = [key for key in await client.listing(prefix) if not key.endswith("/")]
    if not found:
        raise ConfigError(f"skills.s3Refs: {client.uri}: no objects are there; correct bucket and prefix")
    for key in found:
        with tempfile.SpooledTemporaryFile(max_size=1 << 20) as file:
            await client.get(key, {}, file, OBJECT_BYTES)
            file.seek(0)
            name = key[len(prefix) + 1 :]
            target.file(name, file, executable=name.partition("/")[0] == "scripts" or "/scripts/" in name)
    return ""


@dataclass(slots=True)
class _Client:
    session: aiohttp.ClientSession
    place: Bucket
    keys: Keys | None
    now: Callable[[], datetime]
    uri: str

    async def listing(self, prefix: str) -> list[str]:
        """All keys below the prefix. Raises ConfigError for too many."""
        found: list[str] = []
        more = ""
        while True:
            query = {"list-type": "2", "prefix": f"{prefix}/"} | ({"continuation-token": more} if more else {})
            with tempfile.SpooledTemporaryFile(max_size=_LISTING_BYTES) as file:
                await self.get("", query, file, _LISTING_BYTES)
                file.seek(0)
                page = _listed(file.read(), self.uri)
            found += page[0]
            if len(found) > _MOST_OBJECTS:
                raise ConfigError(f"skills.s3Refs: {self.uri}: more than {_MOST_OBJECTS} objects; name a longer prefix")
            if not page[1]:
                return found
            more = page[1]

    async def get(self, key: str, query: Mapping[str, str], out: IO[bytes], most: int) -> str:
        """Write an object, or an answer of the bucket, to ``out``; returns its ETag."""
        for attempt in range(2):
            path = f"{self.place.base}{path_of(key)}" if key else self.place.base or "/"
            headers = {"host": self.place.host}
            if self.keys is not None:
                headers = signed(self.place.host, path, query, self.keys, self.place.region, self.now())
            url = f"{self.place.origin}{path}" + (f"?{query_string(query)}" if query else "")
            try:
                request = self.session.get(_encoded(url), headers=headers, allow_redirects=False)
                async with request as response:
                    region = response.headers.get("x-amz-bucket-region", "")
                    if response.status in (301, 307, 400) and region not in ("", self.place.region) and not attempt:
                        self._move(region)
                        continue
                    if response.status != 200:
                        raise await self._problem(response, key)
                    await _copy(response, out, most, f"{self.uri}: {key or 'listing'}")
                    return response.headers.get("etag", "").strip('"')
            except (aiohttp.ClientError, TimeoutError) as error:
                raise UpstreamError(f"{self.uri}: {error or 'no answer in time'}") from error
        raise UpstreamError(f"{self.uri}: the bucket is in another region; name it in region")

    def _move(self, region: str) -> None:
        """The bucket says that it is elsewhere."""
        if not REGION.fullmatch(region):
            raise UpstreamError(f"{self.uri}: the bucket names a region that is none")
        place, before, after = self.place, f".{self.place.region}.", f".{region}."
        self.place = Bucket(place.origin.replace(before, after), place.host.replace(before, after), place.base, region)

    async def _problem(self, response: aiohttp.ClientResponse, key: str) -> Exception:
        said = " ".join((await response.content.read(2000)).decode("utf-8", "replace").split())[:300]
        what = f"{self.uri}: {key or 'listing'}: HTTP {response.status} {said}"
        if response.status in (401, 403):
            return Denied(f"{what}; check the keys in the Secret of skills.s3AuthSecretRef and what they may read")
        return ConfigError(f"skills.s3Refs: {what}") if response.status == 404 else UpstreamError(what)


async def _copy(response: aiohttp.ClientResponse, out: IO[bytes], most: int, what: str) -> None:
    total = 0
    async for chunk in response.content.iter_chunked(_CHUNK):
        total += len(chunk)
        if total > most:
            raise ConfigError(f"{what}: larger than {most} bytes; make it smaller")
        out.write(chunk)


def _listed(document: bytes, uri: str) -> tuple[list[str], str]:
    """Keys and the token of the next page of a ListBucketResult."""
    try:
        root = ElementTree.fromstring(document)  # noqa: S314 - bounded, and expat refuses entities that grow
    except ElementTree.ParseError as error:
        raise UpstreamError(f"{uri}: the server answered with what is no listing: {error}") from error
    space = root.tag[: root.tag.index("}") + 1] if root.tag.startswith("{") else ""
    found = [item.findtext(f"{space}Key") or "" for item in root.iter(f"{space}Contents")]
    truncated = (root.findtext(f"{space}IsTruncated") or "").strip() == "true"
    return [key for key in found if key], (root.findtext(f"{space}NextContinuationToken") or "") if truncated else ""


def _encoded(url: str):
    from yarl import URL  # what aiohttp takes; it must not encode the path anew, which is signed

    return URL(url, encoded=True)


async def _web_identity(role: str, token: Path, environment: Mapping[str, str], session: aiohttp.ClientSession) -> Keys:
    """Temporary keys for the Pod's own identity (STS AssumeRoleWithWebIdentity, which is not signed)."""
    region = region_of(environment)
    url = environment.get("AWS_ENDPOINT_URL_STS") or f"https://sts.{region}.{domain_of(region)}/"
    try:
        identity = token.read_text().strip()
    except OSError as error:
        raise ConfigError(f"AWS_WEB_IDENTITY_TOKEN_FILE: {token}: {error.strerror}") from error
    form = {
        "Action": "AssumeRoleWithWebIdentity", "Version": "2011-06-15", "RoleArn": role,
        "RoleSessionName": "quarterdeck-skills", "WebIdentityToken": identity,
    }  # fmt: skip
    answer = io.BytesIO()
    try:
        async with session.post(url, data=form, allow_redirects=False) as response:
            await _copy(response, answer, _LISTING_BYTES, url)
    except (aiohttp.ClientError, TimeoutError) as error:
        raise UpstreamError(f"{url}: {error or 'no answer in time'}") from error
    text = answer.getvalue().decode("utf-8", "replace")
    if response.status != 200:
        raise Denied(f"{url}: no keys for role {role}: HTTP {response.status} {' '.join(text.split())[:300]}")
    found = [
        re.search(f"<{name}>([^<]*)</{name}>", text) for name in ("AccessKeyId", "SecretAccessKey", "SessionToken")
    ]
    values = [match[1] for match in found if match is not None]
    if len(values) != len(found):
        raise UpstreamError(f"{url}: the answer has no keys in it")
    return Keys(*values)
