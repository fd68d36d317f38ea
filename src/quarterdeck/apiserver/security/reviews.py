"""The review APIs of authentication.k8s.io and authorization.k8s.io, and OIDC discovery: pure functions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from quarterdeck.errors import BadRequest, Cause, Invalid, Unauthorized
from quarterdeck.kube.resource import Object

from .authn import Authenticator
from .identity import Attributes, Decision, User
from .rbac import Authorizer

_AUTHZ = "authorization.k8s.io"
_AUTHN = "authentication.k8s.io"


def subject_access_review(body: Object, authorizer: Authorizer) -> Object:
    """May ``spec.user`` with ``spec.groups`` do what the attributes say?"""
    spec = _spec(body)
    user, groups = str(spec.get("user") or ""), tuple(spec.get("groups") or ())
    if not user and not groups:
        raise _invalid("SubjectAccessReview", "spec.user", "at least one of user or group must be specified")
    extra = {k: tuple(v) for k, v in (spec.get("extra") or {}).items()}
    subject = User(user, groups, str(spec.get("uid") or ""), extra)
    return _answer(body, "SubjectAccessReview", authorizer.decide(_attributes("SubjectAccessReview", spec, subject)))


def local_subject_access_review(body: Object, namespace: str, authorizer: Authorizer) -> Object:
    """A SubjectAccessReview confined to the namespace of its URL."""
    attributes = _spec(body).get("resourceAttributes") or {}
    if _spec(body).get("nonResourceAttributes"):
        raise _invalid("LocalSubjectAccessReview", "spec.nonResourceAttributes", "disallowed on this kind of request")
    if (attributes.get("namespace") or "") != namespace:
        raise BadRequest(f"spec.resourceAttributes.namespace must match namespace: {namespace}")
    return {**subject_access_review(body, authorizer), "kind": "LocalSubjectAccessReview"}


def self_subject_access_review(user: User, body: Object, authorizer: Authorizer) -> Object:
    """May the caller do what the attributes say?"""
    kind = "SelfSubjectAccessReview"
    return _answer(body, kind, authorizer.decide(_attributes(kind, _spec(body), user)))


def self_subject_rules_review(user: User, body: Object, authorizer: Authorizer) -> Object:
    """The rules the caller holds in ``spec.namespace``."""
    namespace = str(_spec(body).get("namespace") or "")
    if not namespace:
        raise BadRequest("no namespace on request")
    resource_rules: list[Object] = []
    other_rules: list[Object] = []
    for rule in authorizer.rules_for(user, namespace):
        if rule.urls:
            other_rules.append({"verbs": list(rule.verbs), "nonResourceURLs": list(rule.urls)})
        else:
            resource_rules.append(rule.to_object())
    status = {"resourceRules": resource_rules, "nonResourceRules": other_rules, "incomplete": False}
    return _object(body, "SelfSubjectRulesReview", _AUTHZ, status)


def self_subject_review(user: User, body: Object) -> Object:
    """Who the caller is (kubectl auth whoami)."""
    return _object(body, "SelfSubjectReview", _AUTHN, {"userInfo": user.to_info()})


def token_review(body: Object, authenticator: Authenticator) -> Object:
    """Who holds ``spec.token``, and for which of ``spec.audiences``. A bad token is an answer, not an error."""
    spec = _spec(body)
    token = spec.get("token")
    if not token:
        raise BadRequest("token is required for TokenReview in authentication")
    try:
        user, audiences = authenticator.authenticate_token(str(token), tuple(spec.get("audiences") or ()))
    except Unauthorized as error:
        return _object(body, "TokenReview", _AUTHN, {"user": {}, "error": f"[invalid bearer token, {error}]"})
    status: Object = {"authenticated": True, "user": user.to_info(), "audiences": list(audiences)}
    return _object(body, "TokenReview", _AUTHN, status)


def openid_configuration(issuer: str, jwks_uri: str) -> Object:
    """The OIDC discovery document, as kube-apiserver serves it."""
    return {
        "issuer": issuer,
        "jwks_uri": jwks_uri,
        "response_types_supported": ["id_token"],
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": ["ES256"],
    }


def _spec(body: Object) -> dict[str, Any]:
    spec = body.get("spec") or {}
    if not isinstance(spec, dict):
        raise BadRequest("spec must be an object")
    return spec


def _attributes(kind: str, spec: Mapping[str, Any], user: User) -> Attributes:
    resource, path = spec.get("resourceAttributes"), spec.get("nonResourceAttributes")
    if resource is not None and path is not None:
        raise _invalid(kind, "spec.nonResourceAttributes", "cannot be specified in combination with resourceAttributes")
    if path is not None:
        return Attributes(user, str(path.get("verb") or ""), path=str(path.get("path") or ""))
    if resource is None:
        message = "exactly one of nonResourceAttributes or resourceAttributes must be specified"
        raise _invalid(kind, "spec.resourceAttributes", message)

    def text(key: str) -> str:
        return str(resource.get(key) or "")

    return Attributes(
        user, text("verb"), text("group"), text("resource"), text("subresource"), text("namespace"), text("name")
    )


def _invalid(kind: str, field: str, message: str) -> Invalid:
    text = f"Invalid value: {message}"
    return Invalid(
        f'{kind}.{_AUTHZ} "" is invalid: {field}: {text}', group=_AUTHZ, kind=kind, causes=(Cause(field, text),)
    )


def _answer(body: Object, kind: str, decision: Decision) -> Object:
    status: Object = {"allowed": decision.allowed}
    if decision.reason:
        status["reason"] = decision.reason
    return _object(body, kind, _AUTHZ, status)


def _object(body: Object, kind: str, group: str, status: Object) -> Object:
    result: Object = {"kind": kind, "apiVersion": f"{group}/v1", "metadata": body.get("metadata") or {}}
    spec = body.get("spec")
    if spec is not None:
        result["spec"] = spec
    result["status"] = status
    return result
