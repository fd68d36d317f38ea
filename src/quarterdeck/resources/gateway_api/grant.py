"""ReferenceGrant: what may refer into a namespace from another (referencegrant_types.go)."""

from __future__ import annotations

from pydantic import Field

from quarterdeck.resources.base import Model


class GrantFrom(Model):
    group: str
    kind: str
    namespace: str


class GrantTo(Model):
    group: str
    kind: str
    name: str | None = None


class ReferenceGrantSpec(Model):
    from_: list[GrantFrom] = Field(alias="from")
    to: list[GrantTo]
