"""Where the bucket of a source answers."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from quarterdeck.errors import ConfigError

from .sources import S3Source

REGION = re.compile(r"[a-z0-9-]{1,64}")
_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")


@dataclass(frozen=True, slots=True)
class Bucket:
    """Where a source's bucket answers. ``base`` is put before keys: the bucket's name in the path style."""

    origin: str
    host: str
    base: str
    region: str


def parse(source: S3Source) -> tuple[str, str]:
    """(bucket, key or prefix). Raises ConfigError."""
    bucket, _, key = source.uri.removeprefix("s3://").partition("/")
    key = key.strip("/")
    if not source.uri.startswith("s3://") or not _BUCKET.fullmatch(bucket) or not key:
        raise ConfigError(f"skills.s3Refs: {source.uri!r} is not s3://BUCKET/PREFIX, nor s3://BUCKET/FILE.zip")
    if source.region and not REGION.fullmatch(source.region):
        raise ConfigError(f"skills.s3Refs: {source.uri}: {source.region!r} is no region, for example eu-central-1")
    return bucket, key


def region_of(environment: Mapping[str, str]) -> str:
    """Where a source does not say. Raises ConfigError."""
    region = environment.get("AWS_REGION") or environment.get("AWS_DEFAULT_REGION") or "us-east-1"
    if not REGION.fullmatch(region):
        raise ConfigError(f"AWS_REGION: {region!r} is no region, for example eu-central-1")
    return region


def domain_of(region: str) -> str:
    return "amazonaws.com.cn" if region.startswith("cn-") else "amazonaws.com"


def endpoint_of(source: S3Source, environment: Mapping[str, str], *, insecure: bool = False) -> str:
    """A server that is not AWS's, or "". Raises ConfigError for one that does not prove who it is."""
    given = source.endpoint or environment.get("AWS_ENDPOINT_URL_S3", "") or environment.get("AWS_ENDPOINT_URL", "")
    if not given:
        return ""
    try:
        parts = urlsplit(given)
        host, _ = parts.hostname or "", parts.port
    except ValueError as error:
        raise ConfigError(f"skills.s3Refs: endpoint {given!r} is not a URL: {error}") from error
    plain = insecure or host == "localhost" or host.startswith("127.")
    if parts.scheme not in (("http", "https") if plain else ("https",)) or not host or parts.username or parts.query:
        raise ConfigError(
            f"skills.s3Refs: endpoint {given!r} must be an https:// URL; http:// only on this machine, or with "
            "insecureSkipVerify"
        )
    return given.rstrip("/")


def bucket_at(source: S3Source, environment: Mapping[str, str], *, insecure: bool = False) -> Bucket:
    """Raises ConfigError."""
    bucket, _ = parse(source)
    region = source.region or region_of(environment)
    endpoint = endpoint_of(source, environment, insecure=insecure)
    if endpoint:
        parts = urlsplit(endpoint)
        return Bucket(f"{parts.scheme}://{parts.netloc}", parts.netloc, f"{parts.path}/{bucket}", region)
    domain = f"s3.{region}.{domain_of(region)}"
    if "." in bucket:  # its name would not fit the certificate
        return Bucket(f"https://{domain}", domain, f"/{bucket}", region)
    return Bucket(f"https://{bucket}.{domain}", f"{bucket}.{domain}", "", region)
