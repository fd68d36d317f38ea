"""Filters, timeouts and retries of a rule as policies (httproute_types.go)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from quarterdeck.errors import ConfigError
from quarterdeck.resources.gateway_api.route import (
    CorsFilter,
    Filter,
    HeaderFilter,
    HttpRule,
    MirrorFilter,
    PathModifier,
    RedirectFilter,
    RewriteFilter,
)
from quarterdeck.snapshot.merge import merged
from quarterdeck.snapshot.policies import Cors, HeaderModifier, Policies, Redirect, Retry, Rewrite
from quarterdeck.snapshot.routing import Mirror
from quarterdeck.translate.objects import duration

from .attach_policies import Index
from .backends import Backends
from .rules import NONE, Rules
from .status import Problem

_OF_BACKENDS = ("RequestHeaderModifier", "ResponseHeaderModifier")


@dataclass(slots=True)
class Filtered:
    """What filters ask for. ``unsupported``: the route is not accepted; ``unresolved``: the rule answers 500."""

    policies: Policies = field(default_factory=Policies)
    rules: Rules = NONE
    """Of policies named by ExtensionRef."""
    mirrors: list[Mirror] = field(default_factory=list[Mirror])
    unsupported: list[Problem] = field(default_factory=list[Problem])
    unresolved: list[Problem] = field(default_factory=list[Problem])
    broken: bool = False
    """Whether a filter that must not be skipped cannot be applied."""


def of_rule(rule: HttpRule, namespace: str, backends: Backends, index: Index) -> Filtered:
    """All filters, timeouts and retries of a rule."""
    found = Filtered()
    for each in rule.filters or ():
        _apply(each, found, namespace, backends, index)
    kinds = {each.type for each in rule.filters or ()}
    if {"RequestRedirect", "URLRewrite"} <= kinds:
        found.unsupported.append(Problem("IncompatibleFilters", "RequestRedirect and URLRewrite exclude each other"))
    changes: dict[str, Any] = {}
    try:
        if rule.timeouts is not None:
            changes["timeout"] = _seconds(rule.timeouts.request)
            changes["backend_timeout"] = _seconds(rule.timeouts.backend_request)
        if rule.retry is not None:
            backoff = _seconds(rule.retry.backoff) or 0.025
            changes["retry"] = Retry(rule.retry.attempts, tuple(rule.retry.codes or ()), backoff)
    except ConfigError as error:
        found.unsupported.append(Problem("UnsupportedValue", str(error)))
    found.policies = merged(found.policies, Policies(**changes))
    return found


def of_backend(filters: Sequence[Filter] | None, found: Filtered) -> Policies:
    """Filters of a single backendRef: header modifiers are served, others are added to ``found.unsupported``."""
    own = Filtered()
    for each in filters or ():
        if each.type in _OF_BACKENDS:
            _headers(each, own)
        else:
            text = f"filter {each.type} is not served on a backendRef; put it on the rule"
            found.unsupported.append(Problem("UnsupportedValue", text))
    return own.policies


def _apply(each: Filter, found: Filtered, namespace: str, backends: Backends, index: Index) -> None:
    match each.type:
        case "RequestHeaderModifier" | "ResponseHeaderModifier":
            _headers(each, found)
        case "RequestRedirect" if each.request_redirect is not None:
            _set(found, redirect=_redirect(each.request_redirect))
        case "URLRewrite" if each.url_rewrite is not None:
            _set(found, rewrite=_rewrite(each.url_rewrite))
        case "CORS" if each.cors is not None:
            _set(found, cors=_cors(each.cors))
        case "RequestMirror" if each.request_mirror is not None:
            _mirror(each.request_mirror, found, namespace, backends)
        case "ExtensionRef" if each.extension_ref is not None:
            ref = each.extension_ref
            answer = index.extension(ref.group, ref.kind, namespace, ref.name)
            if isinstance(answer, Problem):
                found.unresolved.append(answer)
                found.broken = True
            else:
                found.rules = found.rules.within(answer)
        case _:
            found.unsupported.append(Problem("UnsupportedValue", f"filter {each.type} is not served"))


def _set(found: Filtered, **changes: Any) -> None:
    found.policies = msgspec.structs.replace(found.policies, **changes)


def _headers(each: Filter, found: Filtered) -> None:
    if each.type == "RequestHeaderModifier" and each.request_header_modifier is not None:
        modifier = Policies(request_headers=_modifier(each.request_header_modifier))
    elif each.response_header_modifier is not None:
        modifier = Policies(response_headers=_modifier(each.response_header_modifier))
    else:
        found.unsupported.append(Problem("UnsupportedValue", f"filter {each.type} without its block"))
        return
    found.policies = merged(found.policies, modifier)


def _modifier(wanted: HeaderFilter) -> HeaderModifier:
    return HeaderModifier(
        add=tuple((h.name, h.value) for h in wanted.add or ()),
        set=tuple((h.name, h.value) for h in wanted.set or ()),
        remove=tuple(wanted.remove or ()),
    )


def _path(wanted: PathModifier | None) -> tuple[str | None, str | None]:
    """The whole path, or what takes the matched prefix's place."""
    if wanted is None:
        return None, None
    if wanted.type == "ReplaceFullPath":
        return wanted.replace_full_path or "/", None
    return None, wanted.replace_prefix_match or "/"


def _redirect(wanted: RedirectFilter) -> Redirect:
    path, prefix = _path(wanted.path)
    return Redirect(
        scheme=wanted.scheme or "",
        host=wanted.hostname or "",
        port=wanted.port or 0,
        path=path,
        prefix=prefix,
        status=wanted.status_code,
    )


def _rewrite(wanted: RewriteFilter) -> Rewrite:
    path, prefix = _path(wanted.path)
    return Rewrite(host=wanted.hostname or "", path=path, prefix=prefix)


def _cors(wanted: CorsFilter) -> Cors:
    return Cors(
        tuple(wanted.allow_origins or ()),
        tuple(wanted.allow_methods or ()),
        tuple(wanted.allow_headers or ()),
        tuple(wanted.expose_headers or ()),
        bool(wanted.allow_credentials),
        wanted.max_age,
    )


def _mirror(wanted: MirrorFilter, found: Filtered, namespace: str, backends: Backends) -> None:
    target = backends.of(wanted.backend_ref, namespace)
    if target.problem is not None:
        found.unresolved.append(target.problem)
        return  # a request that cannot be copied is served all the same
    if target.http is None:
        text = f"{wanted.backend_ref.kind} {wanted.backend_ref.name} is no HTTP service: its copies are not sent"
        found.unresolved.append(Problem("UnsupportedProtocol", text))
        return
    percent = 100.0
    if wanted.percent is not None:
        percent = float(wanted.percent)
    elif wanted.fraction is not None:
        percent = 100.0 * wanted.fraction.numerator / wanted.fraction.denominator
    found.mirrors.append(Mirror(target.http, percent))


def _seconds(text: str | None) -> float:
    """Raises ConfigError. Zero: none."""
    return duration(text) if text else 0.0
