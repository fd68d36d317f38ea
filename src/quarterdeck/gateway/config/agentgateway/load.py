"""Reading an agentgateway file: which generation it is, and the snapshot it becomes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from quarterdeck.errors import QuarterdeckError
from quarterdeck.snapshot import Snapshot

from ...logs import parse_levels
from ...options import address
from ..decode import decode
from ..document import Document, Path_, Problem, Report
from ..places import Places
from ..standalone import FileOptions, Loaded, Settings
from . import now, oct
from .attachments import Attachments, Named, Structured
from .auditing import flags as audit_flags
from .auditing import tracing_flags
from .context import Context
from .listeners import Listeners
from .routes import Routes
from .servers import Servers
from .upgrade import targeted, upgrade

Generation = Literal["oct", "now"]

TITLES = {"oct": "agentgateway, October 2025", "now": "agentgateway, today"}
UNTOLD = (
    "the generation cannot be told from its fields, so the stricter meaning is used: a set of denials denies the "
    "rest, an error inside deny or require denies; say --compat oct or --compat now"
)


@dataclass(slots=True)
class _Attempt:
    """The file read as one generation."""

    generation: Generation
    report: Report
    old: oct.Root | None = None
    root: now.Root | None = None


def load(text: str, options: FileOptions, environment: Mapping[str, str], base: Path) -> Loaded:
    """Raises ConfigError that names every problem with its line."""
    document = Document(text, options.name, environment)
    attempt, told = _choose(document, options, base)
    report = attempt.report
    report.check()
    if not told:
        report.warnings.append(Problem(0, "", UNTOLD))
    strict = attempt.generation == "oct" or not told
    context = Context(document, report, strict, options.allow_anonymous)
    root = attempt.root
    assert root is not None
    snapshot = _translate(context, root, attempt.old)
    flags = {**audit_flags(context, root.audit), **tracing_flags(context, root.config)}
    settings = replace(_settings(context, root), audit=flags)
    report.check()
    warnings = sorted(set(report.warnings), key=lambda problem: (problem.line, problem.path, problem.message))
    title = TITLES[attempt.generation] if told else "agentgateway, of either generation"
    return Loaded(
        options.name,
        title,
        snapshot,
        settings,
        tuple(problem.text(options.name) for problem in warnings),
        frozenset(report.files),
        Places(document, context.places),
    )


def _choose(document: Document, options: FileOptions, base: Path) -> tuple[_Attempt, bool]:
    """The file as the generation it is, and whether that was told by somebody or by its fields."""
    wanted: Generation | Literal[""] = options.compat
    first = _attempt(document, wanted or "oct", base)
    if wanted and not first.report.errors:
        return first, True
    other = _attempt(document, "now" if first.generation == "oct" else "oct", base)
    if wanted:
        _name_the_other(first, other)
        return first, True
    fitting = [attempt for attempt in (other, first) if not attempt.report.errors]
    if fitting:
        return fitting[0], len(fitting) == 1
    # the one with fewer mistakes is more likely what was meant
    meant, less = sorted((other, first), key=lambda attempt: len(attempt.report.errors))
    _name_the_other(meant, less)
    return meant, True


def _attempt(document: Document, generation: Generation, base: Path) -> _Attempt:
    attempt = _Attempt(generation, Report(document.name))
    if generation == "oct":
        attempt.old = decode(document, oct.Root, attempt.report, base)
        attempt.root = upgrade(attempt.old) if attempt.old is not None else None
    else:
        attempt.root = decode(document, now.Root, attempt.report, base)
    return attempt


def _name_the_other(meant: _Attempt, other: _Attempt) -> None:
    """Say of each unknown field that the other generation has it, if it does."""
    unknown = [problem.path for problem in other.report.errors if problem.message.startswith("unknown field")]
    for index, problem in enumerate(meant.report.errors):
        strange = any(problem.path == path or problem.path.startswith((f"{path}.", f"{path}[")) for path in unknown)
        if problem.message.startswith("unknown field") and not strange:
            told = f"{problem.message}; {TITLES[other.generation]}, has it (--compat {other.generation})"
            meant.report.errors[index] = replace(problem, message=told)


def _translate(context: Context, root: now.Root, old: oct.Root | None) -> Snapshot:
    attachments = Attachments()
    for index, entry in enumerate(root.policies):
        path: Path_ = ("policies", index)
        target = entry.target
        context.one_of((*path, "target"), {"gateway": target.gateway, "route": target.route, "backend": target.backend})
        attachments.add(context, path, entry, Structured(target))
    gateway_names: dict[Path_, str] = {}
    if old is not None:
        _attach_old(context, attachments, old)
        for index, bind in enumerate(old.binds):
            for number, listener in enumerate(bind.listeners):
                if listener.gateway_name is not None:
                    gateway_names[("binds", index, "listeners", number)] = listener.gateway_name
    named = {backend.name: backend for backend in root.backends}
    paths: dict[str, Path_] = {backend.name: ("backends", index) for index, backend in enumerate(root.backends)}
    if len(named) != len(root.backends):
        context.error(("backends",), "two have the same name")
    http = root.frontend_policies.http if root.frontend_policies is not None else None
    servers = Servers(context, named)
    limit = http.max_buffer_size if http is not None else None
    routes = Routes(context, servers, attachments, named, paths, limit)
    listeners = Listeners(context, routes, attachments)
    listeners.binds(root.binds, gateway_names)
    listeners.gateways(root)
    if root.mcp is not None:
        listeners.mcp(root.mcp, listening=bool(root.gateways))
    found = listeners.finish()
    if not found:
        context.error((), "nothing listens: give binds, gateways or mcp")
    attachments.check(context)
    return Snapshot(
        gateway="file/default",
        default_namespace="file",
        mcp=tuple(servers.found.values()),
        listeners=found,
        virtual=tuple(routes.virtual.values()),
        children=tuple(servers.children.values()),
    )


def _attach_old(context: Context, attachments: Attachments, old: oct.Root) -> None:
    for section, entries in (("policies", old.policies), ("gatewayPolicies", old.gateway_policies)):
        for index, entry in enumerate(entries):
            path: Path_ = (section, index)
            upgraded, kind, name = targeted(entry)
            if not kind:
                context.error((*path, "target"), "give exactly one of gateway, listener, route, routeRule, backend")
            else:
                attachments.add(context, path, upgraded, Named(kind, name))


def _settings(context: Context, root: now.Root) -> Settings:
    config = root.config
    frontend = root.frontend_policies.tls if root.frontend_policies is not None else None
    if frontend is not None:
        where: Path_ = ("frontendPolicies", "tls")
        if frontend.min_version == "TLS_V1_3":
            context.error((*where, "minVersion"), "TLS 1.2 cannot be switched off; use TLS_V1_2")
        if frontend.max_version not in (None, "TLS_V1_3"):
            context.error((*where, "maxVersion"), "TLS 1.3 cannot be switched off; remove it")
    if config is None:
        return Settings()
    addresses = {"admin": "", "stats": "", "ready": ""}
    for name, written, text in (
        ("admin", "adminAddr", config.admin_addr),
        ("stats", "statsAddr", config.stats_addr),
        ("ready", "readinessAddr", config.readiness_addr),
    ):
        if text is not None:
            addresses[name] = _address(context, ("config", written), text)
    settings = Settings(addresses["admin"], addresses["stats"], addresses["ready"])
    logging = config.logging
    if logging is None:
        return settings
    level = logging.level if isinstance(logging.level, str) else ",".join(logging.level or [])
    if logging.level is not None:
        try:
            parse_levels(level)
        except QuarterdeckError as error:
            context.error(("config", "logging", "level"), str(error))
    return replace(settings, log_level=level, log_format=logging.format or "")


def _address(context: Context, path: Path_, text: str) -> str:
    text = text.replace("localhost:", "127.0.0.1:", 1) if text.startswith("localhost:") else text
    try:
        address(text)
    except QuarterdeckError as error:
        hint = "; unix sockets are not served" if text.startswith("unix:") else ""
        context.error(path, f"{error}{hint}")
    return text
