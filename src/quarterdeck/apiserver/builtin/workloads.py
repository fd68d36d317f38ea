"""Validation of Deployment, ReplicaSet, Job, CronJob, HorizontalPodAutoscaler and PodDisruptionBudget."""

from __future__ import annotations

import re
from typing import Any

from quarterdeck.errors import Cause

from . import names
from .errors import IMMUTABLE, invalid, required, shown, unsupported
from .pods import pod_spec

Json = dict[str, Any]

_PERCENT = re.compile(r"^[0-9]+%$")
_OPERATORS = ("DoesNotExist", "Exists", "In", "NotIn")
_NOT_NEGATIVE = "must be greater than or equal to 0"
_CRON_FIELD = re.compile(
    r"^(\*|\?|[0-9A-Za-z]+(-[0-9A-Za-z]+)?)(/[0-9]+)?(,(\*|[0-9A-Za-z]+(-[0-9A-Za-z]+)?)(/[0-9]+)?)*$"
)
_CRON_RANGES = ((0, 59), (0, 23), (1, 31), (1, 12), (0, 7))


def label_selector(selector: Json, path: str) -> list[Cause]:
    causes = names.labels(selector.get("matchLabels"), f"{path}.matchLabels")
    for index, item in enumerate(selector.get("matchExpressions") or ()):
        where, operator = f"{path}.matchExpressions[{index}]", item.get("operator", "")
        if operator not in _OPERATORS:
            causes.append(invalid(f"{where}.operator", operator, "not a valid selector operator"))
        elif operator in ("In", "NotIn") and not item.get("values"):
            causes.append(required(f"{where}.values", "must be specified when `operator` is 'In' or 'NotIn'"))
        elif operator in ("Exists", "DoesNotExist") and item.get("values"):
            detail = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'"
            causes.append(Cause(f"{where}.values", f"Forbidden: {detail}", "FieldValueForbidden"))
        if wrong := names.qualified(item.get("key", "")):
            causes.append(invalid(f"{where}.key", item.get("key", ""), wrong))
    return causes


def matches(selector: Json, labels: dict[str, str]) -> bool:
    """Whether a LabelSelector selects ``labels``."""
    if any(labels.get(key) != value for key, value in (selector.get("matchLabels") or {}).items()):
        return False
    for item in selector.get("matchExpressions") or ():
        key, operator, values = item.get("key"), item.get("operator"), item.get("values") or ()
        if operator == "In" and labels.get(key) not in values:
            return False
        if operator == "NotIn" and key in labels and labels[key] in values:
            return False
        if (operator == "Exists") != (key in labels) and operator in ("Exists", "DoesNotExist"):
            return False
    return True


def _selected_template(spec: Json, causes: list[Cause], restart: tuple[str, ...]) -> None:
    selector, template = spec.get("selector"), spec.get("template") or {}
    labels: dict[str, str] = (template.get("metadata") or {}).get("labels") or {}
    if selector is None:
        causes.append(required("spec.selector"))
    else:
        causes.extend(label_selector(selector, "spec.selector"))
        if not selector.get("matchLabels") and not selector.get("matchExpressions"):
            causes.append(invalid("spec.selector", selector, "empty selector is invalid for deployment"))
        elif not matches(selector, labels):
            causes.append(
                invalid("spec.template.metadata.labels", labels, "`selector` does not match template `labels`")
            )
    _template(template, "spec.template", causes, restart)


def _template(template: Json, path: str, causes: list[Cause], restart: tuple[str, ...]) -> None:
    metadata = template.get("metadata") or {}
    causes.extend(names.labels(metadata.get("labels"), f"{path}.metadata.labels"))
    causes.extend(names.annotation_map(metadata.get("annotations"), f"{path}.metadata.annotations"))
    causes.extend(pod_spec(template.get("spec") or {}, f"{path}.spec", restart=restart))


def _not_negative(spec: Json, keys: tuple[str, ...], causes: list[Cause], path: str = "spec") -> None:
    causes.extend(invalid(f"{path}.{key}", spec[key], _NOT_NEGATIVE) for key in keys if (spec.get(key) or 0) < 0)


def int_or_percent(value: Any, field: str) -> list[Cause]:
    if isinstance(value, str):
        if not _PERCENT.match(value):
            detail = "a valid percent string must be a numeric string followed by an ending '%' (e.g. '1%',  or '93%', "
            return [invalid(field, value, f"{detail}regex used for validation is '[0-9]+%')")]
        return []
    return [invalid(field, value, _NOT_NEGATIVE)] if (value or 0) < 0 else []


