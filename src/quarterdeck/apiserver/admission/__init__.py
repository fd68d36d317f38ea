"""Admission of writes: defaults and limits that built-in admission plugins of Kubernetes apply, in their order."""

from __future__ import annotations

from .attributes import AdmissionAttributes, Operation
from .chain import AdmissionChain, StoreHooks
from .quantity import format_quantity, parse_quantity

__all__ = ["AdmissionAttributes", "AdmissionChain", "Operation", "StoreHooks", "format_quantity", "parse_quantity"]
