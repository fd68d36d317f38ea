"""Formats of providers that are not OpenAI's. The gateway's callers speak chat completions, whatever is behind."""

from __future__ import annotations

from . import anthropic, converse, gemini, ollama, orchestration, responses
from .base import Format as Format

FORMATS: dict[str, Format] = {
    "anthropic": anthropic.FORMAT,
    "converse": converse.FORMAT,
    "gemini": gemini.FORMAT,
    "ollama": ollama.FORMAT,
    "orchestration": orchestration.FORMAT,
    "responses": responses.FORMAT,
}
"""By ``Model.format``."""
