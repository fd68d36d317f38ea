"""ModelProviderConfig (kagent.dev v1alpha2): a provider whose models are discovered."""

from __future__ import annotations

from pydantic import Field

from .base import AGE, Column, Kind, Model, Status, Version, condition_column, rules
from .model_config import ProviderName


class SecretRef(Model):
    name: str = Field(description="Name of a Secret that holds exactly one key.")


class ModelProviderConfigSpec(Model):
    """A provider and its key."""

    model_config = rules(
        (
            "self.type == 'Ollama' || self.type == 'Scripted' || has(self.secretRef)",
            "secretRef is required for providers that need authentication (not Ollama)",
        )
    )
    type: ProviderName = Field(description="Who serves the models.")
    endpoint: str | None = Field(None, pattern=r"^https?://.*", description="Base URL; the provider's own when unset.")
    secret_ref: SecretRef | None = Field(None, description="Secret with the provider's key.")


class ModelProviderConfigStatus(Status):
    discovered_models: list[str] | None = Field(None, description="Models the provider offers.")
    model_count: int | None = Field(None, description="Their number.")
    last_discovery_time: str | None = Field(
        None, json_schema_extra={"format": "date-time"}, description="When they were last asked for."
    )


class ModelProviderConfig(Model):
    """A model provider; its models are listed in the status."""

    spec: ModelProviderConfigSpec | None = Field(None, description="A provider and its key.")
    status: ModelProviderConfigStatus | None = Field(None, description="Observed state.")


KIND = Kind(
    "ModelProviderConfig",
    "modelproviderconfigs",
    (
        Version(
            "v1alpha2",
            ModelProviderConfig,
            (
                Column("Type", ".spec.type"),
                Column("Endpoint", ".spec.endpoint"),
                Column("Models", ".status.modelCount", "integer"),
                condition_column("Ready"),
                AGE,
            ),
        ),
    ),
    short_names=("mprov",),
)
