"""What a refused write means: one condition reason and one next step for each kind of refusal.

API servers tell quota, admission and authorization apart in words only (all three are 403), in the direct answer as in
the ``ReplicaFailure`` condition of a Deployment whose Pods are refused.
"""

from __future__ import annotations

import re

from quarterdeck.errors import ApiError, ConfigError, Invalid, QuarterdeckError, TooLarge

PROGRAMMED_FAILED = "DeploymentFailed"
"""kmcp's word for objects that could not be written, used where nothing more exact is known."""
_GENERATED_NAME = re.compile(r'^((?:Error creating: )?pods) "[^"]*"')
_WORDS: tuple[tuple[str, re.Pattern[str]], ...] = (
    ("QuotaExceeded", re.compile(r"exceeded quota|failed quota|insufficient quota")),
    ("NamespaceTerminating", re.compile(r"because it is being terminated")),
    ("LimitRangeViolated", re.compile(r"(?:maximum|minimum) \S+ usage per|limit to request ratio per")),
    (
        "AdmissionDenied",
        re.compile(r"violates PodSecurity|admission webhook .* denied|denied request|denied the request"),
    ),
    ("NotAuthorized", re.compile(r'(?:User|system:\S+) "?[^"]*"? cannot ')),
    ("ServiceAccountNotFound", re.compile(r"error looking up service account")),
    ("ConfigTooLarge", re.compile(r"request is too large|Request entity too large|[Tt]oo long: may not be more than")),
)
_NEXT = {
    "QuotaExceeded": "free some of it or raise it: `kubectl describe quota -n {namespace}`",
    "NamespaceTerminating": "nothing can be created in {namespace} any more",
    "LimitRangeViolated": "change the resources, or the limit range: `kubectl describe limitrange -n {namespace}`",
    "AdmissionDenied": "change the resource as the rule asks, or ask whoever keeps the rule",
    "NotAuthorized": "the controller's ServiceAccount lacks a permission: compare its roles with `qd manifests`",
    "ServiceAccountNotFound": "create the ServiceAccount, or leave serviceAccountName out",
    "ConfigTooLarge": "shorten what the resource carries",
}


def reason_of(text: str, otherwise: str) -> str:
    """The condition reason for a server's message; ``otherwise`` when it is none of the known refusals."""
    return next((reason for reason, words in _WORDS if words.search(text)), otherwise)


def refusal(error: QuarterdeckError, namespace: str) -> tuple[str, str]:
    """(reason, message with the next step) for an object that could not be written into ``namespace``."""
    if isinstance(error, ConfigError):
        return error.reason, str(error)
    text = str(error)
    if isinstance(error, Invalid):
        reason = reason_of(text, "InvalidObject")
    elif isinstance(error, TooLarge):
        reason = "ConfigTooLarge"
    elif isinstance(error, ApiError) and error.status_code == 403:
        reason = reason_of(text, "AdmissionDenied")
    else:
        reason = reason_of(text, PROGRAMMED_FAILED)
    return reason, with_next_step(reason, text, namespace)


def refused_pods(message: str, namespace: str) -> tuple[str, str]:
    """(reason, message) for the ``ReplicaFailure`` of a Deployment.

    The refused Pod's name is new with every attempt: it is left out, so that the same refusal is the same message.
    """
    text = _GENERATED_NAME.sub(r"\1", message)
    reason = reason_of(text, "FailedCreate")
    return reason, with_next_step(reason, f"Pods cannot be created: {text}", namespace)


def with_next_step(reason: str, text: str, namespace: str) -> str:
    step = _NEXT.get(reason, "")
    return f"{text}; {step.format(namespace=namespace)}" if step else text
