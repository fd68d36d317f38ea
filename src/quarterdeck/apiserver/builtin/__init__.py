"""Built-in kinds: what Kubernetes' Go code adds to their schemas, that is defaults, validation and update rules."""

from .kinds import BuiltinSchema, kind_schema
from .services import Allocator, allocate

__all__ = ["Allocator", "BuiltinSchema", "allocate", "kind_schema"]
