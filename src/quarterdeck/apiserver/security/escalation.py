"""Privilege escalation checks on writes of roles and bindings (RBAC's escalate and bind verbs)."""

from __future__ import annotations

from collections.abc import Iterable

from quarterdeck.errors import NotFound
from quarterdeck.kube.resource import Object, Resource

from .identity import Attributes, User, forbidden_object, quoted
from .rbac import Authorizer
from .rules import Rule, compact, read_rules, uncovered

GROUP = "rbac.authorization.k8s.io"
_ROLES = ("roles", "clusterroles")
_BINDINGS = ("rolebindings", "clusterrolebindings")


def check_escalation(authorizer: Authorizer, user: User, resource: Resource, obj: Object, old: Object | None) -> None:
    """Nobody hands out more than they hold. Call on create and update of the four RBAC kinds; raises Forbidden.

    An update that changes neither rules nor subjects and roleRef (labels, finalizers) is not checked.
    """
    if resource.group != GROUP:
        return
    meta = obj["metadata"]
    namespace, name = str(meta.get("namespace") or ""), str(meta.get("name") or "")
    if resource.plural in _ROLES:
        if old is not None and _same(obj, old, ("rules", "aggregationRule")):
            return
        if _may(authorizer, Attributes(user, "escalate", GROUP, resource.plural, "", namespace, name)):
            return
        rules = read_rules(obj)
        if obj.get("aggregationRule"):  # what it will select is not known yet: as upstream, ask for everything
            rules = (Rule(("*",), ("*",), ("*",)), Rule(("*",), urls=("*",)))
        _check(authorizer, user, resource, namespace, name, rules)
    elif resource.plural in _BINDINGS:
        if old is not None and _same(obj, old, ("subjects", "roleRef")):
            return
        reference = obj.get("roleRef") or {}
        kind = "roles" if reference.get("kind") == "Role" else "clusterroles"
        bind = Attributes(user, "bind", GROUP, kind, "", namespace, str(reference.get("name", "")))
        if _may(authorizer, bind):
            return
        granted = authorizer.role_rules(reference, namespace)
        if granted is None:
            target = str(reference.get("name", ""))
            raise NotFound(f'{kind}.{GROUP} "{target}" not found', name=target, group=GROUP, kind=kind)
        _check(authorizer, user, resource, namespace, name, granted)


def _may(authorizer: Authorizer, attributes: Attributes) -> bool:
    return authorizer.decide(attributes).allowed


def _same(a: Object, b: Object, fields: Iterable[str]) -> bool:
    return all((a.get(f) or None) == (b.get(f) or None) for f in fields)


def _check(
    authorizer: Authorizer, user: User, resource: Resource, namespace: str, name: str, rules: Iterable[Rule]
) -> None:
    missing = uncovered(authorizer.rules_for(user, namespace), rules)
    if not missing:
        return
    groups = " ".join(quoted(g) for g in user.groups)
    lines = "\n".join(sorted(str(r) for r in compact(missing)))
    why = (
        f"user {quoted(user.name)} (groups=[{groups}]) is attempting to grant RBAC permissions not currently held:\n"
        f"{lines}"
    )
    raise forbidden_object(GROUP, resource.plural, name, why)
