from __future__ import annotations

import contextlib
import gzip
import io
import tarfile
import tempfile
import zipfile
from pathlib import Path
from typing import IO

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quarterdeck.errors import ConfigError
from quarterdeck.skills import unpack
from quarterdeck.skills.unpack import Target, tar, tree, zip_file

from .conftest import write_skill

DIRECTORY, LINK, HARD, DEVICE = tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE


def tarred(*members: tuple[str, str | bytes, str], packed: bool = False) -> IO[bytes]:
    """Members as (name, text or kind, link target or mode)."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name, what, extra in members:
            info = tarfile.TarInfo(name)
            if isinstance(what, bytes):
                info.type, info.linkname = what, extra
                archive.addfile(info)
            else:
                info.size, info.mode = len(what), int(extra or "644", 8)
                archive.addfile(info, io.BytesIO(what.encode()))
    return io.BytesIO(gzip.compress(out.getvalue()) if packed else out.getvalue())


def target(tmp_path: Path) -> Target:
    return Target(tmp_path / "out", "src")


@pytest.mark.parametrize("packed", [False, True])
def test_files_folders_and_links_within(tmp_path: Path, packed: bool) -> None:
    stream = tarred(
        ("./SKILL.md", "text", ""), ("scripts", DIRECTORY, ""), ("scripts/run.sh", "#!/bin/sh", "755"),
        ("scripts/again.sh", LINK, "run.sh"), ("scripts/hard.sh", HARD, "scripts/run.sh"),
        ("readme", LINK, "scripts/../SKILL.md"), ("twice", LINK, "readme"), ("/abs/file", "x", ""), packed=packed,
    )  # fmt: skip
    tar(stream, target(tmp_path))
    out = tmp_path / "out"
    assert (out / "readme").read_text() == (out / "twice").read_text() == "text"
    assert not any(path.is_symlink() for path in out.rglob("*"))
    assert (out / "scripts/again.sh").stat().st_mode & 0o777 == 0o755
    assert (out / "SKILL.md").stat().st_mode & 0o777 == 0o644
    assert (out / "abs/file").read_text() == "x"


@pytest.mark.parametrize(
    ("member", "told"),
    [
        (("../evil", "x", ""), "'../evil' leads out of the skill's folder"),
        (("a/../../evil", "x", ""), "leads out of the skill's folder"),
        (("a", LINK, "/etc/passwd"), "src/a: a link to /etc/passwd, out of the skill's folder"),
        (("a", LINK, "../../etc/passwd"), "src/a: a link to ../../etc/passwd, out of"),
        (("a", HARD, "../x"), "src/a: a link to ../x, out of"),
        (("a", LINK, "nowhere"), "src/a: a link to nowhere, which is no file of the skill"),
        (("a", LINK, "a"), "which is no file of the skill"),
        (("a", DEVICE, ""), "src/a: a device or pipe"),
    ],
)
def test_what_leads_out_is_refused(tmp_path: Path, member: tuple[str, str | bytes, str], told: str) -> None:
    with pytest.raises(ConfigError) as failure:
        tar(tarred(member), target(tmp_path))
    assert told in str(failure.value)
    assert not (tmp_path / "evil").exists()


def test_a_link_cannot_be_written_through(tmp_path: Path) -> None:
    """The classic: a link to a folder outside, and then a file below it."""
    (tmp_path / "outside").mkdir()
    with pytest.raises(ConfigError):
        tar(tarred(("d", LINK, "../outside"), ("d/evil", "x", "")), target(tmp_path))
    tar(tarred(("e", LINK, "sub"), ("e/file", "x", ""), ("sub", "y", "")), Target(tmp_path / "in", "src"))
    assert list((tmp_path / "outside").iterdir()) == []


def test_damaged_archives_are_said_to_be(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="src: not a tar file, or a damaged one"):
        tar(io.BytesIO(b"x" * 2000), target(tmp_path))
    packed = tarred(("a", "x" * 5000, ""), packed=True).read()
    with pytest.raises(ConfigError, match="not a tar file, or a damaged one"):
        tar(io.BytesIO(packed[: len(packed) // 2]), target(tmp_path))
    with pytest.raises(ConfigError, match="src: not a zip file"):
        zip_file(io.BytesIO(b"PK no"), target(tmp_path))
    for method in (zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA):
        out = io.BytesIO()
        with zipfile.ZipFile(out, "w", method) as archive:
            archive.writestr("a", bytes(range(256)) * 50)
        damaged = bytearray(out.getvalue())
        damaged[45:75] = b"\xff" * 30
        with pytest.raises(ConfigError, match="src: not a zip file that can be read"):
            zip_file(io.BytesIO(damaged), target(tmp_path))


def test_a_bomb_is_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unpack, "STREAM_BYTES", 1 << 20)
    bomb = tarred(("a", "x" * (2 << 20), ""), packed=True)
    with pytest.raises(ConfigError, match="src: more than 1048576 bytes"):
        tar(bomb, target(tmp_path))
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a", "x" * (2 << 20))
    with pytest.raises(ConfigError, match="more than 1048576 bytes"):
        zip_file(out, Target(tmp_path / "zip", "src"))
    monkeypatch.setattr(unpack, "_FILES", 3)
    with pytest.raises(ConfigError, match="more than 3 files"):
        tar(tarred(*((str(n), "x", "") for n in range(5))), Target(tmp_path / "many", "src"))
    with pytest.raises(ConfigError, match="more than 3 files"):
        tar(tarred(*((str(n), DIRECTORY, "") for n in range(5))), Target(tmp_path / "folders", "src"))


def test_layers_take_files_away(tmp_path: Path) -> None:
    out = target(tmp_path)
    tar(tarred(("a/one", "1", ""), ("a/two", "2", ""), ("b/x", "x", "")), out, whiteouts=True)
    tar(tarred(("a/.wh.one", "", ""), ("b/.wh..wh..opq", "", ""), ("b/y", "y", "")), out, whiteouts=True)
    assert sorted(p.relative_to(out.root).as_posix() for p in out.root.rglob("*") if p.is_file()) == ["a/two", "b/y"]


def test_zip(tmp_path: Path) -> None:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("SKILL.md", "text")
        script = zipfile.ZipInfo("scripts/run.sh")
        script.external_attr = 0o100755 << 16
        archive.writestr(script, "x")
    zip_file(out, target(tmp_path))
    assert (tmp_path / "out/scripts/run.sh").stat().st_mode & 0o777 == 0o755
    with zipfile.ZipFile(out, "a") as archive:
        link = zipfile.ZipInfo("link")
        link.external_attr = 0o120777 << 16
        archive.writestr(link, "/etc/passwd")
    with pytest.raises(ConfigError, match="src/link: a link or device"):
        zip_file(out, Target(tmp_path / "again", "src"))


def test_a_folder_with_links(tmp_path: Path) -> None:
    folder = write_skill(tmp_path / "a", "a", scripts__run_py="print(1)")
    (folder / "link.py").symlink_to("scripts/run.py")
    tree(folder, Target(tmp_path / "good", "src"))
    assert (tmp_path / "good/link.py").read_text() == "print(1)"
    (folder / "etc").symlink_to("/etc")
    with pytest.raises(ConfigError, match="src/etc: a link to /etc, out of"):
        tree(folder, Target(tmp_path / "bad", "src"))


NAMES = st.text(alphabet="a/.b\\", min_size=1, max_size=12)
MEMBERS = st.lists(
    st.one_of(
        st.tuples(NAMES, st.just("x"), st.just("")), st.tuples(NAMES, st.sampled_from([LINK, HARD]), NAMES),
        st.tuples(NAMES, st.just(DIRECTORY), st.just("")),
    ),
    max_size=6,
)  # fmt: skip


@settings(max_examples=150, deadline=None)
@given(MEMBERS, st.booleans())
def test_no_archive_writes_or_points_outside(members: list[tuple[str, str | bytes, str]], whiteouts: bool) -> None:
    with tempfile.TemporaryDirectory() as base:
        root = Path(base) / "a" / "b" / "out"
        with contextlib.suppress(ConfigError):
            tar(tarred(*members), Target(root, "src"), whiteouts=whiteouts)
        assert [path.name for path in Path(base).iterdir()] == ["a"]
        assert [path.name for path in (Path(base) / "a/b").iterdir()] == ["out"]
        assert not any(path.is_symlink() for path in root.rglob("*"))
