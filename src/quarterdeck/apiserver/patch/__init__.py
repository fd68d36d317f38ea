"""The patch formats of the Kubernetes API. Each takes a document and a patch and returns a new document."""

from .json_patch import json_patch
from .merge import merge_patch
from .strategic import strategic_merge

__all__ = ["json_patch", "merge_patch", "strategic_merge"]
