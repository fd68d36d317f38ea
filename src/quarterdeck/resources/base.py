"""What all kinds share: the model base, CEL rules, verbatim Pod types, conditions, and the description of a kind."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_camel

from quarterdeck import errors

M = TypeVar("M", bound=BaseModel)


class Model(BaseModel):
    """Base of all resource models: camelCase on the wire, unknown fields ignored (the API server prunes them)."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="ignore", protected_namespaces=())


def rules(*pairs: tuple[str, str]) -> ConfigDict:
    """Model configuration that carries CEL validation rules: pairs of (rule, message)."""
    return ConfigDict(
        json_schema_extra={"x-kubernetes-validations": [{"rule": rule, "message": message} for rule, message in pairs]}
    )


def k8s(name: str) -> Any:
    """Field annotation: the Kubernetes core/v1 type ``name``, embedded verbatim in the CRD and kept as JSON here."""
    return Field(json_schema_extra={"x-quarterdeck-core-type": name})


Json = Annotated[dict[str, Any], Field(json_schema_extra={"x-kubernetes-preserve-unknown-fields": True})]
Env = list[Annotated[dict[str, Any], k8s("EnvVar")]]
EnvFrom = list[Annotated[dict[str, Any], k8s("EnvFromSource")]]
Volumes = list[Annotated[dict[str, Any], k8s("Volume")]]
VolumeMounts = list[Annotated[dict[str, Any], k8s("VolumeMount")]]
Containers = list[Annotated[dict[str, Any], k8s("Container")]]
Tolerations = list[Annotated[dict[str, Any], k8s("Toleration")]]
Affinity = Annotated[dict[str, Any], k8s("Affinity")]
Resources = Annotated[dict[str, Any], k8s("ResourceRequirements")]
SecurityContext = Annotated[dict[str, Any], k8s("SecurityContext")]
PodSecurityContext = Annotated[dict[str, Any], k8s("PodSecurityContext")]
PullSecrets = list[Annotated[dict[str, Any], k8s("LocalObjectReference")]]
SpreadConstraints = list[Annotated[dict[str, Any], k8s("TopologySpreadConstraint")]]
LabelSelector = Annotated[
    dict[str, Any], Field(json_schema_extra={"x-quarterdeck-meta-type": "LabelSelector"})
]  # fmt: skip


class Condition(Model):
    """One aspect of the current state."""

    type: str = Field(max_length=316, description="Type of condition in CamelCase.")
    status: str = Field(
        description="Status of the condition.", json_schema_extra={"enum": ["True", "False", "Unknown"]}
    )
    reason: str = Field(max_length=1024, description="Why the condition has this status, in CamelCase.")
    message: str = Field("", max_length=32768, description="Details of the transition, for people.")
    observed_generation: int | None = Field(
        None, ge=0, json_schema_extra={"format": "int64"}, description="The metadata.generation this was set for."
    )
    last_transition_time: str = Field(
        json_schema_extra={"format": "date-time"}, description="When the status last changed."
    )


Conditions = Annotated[
    list[Condition],
    Field(json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]}),
]


class Status(Model):
    """Observed state."""

    observed_generation: int | None = Field(
        None, json_schema_extra={"format": "int64"}, description="The metadata.generation this status describes."
    )
    conditions: Conditions | None = Field(None, description="The latest observations of the object's state.")


class NameRef(Model):
    name: str = Field("", description="Name of the object in the same namespace.")


class ValueSource(Model):
    type: Annotated[str, Field(json_schema_extra={"enum": ["ConfigMap", "Secret"]})] = Field(
        description="Kind of the object that holds the value."
    )
    name: str = Field(max_length=253, description="Name of the ConfigMap or Secret, in the same namespace.")
    key: str = Field(max_length=253, description="The key in it.")


