"""The init container's program: several sources into one folder, and what it says at its end."""

from __future__ import annotations

import os
import socket
import threading
from pathlib import Path

import msgspec
import pytest
from aiohttp import web

from quarterdeck.errors import ConfigError
from quarterdeck.skills import fetch as fetching
from quarterdeck.skills.__main__ import MESSAGE_BYTES, main, shortened
from quarterdeck.skills.fetch import Mounts, fetch
from quarterdeck.skills.report import Loaded, Report
from quarterdeck.skills.sources import ConfigMapSource, GitSource, S3Source, Sources

from .conftest import served, skill_text, write_skill


def config_map(root: Path, folder: str, files: dict[str, str]) -> None:
    """A ConfigMap as a kubelet mounts it: a link to a dated folder, and a link to each top-level name in it."""
    dated = root / folder / "..2026"
    for name, text in files.items():
        path = dated / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (root / folder / "..data").symlink_to("..2026")
    for name in {name.partition("/")[0] for name in files}:
        (root / folder / name).symlink_to(f"..data/{name}")


def mounts(tmp_path: Path) -> Mounts:
    (tmp_path / "to").mkdir(exist_ok=True)
    return Mounts(tuple(tmp_path / "maps" / str(number) for number in range(4)))


async def test_config_maps(tmp_path: Path) -> None:
    config_map(tmp_path / "maps", "0", {"SKILL.md": skill_text("pdf"), "scripts/run.py": "print(1)"})
    config_map(tmp_path / "maps", "1", {"SKILL.md": skill_text("csv")})
    where = mounts(tmp_path)
    (tmp_path / "to/left/over").mkdir(parents=True)
    sources = Sources((ConfigMapSource("one", 0), ConfigMapSource("two", 1)))
    loaded = await fetch(sources, where, tmp_path / "to")
    assert loaded == [Loaded("pdf", "ConfigMap one", "", 1), Loaded("csv", "ConfigMap two")]
    found = sorted(
        path.relative_to(tmp_path / "to").as_posix() for path in (tmp_path / "to").rglob("*") if path.is_file()
    )
    assert found == ["csv/SKILL.md", "pdf/SKILL.md", "pdf/scripts/run.py"]
    assert not any(path.is_symlink() for path in (tmp_path / "to").rglob("*"))


async def test_every_problem_is_told_at_once(tmp_path: Path) -> None:
    config_map(tmp_path / "maps", "0", {"SKILL.md": skill_text("pdf")})
    config_map(tmp_path / "maps", "1", {"SKILL.md": "no front matter"})
    config_map(tmp_path / "maps", "2", {"SKILL.md": skill_text("pdf")})
    config_map(tmp_path / "maps", "3", {"readme": "x"})
    sources = Sources(tuple(ConfigMapSource(f"m{n}", n) for n in range(4)))
    with pytest.raises(ConfigError) as failure:
        await fetch(sources, mounts(tmp_path), tmp_path / "to")
    said = str(failure.value)
    assert "ConfigMap m1/SKILL.md: line 1" in said
    assert "ConfigMap m2: skill 'pdf' is also in ConfigMap m0; leave one out or rename it" in said
    assert "ConfigMap m3: no SKILL.md there" in said


async def test_a_folder_of_skills(tmp_path: Path) -> None:
    """As in a repository that holds nothing but skills."""
    for name in ("one", "two"):
        write_skill(tmp_path / "fetched" / name, name)
    (tmp_path / "fetched/docs").mkdir()
    (tmp_path / "to").mkdir()
    loaded: dict[str, Loaded] = {}
    source = GitSource("https://example.com/skills", folder="unused")
    fetching.install(source, tmp_path / "fetched", "abc", tmp_path / "to", loaded)
    assert [(skill.name, skill.revision) for skill in loaded.values()] == [("one", "abc"), ("two", "abc")]
    (tmp_path / "fetched/two").rename(tmp_path / "fetched/other")
    with pytest.raises(ConfigError, match="name is 'two', the folder 'other'; give both the same name"):
        fetching.install(source, tmp_path / "fetched", "", tmp_path / "new", {})


async def test_all_skills_together_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(2):
        config_map(tmp_path / "maps", str(number), {"SKILL.md": skill_text(f"s{number}"), "data": "x" * 600})
    monkeypatch.setattr(fetching, "ALL_BYTES", 1000)
    sources = Sources(tuple(ConfigMapSource(f"m{n}", n) for n in range(2)))
    with pytest.raises(ConfigError, match="ConfigMap m1: all skills together have more than 1000 bytes"):
        await fetch(sources, mounts(tmp_path), tmp_path / "to")


