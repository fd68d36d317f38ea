"""Pod subresources served by the node's kubelet API, and how they are reached."""

from __future__ import annotations

from .proxy import PodProxy

__all__ = ["PodProxy"]
