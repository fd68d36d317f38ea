"""What commands print of what agents and tools say."""

from __future__ import annotations

import io
import sys

import pytest

from quarterdeck.cli.output import emit, note, visible


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


HOSTILE = "fine\x1b[2K\x1b]52;c;cm0gLXJm\x07 \x9b1A\r approve? \u202etxt.exe\u2069\x7f\ttab\r\nline\n"
SHOWN = "fine\\x1b[2K\\x1b]52;c;cm0gLXJm\\x07 \\x9b1A\\r approve? \\u202etxt.exe\\u2069\\x7f\ttab\nline\n"


def test_a_terminal_is_not_commanded_by_what_is_printed(monkeypatch: pytest.MonkeyPatch) -> None:
    out, err = Terminal(), Terminal()
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(sys, "stderr", err)
    emit(HOSTILE)
    note(HOSTILE)
    assert out.getvalue() == SHOWN and err.getvalue() == SHOWN + "\n"


def test_a_pipe_gets_what_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    out = io.StringIO()
    monkeypatch.setattr(sys, "stdout", out)
    emit(HOSTILE)
    assert out.getvalue() == HOSTILE


def test_letters_of_all_scripts_stay() -> None:
    text = "größer 日本語 שלום → ✓ 👩‍💻\n\t-"
    assert visible(text) == text
