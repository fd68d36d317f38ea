"""Admission of writes: defaults and limits that built-in admission plugins of Kubernetes apply, in their order."""

from __future__ import annotations

from .attributes import AdmissionAttributes

__all__ = ["AdmissionAttributes"]
