"""HorizontalPodAutoscaler v2 on CPU and memory (metrics.k8s.io), for any kind with a scale subresource."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Any, Literal

from quarterdeck import errors
from quarterdeck.kube.clock import timestamp
from quarterdeck.kube.conditions import set_condition
from quarterdeck.kube.controller import DONE, Controller, ControllerSet, Result
from quarterdeck.kube.quantity import parse_quantity
from quarterdeck.kube.resource import HPA, POD, Key, Object, Resource

from .control import write_status
from .discovery import served_resources
from .hpa_plan import History, MetricUnavailable, resource_recommendation, stabilized

PERIOD = 15.0
_POD_METRICS = Resource("metrics.k8s.io", "v1beta1", "PodMetrics", "pods")


class Autoscalers:
    def __init__(self, controllers: ControllerSet, *, period: float = PERIOD) -> None:
        self._client = controllers.client
        self._clock = controllers.clock
        self._period = period
        self._recorder = controllers.recorder("horizontal-pod-autoscaler")
        self._autoscalers = controllers.informer(HPA)
        self._pods = controllers.informer(POD)
        self._pods.add_index("namespace", lambda pod: [pod["metadata"]["namespace"]])
        self._history: dict[Key, History] = {}
        self._targets: dict[tuple[str, str], Resource] = {}
        controllers.add(Controller("horizontalpodautoscaler", HPA, self.reconcile, workers=1))

    async def reconcile(self, key: Key) -> Result:
        hpa = self._autoscalers.get(*key)
        if hpa is None:
            self._history.pop(key, None)
            return DONE
        status = dict(hpa.get("status") or {})
        status["observedGeneration"] = hpa["metadata"].get("generation", 0)
        reference = hpa["spec"]["scaleTargetRef"]
        try:
            res = await self._target(reference)
            scale = await self._client.get(res, reference["name"], key.namespace, subresource="scale")
        except errors.ApiError as error:
            message = f"the HPA controller was unable to get the target's current scale: {error}"
            self._set(status, "AbleToScale", "False", "FailedGetScale", message)
            self._recorder.event(hpa, "Warning", "FailedGetScale", str(error))
        else:
            await self._autoscale(hpa, key, res, scale, status)
        await write_status(self._autoscalers, HPA, hpa, status)
        return Result(self._period)

    async def _autoscale(self, hpa: Object, key: Key, res: Resource, scale: Object, status: Object) -> None:
        self._set(status, "AbleToScale", "True", "SucceededGetScale",
                  "the HPA controller was able to get the target's current scale")  # fmt: skip
        current: int = (scale.get("spec") or {}).get("replicas", 0)
        status["currentReplicas"] = (scale.get("status") or {}).get("replicas", 0)
        low, high = hpa["spec"].get("minReplicas", 1), hpa["spec"]["maxReplicas"]
        if current == 0 and low != 0:
            self._set(status, "ScalingActive", "False", "ScalingDisabled",
                      "scaling is disabled since the replica count of the target is zero")  # fmt: skip
            status["desiredReplicas"] = 0
            return
        if not low <= current <= high:
            size = min(max(current, low), high)
            reason = "Current number of replicas above Spec.MaxReplicas" if current > high else (
                "Current number of replicas below Spec.MinReplicas")  # fmt: skip
        else:
            try:
                wanted = await self._recommend(hpa, key, scale, current, status)
            except MetricUnavailable as error:
                message = f"the HPA was unable to compute the replica count: {error}"
                self._set(status, "ScalingActive", "False", error.reason, message)
                self._recorder.event(hpa, "Warning", error.reason, str(error))
                status.setdefault("desiredReplicas", current)
                return
            history = self._history.setdefault(key, History())
            size, limit_reason, limit_text = stabilized(hpa, current, wanted, history, self._clock.time())
            limited = "False" if limit_reason == "DesiredWithinRange" else "True"
            self._set(status, "ScalingLimited", limited, limit_reason, limit_text)
            reason = "All metrics below target" if size < current else "resource utilization above target"
        status["desiredReplicas"] = size
        if size != current:
            await self._rescale(hpa, key, res, current, size, reason, status)

    async def _rescale(
        self, hpa: Object, key: Key, res: Resource, current: int, size: int, reason: str, status: Object
    ) -> None:
        name = hpa["spec"]["scaleTargetRef"]["name"]
        await self._client.patch(res, name, {"spec": {"replicas": size}}, key.namespace, subresource="scale")
        now = self._clock.time()
        history = self._history.setdefault(key, History())
        history.changes = [(t, d) for t, d in history.changes if t > now - 1800] + [(now, size - current)]
        status["lastScaleTime"] = timestamp(now)
        self._set(status, "AbleToScale", "True", "SucceededRescale",
                  f"the HPA controller was able to update the target scale to {size}")  # fmt: skip
        self._recorder.event(hpa, "Normal", "SuccessfulRescale", f"New size: {size}; reason: {reason}")

    async def _recommend(self, hpa: Object, key: Key, scale: Object, current: int, status: Object) -> int:
        """The largest size any metric asks for. Raises MetricUnavailable when none could be read."""
        selector = (scale.get("status") or {}).get("selector", "")
        usage = await self._usage(key.namespace, selector)
        labels = dict(part.partition("=")[::2] for part in selector.split(",") if "=" in part)
        pods = [p for p in self._pods.by_index("namespace", key.namespace)
                if labels.items() <= (p["metadata"].get("labels") or {}).items()]  # fmt: skip
        sizes: list[int] = []
        entries: list[Object] = []
        problem: MetricUnavailable | None = None
        for metric in hpa["spec"].get("metrics") or ():
            try:
                if metric["type"] != "Resource":
                    raise MetricUnavailable(
                        f"FailedGet{metric['type']}Metric",
                        f"metrics of type {metric['type']} are not served by this API server; use type Resource",
                    )
                size, entry = resource_recommendation(metric["resource"], pods, usage, current)
            except MetricUnavailable as error:
                problem = error
                continue
            sizes.append(size)
            entries.append(entry)
        # A metric that cannot be read never makes the target smaller.
        if not sizes or (problem is not None and max(sizes) < current):
            raise problem or MetricUnavailable("InvalidMetricSourceType", "spec.metrics names no metric")
        status["currentMetrics"] = entries
        self._set(status, "ScalingActive", "True", "ValidMetricFound",
                  "the HPA was able to successfully calculate a replica count from its metrics")  # fmt: skip
        return max(sizes)

    async def _usage(self, namespace: str, selector: str) -> Mapping[str, Mapping[str, Decimal]]:
        try:
            listed = await self._client.list(_POD_METRICS, namespace, label_selector=selector)
        except errors.ApiError as error:
            text = f"unable to get metrics for resource: unable to fetch metrics from resource metrics API: {error}"
            raise MetricUnavailable("FailedGetResourceMetric", text) from error
        usage: dict[str, dict[str, Decimal]] = {}
        for item in listed.items:
            sums = usage.setdefault(item["metadata"]["name"], {})
            for container in item.get("containers") or ():
                for name, value in (container.get("usage") or {}).items():
                    sums[name] = sums.get(name, Decimal(0)) + parse_quantity(value)
        return usage

    async def _target(self, reference: Mapping[str, Any]) -> Resource:
        """The resource of a scaleTargetRef, looked up by discovery once."""
        group = reference.get("apiVersion", "").rpartition("/")[0]
        found = self._targets.get((group, reference["kind"]))
        if found is None:
            served, _ = await served_resources(self._client)
            self._targets = {(s.resource.group, s.resource.kind): s.resource for s in served}
            found = self._targets.get((group, reference["kind"]))
        if found is None:
            raise errors.NotFound(f"no matches for kind {reference['kind']!r} in group {group!r}")
        return found

    def _set(self, status: Object, kind: str, value: Literal["True", "False"], reason: str, message: str) -> None:
        now = timestamp(self._clock.time())
        status["conditions"] = set_condition(status.get("conditions"), kind, value, reason, message, None, now)
