"""What is told of a run while it is made: spans, metrics, tokens and what they cost."""

from __future__ import annotations

from .run import NOBODY, About, Hosted, Observer, Seen

__all__ = ["NOBODY", "About", "Hosted", "Observer", "Seen"]
