"""Skills from a real git server: git daemon, and git's own HTTP backend with a password, both on loopback."""

from __future__ import annotations

import base64
import os
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import CGIHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from aiohttp import web

from quarterdeck.errors import ConfigError, QuarterdeckError, UpstreamError
from quarterdeck.skills import fetch as fetching
from quarterdeck.skills import git
from quarterdeck.skills.fetch import Mounts
from quarterdeck.skills.sources import GitSource, S3Source, Sources
from quarterdeck.skills.unpack import Target

from .conftest import served, write_skill

pytestmark = pytest.mark.skipif(shutil.which("git") is None, reason="no git")


def run(*words: str, cwd: Path) -> str:
    env = {"PATH": os.environ["PATH"], "HOME": str(cwd), "GIT_CONFIG_NOSYSTEM": "1", "LC_ALL": "C"}
    for role in ("AUTHOR", "COMMITTER"):
        env |= {
            f"GIT_{role}_NAME": "t",
            f"GIT_{role}_EMAIL": "t@example.com",
            f"GIT_{role}_DATE": "2026-01-01T00:00:00Z",
        }
    done = subprocess.run(["git", *words], cwd=cwd, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@dataclass
class Repository:
    """``root`` is what servers serve; ``commits`` by name."""

    root: Path
    url: str = ""
    commits: dict[str, str] = field(default_factory=dict)


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Repository]:
    base = tmp_path_factory.mktemp("git")
    work = base / "work"
    work.mkdir()
    run("init", "-q", "-b", "main", cwd=work)
    write_skill(work / "skills/pdf", "pdf", scripts__run_py="print('one')")
    write_skill(work / "skills/csv", "csv")
    (work / "skills/pdf/run").symlink_to("scripts/run.py")
    (work / ".gitattributes").write_text("*.md filter=evil\n")
    (work / "skills/pdf/.gitattributes").write_text("scripts export-ignore\n")
    run("add", "-A", cwd=work)
    run("commit", "-qm", "one", cwd=work)
    commits = {"one": run("rev-parse", "HEAD", cwd=work)}
    run("tag", "v1", cwd=work)
    (work / "skills/pdf/scripts/run.py").write_text("print('two')")
    run("commit", "-qam", "two", cwd=work)
    commits["two"] = run("rev-parse", "HEAD", cwd=work)
    run("checkout", "-qb", "evil", cwd=work)
    (work / "skills/pdf/passwd").symlink_to("/etc/passwd")
    run("add", "-A", cwd=work)
    run("commit", "-qm", "evil", cwd=work)
    run("checkout", "-q", "main", cwd=work)
    served = base / "served"
    run("clone", "-q", "--bare", str(work), str(served / "skills.git"), cwd=base)
    run("update-server-info", cwd=served / "skills.git")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    daemon = subprocess.Popen(
        ["git", "daemon", f"--base-path={served}", "--export-all", "--reuseaddr", "--listen=127.0.0.1",
         f"--port={port}", "--informative-errors"], stderr=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                break
        time.sleep(0.05)
    yield Repository(served, f"git://127.0.0.1:{port}/skills.git", commits)
    os.killpg(daemon.pid, 15)
    daemon.wait()


async def fetch(source: GitSource, tmp_path: Path, secret: Path | None = None) -> tuple[str, Path]:
    work = tmp_path / f"work $x{len(list(tmp_path.iterdir()))}"
    work.mkdir()
    out = work / "skill"
    return await git.fetch(source, Target(out, "src"), secret or tmp_path / "none", work), out


async def test_branch_tag_and_commit(repository: Repository, tmp_path: Path) -> None:
    for ref, name, said in (("main", "two", "two"), ("v1", "one", "one"), (repository.commits["one"], "one", "one")):
        commit, out = await fetch(GitSource(repository.url, ref, "skills/pdf"), tmp_path)
        assert commit == repository.commits[name]
        assert (out / "scripts/run.py").read_text() == (out / "run").read_text() == f"print('{said}')", "export-ignore"
        assert not (out / "run").is_symlink()


async def test_what_is_not_there_is_said(repository: Repository, tmp_path: Path) -> None:
    with pytest.raises(UpstreamError, match=r"git fetch: .*couldn't find remote ref nowhere"):
        await fetch(GitSource(repository.url, "nowhere"), tmp_path)
    with pytest.raises(ConfigError, match="has no folder 'a/b'"):
        await fetch(GitSource(repository.url, "main", "a/b"), tmp_path)
    with pytest.raises(UpstreamError, match="git fetch"):
        await fetch(GitSource(repository.url.replace("skills.git", "none.git")), tmp_path)


async def test_a_repository_takes_no_room_while_the_next_source_is_fetched(
    repository: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found: list[set[str]] = []

    async def answer(request: web.Request) -> web.Response:
        found.append({path.name for path in tmp_path.rglob("*") if path.is_file()})
        return web.Response(status=404)

    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr(fetching, "_AT_ONCE", 1)
    (tmp_path / "to").mkdir()
    async with served(answer) as url:
        csv = GitSource(repository.url, "main", "skills/csv")
        with pytest.raises(ConfigError, match=r"b\.zip: HTTP 404"):
            await fetching.fetch(Sources((csv, S3Source("s3://bucket/b.zip", endpoint=url))), Mounts(), tmp_path / "to")
    assert found == [{"SKILL.md"}]
    assert not [path for path in tmp_path.iterdir() if path.name != "to"]


async def test_a_link_out_of_the_repository_is_refused(repository: Repository, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="src/passwd: a link to /etc/passwd, out of"):
        await fetch(GitSource(repository.url, "evil", "skills/pdf"), tmp_path)


async def test_nothing_of_the_machine_is_run(
    repository: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A user's own configuration, with hooks, filters and helpers in it, is not read."""
    home = tmp_path / "home"
    home.mkdir()
    ran = tmp_path / "ran"
    (home / ".gitconfig").write_text(
        f'[filter "evil"]\n smudge = touch {ran}\n[core]\n hooksPath = {home}/hooks\n fsmonitor = touch {ran}\n'
        f'[credential]\n helper = !touch {ran}\n[url "file:///"]\n insteadOf = git://\n'
    )
    (home / "hooks").mkdir()
    for name in ("post-checkout", "reference-transaction", "post-merge"):
        (home / "hooks" / name).write_text(f"#!/bin/sh\ntouch {ran}\n")
        (home / "hooks" / name).chmod(0o755)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("GIT_TEMPLATE_DIR", str(home))
    monkeypatch.setenv("GIT_SSH_COMMAND", f"touch {ran}")
    commit, _ = await fetch(GitSource(repository.url, "main", "skills/csv"), tmp_path)
    assert commit == repository.commits["two"]
    assert not ran.exists()


class _Private(ThreadingHTTPServer):
    """git http-backend (CGI) that wants a password. ``seen``: what clients sent."""

    daemon_threads = True
    token = "s3cret"

    def __init__(self, root: Path) -> None:
        self.root = root
        self.seen: list[str] = []
        self.elsewhere = ""
        super().__init__(("127.0.0.1", 0), _Backend)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/skills.git"


class _Backend(CGIHTTPRequestHandler):
    server: _Private

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        self._serve()

    def do_POST(self) -> None:
        self._serve()

    def _serve(self) -> None:
        given = self.headers.get("authorization", "")
        self.server.seen.append(given)
        if self.server.elsewhere:
            self.send_response(302)
            self.send_header("location", self.server.elsewhere + self.path)
            self.end_headers()
            return
        wanted = "Basic " + base64.b64encode(f"x-access-token:{self.server.token}".encode()).decode()
        if given != wanted:
            self.send_response(401)
            self.send_header("www-authenticate", 'Basic realm="git"')
            self.send_header("content-length", "0")
            self.end_headers()
            return
        path, _, query = self.path.partition("?")
        env = {
            "PATH": os.environ["PATH"], "GIT_PROJECT_ROOT": str(self.server.root), "GIT_HTTP_EXPORT_ALL": "1",
            "PATH_INFO": path, "QUERY_STRING": query, "REQUEST_METHOD": self.command, "REMOTE_USER": "u",
            "CONTENT_TYPE": self.headers.get("content-type", ""), "GIT_PROTOCOL": self.headers.get("git-protocol", ""),
            "HTTP_CONTENT_ENCODING": self.headers.get("content-encoding", ""),
        }  # fmt: skip
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        done = subprocess.run(["git", "http-backend"], input=body, env=env, capture_output=True, check=False)
        head, _, content = done.stdout.partition(b"\r\n\r\n")
        lines = [line.decode().partition(": ")[::2] for line in head.split(b"\r\n")]
        self.send_response(int(next((v.split()[0] for k, v in lines if k == "Status"), "200")))
        for name, value in lines:
            if name != "Status":
                self.send_header(name, value)
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


@pytest.fixture
def private(repository: Repository) -> Iterator[_Private]:
    server = _Private(repository.root)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()


def secret(tmp_path: Path, **keys: str) -> Path:
    folder = tmp_path / "o'neil's secret"
    folder.mkdir(exist_ok=True)
    for name, value in keys.items():
        (folder / name.replace("_", "-").replace("known-hosts", "known_hosts")).write_text(value)
    return folder


async def test_a_token_is_shown_to_its_server_only(
    private: _Private, repository: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = secret(tmp_path, token="s3cret\n")
    commit, out = await fetch(GitSource(private.url, "main", "skills/pdf"), tmp_path, keys)
    assert commit == repository.commits["two"]
    assert (out / "SKILL.md").exists()
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and path.parent != keys
                and b"s3cret" in path.read_bytes()]  # fmt: skip
    other = _Private(repository.root)
    thread = threading.Thread(target=other.serve_forever, daemon=True)
    thread.start()
    try:
        private.elsewhere = f"http://localhost:{other.server_address[1]}"
        with pytest.raises(QuarterdeckError):
            await fetch(GitSource(private.url, "main"), tmp_path, keys)
        assert other.seen
        assert not any(other.seen), "the server that was redirected to got the token"
    finally:
        other.shutdown()
        other.server_close()


async def test_without_the_right_token(private: _Private, tmp_path: Path) -> None:
    with pytest.raises(UpstreamError, match=r"git fetch: .*(could not read|prompts disabled|Authentication)"):
        await fetch(GitSource(private.url, "main"), tmp_path)
    with pytest.raises(UpstreamError) as failure:
        await fetch(GitSource(private.url, "main"), tmp_path, secret(tmp_path, token="wrong-token"))
    assert "wrong-token" not in str(failure.value)


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("file:///etc", "skills are fetched over https:// or ssh://"),
        ("/etc", "skills are fetched over https:// or ssh://"),
        ("ext::sh -c id", "skills are fetched over"),
        ("http://example.com/a.git", "skills are fetched over"),
        ("git://example.com/a.git", "skills are fetched over"),
        ("https://user:pass@example.com/a.git", "has a user or password in it"),
        ("https://token@example.com/a.git", "has a user or password in it"),
        ("--upload-pack=id", "skills are fetched over"),
        ("ssh://-oProxyCommand=id/x", "skills are fetched over"),
        ("ssh://`id`/x", "skills are fetched over"),
        ("ssh://a;id|sh;/x", "skills are fetched over"),
        ("ssh://$(id)/x", "skills are fetched over"),
        ("-u@example.com:x", "skills are fetched over"),
        ("git@-oProxyCommand:x", "skills are fetched over"),
    ],
)
def test_addresses_that_are_refused(url: str, told: str) -> None:
    with pytest.raises(ConfigError) as failure:
        git.check(GitSource(url))
    assert told in str(failure.value)
    assert "pass@" not in str(failure.value)


@pytest.mark.parametrize("ref", ["-x", "--upload-pack=id", "a..b", "a b", "", "a:b", "\n"])
def test_refs_that_are_refused(ref: str) -> None:
    with pytest.raises(ConfigError, match="is no branch, tag or commit"):
        git.check(GitSource("https://example.com/a", ref))


@pytest.mark.parametrize("path", ["../x", "a/../../x", "a:b"])
def test_paths_that_are_refused(path: str) -> None:
    with pytest.raises(ConfigError):
        git.check(GitSource("https://example.com/a", "main", path))


def test_addresses() -> None:
    assert git.place("git@github.com:org/repo.git") == git.Place("git@github.com:org/repo.git", "ssh", "github.com", 22)
    assert git.place("https://Example.com:8443/a").port == 8443
    assert git.place("http://example.com/a", insecure=True).port == 80
    assert git.place("http://[::1]:3000/a") == git.Place("http://[::1]:3000/a", "http", "::1", 3000)


async def test_ssh_wants_a_key_and_the_servers(tmp_path: Path) -> None:
    source = GitSource("ssh://git@127.0.0.1/a.git")
    with pytest.raises(ConfigError, match="needs a key: name a Secret with ssh-privatekey and known_hosts"):
        await fetch(source, tmp_path)
    if shutil.which("ssh") is None:
        pytest.skip("no ssh")
    with pytest.raises(ConfigError, match="has no key known_hosts, so nobody could tell who answers"):
        await fetch(source, tmp_path, secret(tmp_path, ssh_privatekey="key"))
