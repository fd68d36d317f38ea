"""Memory (kagent.dev v1alpha1): a vector store of kagent's first version; stored, not used."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from .base import Column, Kind, Model, Status, Version, rules


class Pinecone(Model):
    index_host: str = Field(description="Host of the index.")
    top_k: int | None = Field(None, description="Results per search.")
    namespace: str | None = Field(None, description="Namespace of the index.")
    record_fields: list[str] | None = Field(None, description="Fields of the records to read.")
    score_threshold: str | None = Field(None, description="Least score of a result, a number as text.")


class MemorySpec(Model):
    """The store and its key."""

    model_config = rules(
        (
            "!(has(self.pinecone) && self.provider != 'Pinecone')",
            "provider.pinecone must be nil if the provider is not Pinecone",
        ),
        (
            "!(!has(self.pinecone) && self.provider == 'Pinecone')",
            "provider.pinecone must be specified for Pinecone provider",
        ),
    )
    provider: Annotated[str, Field(json_schema_extra={"enum": ["Pinecone"]})] = Field(
        "Pinecone", description="Kind of store."
    )
    api_key_secret_ref: str | None = Field(None, description="Secret with the store's key.")
    api_key_secret_key: str | None = Field(None, description="Key in that Secret.")
    pinecone: Pinecone | None = Field(None, description="Settings of Pinecone.")


class Memory(Model):
    """A vector store in the first format. Stored only: use an Agent's `declarative.memory`."""

    spec: MemorySpec | None = Field(None, description="The store and its key.")
    status: Status | None = Field(None, description="Observed state.")


_STORED_ONLY = "Memory is stored but not acted on by Quarterdeck"
KIND = Kind(
    "Memory",
    "memories",
    (Version("v1alpha1", Memory, (Column("Provider", ".spec.provider"),), deprecated=_STORED_ONLY),),
)
