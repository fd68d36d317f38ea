"""Who may do what: certificates, tokens, authentication, RBAC, reviews, and Secrets at rest."""

from __future__ import annotations

from .authn import Authenticator
from .browser import check_browser
from .cipher import SecretCipher
from .identity import ANONYMOUS, Attributes, Decision, ObjectReader, User, forbidden
from .kubeconfig import kubeconfig_token, write_kubeconfig
from .pki import KeyPair, Pki, ensure_pki
from .rbac import Authorizer
from .tokens import AdminToken, ServiceAccountTokens

__all__ = [
    "ANONYMOUS", "AdminToken", "Attributes", "Authenticator", "Authorizer", "Decision", "KeyPair", "ObjectReader",
    "Pki", "SecretCipher", "ServiceAccountTokens", "User", "check_browser", "ensure_pki", "forbidden",
    "kubeconfig_token", "write_kubeconfig",
]  # fmt: skip
