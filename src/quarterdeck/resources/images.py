"""Our own container image: one image for every role."""

from __future__ import annotations

from quarterdeck import __version__

OWN_REPOSITORY = "ghcr.io/quarterdeck-dev/quarterdeck"


def own_image(version: str = __version__) -> str:
    """The image reference of ``version``; the node runs exactly its own version from the installed package."""
    return f"{OWN_REPOSITORY}:{version}"
