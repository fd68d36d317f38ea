"""Script mode: answers from a file, and what is said about files that cannot be used."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from quarterdeck.agents.scripted.conversation import Turn
from quarterdeck.agents.scripted.results import Done
from quarterdeck.agents.scripted.script import load, reply
from quarterdeck.errors import ConfigError

SCRIPT = """
- match: deploy (?P<app>\\w+)
  calls:
    - {tool: build, arguments: {app: "{app}", deep: [{also: "{1}"}], keep: 3}}
    - - {tool: release, arguments: {image: "{result}"}}
      - {tool: announce, arguments: "not json {"}
  answer: "Released {app} from {results[0]}; {unknown} stays"
- {match: for ever, calls: [{tool: spin}], repeat: true}
- {match: broken, error: {status: 429, message: slow down}}
- {match: hello, answer: Hi., delay: 0.5}
"""


def test_stages_holes_and_answers(tmp_path: Path) -> None:
    file = tmp_path / "s.yaml"
    file.write_text(SCRIPT)
    entries = load(str(file))
    first = reply(entries, Turn("Please DEPLOY shop now"))
    assert first is not None
    assert json.loads(first.calls[0].arguments) == {"app": "shop", "deep": [{"also": "shop"}], "keep": 3}
    built = Done("build", {}, "img:1")
    second = reply(entries, Turn("deploy shop", [built]))
    assert second is not None
    assert [(c.tool, c.arguments) for c in second.calls] == [
        ("release", '{"image": "img:1"}'),
        ("announce", "not json {"),
    ]
    last = reply(entries, Turn("deploy shop", [built, Done("release", {}, "ok"), Done("announce", {}, "ok")]))
    assert last is not None
    assert last.text == "Released shop from img:1; {unknown} stays"
    assert reply(entries, Turn("something else")) is None


def test_faults_for_testing_callers(tmp_path: Path) -> None:
    file = tmp_path / "s.yaml"
    file.write_text(SCRIPT)
    entries = load(str(file))
    again = reply(entries, Turn("for ever", [Done("spin", {}, "x")] * 50))
    assert again is not None
    assert [c.tool for c in again.calls] == ["spin"]
    broken, hello = reply(entries, Turn("broken")), reply(entries, Turn("hello"))
    assert broken is not None
    assert broken.error == (429, "slow down")
    assert hello is not None
    assert (hello.text, hello.delay) == ("Hi.", 0.5)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "not YAML"),
        ("5", "list of entries"),
        ("[5]", "entry 1: must be a mapping"),
        ("[{answer: x}]", "entry 1: match is required"),
        ("[{match: '(', answer: x}]", "not a regular expression"),
        ("[{match: x}]", "needs calls, answer or error"),
        ("[{match: x, answr: y}]", "unknown field 'answr'"),
        ("[{match: x, calls: 3}]", "calls must be a list"),
        ("[{match: x, calls: [{arguments: {}}]}]", "needs tool"),
        ("[{match: x, answer: y, delay: long}]", "delay"),
        ("[{match: x, error: {status: 200}}]", "error needs status"),
    ],
)
def test_files_that_cannot_be_used(tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / "s.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=r"s\.yaml") as caught:
        load(str(file))
    assert said in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nothing\.yaml: cannot be read"):
        load(str(tmp_path / "nothing.yaml"))
