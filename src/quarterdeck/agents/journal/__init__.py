"""Durable runs: what an agent does is written down before and after, so that another process can go on with it."""

from __future__ import annotations

from .pause import BudgetExceeded, Pause

__all__ = ["BudgetExceeded", "Pause"]
