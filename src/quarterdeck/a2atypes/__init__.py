"""A2A as data: operations, errors and the translation of version 0.3; shared by agent host, gateway and control plane.

JSON objects of version 1.0 (specification/a2a.proto in its JSON form) are the language inside; 0.3 is spoken outside.
"""

from typing import Any, Final

Json = dict[str, Any]

VERSIONS: Final = ("1.0", "0.3")
MEDIA_TYPE: Final = "application/a2a+json"
ERROR_DOMAIN: Final = "a2a-protocol.org"
CARD_PATHS: Final = ("/.well-known/agent-card.json", "/.well-known/agent.json")
JWKS_PATH: Final = "/.well-known/jwks.json"
