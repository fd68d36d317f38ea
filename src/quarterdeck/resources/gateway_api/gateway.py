"""Gateway and GatewayClass, the fields that are read (gateway_types.go, gatewayclass_types.go)."""

from __future__ import annotations

from pydantic import Field

from quarterdeck.resources.base import Model

from .references import AllowedRoutes, ObjectRef


class ListenerTls(Model):
    mode: str = "Terminate"
    certificate_refs: list[ObjectRef] | None = None
    options: dict[str, str] | None = None


class Listener(Model):
    name: str
    port: int
    protocol: str
    hostname: str | None = None
    tls: ListenerTls | None = None
    allowed_routes: AllowedRoutes = AllowedRoutes()


class Address(Model):
    type: str = "IPAddress"
    value: str | None = None


class ParametersRef(Model):
    group: str
    kind: str
    name: str


class Infrastructure(Model):
    """Labels and annotations of what is made for the Gateway."""

    labels: dict[str, str] | None = None
    annotations: dict[str, str] | None = None
    parameters_ref: ParametersRef | None = None


class FrontendValidation(Model):
    ca_certificate_refs: list[ObjectRef] | None = None
    mode: str = "AllowValidOnly"


class FrontendConfig(Model):
    validation: FrontendValidation | None = None


class PortFrontend(Model):
    port: int
    tls: FrontendConfig = FrontendConfig()


class Frontend(Model):
    """Client certificates: for all HTTPS ports, and for single ones."""

    default: FrontendConfig = FrontendConfig()
    per_port: list[PortFrontend] | None = None

    def of(self, port: int) -> FrontendValidation | None:
        """What clients on the port must show."""
        for entry in self.per_port or ():
            if entry.port == port:
                return entry.tls.validation
        return self.default.validation


class GatewayTls(Model):
    frontend: Frontend | None = None


class GatewaySpec(Model):
    gateway_class_name: str
    listeners: list[Listener] = Field(default_factory=list[Listener])
    addresses: list[Address] | None = None
    infrastructure: Infrastructure | None = None
    tls: GatewayTls | None = None


class GatewayClassSpec(Model):
    controller_name: str
    parameters_ref: ParametersRef | None = None
