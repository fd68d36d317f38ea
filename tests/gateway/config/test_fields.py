# ruff: noqa: E501 - messages and files as they are
"""Every field of every model has a class, the class is true, and the committed table says so."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from quarterdeck.gateway.config import table
from quarterdeck.gateway.config.fields import Enforced, Harmless, Model, Refused, fields_of

from .conftest import Reader, in_a_route

HERE = Path(__file__).parent
PAGE = HERE.parents[2] / "docs" / "gateway-fields.md"
ROOTS = pytest.mark.parametrize("root", table.ROOTS.values(), ids=table.ROOTS)

HARMLESS = {
    # windows, pools, sockets and protocols we do not speak
    "enableIpv6", "workerThreads", "backend", "keepalives", "connectTimeout", "poolIdleTimeout", "poolMaxSize", "tcp",
    "alpn", "handshakeTimeout", "tlsHandshakeTimeout", "http1MaxHeaders", "http1IdleTimeout", "http1HeaderCase",
    "http2WindowSize", "http2ConnectionWindowSize", "http2FrameSize", "http2MaxHeaderSize", "http2KeepaliveInterval",
    "http2KeepaliveTimeout", "maxConnectionDuration", "dns", "connectionTerminationDeadline",
    "connectionMinTerminationDeadline",
    # names without a meaning in a file
    "localXdsPath", "namespace", "gateway", "storage", "ui",
    # more telemetry, or the same elsewhere
    "clientSampling", "tracing", "metrics", "accessLog", "filter", "add", "database", "standardAttributes", "histograms",
    "sensitiveHeaders",
    # what we do always, or need not
    "dnsRebindingProtection", "sessionTtl", "cache", "restoreHealth", "alg",
    # mcp.json: what is between a client and its user
    "inputs", "autoApprove", "alwaysAllow", "trust", "timeout", "description", "name", "note", "icon", "gallery",
    "version", "dev",
}  # fmt: skip
"""Fields that may have no effect. Before a name is added: would leaving it out let anybody do or reach more?"""


@ROOTS
def test_every_field_has_a_class(root: type[Model]) -> None:
    assert [row.path for row in table.rows(root) if row.cls is None] == []


def test_the_committed_table_is_up_to_date() -> None:
    assert PAGE.read_text() == table.render(), f"python -m quarterdeck.gateway.config.table > {PAGE}"


class Sources:
    """What each test of this folder says, with the module's constants and functions that it uses."""

    def __init__(self) -> None:
        self._parts: dict[str, dict[str, tuple[str, frozenset[str]]]] = {}
        for path in HERE.glob("test_*.py"):
            text = path.read_text()
            lines = text.splitlines()
            parts = self._parts[path.name] = {}
            for node in ast.parse(text).body:
                start = min([node.lineno, *(d.lineno for d in getattr(node, "decorator_list", []))])
                source = "\n".join(lines[start - 1 : node.end_lineno])
                used = frozenset(n.id for n in ast.walk(node) if isinstance(n, ast.Name))
                for name in self._names(node):
                    parts[name] = (source, used)

    def _names(self, node: ast.stmt) -> list[str]:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            return [node.name]
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        return [target.id for target in targets if isinstance(target, ast.Name)]

    def of(self, test: str) -> str:
        """Empty: there is no such test."""
        file, _, name = test.partition("::")
        parts, told, waiting = self._parts.get(file, {}), dict[str, str](), [name]
        while waiting:
            here = waiting.pop()
            if here in parts and here not in told:
                told[here], used = parts[here]
                waiting += used
        return "\n".join(told.values())


SOURCES = Sources()


@ROOTS
def test_enforced_fields_name_a_test_that_mentions_them(root: type[Model]) -> None:
    """Below a field that is proven as a whole, or in a test that is about it: never the name of any test."""
    wrong = {
        f"{row.cls.test}: {row.field.name}"
        for row in table.rows(root)
        if isinstance(row.cls, Enforced)
        and not re.search(rf"(?<![A-Za-z]){re.escape(row.field.name)}(?![A-Za-z])", SOURCES.of(row.cls.test))
    }
    assert sorted(wrong) == []


@ROOTS
def test_only_what_weakens_nothing_is_harmless(root: type[Model]) -> None:
    models = {model for model, _, _ in table._models(root)}
    found = {f.name for model in models for f in fields_of(model).values() if isinstance(f.cls, Harmless)}
    assert found - HARMLESS == set()


