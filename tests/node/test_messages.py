"""Termination messages: the file, the log in its place, and no more than a kubelet takes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from quarterdeck.node.messages import last_words, message_mount
from quarterdeck.node.runtime import PodFiles

PATH = "/dev/termination-log"


def container(**fields: Any) -> Any:
    return {"name": "c", "terminationMessagePath": PATH} | fields


def test_the_file_is_empty_at_each_start(tmp_path: Path) -> None:
    files = PodFiles(tmp_path, "uid")
    assert message_mount(files, {"name": "c"}, None) == []
    (mount,) = message_mount(files, container(), None)
    assert (mount.target, mount.read_only) == (PATH, False)
    assert last_words(files, container(), 1, 0, 0.0) == ""
    Path(mount.source).write_text("done")
    assert last_words(files, container(), 1, 0, 0.0) == "done"
    message_mount(files, container(), None)
    assert last_words(files, container(), 1, 1, 0.0) == ""


def test_a_log_stands_in_for_a_file_when_it_failed(tmp_path: Path) -> None:
    files = PodFiles(tmp_path, "uid")
    message_mount(files, container(), None)
    files.log("c", 1).write_text("".join(f"line {n}\n" for n in range(1000)))
    fallback = container(terminationMessagePolicy="FallbackToLogsOnError")
    assert last_words(files, container(), 1, 1, 0.0) == ""
    assert last_words(files, fallback, 1, 0, 0.0) == ""
    said = last_words(files, fallback, 1, 1, 0.0)
    assert said.startswith("line 920\n")
    assert said.endswith("line 999\n")


def test_messages_are_bounded(tmp_path: Path) -> None:
    files = PodFiles(tmp_path, "uid")
    (mount,) = message_mount(files, container(), None)
    Path(mount.source).write_text("x" * 100_000)
    assert len(last_words(files, container(), 1, 0, 0.0)) == 4096
    files.log("c", 1).write_text("y" * 100_000)
    Path(mount.source).write_text("")
    assert len(last_words(files, container(terminationMessagePolicy="FallbackToLogsOnError"), 1, 1, 0.0)) == 2048
