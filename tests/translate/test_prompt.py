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
    ],
)
def test_render(template: str, text: str) -> None:
    assert render(template, SOURCES, CONTEXT) == text


def test_a_missing_include_lists_what_exists() -> None:
    with pytest.raises(ConfigError, match=r'include "lib/x" not found; available: lib/safety'):
        render('{{include "lib/x"}}', SOURCES, CONTEXT)


@pytest.mark.parametrize("template", ["{{.Nope}}", "{{end}}", "{{if .AgentName}}x", "{{open"])
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
