"""Images: extraction of hostile and ordinary layers, uvx and npx command lines, real packages."""

from __future__ import annotations

import asyncio
import io
import subprocess
import tarfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quarterdeck.node.images.oci import LocalImages, apply_layer
from quarterdeck.node.images.packages import Package, PackageCache, parse
from quarterdeck.node.images.spec import ImageNotRunnable
from quarterdeck.node.images.store import ImageStore, repository
from quarterdeck.oci.layout import LAYER, Layout
from quarterdeck.oci.reference import parse as reference
from quarterdeck.resources.images import OWN_REPOSITORY, own_image

Entry = tuple[str, str, bytes]
"""(path, "file" | "dir" | "link:target" | "hard:target", content)"""


_TYPES = {"file": tarfile.REGTYPE, "dir": tarfile.DIRTYPE, "link": tarfile.SYMTYPE, "hard": tarfile.LNKTYPE}


def layer(path: Path, *entries: Entry) -> Path:
    with tarfile.open(path, "w:gz") as tar:
        for name, kind, content in entries:
            info = tarfile.TarInfo(name)
            what, _, target = kind.partition(":")
            info.type = _TYPES[what]
            info.linkname, info.mode = target, 0o755
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


def tree(root: Path) -> dict[str, str]:
    return {str(p.relative_to(root)): p.read_text() for p in sorted(root.rglob("*")) if p.is_file()}


