"""CustomResourceDefinitions as data: schemas, printer columns, conversion, accepted names."""

from quarterdeck.apiserver.crd.conversion import InProcess, Webhook, register_converter
from quarterdeck.apiserver.crd.definitions import validate_crd
from quarterdeck.apiserver.crd.kind import CustomSchema, kinds_from
from quarterdeck.apiserver.crd.names import CLEANUP_FINALIZER, accept, default_crd, is_established, prepare_create

__all__ = [
    "CLEANUP_FINALIZER",
    "CustomSchema",
    "InProcess",
    "Webhook",
    "accept",
    "default_crd",
    "is_established",
    "kinds_from",
    "prepare_create",
    "register_converter",
    "validate_crd",
]
