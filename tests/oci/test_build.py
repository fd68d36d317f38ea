"""Images built from real project folders, with real package managers."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path

import pytest

from quarterdeck.errors import ConfigError, UsageError
from quarterdeck.oci.build import build
from quarterdeck.oci.layout import Layout
from quarterdeck.oci.reference import Reference, parse


def names(store: Layout, digest: str) -> set[str]:
    with tarfile.open(store.blob_path(digest)) as tar:
        return set(tar.getnames())


@pytest.fixture
def project(tmp_path: Path) -> Path:
    folder = tmp_path / "project"
    (folder / "src").mkdir(parents=True)
    (folder / "src" / "main.py").write_text("import tomli_w\nprint(tomli_w.dumps({'a': 1}))\n")
    (folder / "pyproject.toml").write_text('[project]\nname = "p"\nversion = "1"\ndependencies = ["tomli-w==1.2.0"]\n')
    (folder / ".env").write_text("TOKEN=secret\n")
    (folder / "notes.txt").write_text("left out\n")
    (folder / ".dockerignore").write_text("# comment\nnotes.txt\n")
    return folder


def test_a_python_project_becomes_the_same_image_each_time(tmp_path: Path, project: Path) -> None:
    store = Layout(tmp_path / "images")
    first = build(project, parse("demo"), store, lambda line: None)
    second = build(project, parse("demo:latest"), store, lambda line: None)
    assert first.digest == second.digest
    assert first.dockerfile is not None and second.dockerfile is None
    image = store.find(parse("demo:latest"))
    assert image is not None and store.names() == ["demo:latest"]
    assert image.config["config"]["Cmd"] == ["python", "src/main.py"]
    dependencies, files = (names(store, layer["digest"]) for layer in image.layers)
    assert "app/.site-packages/tomli_w/__init__.py" in dependencies
    assert "app/src/main.py" in files
    assert not {"app/.env", "app/notes.txt", "app/Dockerfile"} & files


def test_a_dependency_that_does_not_exist_fails_with_the_resolver_s_words(tmp_path: Path, project: Path) -> None:
    (project / "pyproject.toml").write_text('[project]\nname = "p"\nversion = "1"\ndependencies = ["tomli-w==999"]\n')
    store = Layout(tmp_path / "images")
    with pytest.raises(ConfigError, match="tomli-w"):
        build(project, parse("demo"), store, lambda line: None)
    assert store.names() == []
    assert not list(store.root.glob(".build-*"))


def test_a_folder_that_is_no_project_says_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"pyproject\.toml"):
        build(tmp_path, parse("demo"), Layout(tmp_path / "images"), lambda line: None)
    with pytest.raises(ConfigError, match="is not a folder"):
        build(tmp_path / "nope", parse("demo"), Layout(tmp_path / "images"), lambda line: None)


def test_a_damaged_store_says_so(tmp_path: Path) -> None:
    store = Layout(tmp_path)
    store.put_image(parse("a"), {"config": {}}, [])
    (tmp_path / "index.json").write_text("{")
    with pytest.raises(ConfigError, match="not JSON"):
        store.find(parse("a"))
    (tmp_path / "index.json").write_text(
        json.dumps(
            {"manifests": [{"digest": "sha256:0", "annotations": {"org.opencontainers.image.ref.name": "a:latest"}}]}
        )
    )
    with pytest.raises(ConfigError, match="damaged"):
        store.find(parse("a"))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("datetime-server", Reference("", "datetime-server", "latest")),
        ("datetime-server:1.0", Reference("", "datetime-server", "1.0")),
        ("ghcr.io/astral-sh/uv:debian", Reference("ghcr.io", "astral-sh/uv", "debian")),
        ("localhost:5000/x:y", Reference("localhost:5000", "x", "y")),
        ("team/x", Reference("", "team/x", "latest")),
        (f"a@sha256:{'0' * 64}", Reference("", "a", "latest", f"sha256:{'0' * 64}")),
    ],
)
def test_references(text: str, expected: Reference) -> None:
    assert parse(text) == expected


@pytest.mark.parametrize("text", ["", "UPPER", "a:b:c", "a/", "a@sha256:zz", "x:" + "t" * 200, "../etc"])
def test_bad_references_are_usage_errors(text: str) -> None:
    with pytest.raises(UsageError, match="NAME:TAG"):
        parse(text)


def test_a_lock_with_hashes_is_what_gets_installed(tmp_path: Path, project: Path) -> None:
    (project / "requirements.lock").write_text(f"tomli-w==1.2.0 --hash=sha256:{'0' * 64}\n")
    with pytest.raises(ConfigError, match=r"[Hh]ash"):
        build(project, parse("demo"), Layout(tmp_path / "images"), lambda line: None)