async def test_a_server_that_never_ends_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def answer(request: web.Request) -> web.Response:  # each page names a next one
        return web.Response(
            text="<ListBucketResult><IsTruncated>true</IsTruncated><NextContinuationToken>x</NextContinuationToken>"
            "</ListBucketResult>"
        )

    monkeypatch.setattr(fetching, "_SECONDS", 0.2)
    async with served(answer) as url:
        with pytest.raises(ConfigError, match=r"s3://bucket/a: not fetched within 0\.2 s"):
            await fetch(Sources((S3Source("s3://bucket/a", endpoint=url),)), mounts(tmp_path), tmp_path / "to")


async def test_the_folder_may_have_another_name(tmp_path: Path) -> None:
    (tmp_path / "to").mkdir()
    for number, name in enumerate(("chosen", "../evil", ".git")):
        write_skill(tmp_path / str(number), f"pdf{number}")
        source = GitSource("https://example.com/skills", folder=name)
        if number:
            with pytest.raises(ConfigError, match="is taken or none"):
                fetching.install(source, tmp_path / str(number), "", tmp_path / "to", {})
        else:
            fetching.install(source, tmp_path / str(number), "", tmp_path / "to", {})
    assert [path.name for path in (tmp_path / "to").iterdir()] == ["chosen"]


def program(tmp_path: Path, sources: Sources | bytes) -> tuple[int, str]:
    mounts(tmp_path)
    data = sources if isinstance(sources, bytes) else msgspec.json.encode(sources)
    (tmp_path / "skills.json").write_bytes(data)
    code = main(
        ["--sources", str(tmp_path / "skills.json"), "--to", str(tmp_path / "to"), "--config-map",
         str(tmp_path / "maps/0"), "--config-map", str(tmp_path / "maps/1"), "--secret", f"git={tmp_path / 'git'}",
         "--report", str(tmp_path / "report")]
    )  # fmt: skip
    return code, (tmp_path / "report").read_text() if (tmp_path / "report").exists() else ""


def test_what_it_says_at_its_end(tmp_path: Path) -> None:
    config_map(tmp_path / "maps", "0", {"SKILL.md": skill_text("pdf"), "scripts/run.py": "print(1)"})
    code, said = program(tmp_path, Sources((ConfigMapSource("one", 0),)))
    report = msgspec.json.decode(said, type=Report)
    assert (code, report.skills) == (0, (Loaded("pdf", "ConfigMap one", "", 1),))
    config_map(tmp_path / "maps", "1", {"SKILL.md": "x"})
    code, said = program(tmp_path, Sources((ConfigMapSource("two", 1),)))
    assert code == 1
    assert said.startswith("ConfigMap two/SKILL.md: line 1")
    assert program(tmp_path, b"[]")[0] == 1


def test_what_a_server_says_cannot_steer_a_terminal(tmp_path: Path) -> None:
    def serve(listener: socket.socket) -> None:
        connection, _ = listener.accept()
        with connection:
            connection.recv(4096)
            connection.sendall(b"HTTP/1.1 404 Not Found\r\nContent-Length: 8\r\n\r\n\x1b[2Jgone")

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve, args=(listener,), daemon=True)
        thread.start()
        endpoint = f"http://127.0.0.1:{listener.getsockname()[1]}"
        code, said = program(tmp_path, Sources((S3Source("s3://bucket/a.zip", endpoint=endpoint),)))
        thread.join()
    assert code == 1
    assert "HTTP 404  [2Jgone" in said
    assert said.isprintable()


def test_secrets_are_found_by_their_names(tmp_path: Path) -> None:
    (tmp_path / "git").mkdir()
    (tmp_path / "git/token").write_text("t")
    (tmp_path / "git/username").write_text("no user name")
    code, said = program(tmp_path, Sources((GitSource("https://127.0.0.1:9/a"),)))
    assert (code, said) == (1, "skills.gitAuthSecretRef: key username holds what is no user name")


def test_a_report_fits_into_a_termination_message() -> None:
    many = Report(tuple(Loaded(f"skill-{n}", "https://example.com/" + "x" * 80, "0" * 40, 1) for n in range(64)), "why")
    data = shortened(many)
    assert len(data) <= MESSAGE_BYTES
    short = msgspec.json.decode(data, type=Report)
    assert [skill.name for skill in short.skills] == [f"skill-{n}" for n in range(64)]
    assert short.sandbox == "why"


def test_a_report_that_cannot_be_written_fails_nothing(tmp_path: Path) -> None:
    config_map(tmp_path / "maps", "0", {"SKILL.md": skill_text("pdf")})
    os.mkdir(tmp_path / "report.d")
    mounts(tmp_path)
    (tmp_path / "skills.json").write_bytes(msgspec.json.encode(Sources((ConfigMapSource("one", 0),))))
    words = ["--sources", str(tmp_path / "skills.json"), "--to", str(tmp_path / "to"), "--config-map",
             str(tmp_path / "maps/0"), "--report", str(tmp_path / "report.d")]  # fmt: skip
    assert main(words) == 0
