"""Skills from git, by the git binary: one commit, no working tree, no prompts, hooks, filters or submodules.

The tree is read with ``git archive``, so nothing of the repository is ever executed or checked out. Credentials are in
files that only a helper of ours reads: never in arguments, variables or the repository's configuration.
"""

from __future__ import annotations

import asyncio
import os
import re
import resource
import shlex
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from quarterdeck.errors import ConfigError, TimedOut, UpstreamError
from quarterdeck.processes import first_bytes

from . import unpack
from .format import inside
from .sources import GitSource

_SECONDS = 180.0
_PACK_BYTES = 192 << 20
"""The largest file git may write: the init container's /tmp holds 2 GiB, and four sources are fetched at once."""
_COMMIT = re.compile(r"[0-9a-fA-F]{40}|[0-9a-fA-F]{64}")
_REF = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_./+@-]*")
_SCP = re.compile(r"(?:(?P<user>[A-Za-z0-9_][A-Za-z0-9_.-]*)@)?(?P<host>[A-Za-z0-9][A-Za-z0-9.-]*):(?P<path>[^:].*)")
_HOST = re.compile(r"[\w:][\w.:-]*")
"""Of a URL: ssh puts it into the command line of its proxy, which a shell reads."""
_SAID_BYTES = 8192
_REFUSED = "; the Pod's way out refused it: public addresses only, and what NetworkPolicies let it dial"
_TOKEN, _KEY, _KNOWN_HOSTS, _USER = "token", "ssh-privatekey", "known_hosts", "username"


@dataclass(frozen=True, slots=True)
class Place:
    """A repository's address. ``scheme`` is https, ssh, or where allowed http or git."""

    url: str
    scheme: str
    host: str
    port: int


def place(url: str, *, insecure: bool = False) -> Place:
    """Raises ConfigError for an address that is not fetched from."""
    scp = _SCP.fullmatch(url) if "://" not in url else None
    if scp is not None:
        return Place(url, "ssh", scp["host"].lower(), 22)
    try:
        parts = urlsplit(url)
        host, port = (parts.hostname or "").lower(), parts.port
    except ValueError as error:
        raise ConfigError(f"skills.gitRefs: {url!r} is not a URL: {error}") from error
    if parts.password or (parts.username and parts.scheme != "ssh"):
        raise ConfigError(
            f"skills.gitRefs: the URL for {host} has a user or password in it; put them into a Secret and name it in "
            "skills.gitAuthSecretRef"
        )
    plain = insecure or host == "localhost" or host.startswith("127.") or host == "::1"
    allowed = ("https", "ssh", "http", "git") if plain else ("https", "ssh")
    if parts.scheme not in allowed or not _HOST.fullmatch(host) or "\n" in url:
        raise ConfigError(
            f"skills.gitRefs: {url!r}: skills are fetched over https:// or ssh:// (git@HOST:PATH), which say who the "
            "server is; http:// and git:// only from this machine, or with insecureSkipVerify"
        )
    return Place(url, parts.scheme, host, port or {"https": 443, "ssh": 22, "http": 80, "git": 9418}[parts.scheme])


def check(source: GitSource, *, insecure: bool = False) -> Place:
    """The address of a source whose ref and path are sound, too. Raises ConfigError."""
    found = place(source.url, insecure=insecure)
    if not _REF.fullmatch(source.ref) or ".." in source.ref:
        raise ConfigError(f"skills.gitRefs: {source.url}: {source.ref!r} is no branch, tag or commit")
    inside(source.path.strip("/") or ".", f"skills.gitRefs: {source.url}")
    if ":" in source.path:
        raise ConfigError(f"skills.gitRefs: {source.url}: path {source.path!r} must not contain a colon")
    return found


