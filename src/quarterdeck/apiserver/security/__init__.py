"""Who may do what: certificates, tokens, authentication, RBAC, reviews, and Secrets at rest."""

from __future__ import annotations

from .authn import Authenticator, Request
from .bootstrap import ControllerPolicy, aggregated_updates, bootstrap_policy, reconciled
from .browser import check_browser
from .cipher import SecretCipher
from .escalation import check_escalation
from .identity import ANONYMOUS, Attributes, Decision, ObjectReader, User, forbidden, service_account_user
from .kubeconfig import kubeconfig_token, write_kubeconfig
from .pki import KeyPair, Pki, ensure_pki
from .rbac import Authorizer
from .reviews import (
    local_subject_access_review,
    openid_configuration,
    self_subject_access_review,
    self_subject_review,
    self_subject_rules_review,
    subject_access_review,
    token_review,
)
from .rules import Rule
from .tokens import AdminToken, ServiceAccountTokens

__all__ = [
    "ANONYMOUS", "AdminToken", "Attributes", "Authenticator", "Authorizer", "ControllerPolicy", "Decision", "KeyPair",
    "ObjectReader", "Pki", "Request", "Rule", "SecretCipher", "ServiceAccountTokens", "User", "aggregated_updates",
    "bootstrap_policy", "check_browser", "check_escalation", "ensure_pki", "forbidden", "kubeconfig_token",
    "local_subject_access_review", "openid_configuration", "reconciled", "self_subject_access_review",
    "self_subject_review", "self_subject_rules_review", "service_account_user", "subject_access_review", "token_review",
    "write_kubeconfig",
]  # fmt: skip
