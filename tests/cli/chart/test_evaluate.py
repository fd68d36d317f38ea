"""Templates run as Go's do; tests/charts compares whole charts with the real helm."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quarterdeck.cli.chart.evaluate import Templates
from quarterdeck.cli.chart.syntax import parse
from quarterdeck.errors import ConfigError


def run(text: str, data: Any = None) -> str:
    nodes, defines = parse("t", text)
    return Templates(defines).render("t", nodes, data)


@pytest.mark.parametrize(
    ("text", "data", "wanted"),
    [
        ("a {{ .x }} b", {"x": 1}, "a 1 b"),
        ("{{ .x.y }}", {"x": {"y": True}}, "true"),
        ("{{ .none }}", {}, ""),
        ("a \n {{- .x -}} \n b", {"x": "-"}, "a-b"),
        ("{{/* nothing */}}a{{- /* at all */ -}} b", None, "ab"),
        ("{{ if .x }}1{{ else if .y }}2{{ else }}3{{ end }}", {"y": [0]}, "2"),
        ("{{ if and .x (not .y) }}1{{ end }}", {"x": "a", "y": ""}, "1"),
        ("{{ with .x }}{{ .y }}{{ $.z }}{{ else }}-{{ end }}", {"x": {"y": 1}, "z": 2}, "12"),
        ("{{ range .x }}{{ . }},{{ else }}-{{ end }}", {"x": [1, 2]}, "1,2,"),
        ("{{ range .x }}{{ . }},{{ else }}-{{ end }}", {}, "-"),
        ("{{ range $k, $v := .x }}{{ $k }}={{ $v }};{{ end }}", {"x": {"b": 2, "a": 1}}, "a=1;b=2;"),
        ("{{ range $v := .x }}{{ $v }}{{ end }}", {"x": [3]}, "3"),
        ('{{ $a := 1 }}{{ if true }}{{ $a = 2 }}{{ $b := "x" }}{{ $b }}{{ end }}{{ $a }}', None, "x2"),
        ('{{ define "d" }}<{{ .n }}>{{ end }}{{ include "d" (dict "n" 5) | quote }}', None, '"<5>"'),
        ('{{ define "d" }}{{ $.n }}{{ end }}{{ range list 1 }}{{ include "d" (dict "n" .) }}{{ end }}', None, "1"),
        ("{{ (index0).y }}", None, None),
        ("{{ (.x).y }}", {"x": {"y": 7}}, "7"),
        ('{{ default "d" .x }}{{ .y | default "e" }}', {"y": 0}, "de"),
        ('{{ printf "%s-%s" .x `raw\\n` }}', {"x": "a"}, "a-raw\\n"),
        ("{{ toJson .x }}", {"x": {"b": "<&", "a": 1.0}}, '{"a":1,"b":"\\u003c\\u0026"}'),
        ("x:{{ toYaml .x | nindent 2 }}", {"x": {"a": [1]}}, "x:\n  a:\n  - 1"),
        ('{{ ternary "y" "n" (eq .x 1 2) }}{{ ne 1 2 }}{{ gt 2 1 }}', {"x": 2}, "ytruetrue"),
        ('{{ kindIs "invalid" .x }}{{ has 1 (list 1) }}{{ join "," .l }}', {"l": [1, "a"]}, "truetrue1,a"),
    ],
)
def test_runs(text: str, data: Any, wanted: str | None) -> None:
    if wanted is None:
        with pytest.raises(ConfigError):
            run(text, data)
    else:
        assert run(text, data) == wanted


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a\n{{ nosuch 1 }}", "t: line 2: function 'nosuch'"),
        ("{{ .x.y.z }}", "line 1: 'z' is asked of"),
        ("{{ if .x }}", "if has no end"),
        ("{{ end }}", "closes nothing"),
        ('{{ include "no" . }}', "no template 'no'"),
        ('\n\n{{ fail "because" }}', "t: line 3: because"),
        ('{{ define "r" }}{{ include "r" . }}{{ end }}{{ include "r" . }}', "deeper than 100"),
        ("{{ $a }}", r"\$a is not set"),
        ("{{ (1 }}", "not closed"),
        ("{{ 1 2 }}", "only a function"),
        ("{{ a | }}", "value is missing"),
        ("{{ ! }}", "cannot read"),
    ],
)
def test_errors_name_the_place(text: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        run(text, {"x": {"y": 1}})


@given(st.text(alphabet=st.characters(exclude_characters="{}")))
def test_text_without_actions_stays(text: str) -> None:
    assert run(text) == text


@given(st.text(alphabet='{}-.|$"()x \n/*=:', max_size=30))
def test_nonsense_is_an_error_or_text_never_a_crash(text: str) -> None:
    with contextlib.suppress(ConfigError):
        run(text, {"x": 1})