async def fetch(source: GitSource, target: unpack.Target, secret: Path, work: Path, *, insecure: bool = False) -> str:
    """Put the source's tree into ``target``; returns the commit. ``secret``: the mounted ``gitAuthSecretRef``.

    Raises ConfigError, UpstreamError, TimedOut.
    """
    where = check(source, insecure=insecure)
    program = shutil.which("git")
    if program is None:
        raise ConfigError("skills.gitRefs: there is no git here; install git on this machine, or use another source")
    git = _Git(program, work, where, _environment(where, secret, work, insecure=insecure))
    await git.run("init", "--quiet", "--bare", str(git.repository))
    (git.repository / "info").mkdir(exist_ok=True)
    (git.repository / "info" / "attributes").write_text("* -export-ignore -export-subst\n")  # all of it, as it is
    try:
        await git.run(*git.fetching, where.url, source.ref)
    except UpstreamError:
        if not _COMMIT.fullmatch(source.ref):
            raise
        # a server that gives no commits by name: all branches and tags, and the commit out of them
        heads = ("+refs/heads/*:refs/heads/*", "+refs/tags/*:refs/tags/*")
        await git.run(*(word for word in git.fetching if not word.startswith("--depth")), where.url, *heads)
    wanted = source.ref if _COMMIT.fullmatch(source.ref) else "FETCH_HEAD"
    commit = (await git.run("rev-parse", "--verify", "--quiet", "--end-of-options", f"{wanted}^{{commit}}")).strip()
    path = source.path.strip("/")
    archive = work / "tree.tar"
    try:
        await git.run("archive", "--format=tar", f"--output={archive}", f"{commit}:{path}" if path else commit)
    except UpstreamError as error:
        raise ConfigError(f"skills.gitRefs: {source.url}@{source.ref} has no folder {path!r}: {error}") from error
    with archive.open("rb") as stream:
        unpack.tar(stream, target)
    return commit


@dataclass(frozen=True, slots=True)
class _Git:
    program: str
    work: Path
    where: Place
    environment: Mapping[str, str]

    @property
    def repository(self) -> Path:
        return self.work / "repository.git"

    @property
    def fetching(self) -> tuple[str, ...]:
        return ("fetch", "--quiet", "--depth=1", "--no-tags", "--no-recurse-submodules", "--no-auto-maintenance")

    async def run(self, *words: str) -> str:
        """Standard output. Raises UpstreamError with what git says, TimedOut."""
        inside_it = ("-C", str(self.repository)) if self.repository.exists() else ()
        process = await asyncio.create_subprocess_exec(
            self.program, "-c", "core.hooksPath=/dev/null", "-c", "core.fsmonitor=false", "-c", "gc.auto=0",
            *_credential(self.where, self.work), *inside_it, *words,
            stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
            env=dict(self.environment), start_new_session=True, preexec_fn=_limit,
        )  # fmt: skip
        try:
            async with asyncio.timeout(_SECONDS):
                assert process.stdout is not None and process.stderr is not None
                (out, _), (problem, _) = await asyncio.gather(
                    first_bytes(process.stdout, _SAID_BYTES), first_bytes(process.stderr, _SAID_BYTES)
                )
                await process.wait()
        except TimeoutError:
            raise TimedOut(f"{self.where.url}: git {words[0]} took longer than {_SECONDS:g} s") from None
        finally:
            if process.returncode is None:
                os.killpg(process.pid, 9)
                await process.wait()
        if process.returncode != 0:
            said = " ".join(problem.decode("utf-8", "replace").split())[:500]
            hint = _REFUSED if "CONNECT tunnel failed, response 403" in said else ""
            raise UpstreamError(f"{self.where.url}: git {words[0]}: {said or f'exit code {process.returncode}'}{hint}")
        return out.decode("utf-8", "replace")


