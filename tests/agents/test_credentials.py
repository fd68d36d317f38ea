"""The workload token as the kubelet rotates it: a new file behind the same name."""

from __future__ import annotations

from pathlib import Path

from quarterdeck.agents.credentials import WorkloadToken


def test_a_rotated_token_is_used_at_once_and_a_missing_one_is_none(tmp_path: Path) -> None:
    path = tmp_path / "token"
    token = WorkloadToken(path)
    assert token.read() == ""
    path.write_text("first\n")
    assert token.read() == "first"
    (tmp_path / "next").write_text("second\n")
    (tmp_path / "next").replace(path)
    assert token.read() == "second"
    path.unlink()
    assert token.read() == ""
