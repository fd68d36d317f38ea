"""Tokens of a model call in one form, whatever the provider calls them, and what they cost. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from msgspec import Struct

_INPUT = ("prompt_tokens", "input_tokens")
_OUTPUT = ("completion_tokens", "output_tokens")
_CACHED = ("cached_tokens", "cache_read_input_tokens")


class Tokens(Struct, frozen=True):
    """``cached`` is the part of ``input`` that the provider had kept from before."""

    input: int = 0
    output: int = 0
    cached: int = 0


def tokens_of(usage: Mapping[str, Any] | None) -> Tokens:
    """Of a provider's ``usage``: OpenAI's names or Anthropic's. A total without parts counts as input."""
    usage = usage or {}
    given, made = _first(usage, _INPUT), _first(usage, _OUTPUT)
    if not given and not made:
        given = _first(usage, ("total_tokens",))
    details = usage.get("prompt_tokens_details") or usage.get("input_tokens_details")
    cached = _first(usage, _CACHED) or (_first(details, _CACHED) if isinstance(details, Mapping) else 0)
    return Tokens(given, made, cached)


def cost_of(tokens: Tokens, input_price: float, output_price: float) -> float:
    """In the currency of the prices, which are of a million tokens."""
    return (tokens.input * input_price + tokens.output * output_price) / 1e6


def _first(usage: Mapping[str, Any], names: tuple[str, ...]) -> int:
    return next((value for name in names if isinstance(value := usage.get(name), int) and value > 0), 0)