def _limit() -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (_PACK_BYTES, _PACK_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _environment(where: Place, secret: Path, work: Path, *, insecure: bool) -> dict[str, str]:
    """What git runs with: of ours only the search path, proxies and certificates."""
    kept = ("PATH", "SSL_CERT_FILE", "SSL_CERT_DIR", "GIT_SSL_CAINFO", "GIT_SSL_CAPATH", "HTTPS_PROXY", "https_proxy",
            "HTTP_PROXY", "http_proxy", "NO_PROXY", "no_proxy")  # fmt: skip
    env = {name: os.environ[name] for name in kept if name in os.environ}
    env |= {
        "HOME": str(work), "LC_ALL": "C.UTF-8", "GIT_TERMINAL_PROMPT": "0", "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_GLOBAL": os.devnull, "GIT_ASKPASS": "/bin/false", "SSH_ASKPASS": "/bin/false",
        "GIT_ALLOW_PROTOCOL": where.scheme, "GIT_LFS_SKIP_SMUDGE": "1", "GIT_NO_LAZY_FETCH": "1",
    }  # fmt: skip
    if insecure:
        env["GIT_SSL_NO_VERIFY"] = "true"
    if where.scheme == "ssh":
        env["GIT_SSH_COMMAND"] = _ssh(where, secret, work, env, insecure=insecure)
        env["GIT_SSH_VARIANT"] = "ssh"
    token = secret / _TOKEN
    if token.is_file() and where.scheme in ("https", "http"):
        _write_helper(work, token, secret / _USER)
    return env


def _helper(work: Path) -> Path:
    return work / "credential"


def _credential(where: Place, work: Path) -> tuple[str, ...]:
    """No helper of the machine; ours for this very host, so that no redirect gets the token."""
    words = ("-c", "credential.helper=")
    if not _helper(work).exists():
        return words
    port = f":{where.port}" if where.port not in (443, 80) else ""
    return (*words, "-c", f"credential.{where.scheme}://{where.host}{port}.helper=!{shlex.quote(str(_helper(work)))}")


def _write_helper(work: Path, token: Path, user: Path) -> None:
    """gitcredentials(7): a program that prints them when asked to ``get``."""
    name = user.read_text().strip() if user.is_file() else "x-access-token"
    if not re.fullmatch(r"[\w.@+-]+", name):
        raise ConfigError(f"skills.gitAuthSecretRef: key {_USER} holds what is no user name")
    helper = _helper(work)
    helper.write_text(
        f"#!/bin/sh\n[ \"$1\" = get ] || exit 0\necho 'username={name}'\n"
        f"printf 'password=%s\\n' \"$(cat {shlex.quote(str(token))})\"\n"
    )
    helper.chmod(0o700)


def _ssh(where: Place, secret: Path, work: Path, env: Mapping[str, str], *, insecure: bool) -> str:
    """The ssh command line. Raises ConfigError without a key, or without the server's."""
    given = secret / _KEY
    if not given.is_file():
        raise ConfigError(
            f"skills.gitRefs: {where.url} needs a key: name a Secret with {_KEY} and {_KNOWN_HOSTS} in "
            "skills.gitAuthSecretRef"
        )
    if shutil.which("ssh") is None:
        raise ConfigError(f"skills.gitRefs: {where.url}: there is no ssh here; install it, or use https")
    key = work / "key"
    key.touch(0o600)
    key.write_text(given.read_text().rstrip("\n") + "\n")
    hosts = secret / _KNOWN_HOSTS
    if not hosts.is_file() and not insecure:
        raise ConfigError(
            f"skills.gitRefs: {where.url}: the Secret of skills.gitAuthSecretRef has no key {_KNOWN_HOSTS}, so nobody "
            f"could tell who answers; put the output of `ssh-keyscan {where.host}` there after comparing it"
        )
    words = ["ssh", "-F", "/dev/null", "-i", str(key)]
    check_host = "yes" if hosts.is_file() else "accept-new"
    for option in ("IdentitiesOnly=yes", "BatchMode=yes", "PasswordAuthentication=no", "ForwardAgent=no",
                   "ConnectTimeout=30", f"StrictHostKeyChecking={check_host}", "GlobalKnownHostsFile=/dev/null",
                   f'UserKnownHostsFile="{hosts if hosts.is_file() else work / "known_hosts"}"'):  # fmt: skip
        words += ["-o", option]
    proxy = env.get("HTTPS_PROXY") or env.get("https_proxy") or ""
    if proxy:
        tunnel = shlex.join([sys.executable, "-m", "quarterdeck.skills.tunnel", proxy])
        words += ["-o", f"ProxyCommand={tunnel} %h %p"]
    return shlex.join(words)
