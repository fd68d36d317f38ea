"""Server-side apply and the tracking of field ownership in ``metadata.managedFields``."""

from .ownership import apply, track

__all__ = ["apply", "track"]