def deployment(obj: Json, old: Json | None) -> list[Cause]:
    spec = obj.get("spec") or {}
    causes: list[Cause] = []
    _not_negative(spec, ("replicas", "minReadySeconds", "revisionHistoryLimit", "progressDeadlineSeconds"), causes)
    _selected_template(spec, causes, ("Always",))
    strategy = spec.get("strategy") or {}
    kind, rolling = strategy.get("type", ""), strategy.get("rollingUpdate")
    if kind not in ("Recreate", "RollingUpdate"):
        causes.append(unsupported("spec.strategy", strategy, ("Recreate", "RollingUpdate")))
    elif kind == "Recreate" and rolling is not None:
        detail = "may not be specified when strategy `type` is 'Recreate'"
        causes.append(Cause("spec.strategy.rollingUpdate", f"Forbidden: {detail}", "FieldValueForbidden"))
    elif rolling:
        path = "spec.strategy.rollingUpdate"
        causes.extend(int_or_percent(rolling.get("maxUnavailable"), f"{path}.maxUnavailable"))
        causes.extend(int_or_percent(rolling.get("maxSurge"), f"{path}.maxSurge"))
        if _is_zero(rolling.get("maxUnavailable")) and _is_zero(rolling.get("maxSurge")):
            value = rolling.get("maxUnavailable")
            causes.append(invalid(f"{path}.maxUnavailable", value, "may not be 0 when `maxSurge` is 0"))
    if spec.get("progressDeadlineSeconds", 600) <= spec.get("minReadySeconds", 0):
        value = spec.get("progressDeadlineSeconds")
        causes.append(invalid("spec.progressDeadlineSeconds", value, "must be greater than minReadySeconds"))
    return causes + _same_selector(spec, old)


def _is_zero(value: Any) -> bool:
    return value in (0, "0", "0%")


def _same_selector(spec: Json, old: Json | None) -> list[Cause]:
    before = (old or {}).get("spec", {}).get("selector")
    if old is None or before == spec.get("selector"):
        return []
    return [invalid("spec.selector", spec.get("selector"), IMMUTABLE)]


def replica_set(obj: Json, old: Json | None) -> list[Cause]:
    spec = obj.get("spec") or {}
    causes: list[Cause] = []
    _not_negative(spec, ("replicas", "minReadySeconds"), causes)
    _selected_template(spec, causes, ("Always",))
    return causes + _same_selector(spec, old)


def _job_spec(spec: Json, path: str, causes: list[Cause]) -> None:
    counts = ("parallelism", "completions", "backoffLimit", "activeDeadlineSeconds", "ttlSecondsAfterFinished")
    _not_negative(spec, counts, causes, path)
    if spec.get("completionMode", "NonIndexed") not in ("Indexed", "NonIndexed"):
        causes.append(unsupported(f"{path}.completionMode", spec["completionMode"], ("Indexed", "NonIndexed")))
    elif spec.get("completionMode") == "Indexed" and spec.get("completions") is None:
        causes.append(required(f"{path}.completions", "when completion mode is Indexed"))
    template = spec.get("template") or {}
    _template(template, f"{path}.template", causes, ("Always", "OnFailure", "Never"))
    policy = (template.get("spec") or {}).get("restartPolicy")
    if policy not in ("OnFailure", "Never"):
        causes.append(
            Cause(
                f"{path}.template.spec.restartPolicy",
                'Required value: valid values: "OnFailure", "Never"'
                if not policy
                else f'Unsupported value: {shown(policy)}: supported values: "OnFailure", "Never"',
                "FieldValueNotSupported" if policy else "FieldValueRequired",
            )
        )


def job(obj: Json, old: Json | None) -> list[Cause]:
    spec = obj.get("spec") or {}
    causes: list[Cause] = []
    _job_spec(spec, "spec", causes)
    if old is not None:
        before = old.get("spec") or {}
        suspended = before.get("suspend") and not (old.get("status") or {}).get("startTime")
        frozen = ["completions", "selector", "completionMode", "podFailurePolicy", "backoffLimitPerIndex"]
        frozen += [] if suspended else ["template"]
        if spec.get("completionMode") == "Indexed":
            frozen.remove("completions")
        causes += [
            invalid(f"spec.{key}", spec.get(key), IMMUTABLE) for key in frozen if spec.get(key) != before.get(key)
        ]
    return causes


