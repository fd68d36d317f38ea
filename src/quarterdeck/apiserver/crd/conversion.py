"""Conversion of custom objects between versions: apiVersion only, in process, or by a ConversionReview webhook."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any
from uuid import uuid4

from quarterdeck.apiserver.crd.pruning import copy
from quarterdeck.errors import InternalError
from quarterdeck.kube.resource import Object

Conversion = Callable[[Object, str], Object]
"""``(object, wanted apiVersion) -> object``; must not change its argument."""
Post = Callable[[Object], Awaitable[Object]]
"""Sends one ConversionReview to the webhook and gives its answer."""


class InProcess:
    """Conversions known to this process, by group and kind; they win over strategy None."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, str], Conversion] = {}

    def register(self, group: str, kind: str, conversion: Conversion) -> None:
        self._known[(group, kind)] = conversion

    def get(self, group: str, kind: str) -> Conversion | None:
        return self._known.get((group, kind))


def register_converter(registry: InProcess, group: str, kind: str, conversion: Conversion) -> None:
    registry.register(group, kind, conversion)


def converter_of(crd: Object, registry: InProcess | None = None) -> Conversion:
    """The conversion of a definition's objects. A webhook cannot answer synchronously: use ``Webhook`` for those."""
    spec = crd["spec"]
    group, kind = spec["group"], spec["names"]["kind"]
    known = registry.get(group, kind) if registry is not None else None
    webhook = (spec.get("conversion") or {}).get("strategy") == "Webhook"

    def convert(obj: Object, version: str) -> Object:
        wanted = version if "/" in version else f"{group}/{version}"
        if obj.get("apiVersion") == wanted:
            return obj
        if known is not None:
            converted = known(obj, wanted)
            return {**converted, "apiVersion": wanted}
        if webhook:
            raise InternalError(
                f"conversion webhook for {group}, Kind={kind} must be called before the object is served"
            )
        return {**obj, "apiVersion": wanted}

    return convert


class Webhook:
    """Strategy Webhook (ConversionReview v1)."""

    def __init__(self, post: Post, finish: Callable[[Object], Object] | None = None) -> None:
        """``finish`` completes an object that was converted: with the defaults of the version it is in now."""
        self._post = post
        self._finish = finish

    def finished_by(self, finish: Callable[[Object], Object]) -> Webhook:
        return Webhook(self._post, finish)

    async def convert(self, objects: list[Object], wanted: str) -> list[Object]:
        """All ``objects`` in apiVersion ``wanted``. Raises InternalError when the webhook fails."""
        pending = [obj for obj in objects if obj.get("apiVersion") != wanted]
        if not pending:
            return objects
        uid = str(uuid4())
        request = {"uid": uid, "desiredAPIVersion": wanted, "objects": pending}
        review = await self._post(
            {"apiVersion": "apiextensions.k8s.io/v1", "kind": "ConversionReview", "request": request}
        )
        response: dict[str, Any] = review.get("response") or {}
        result: dict[str, Any] = response.get("result") or {}
        if response.get("uid") != uid:
            raise failed(pending[0], f"expected response.uid={uid!r}, got {response.get('uid')!r}")
        if result.get("status") != "Success":
            raise failed(pending[0], str(result.get("message") or "unknown reason"))
        converted: list[Object] = response.get("convertedObjects") or []
        if len(converted) != len(pending):
            raise failed(pending[0], f"returned {len(converted)} objects, expected {len(pending)}")
        merged = [_merged(before, after, wanted) for before, after in zip(pending, converted, strict=True)]
        answers = iter(merged if self._finish is None else map(self._finish, merged))
        return [obj if obj.get("apiVersion") == wanted else next(answers) for obj in objects]


def _merged(before: Object, after: Object, wanted: str) -> Object:
    """Of metadata a webhook may change labels and annotations only."""
    if after.get("apiVersion") != wanted or after.get("kind") != before.get("kind"):
        raise failed(before, f"returned {after.get('apiVersion')}, Kind={after.get('kind')}, expected {wanted}")
    metadata = copy(before.get("metadata") or {})
    sent: dict[str, Any] = after.get("metadata") or {}
    for key in ("name", "namespace", "uid"):
        if sent.get(key) != metadata.get(key):
            raise failed(before, f"must not change metadata.{key}")
    for key in ("labels", "annotations"):
        metadata.pop(key, None)
        if sent.get(key):
            metadata[key] = sent[key]
    return {**after, "metadata": metadata}


def failed(obj: Object, why: str) -> InternalError:
    """What a client hears when an object could not be converted by its webhook."""
    return InternalError(f"conversion webhook for {obj.get('apiVersion')}, Kind={obj.get('kind')} failed: {why}")
