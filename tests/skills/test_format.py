from __future__ import annotations

import os
from pathlib import Path

import pytest

from quarterdeck.errors import ConfigError
from quarterdeck.skills import format as skills
from quarterdeck.skills.format import inside, read, split

from .conftest import skill_text, write_skill


def test_a_skill(tmp_path: Path) -> None:
    folder = write_skill(tmp_path / "pdf", "pdf", scripts__fill_py="print(1)", references__forms_md="# Forms")
    (folder / "SKILL.md").write_text(
        "---\nname: pdf\ndescription: >\n  Fills forms.\n  Use it for PDFs.\nlicense: MIT\n"
        'compatibility: needs python\nmetadata: {author: me, version: "1"}\n'
        "allowed-tools: read_file run_skill_script\nunknown: kept out\n---\nBody.\n"
    )
    skill = read(folder, "here")
    assert (skill.name, skill.description, skill.body) == ("pdf", "Fills forms. Use it for PDFs.", "Body.\n")
    assert (skill.license, skill.compatibility) == ("MIT", "needs python")
    assert skill.allowed_tools == ("read_file", "run_skill_script")
    assert skill.scripts == ("scripts/fill.py",)
    assert [path for path, _ in skill.files] == ["SKILL.md", "references/forms.md", "scripts/fill.py"]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("# No front matter", "here/SKILL.md: line 1: begin the file with front matter"),
        ("", "line 1: begin the file"),
        ("---\nname: a\n", "has no end: put a line --- after it"),
        ("---\nname: a: b\n---\n", "here/SKILL.md: line 2: the front matter is not YAML"),
        ("---\n- a\n---\n", "must be a YAML mapping"),
        ("---\ndescription: d\n---\n", "front matter: name is missing"),
        ("---\nname: a\n---\n", "front matter: description is missing"),
        ("---\nname: a\ndescription: ''\n---\n", "description is missing or no text"),
        ("---\nname: a\ndescription: 7\n---\n", "description is missing or no text"),
        (f"---\nname: a\ndescription: {'x' * 1025}\n---\n", "description has 1025 characters, 1024 are the most"),
        (f"---\nname: {'a' * 65}\ndescription: d\n---\n", "name has 65 characters, 64 are the most"),
        (f"---\nname: a\ndescription: d\ncompatibility: {'x' * 501}\n---\n", "compatibility has 501 characters"),
        ("---\nname: a\ndescription: d\nmetadata: x\n---\n", "metadata must be a mapping"),
        ("---\nname: a\ndescription: d\nallowed-tools: {a: b}\n---\n", "allowed-tools must be tool names"),
        (f"---\nname: a\nx: {'y' * 20000}\n---\n", "the front matter is larger than"),
        *(
            (f"---\nname: {name!r}\ndescription: d\n---\n", "is no skill name: use lower-case letters")
            for name in ("PDF", "-pdf", "pdf-", "pdf--x", "pdf_x", "../pdf", "pdf/x", "a b")
        ),
    ],
)
def test_what_is_wrong_with_a_front_matter_is_said(tmp_path: Path, text: str, told: str) -> None:
    (tmp_path / "SKILL.md").write_text(text)
    with pytest.raises(ConfigError) as failure:
        read(tmp_path, "here")
    assert told in str(failure.value)


def test_windows_files_are_read() -> None:
    assert split("\ufeff---\r\nname: a\r\n---\r\nx\r\n", "here") == ({"name": "a"}, "x\n")


def test_a_folder_without_the_file_is_no_skill(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"there is no SKILL.md; a skill is a folder with that file"):
        read(tmp_path, "here")


def test_a_file_that_is_no_text(tmp_path: Path) -> None:
    (tmp_path / "SKILL.md").write_bytes(b"---\nname: \xff\n")
    with pytest.raises(ConfigError, match="not UTF-8 at byte 10"):
        read(tmp_path, "here")


def test_links_and_pipes_are_refused(tmp_path: Path) -> None:
    folder = write_skill(tmp_path / "a", "a")
    (folder / "x").symlink_to("/etc/passwd")
    with pytest.raises(ConfigError, match="here/x: neither a file nor a folder"):
        read(folder, "here")
    (folder / "x").unlink()
    os.mkfifo(folder / "p")
    with pytest.raises(ConfigError, match="here/p: neither a file nor a folder"):
        read(folder, "here")


def test_bounds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_skill(tmp_path / "a", "a", one="x" * 100, two="x" * 100)
    monkeypatch.setattr(skills, "MOST_BYTES", 250)
    with pytest.raises(ConfigError, match="here: more than 250 bytes"):
        read(folder, "here")
    monkeypatch.setattr(skills, "MOST_FILES", 2)
    with pytest.raises(ConfigError, match="here: more than 2 files"):
        read(folder, "here")
    monkeypatch.setattr(skills, "FILE_BYTES", 99)
    with pytest.raises(ConfigError, match="here/one: 100 bytes, 99 are the most; leave it out"):
        read(folder, "here")
    (folder / "SKILL.md").write_text(skill_text("a") + "x" * skills.SKILL_BYTES)
    with pytest.raises(ConfigError, match=r"here/SKILL.md: .* move details into files below references/"):
        read(folder, "here")


@pytest.mark.parametrize(
    "path", ["../x", "/etc/passwd", "a/../../x", "a/\x1b[31m", "a\\b", "x" * 300, "/".join("a" * 11)]
)
def test_paths_that_are_refused(path: str) -> None:
    with pytest.raises(ConfigError):
        inside(path, "here")


def test_paths_in_their_plain_form() -> None:
    assert inside("./a//b/", "here") == "a/b"
