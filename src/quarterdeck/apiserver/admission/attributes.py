"""What admission looks at."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from quarterdeck.apiserver.security.identity import User
from quarterdeck.kube.resource import Object, Resource

Operation = Literal["CREATE", "UPDATE", "DELETE", "CONNECT"]


@dataclass(slots=True)
class AdmissionAttributes:
    """One write on its way to the store. Mutating steps change ``obj`` in place; all may add ``warnings``."""

    user: User
    operation: Operation
    resource: Resource
    obj: Object
    subresource: str = ""
    namespace: str = ""
    name: str = ""
    old: Object | None = None
    dry_run: bool = False
    warnings: list[str] = field(default_factory=list[str])

    @property
    def qualified(self) -> tuple[str, str]:
        """(group, plural) of the resource."""
        return self.resource.group, self.resource.plural

    @property
    def creates_pod(self) -> bool:
        return self.operation == "CREATE" and self.qualified == ("", "pods") and not self.subresource
