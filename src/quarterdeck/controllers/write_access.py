"""Whose controller may really write an object: asked of the API server about a ServiceAccount, and kept for a while."""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable
from typing import NamedTuple

from quarterdeck import errors
from quarterdeck.kube.client import KubeClient
from quarterdeck.kube.resource import Object, Resource

log = logging.getLogger(__name__)

SECONDS = 60.0
"""How long an answer is good for."""
_KEPT = 4096
_PATH = "/apis/authorization.k8s.io/v1/subjectaccessreviews"


class Account(NamedTuple):
    """A ServiceAccount."""

    namespace: str
    name: str

    @property
    def user(self) -> str:
        return f"system:serviceaccount:{self.namespace}:{self.name}"

    @property
    def groups(self) -> list[str]:
        """All that its tokens carry: rights are bound to these too."""
        return ["system:serviceaccounts", f"system:serviceaccounts:{self.namespace}", "system:authenticated"]


def account_of(deployment: Object) -> Account:
    """The ServiceAccount that its Pods run as."""
    pod = ((deployment.get("spec") or {}).get("template") or {}).get("spec") or {}
    name = pod.get("serviceAccountName") or pod.get("serviceAccount") or "default"
    return Account(deployment["metadata"]["namespace"], str(name))


class _Question(NamedTuple):
    account: Account
    resource: Resource
    namespace: str
    """Empty: in all namespaces."""


class WriteAccess:
    """By SubjectAccessReviews, which need a ClusterRole. ``now`` gives monotonic seconds."""

    def __init__(self, client: KubeClient, now: Callable[[], float]) -> None:
        self._client = client
        self._now = now
        self._answers: OrderedDict[_Question, tuple[float, bool | None]] = OrderedDict()

    async def allowed(self, account: Account, res: Resource, namespace: str) -> bool:
        """Whether it may update the status of the kind's objects there, which every controller of the kind has to.

        One answer for the whole cluster serves all namespaces. When it cannot be asked, the last answer stays, and
        without one it is no. Raises NotLeader.
        """
        everywhere = await self._answer(_Question(account, res, ""))
        if everywhere is None:
            return False
        return everywhere or bool(await self._answer(_Question(account, res, namespace)))

    async def _answer(self, question: _Question) -> bool | None:
        """None: never answered."""
        until, known = self._answers.get(question, (0.0, None))
        if self._now() < until:
            return known
        try:
            known = await self._ask(question)
        except (errors.ApiError, errors.UpstreamError, errors.TimedOut) as error:
            log.warning(
                "whether %s may update %s/status in %s cannot be asked; a controller that runs as it %s: %s",
                question.account.user,
                question.resource.plural,
                question.namespace or "all namespaces",
                "still holds us back there, as before" if known else "holds us back in its own namespace only",
                error,
            )
        self._answers[question] = (self._now() + SECONDS, known)
        self._answers.move_to_end(question)
        if len(self._answers) > _KEPT:
            self._answers.popitem(last=False)
        return known

    async def _ask(self, question: _Question) -> bool:
        account, res, namespace = question
        attributes = {"group": res.group, "resource": res.plural, "subresource": "status", "verb": "update"}
        if namespace:
            attributes["namespace"] = namespace
        spec = {"user": account.user, "groups": account.groups, "resourceAttributes": attributes}
        review = {"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview", "spec": spec}
        answer = await self._client.request("POST", _PATH, body=review)
        return bool((answer.get("status") or {}).get("allowed"))
