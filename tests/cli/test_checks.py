"""``qd doctor`` says what the node does, and where to read on."""

from __future__ import annotations

import ast
import re
import socket
from pathlib import Path

import pytest

from quarterdeck.cli import checks
from quarterdeck.node.sandbox.isolation import find_bwrap

ROOT = Path(__file__).parents[2]


def anchors(page: Path) -> set[str]:
    """As GitHub makes them of headings."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def named() -> set[str]:
    tree = ast.parse(Path(checks.__file__).read_text())
    texts = {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)}
    return {text for text in texts if re.fullmatch(r"[\w/]+\.md(#.*)?", text)}


def test_every_page_and_anchor_is_there() -> None:
    assert len(named()) > 2
    for text in named():
        page, _, anchor = text.partition("#")
        assert (ROOT / page).is_file(), text
        assert not anchor or anchor in anchors(ROOT / page), text


def test_bubblewrap_is_the_one_the_node_runs() -> None:
    path = find_bwrap()
    found = checks.bubblewrap()
    if path is None:
        assert "not installed" in found.cause
        return
    version = re.search(r"(\d+)\.(\d+)\.(\d+)", found.cause)
    assert path in found.cause and version is not None
    old = tuple(map(int, version.groups())) < (0, 12, 0)
    assert ("CVE-2026-87766" in found.cause, found.level) == (old, "warning" if old else "ok")


@pytest.mark.parametrize("inside", ["", "below"])
def test_a_home_that_is_a_file(tmp_path: Path, inside: str) -> None:
    file = tmp_path / "file"
    file.touch()
    assert checks.data_directory(file / inside if inside else file).level == "error"


def test_the_ports_are_those_that_qd_up_would_take(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        for name in ("KUBERNETES", "API", "KAGENT", "WORKLOADS"):
            monkeypatch.setenv(f"QUARTERDECK_{name}_PORT", "0")
        monkeypatch.setenv("QUARTERDECK_GATEWAY_PORT", str(port))
        found = checks.ports()
    assert (found.level, found.cause) == ("warning", f"in use by another program: {port}")
    assert found.remedy == "take free ones: qd up --gateway-port 0"