class ValueRef(Model):
    """A named value, given in place or taken from a ConfigMap or Secret."""

    model_config = rules(
        (
            "(has(self.value) && !has(self.valueFrom)) || (!has(self.value) && has(self.valueFrom))",
            "Exactly one of value or valueFrom must be specified",
        )
    )
    name: str = Field(description="Name of the header or variable.")
    value: str | None = Field(None, description="The value in place.")
    value_from: ValueSource | None = Field(None, description="Where the value is read from.")


class AllowedNamespaces(Model):
    """Which namespaces may refer to this object."""

    model_config = rules(
        ("!(self.from == 'Selector' && !has(self.selector))", "selector must be specified when from is Selector")
    )
    from_: Annotated[str, Field(json_schema_extra={"enum": ["All", "Same", "Selector"]})] = Field(
        "Same",
        alias="from",
        description="All: any namespace. Same: only this object's. Selector: those whose labels match.",
    )
    selector: LabelSelector | None = Field(None, description="Namespaces by label, for from: Selector.")


class TLSConfig(Model):
    """TLS towards an upstream."""

    model_config = rules(
        (
            "!(has(self.caCertSecretKey) && size(self.caCertSecretKey) > 0 && "
            "(!has(self.caCertSecretRef) || size(self.caCertSecretRef) == 0))",
            "caCertSecretKey requires caCertSecretRef",
        ),
        (
            "!(has(self.caCertSecretRef) && size(self.caCertSecretRef) > 0 && "
            "(!has(self.caCertSecretKey) || size(self.caCertSecretKey) == 0))",
            "caCertSecretRef requires caCertSecretKey",
        ),
        (
            "!(has(self.disableSystemCAs) && self.disableSystemCAs && "
            "(!has(self.caCertSecretRef) || size(self.caCertSecretRef) == 0) && "
            "(!has(self.disableVerify) || !self.disableVerify))",
            "disableSystemCAs requires caCertSecretRef or disableVerify",
        ),
    )
    disable_verify: bool = Field(False, description="Do not verify the server's certificate. For development only.")
    ca_cert_secret_ref: str | None = Field(None, description="Secret with a PEM bundle of certificate authorities.")
    ca_cert_secret_key: str | None = Field(None, description="Key of the bundle in that Secret.")
    disable_system_cas: bool = Field(
        False, alias="disableSystemCAs", description="Trust only the given bundle, not the system's authorities."
    )


@dataclass(frozen=True, slots=True)
class Column:
    """A printer column of ``kubectl get``."""

    name: str
    path: str
    type: str = "string"
    priority: int = 0
    description: str = ""


@dataclass(frozen=True, slots=True)
class Version:
    name: str
    model: type[Model]
    columns: tuple[Column, ...] = ()
    storage: bool = True
    deprecated: str = ""
    """What the API server warns of when an object is written. Kinds that are stored only use it too: a definition has
    no other way to tell somebody who applies a file."""


@dataclass(frozen=True, slots=True)
class Kind:
    """One custom resource: its names and its versions."""

    kind: str
    plural: str
    versions: tuple[Version, ...]
    short_names: tuple[str, ...] = ()
    group: str = "kagent.dev"
    categories: tuple[str, ...] = ("kagent", "quarterdeck")
    scale: bool = False
    label_selector_path: str = field(default="", kw_only=True)


def condition_column(kind: str) -> Column:
    return Column(kind, f".status.conditions[?(@.type=='{kind}')].status")


AGE = Column("Age", ".metadata.creationTimestamp", "date")


def parse(model: type[M], value: Any, what: str) -> M:
    """The typed form of a wire value. Raises ConfigError that names ``what`` and the first bad fields."""
    try:
        return model.model_validate(value)
    except ValidationError as error:
        problems = "; ".join(
            f"{'.'.join(str(part) for part in item['loc']) or 'spec'}: {item['msg']}" for item in error.errors()[:5]
        )
        raise errors.ConfigError(f"{what}: {problems}") from error
