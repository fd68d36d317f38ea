"""OpenAPI documents of what is served: what ``kubectl explain`` and client-side validation read."""

from .documents import v2_document, v2_protobuf, v3_document, v3_index

__all__ = ["v2_document", "v2_protobuf", "v3_document", "v3_index"]
