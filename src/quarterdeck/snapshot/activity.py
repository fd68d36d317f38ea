"""What gateways tell the control plane about the traffic: counters since the gateway process began.

Cumulative numbers under the id of the process (``boot``): a report lost or given twice changes nothing.
"""

from __future__ import annotations

from msgspec import Struct


class Counted(Struct, frozen=True, omit_defaults=True):
    """Requests of one backend of a split in one epoch."""

    kind: str
    namespace: str
    name: str
    epoch: str
    requests: int = 0
    errors: int = 0


class Used(Struct, frozen=True, omit_defaults=True):
    """Use of something that may be scaled to zero."""

    kind: str
    namespace: str
    name: str
    calls: int = 0
    open: int = 0
    """Calls in flight now."""


class Report(Struct, frozen=True, omit_defaults=True):
    """One report of one gateway process."""

    boot: str
    counted: tuple[Counted, ...] = ()
    used: tuple[Used, ...] = ()
