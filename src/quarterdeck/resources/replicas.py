"""How many Pods an Agent or MCPServer wants: ``spec.replicas``, seeded once from kagent's ``deployment.replicas``.

The scale subresource needs ``spec.replicas`` to be there on every object (a real server answers 500 for a Scale
without it, which stops an HPA), so the schema defaults it to 1. A default cannot be told from a 1 that somebody wrote;
what was seeded is remembered in ``status.seededReplicas`` instead. Until the seed has been written through the scale
subresource, the older field decides; from then on ``spec.replicas`` does, so that scaling down to 1 holds.
"""

from __future__ import annotations

from typing import NamedTuple

DEFAULT = 1


class Replicas(NamedTuple):
    """The outcome of :func:`settle`."""

    wanted: int
    """Pods wanted now."""
    seed: int | None
    """What ``status.seededReplicas`` has to say afterwards."""
    write: bool
    """Whether ``spec.replicas`` must be set to ``wanted`` through the scale subresource, before the status is."""


def settle(replicas: int | None, seed: int | None, seeded: int | None) -> Replicas:
    """From ``spec.replicas``, ``deployment.replicas`` and ``status.seededReplicas``.

    A changed ``deployment.replicas`` is taken over only while ``spec.replicas`` is still what was seeded before:
    nobody has scaled since. Applying the outcome and asking again changes nothing.
    """
    current = DEFAULT if replicas is None else replicas
    if seed is None or seed == seeded:
        return Replicas(current, seed, False)
    untouched = DEFAULT if seeded is None else seeded
    if current == untouched:
        return Replicas(seed, seed, seed != current)
    return Replicas(current, seed, False)