def cron_job(obj: Json, old: Json | None) -> list[Cause]:
    del old
    spec = obj.get("spec") or {}
    causes: list[Cause] = []
    schedule = spec.get("schedule", "")
    if not schedule:
        causes.append(required("spec.schedule"))
    elif wrong := schedule_error(schedule):
        causes.append(invalid("spec.schedule", schedule, wrong))
    policies = ("Allow", "Forbid", "Replace")
    if spec.get("concurrencyPolicy") not in policies:
        causes.append(unsupported("spec.concurrencyPolicy", spec.get("concurrencyPolicy"), policies))
    counts = ("startingDeadlineSeconds", "successfulJobsHistoryLimit", "failedJobsHistoryLimit")
    _not_negative(spec, counts, causes)
    _job_spec((spec.get("jobTemplate") or {}).get("spec") or {}, "spec.jobTemplate.spec", causes)
    if len((obj.get("metadata") or {}).get("name", "")) > 52:
        causes.append(invalid("metadata.name", obj["metadata"]["name"], "must be no more than 52 characters"))
    return causes


def schedule_error(schedule: str) -> str:
    """What robfig/cron's standard parser would say about a schedule; "" when it is one."""
    if "TZ" in schedule:
        return "cannot use TZ or CRON_TZ in schedule, use timeZone field instead"
    if schedule.startswith("@"):
        known = ("@yearly", "@annually", "@monthly", "@weekly", "@daily", "@midnight", "@hourly")
        known_form = schedule in known or schedule.startswith("@every ")
        return "" if known_form else f"unrecognized descriptor: {schedule}"
    fields = schedule.split()
    if len(fields) != 5:
        return f"expected exactly 5 fields, found {len(fields)}: [{' '.join(fields)}]"
    for text, (low, high) in zip(fields, _CRON_RANGES, strict=True):
        if not _CRON_FIELD.match(text):
            return f"failed to parse int from {text}: strconv.Atoi: parsing {shown(text)}: invalid syntax"
        for number in re.findall(r"(?<!/)\b[0-9]+\b", text):
            if int(number) > high:
                return f"end of range ({number}) above maximum ({high}): {text}"
            if int(number) < low:
                return f"beginning of range ({number}) below minimum ({low}): {text}"
    return ""


def autoscaler(obj: Json, old: Json | None) -> list[Cause]:
    del old
    spec = obj.get("spec") or {}
    causes: list[Cause] = []
    low, high = spec.get("minReplicas", 1), spec.get("maxReplicas", 0)
    if low < 1:
        causes.append(invalid("spec.minReplicas", low, "must be greater than or equal to 1"))
    if high < 1:
        causes.append(invalid("spec.maxReplicas", high, "must be greater than 0"))
    elif high < low:
        causes.append(invalid("spec.maxReplicas", high, "must be greater than or equal to `minReplicas`"))
    target = spec.get("scaleTargetRef") or {}
    causes += [required(f"spec.scaleTargetRef.{key}") for key in ("kind", "name") if not target.get(key)]
    sources = ("ContainerResource", "External", "Object", "Pods", "Resource")
    for index, metric in enumerate(spec.get("metrics") or ()):
        kind = metric.get("type", "")
        if not kind:
            causes.append(required(f"spec.metrics[{index}].type", "must specify a metric source type"))
        elif kind not in sources:
            causes.append(unsupported(f"spec.metrics[{index}].type", kind, sources))
        elif (kind[0].lower() + kind[1:]) not in metric:
            field = f"spec.metrics[{index}].{kind[0].lower() + kind[1:]}"
            causes.append(required(field, "must populate information for the given metric source"))
    return causes


def disruption_budget(obj: Json, old: Json | None) -> list[Cause]:
    del old
    spec = obj.get("spec") or {}
    causes: list[Cause] = []
    if "minAvailable" in spec and "maxUnavailable" in spec:
        causes.append(invalid("spec", spec, "minAvailable and maxUnavailable cannot be both set"))
    for key in ("minAvailable", "maxUnavailable"):
        if key in spec:
            causes += int_or_percent(spec[key], f"spec.{key}")
    return causes + label_selector(spec.get("selector") or {}, "spec.selector")
