"""RemoteMCPServer (kagent.dev v1alpha2): an MCP server that runs elsewhere."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from .base import AllowedNamespaces, Column, Kind, Model, Status, TLSConfig, ValueRef, Version, condition_column, rules


class SignInSettings(Model):
    """The gateway as a client of what protects a server; all of it may be left out."""

    model_config = rules(
        (
            "!(has(self.clientSecretRef) || has(self.signingKeySecretRef)) || has(self.clientId)",
            "clientId is required beside clientSecretRef or signingKeySecretRef",
        )
    )
    client_id: str | None = Field(None, description="A client that was registered before; without it one is found.")
    client_secret_ref: str | None = Field(None, description="Secret with the client's secret.")
    client_secret_key: str = Field("clientSecret", description="Key of the client's secret in that Secret.")
    signing_key_secret_ref: str | None = Field(None, description="Secret with the key (PEM) for privateKeyJwt.")
    signing_key_secret_key: str = Field("signingKey", description="Key of the PEM in that Secret.")
    method: Annotated[
        str | None, Field(json_schema_extra={"enum": ["clientSecretBasic", "clientSecretPost", "privateKeyJwt"]})
    ] = Field(None, description="How the client shows who it is; without it as the authorization server wants.")
    issuer: str | None = Field(None, description="Authorization server to use, of those that the server names.")
    scopes: list[str] | None = Field(None, description="Scopes to ask for in place of those that the server lists.")
    trusted_hosts: list[str] | None = Field(
        None, description="Hosts of metadata and authorization servers that may have private addresses or plain http."
    )


class RemoteMCPServerSpec(Model):
    """Where the server answers and how to call it."""

    model_config = rules(
        ("!has(self.oauth) || has(self.auth)", "oauth says how users sign in: set auth to oauth"),
        ("!(has(self.tls) && self.url.startsWith('http://'))", "tls must be unset when url uses the http:// scheme"),
        (
            "!(has(self.tls) && has(self.tls.caCertSecretRef) && has(self.allowedNamespaces) && "
            "has(self.allowedNamespaces.from) && self.allowedNamespaces.from != 'Same')",
            "allowedNamespaces cannot be All or Selector when tls.caCertSecretRef is set",
        ),
    )
    description: str = Field(description="What the server offers.")
    url: str = Field(min_length=1, description="Address of its MCP endpoint; without a path, / is called.")
    protocol: Annotated[str, Field(json_schema_extra={"enum": ["SSE", "STREAMABLE_HTTP"]})] = Field(
        "STREAMABLE_HTTP", description="Transport the server speaks."
    )
    headers_from: list[ValueRef] | None = Field(None, description="Headers the gateway adds to each request.")
    timeout: str = Field("30s", description="Longest silence of a call, as a duration.")
    sse_read_timeout: str | None = Field(None, description="Longest silence of an event stream, as a duration.")
    terminate_on_close: bool = Field(True, description="End the server's session when the client is done.")
    allowed_namespaces: AllowedNamespaces | None = Field(None, description="Namespaces whose agents may use it.")
    tls: TLSConfig | None = Field(None, description="TLS towards the server.")
    auth: Annotated[str | None, Field(json_schema_extra={"enum": ["oauth"]})] = Field(
        None,
        description="oauth: every user signs in at the server for herself, and the gateway shows her token.",
    )
    oauth: SignInSettings | None = Field(None, description="How users sign in, where the server does not say it all.")


class DiscoveredTool(Model):
    name: str = Field(description="Name of the tool.")
    description: str = Field(description="What it does.")


class RemoteMCPServerStatus(Status):
    discovered_tools: list[DiscoveredTool] | None = Field(None, description="Tools the server offered when last asked.")
    secret_hash: str | None = Field(None, description="Hash (hex) of the Secrets used.")


class RemoteMCPServer(Model):
    """An MCP server reached by URL; its tools are discovered and called through the gateway."""

    spec: RemoteMCPServerSpec | None = Field(None, description="Where the server answers and how to call it.")
    status: RemoteMCPServerStatus | None = Field(None, description="Observed state.")


KIND = Kind(
    "RemoteMCPServer",
    "remotemcpservers",
    (
        Version(
            "v1alpha2",
            RemoteMCPServer,
            (Column("Protocol", ".spec.protocol"), Column("URL", ".spec.url"), condition_column("Accepted")),
        ),
    ),
    short_names=("rmcps",),
)