@ROOTS
def test_classes_say_something(root: type[Model]) -> None:
    for row in table.rows(root):
        text = {Harmless: "why", Refused: "instead"}.get(type(row.cls))
        assert text is None or len(getattr(row.cls, text)) > 8, row.path


REFUSED = {
    "llm: {models: [{name: a, provider: openAI}]}": "llm: not served: models are not served from a file yet",
    "config: {xdsAddress: 'http://x'}": "config.xdsAddress: not served: there is no xDS client",
    "config: {session: {key: abc}}": "config.session.key: not served: the key of sessions is made in the data directory",
    "config: {logging: {fields: {remove: [a]}}}": "config.logging.fields.remove: not served: fields cannot be left out",
    "services: [{}]": "services: not served: there is no service registry in a file",
    "tcpRoutes: [{}]": "tcpRoutes: not served: only HTTP and HTTPS are served",
    "routeGroups: [{name: a, routes: []}]": "routeGroups: not served: write the group's routes where they are used",
    "frontendPolicies: {proxyProtocol: {}}": "frontendPolicies.proxyProtocol: not served: the PROXY protocol is not read",
    "frontendPolicies: {networkAuthorization: {rules: []}}": "not served: write the rules (source.address)",
}
REFUSED_POLICIES = {
    "a2a: {}": "a2a: not served: agents are not served from a file yet",
    "ai: {}": "ai: not served: models are not served from a file yet",
    "extProc: {host: 'a:1'}": "extProc: not served: gRPC services cannot be asked",
    "remoteRateLimit: {host: 'a:1', domain: d}": "remoteRateLimit: not served: a rate limit service cannot be asked",
    "oidc: {issuer: i, clientId: c, clientSecret: s, redirectURI: r}": "oidc: not served: browsers are not sent",
    "mcpGuardrails: {processors: []}": "mcpGuardrails: not served: guardrail services (gRPC) cannot be asked",
    "backendTunnel: {proxy: {host: 'a:1'}}": "backendTunnel: not served: backends are dialled directly",
    "backendAuth: {aws: {}}": "backendAuth.aws: not served: AWS signatures are not made",
    "backendTLS: {insecureHost: true}": "backendTLS.insecureHost: not served: checking everything but the name",
    "delay: {duration: 1s}": "delay: not served: requests are not delayed on purpose",
    "extAuthz: {host: 'a:1', protocol: {http: {}}, cache: {key: [a], ttl: b}}": "extAuthz.cache: not served",
    "extAuthz: {backend: a, protocol: {http: {}}}": "extAuthz.backend: not served: name the authorizer's address",
    "transformations: {conditional: [{}]}": "transformations.conditional: not served: write one route per condition",
}


@pytest.mark.parametrize(("text", "told"), REFUSED.items())
def test_refused(reader: Reader, text: str, told: str) -> None:
    assert told in reader.errors(text)


@pytest.mark.parametrize(("text", "told"), REFUSED_POLICIES.items())
def test_refused_policies(reader: Reader, text: str, told: str) -> None:
    assert told in reader.refusal(text)


@pytest.mark.parametrize("backend", ["dynamic: {}", "ai: {name: a, provider: {openAI: {}}}", "aws: {agentCore: {}}",
                                     "service: {name: {namespace: a, hostname: b}, port: 1}", "routeGroup: a",
                                     "internal: {}"])  # fmt: skip
def test_refused_backends(reader: Reader, backend: str) -> None:
    found = reader.errors(in_a_route(f"backends: [{{{backend}}}]"))
    assert "backends[0]" in found and "not served: " in found


def test_mistakes_below_refused_fields_are_told_too(reader: Reader) -> None:
    found = reader.errors("llm: {models: [{nam: a, provider: openAI}]}")
    assert "llm.models[0].nam: unknown field; did you mean name?" in found
    assert "models are not served" in found


def test_harmless(reader: Reader) -> None:
    text = """
    config: {workerThreads: 4, mcp: {sessionTtl: 30m}, tracing: {otlpEndpoint: "http://x"}}
    binds: [{port: 1, listeners: [{routes: [{backends: [{host: 'b:80'}]}]}]}]
    """
    warnings = reader.load(text).warnings
    assert (
        "<inline>:2: config.workerThreads: has no effect: processes are set by QUARTERDECK_GATEWAY_WORKERS" in warnings
    )
    assert any("config.mcp.sessionTtl: has no effect" in warning for warning in warnings)
    assert any("config.tracing.otlpProtocol: spans go over HTTP only" in warning for warning in warnings)
