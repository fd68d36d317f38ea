from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quarterdeck.errors import ConfigError
from quarterdeck.translate.prompt import PromptContext, render

CONTEXT = PromptContext("a", "n", "d", ["t1", "t2"])
SOURCES = {"lib": {"safety": "Be {{.AgentName}} safe."}}


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ('{{include "lib/safety"}}', "Be {{.AgentName}} safe."),
        ("{{ .AgentName }}/{{.AgentNamespace}}: {{.Description}}", "a/n: d"),
        ("{{.ToolNames}}", "[t1 t2]"),
        ("{{range .ToolNames}}- {{.}}\n{{end}}", "- t1\n- t2\n"),
        ("{{if .SkillNames}}yes{{else}}no{{end}}", "no"),
        ("a  {{- .AgentName -}}  b", "aab"),
        ("{{/* note */}}x", "x"),
        ('{{if eq .AgentName "b"}}b{{else if eq .AgentName "c" "a"}}a{{else}}-{{end}}', "a"),
        ("{{with .Description}}<{{.}}>{{end}}{{with .SkillNames}}x{{else}}none{{end}}", "<d>none"),
        (
            "{{range $i, $t := .ToolNames}}{{if $i}}, {{end}}{{$i}}={{$t}} of {{$.AgentName}}{{end}}",
            "0=t1 of a, 1=t2 of a",
        ),
        ('{{range .ToolNames}}{{if eq . "t2"}}{{break}}{{end}}{{.}}{{end}}', "t1"),
        ('{{range .ToolNames}}{{if eq . "t1"}}{{continue}}{{end}}{{.}}{{end}}', "t2"),
        ("{{len .ToolNames}} {{index .ToolNames 1}} {{slice .AgentName 0 1}}", "2 t2 a"),
        ('{{printf "%s-%03d %q %v%%" .AgentName 7 "x" .ToolNames}}', 'a-007 "x" [t1 t2]%'),
        ('{{.AgentName | printf "%s/%s" .AgentNamespace}}', "n/a"),
        ("{{if and .AgentName (not .SkillNames)}}y{{end}}{{or .SkillNames .Description}}", "yd"),
        ("{{$x := 1}}{{if true}}{{$x = 2}}{{end}}{{$x}}{{`{{raw}}`}}", "2{{raw}}"),
        ("{{if .SkillNames}}{{range .SkillNames}}x{{end}}{{end}}{{if gt (len .ToolNames) 1}}many{{end}}", "many"),
        ('{{ "a } b" }}', "a } b"),
        ("a {{-  /* note */  -}} x", "ax"),
        ('{{len (printf "%' + "0" * 100_000 + '")}}', "100001"),
    ],
)
def test_render(template: str, text: str) -> None:
    assert render(template, SOURCES, CONTEXT) == text


def test_a_missing_include_lists_what_exists() -> None:
    with pytest.raises(ConfigError, match=r'include "lib/x" not found; available: lib/safety'):
        render('{{include "lib/x"}}', SOURCES, CONTEXT)


@pytest.mark.parametrize(
    "template",
    [
        "{{.Nope}}", "{{end}}", "{{if .AgentName}}x", "{{open", "{{$x}}", "{{$x = 1}}", "{{break}}", "{{else}}",
        "{{a b}}",
        "{{range .AgentName}}{{end}}", "{{if}}{{end}}", "{{len 3}}", "{{index .ToolNames 9}}", "{{.AgentName.Nope}}",
        '{{printf "%9999999d" 1}}', "{{if .AgentName}}{{else x}}{{end}}", "{{(.AgentName}}", "{{if 1}}" * 60,
        '{{include "lib/safety" "x"}}', "{{" * 100_000, "{{range .ToolNames}}" * 20 + "{{end}}" * 20,
        "{{range .ToolNames}}" * 20 + "x" * 999 + "{{end}}" * 20,
        "{{" + " " * 100_000, "{{x" + " " * 100_000, "{{/*" + "*/ " * 30_000,
        '{{len (printf "%.999999999d" 1)}}', '{{$x := "double"}}' + "{{$x = print $x $x}}" * 99,
        '{{"\\ud800"}}', "{{" + "1" * 5000 + "}}",
    ],
)  # fmt: skip
def test_mistakes_are_config_errors(template: str) -> None:
    with pytest.raises(ConfigError):
        render(template, SOURCES, CONTEXT)


@given(st.text().filter(lambda t: "{{" not in t))
def test_text_without_actions_is_unchanged(text: str) -> None:
    assert render(text, {}, CONTEXT) == text


@given(st.text())
def test_any_template_renders_or_is_refused(text: str) -> None:
    try:
        render(text, SOURCES, CONTEXT)
    except ConfigError:
        return
