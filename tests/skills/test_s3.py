"""Skills from S3: the signature against AWS's own examples, the rest against a double of its REST API."""

from __future__ import annotations

import io
import tarfile
import zipfile
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from xml.sax.saxutils import escape

import pytest
from aiohttp import web

from quarterdeck.errors import ConfigError, Denied, UpstreamError
from quarterdeck.skills import s3
from quarterdeck.skills.bucket import Bucket, bucket_at, parse
from quarterdeck.skills.sigv4 import path_of, signed
from quarterdeck.skills.sources import S3Source
from quarterdeck.skills.unpack import Target
from quarterdeck.wire.sigv4 import Keys

from .conftest import skill_text

# docs.aws.amazon.com, AmazonS3/latest/API/sig-v4-header-based-auth.html
EXAMPLE = Keys("AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY")
DAY = datetime(2013, 5, 24, tzinfo=UTC)
HOST = "examplebucket.s3.amazonaws.com"
KEYS = Keys("AKID", "secret", "token")


@pytest.mark.parametrize(
    ("query", "signature"),
    [
        ({"lifecycle": ""}, "fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543"),
        ({"max-keys": "2", "prefix": "J"}, "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7"),
    ],
)
def test_signatures_are_those_of_the_documentation(query: dict[str, str], signature: str) -> None:
    headers = signed(HOST, "/", query, EXAMPLE, "us-east-1", DAY)
    assert headers["authorization"].rpartition("=")[2] == signature


def test_secrets_are_in_no_text_of_keys() -> None:
    assert "secret" not in repr(KEYS)
    assert "token" not in repr(KEYS)


@dataclass
class S3Double:
    """A bucket server: ListObjectsV2 with pages of two, GetObject, signatures checked, a region of its own."""

    objects: dict[str, bytes] = field(default_factory=dict)
    keys: Keys | None = None
    region: str = "us-east-1"
    url: str = ""
    asked: list[str] = field(default_factory=list)

    async def answer(self, request: web.Request) -> web.Response:
        self.asked.append(request.path_qs)
        refusal = self._refused(request)
        if refusal is not None:
            return refusal
        key = request.path.removeprefix("/bucket").lstrip("/")
        if key:
            if key not in self.objects:
                return web.Response(status=404, text="<Error><Code>NoSuchKey</Code></Error>")
            return web.Response(body=self.objects[key], headers={"etag": '"abc"'})
        prefix, start = request.query["prefix"], int(request.query.get("continuation-token", "0"))
        found = sorted(key for key in self.objects if key.startswith(prefix))
        page = "".join(f"<Contents><Key>{escape(key)}</Key></Contents>" for key in found[start : start + 2])
        more = start + 2 < len(found)
        return web.Response(
            text='<?xml version="1.0"?><ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
            f"<IsTruncated>{str(more).lower()}</IsTruncated>{page}"
            + (f"<NextContinuationToken>{start + 2}</NextContinuationToken>" if more else "")
            + "</ListBucketResult>"
        )

    def _refused(self, request: web.Request) -> web.Response | None:
        given = request.headers.get("authorization", "")
        if self.keys is None:
            return web.Response(status=400, text="signed") if given else None
        now = datetime.strptime(request.headers.get("x-amz-date", "19700101T000000Z"), "%Y%m%dT%H%M%SZ")
        path = request.raw_path.partition("?")[0]
        expected = signed(request.headers["host"], path, dict(request.query), self.keys, self.region, now)
        if f"/{self.region}/" not in given:
            return web.Response(status=400, headers={"x-amz-bucket-region": self.region})
        if given == expected["authorization"]:
            return None
        return web.Response(status=403, text="<Error><Code>SignatureDoesNotMatch</Code></Error>")


@pytest.fixture
async def server() -> AsyncIterator[S3Double]:
    double = S3Double()
    app = web.Application()
    app.router.add_get("/{path:.*}", double.answer)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    double.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield double
    await runner.cleanup()


def secret(tmp_path: Path, **keys: str) -> Path:
    folder = tmp_path / "secret"
    folder.mkdir()
    for name, value in keys.items():
        (folder / name).write_text(value)
    return folder


