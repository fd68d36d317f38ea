"""Request bodies in ``application/vnd.kubernetes.protobuf``, which kubectl's typed commands send.

``decode(body)`` gives the JSON data the same object would have as ``application/json``. There is no encoder: answers
are JSON, which those clients accept. Field numbers are facts of upstream's ``generated.proto`` files, in
``tables.json`` (``scripts/generate_protobuf_tables.py``).
"""

from quarterdeck.apiserver.protobuf.decoder import MEDIA_TYPE, decode

__all__ = ["MEDIA_TYPE", "decode"]