def test_layers_stack_and_whiteouts_delete(tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    apply_layer(layer(tmp_path / "1", ("a/x", "file", b"1"), ("a/y", "file", b"1"), ("b/z", "file", b"1")), root)
    second = (("a/.wh.x", "file", b""), ("b/.wh..wh..opq", "file", b""), ("b/n", "file", b"2"), ("h", "hard:a/y", b""))
    apply_layer(layer(tmp_path / "2", *second), root)
    assert tree(root) == {"a/y": "1", "b/n": "2", "h": "1"}


@pytest.mark.parametrize(
    "entries",
    [
        [("../evil", "file", b"x")],
        [("/evil", "file", b"x")],
        [("a/../../evil", "file", b"x")],
        [("out", "link:..", b""), ("out/evil", "file", b"x")],
        [("out", "link:../..", b""), ("out/evil", "file", b"x")],
        [("evil", "hard:../outside", b"")],
    ],
)
def test_nothing_lands_outside(tmp_path: Path, entries: list[Entry]) -> None:
    (tmp_path / "outside").write_text("mine")
    root = tmp_path / "deep" / "root"
    root.mkdir(parents=True)
    with pytest.raises((ImageNotRunnable, FileNotFoundError)):
        apply_layer(layer(tmp_path / "l", *entries), root)
    assert not [p for p in tmp_path.rglob("evil") if not p.is_relative_to(root)]


def test_absolute_symlinks_stay_inside(tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    entries = (("real", "dir", b""), ("abs", "link:/real", b""), ("abs/f", "file", b"in"))
    apply_layer(layer(tmp_path / "l", *entries), root)
    assert (root / "real" / "f").read_text() == "in"


def store(tmp_path: Path, config: dict[str, object]) -> tuple[LocalImages, Path]:
    layout = Layout(tmp_path / "images")
    descriptor = layout.put_file(layer(tmp_path / "l.tgz", ("app/main.py", "file", b"print(1)")), LAYER)
    layout.put_image(reference("demo:latest"), {"config": config}, [descriptor])
    return LocalImages(tmp_path / "images", tmp_path / "extracted"), layout.blob_path(descriptor["digest"])


def test_image_is_extracted_once_by_digest(tmp_path: Path) -> None:
    local, blob = store(tmp_path, {"Env": ["A=b"], "WorkingDir": "/app", "Cmd": ["python", "main.py"]})
    found = local.find("demo")
    assert found is not None
    spec = local.load(found)
    assert spec.root is not None
    assert (spec.root / "app" / "main.py").read_text() == "print(1)"
    assert (spec.env["A"], spec.workdir, spec.cmd) == ("b", "/app", ("python", "main.py"))
    blob.unlink()
    assert local.load(found).root == spec.root
    assert local.find("other") is None
    assert local.find("Not A Name") is None


def test_damage_is_named(tmp_path: Path) -> None:
    local, blob = store(tmp_path, {})
    found = local.find("demo")
    assert found is not None
    blob.write_bytes(b"junk")
    with pytest.raises(ImageNotRunnable, match=r"is damaged in .*build the image again"):
        local.load(found)
    blob.unlink()
    with pytest.raises(ImageNotRunnable, match="is missing"):
        local.load(found)


def test_other_python_names_the_remedy(tmp_path: Path) -> None:
    local, _ = store(tmp_path, {"Labels": {"dev.quarterdeck.python": "2.7"}})
    found = local.find("demo")
    assert found is not None
    with pytest.raises(ImageNotRunnable, match=r"built for Python 2\.7 .*qd mcp build"):
        local.load(found)


@pytest.mark.parametrize(
    ("argv", "requirements", "command", "args"),
    [
        (["uvx", "mcp-server-time"], ("mcp-server-time",), "mcp-server-time", ()),
        (["uvx", "mcp-server-time@1.0", "--x"], ("mcp-server-time==1.0",), "mcp-server-time", ("--x",)),
        (["uvx", "tool@latest"], ("tool",), "tool", ()),
        (["uvx", "--from", "pkg[extra]==2", "cmd", "a"], ("pkg[extra]==2",), "cmd", ("a",)),
        (["uvx", "--from=pkg", "--with", "more", "cmd"], ("pkg", "more"), "cmd", ()),
        (["uv", "tool", "run", "x>=2"], ("x>=2",), "x", ()),
        (["npx", "-y", "@scope/pkg@1.2", "dir"], ("@scope/pkg@1.2",), "", ("dir",)),
        (["npx", "--package", "a", "cmd"], ("a",), "cmd", ()),
    ],
)
def test_command_lines(argv: list[str], requirements: tuple[str, ...], command: str, args: tuple[str, ...]) -> None:
    package = parse(argv)
    assert package is not None
    assert (package.requirements, package.command, package.args) == (requirements, command, args)


@given(st.lists(st.text(max_size=8), max_size=5))
def test_any_command_line_parses(words: list[str]) -> None:
    for tool in (["uvx"], ["npx"], ["uv", "tool", "run"], []):
        package = parse([*tool, *words])
        assert package is None or package.requirements


async def test_real_package_is_shared_and_runs_offline(tmp_path: Path) -> None:
    cache = PackageCache(tmp_path)
    package = parse(["uvx", "--from", "mcp-server-time", "mcp-server-time", "--help"])
    assert package is not None
    (folder, line), (again, _) = await asyncio.gather(cache.resolve(package), cache.resolve(package))
    assert folder == again
    assert sorted(p.name for p in (tmp_path / "uvx").iterdir()) == [package.key, f"{package.key}.lock"]
    done = await asyncio.to_thread(subprocess.run, line, capture_output=True, text=True, env={"PATH": "/nonexistent"})
    assert "--local-timezone" in done.stdout
    changed = (folder / ".complete").stat().st_mtime_ns
    assert (await PackageCache(tmp_path).resolve(package))[0] == folder, "a second start installs nothing"
    assert (folder / ".complete").stat().st_mtime_ns == changed


async def test_package_that_does_not_exist_quotes_the_package_manager(tmp_path: Path) -> None:
    package = Package("uvx", ("quarterdeck-no-such-package==0.0.0",), "x", ())
    with pytest.raises(ImageNotRunnable, match="quarterdeck-no-such-package") as error:
        await PackageCache(tmp_path).resolve(package)
    assert error.value.waiting == "ErrImagePull"
    assert not (tmp_path / "uvx" / package.key / ".complete").exists()


async def test_wrong_command_names_the_ones_there_are(tmp_path: Path) -> None:
    package = parse(["uvx", "--from", "mcp-server-time", "wrong"])
    assert package is not None
    with pytest.raises(ImageNotRunnable, match=r"has no command 'wrong'; it has: .*mcp-server-time"):
        await PackageCache(tmp_path).resolve(package)


async def test_whose_image_it_is(tmp_path: Path) -> None:
    images = ImageStore(tmp_path / "images")
    spec, argv = await images.resolve(own_image(), ["python", "-m", "quarterdeck.bridge"])
    assert spec.own
    assert argv[1:] == ["-m", "quarterdeck.bridge"]
    for other in (["python", "-c", "1"], ["sh"], ["python", "-m", "quarterdeckx"]):
        assert not (await images.resolve(own_image(), other))[0].own
    with pytest.raises(ImageNotRunnable) as mismatch:
        await images.resolve(f"{OWN_REPOSITORY}:0.0.0-other", ["python"])
    assert mismatch.value.waiting == "ImageVersionMismatch"
    assert repository("host:5000/a/b:tag@sha256:1") == "host:5000/a/b"