FULL = {"AWS_ACCESS_KEY_ID": "AKID", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_SESSION_TOKEN": "token\n"}


async def fetch(source: S3Source, tmp_path: Path, folder: Path | None = None, **environment: str) -> tuple[str, Path]:
    out = tmp_path / "out"
    tag = await s3.fetch(source, Target(out, source.uri), folder or tmp_path / "none", environment=environment)
    return tag, out


async def test_a_prefix_page_by_page(server: S3Double, tmp_path: Path) -> None:
    server.keys, server.region = KEYS, "eu-central-1"
    server.objects = {
        "skills/pdf/SKILL.md": skill_text("pdf").encode(), "skills/pdf/": b"",
        "skills/pdf/scripts/run it+1.sh": b"echo", "skills/pdf/a&b.md": b"x", "skills/pdf2/SKILL.md": b"another",
    }  # fmt: skip
    source = S3Source("s3://bucket/skills/pdf", "eu-central-1", server.url)
    _, out = await fetch(source, tmp_path, secret(tmp_path, **FULL))
    assert sorted(path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()) == [
        "SKILL.md", "a&b.md", "scripts/run it+1.sh",
    ]  # fmt: skip
    assert (out / "scripts/run it+1.sh").stat().st_mode & 0o100


@pytest.mark.parametrize("ending", [".zip", ".tgz", ".tar.gz"])
async def test_an_archive(server: S3Double, tmp_path: Path, ending: str) -> None:
    data = io.BytesIO()
    if ending == ".zip":
        with zipfile.ZipFile(data, "w") as archive:
            archive.writestr("SKILL.md", skill_text("pdf"))
    else:
        with tarfile.open(fileobj=data, mode="w:gz") as archive:
            info = tarfile.TarInfo("SKILL.md")
            info.size = len(skill_text("pdf"))
            archive.addfile(info, io.BytesIO(skill_text("pdf").encode()))
    server.objects[f"pdf{ending}"] = data.getvalue()
    tag, out = await fetch(S3Source(f"s3://bucket/pdf{ending}", endpoint=server.url), tmp_path)
    assert tag == "abc"
    assert (out / "SKILL.md").read_text() == skill_text("pdf")


async def test_the_region_that_the_bucket_names_is_used(server: S3Double, tmp_path: Path) -> None:
    server.keys, server.region = KEYS, "ap-south-1"
    server.objects["a/SKILL.md"] = b"x"
    _, out = await fetch(
        S3Source("s3://bucket/a"), tmp_path, None, AWS_ENDPOINT_URL_S3=server.url, AWS_ACCESS_KEY_ID="AKID",
        AWS_SECRET_ACCESS_KEY="secret", AWS_SESSION_TOKEN="token",
    )  # fmt: skip
    assert (out / "SKILL.md").read_text() == "x"


async def test_what_goes_wrong_is_said(server: S3Double, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no objects are there; correct bucket and prefix"):
        await fetch(S3Source("s3://bucket/none", endpoint=server.url), tmp_path)
    with pytest.raises(ConfigError, match=r"none\.zip: HTTP 404 .*NoSuchKey"):
        await fetch(S3Source("s3://bucket/none.zip", endpoint=server.url), tmp_path)
    with pytest.raises(UpstreamError, match=r"Cannot connect|refused"):
        await fetch(S3Source("s3://bucket/a", endpoint="http://127.0.0.1:1"), tmp_path)
    server.keys = KEYS
    wrong = secret(tmp_path, **(FULL | {"AWS_SECRET_ACCESS_KEY": "not-it"}))
    with pytest.raises(Denied, match=r"HTTP 403 .*check the keys in the Secret of skills.s3AuthSecretRef") as failure:
        await fetch(S3Source("s3://bucket/a", endpoint=server.url), tmp_path, wrong)
    assert "not-it" not in str(failure.value)
    (wrong / "AWS_SECRET_ACCESS_KEY").unlink()
    with pytest.raises(ConfigError, match="AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY are both needed"):
        await fetch(S3Source("s3://bucket/a", endpoint=server.url), tmp_path, wrong)


async def test_keys_that_lead_out_are_refused(server: S3Double, tmp_path: Path) -> None:
    server.objects["a/../../evil"] = b"x"
    with pytest.raises(ConfigError, match="leads out of the skill's folder"):
        await fetch(S3Source("s3://bucket/a", endpoint=server.url), tmp_path)
    assert not (tmp_path.parent / "evil").exists()


async def test_too_much_is_refused(server: S3Double, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server.objects |= {f"a/{n}": b"x" * 100 for n in range(4)}
    monkeypatch.setattr(s3, "OBJECT_BYTES", 99)
    with pytest.raises(ConfigError, match="larger than 99 bytes"):
        await fetch(S3Source("s3://bucket/a", endpoint=server.url), tmp_path)
    monkeypatch.setattr(s3, "_MOST_OBJECTS", 3)
    with pytest.raises(ConfigError, match="more than 3 objects; name a longer prefix"):
        await fetch(S3Source("s3://bucket/a", endpoint=server.url), tmp_path)


async def test_a_web_identity_gets_keys(tmp_path: Path, server: S3Double) -> None:
    (tmp_path / "token").write_text("jwt")
    asked: list[dict[str, str]] = []

    async def sts(request: web.Request) -> web.Response:
        asked.append(dict(await request.post()))  # type: ignore[arg-type]
        keys = (
            "<AccessKeyId>AKID</AccessKeyId><SecretAccessKey>secret</SecretAccessKey><SessionToken>token</SessionToken>"
        )
        return web.Response(text=f"<!--{'x' * (1 << 20)}--><Credentials>{keys}</Credentials>")  # more than one read

    app = web.Application()
    app.router.add_post("/", sts)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    server.keys = KEYS
    server.objects["a/SKILL.md"] = b"x"
    try:
        await fetch(
            S3Source("s3://bucket/a", endpoint=server.url), tmp_path, None, AWS_ROLE_ARN="arn:aws:iam::1:role/r",
            AWS_WEB_IDENTITY_TOKEN_FILE=str(tmp_path / "token"),
            AWS_ENDPOINT_URL_STS=f"http://127.0.0.1:{runner.addresses[0][1]}/",
        )  # fmt: skip
    finally:
        await runner.cleanup()
    assert asked[0]["WebIdentityToken"] == "jwt"
    assert asked[0]["RoleArn"] == "arn:aws:iam::1:role/r"
    nowhere = {"AWS_ROLE_ARN": "r", "AWS_WEB_IDENTITY_TOKEN_FILE": str(tmp_path / "no-token")}
    with pytest.raises(ConfigError, match=r"AWS_WEB_IDENTITY_TOKEN_FILE: .*No such file"):
        await fetch(S3Source("s3://bucket/a", endpoint=server.url), tmp_path, None, **nowhere)


@pytest.mark.parametrize("uri", ["s3://", "s3://b", "s3://bucket/", "http://bucket/a", "s3://Bucket/a", "s3://a b/c"])
def test_addresses_that_are_refused(uri: str) -> None:
    with pytest.raises(ConfigError, match="is not s3://BUCKET/PREFIX"):
        parse(S3Source(uri))


def test_where_buckets_answer() -> None:
    host = "skills.s3.eu-west-1.amazonaws.com"
    assert bucket_at(S3Source("s3://skills/a", "eu-west-1"), {}) == Bucket(f"https://{host}", host, "", "eu-west-1")
    assert bucket_at(S3Source("s3://my.skills/a"), {}).base == "/my.skills"
    assert bucket_at(S3Source("s3://skills/a", "cn-north-1"), {}).host == "skills.s3.cn-north-1.amazonaws.com.cn"
    for name in ("AWS_REGION", "AWS_DEFAULT_REGION"):
        assert bucket_at(S3Source("s3://skills/a"), {name: "eu-west-1"}).host == host
        with pytest.raises(ConfigError, match="is no region"):
            bucket_at(S3Source("s3://skills/a"), {name: "x.evil.com/"})
    own = bucket_at(S3Source("s3://skills/a", endpoint="https://minio.example.com/x"), {})
    assert own == Bucket("https://minio.example.com", "minio.example.com", "/x/skills", "us-east-1")
    with pytest.raises(ConfigError, match="must be an https:// URL"):
        bucket_at(S3Source("s3://skills/a", endpoint="http://minio.example.com"), {})
    for wrong in ("https://[x", "https://x:99999"):
        with pytest.raises(ConfigError, match="is not a URL"):
            bucket_at(S3Source("s3://skills/a", endpoint=wrong), {})
    with pytest.raises(ConfigError, match="is no region"):
        bucket_at(S3Source("s3://skills/a", "x.evil.com/"), {})
    assert path_of("a b/ü+~.md") == "/a%20b/%C3%BC%2B~.md"
