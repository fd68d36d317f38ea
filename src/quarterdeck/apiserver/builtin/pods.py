"""Validation of Pods and pod templates (upstream pkg/apis/core/validation), for what people get wrong."""

from __future__ import annotations

from typing import Any

from quarterdeck.apiserver.schema import quantity
from quarterdeck.errors import Cause

from . import names
from .errors import forbidden, invalid, not_found, required, unsupported

Json = dict[str, Any]

_PULL = ("Always", "IfNotPresent", "Never")
_RESTART = ("Always", "OnFailure", "Never")
_DNS = ("ClusterFirst", "ClusterFirstWithHostNet", "Default", "None")
_PROTOCOLS = ("SCTP", "TCP", "UDP")
_HANDLERS = ("exec", "httpGet", "tcpSocket", "grpc", "sleep")
_STANDARD_RESOURCES = ("cpu", "memory", "ephemeral-storage", "storage")
_PORT_RANGE = "must be between 1 and 65535, inclusive"
_POD_IMMUTABLE = (
    "pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,"
    "`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),"
    "`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)"
)


def pod_spec(spec: Json, path: str, *, restart: tuple[str, ...] = _RESTART) -> list[Cause]:
    """What is wrong with a PodSpec at ``path``; ``restart`` are the restart policies the owner allows."""
    causes: list[Cause] = []
    volumes = _volumes(spec.get("volumes") or [], f"{path}.volumes", causes)
    containers = spec.get("containers") or []
    if not containers:
        causes.append(required(f"{path}.containers"))
    seen: set[str] = set()
    for key in ("containers", "initContainers", "ephemeralContainers"):
        for index, container in enumerate(spec.get(key) or ()):
            _container(container, f"{path}.{key}[{index}]", volumes, seen, causes)
    policy = spec.get("restartPolicy")
    if policy not in restart:
        causes.append(
            unsupported(f"{path}.restartPolicy", policy, restart) if policy else required(f"{path}.restartPolicy")
        )
    if spec.get("dnsPolicy") not in _DNS:
        causes.append(unsupported(f"{path}.dnsPolicy", spec.get("dnsPolicy"), _DNS))
    for key, check in (
        ("serviceAccountName", names.subdomain),
        ("nodeName", names.subdomain),
        ("hostname", names.label),
    ):
        if spec.get(key) and (wrong := check(spec[key])):
            causes.append(invalid(f"{path}.{key}", spec[key], wrong))
    grace = spec.get("terminationGracePeriodSeconds", 0)
    if grace < 0:
        causes.append(invalid(f"{path}.terminationGracePeriodSeconds", grace, "must be greater than or equal to 0"))
    deadline = spec.get("activeDeadlineSeconds")
    if deadline is not None and not 0 < deadline < 2**31:
        causes.append(invalid(f"{path}.activeDeadlineSeconds", deadline, "must be between 1 and 2147483647, inclusive"))
    return causes + names.labels(spec.get("nodeSelector"), f"{path}.nodeSelector")


def _volumes(volumes: list[Json], path: str, causes: list[Cause]) -> set[str]:
    for index, volume in enumerate(volumes):
        where, name = f"{path}[{index}]", volume.get("name", "")
        if not name:
            causes.append(required(f"{where}.name"))
        elif wrong := names.label(name):
            causes.append(invalid(f"{where}.name", name, wrong))
        sources = [key for key in volume if key != "name"]
        if not sources:
            causes.append(required(where, "must specify a volume type"))
        for extra in sources[1:]:
            causes.append(forbidden(f"{where}.{extra}", "may not specify more than 1 volume type"))
        for source, key in (("configMap", "name"), ("secret", "secretName"), ("hostPath", "path")):
            if source in volume and not volume[source].get(key):
                causes.append(required(f"{where}.{source}.{key}"))
        claim = volume.get("persistentVolumeClaim")
        if claim is not None and not claim.get("claimName"):
            causes.append(required(f"{where}.persistentVolumeClaim.claimName"))
    causes.extend(names.unique([volume.get("name") for volume in volumes], path, "name"))
    return {volume.get("name", "") for volume in volumes}


def _container(container: Json, path: str, volumes: set[str], seen: set[str], causes: list[Cause]) -> None:
    name = container.get("name", "")
    if not name:
        causes.append(required(f"{path}.name"))
    elif wrong := names.label(name):
        causes.append(invalid(f"{path}.name", name, wrong))
    elif name in seen:
        causes.append(Cause(f"{path}.name", f'Duplicate value: "{name}"', "FieldValueDuplicate"))
    seen.add(name)
    image = container.get("image", "")
    if not image:
        causes.append(required(f"{path}.image"))
    elif image != image.strip():
        causes.append(invalid(f"{path}.image", image, "must not have leading or trailing whitespace"))
    if container.get("imagePullPolicy") not in _PULL:
        causes.append(unsupported(f"{path}.imagePullPolicy", container.get("imagePullPolicy"), _PULL))
    _ports(container.get("ports") or [], f"{path}.ports", causes)
    _environment(container, path, causes)
    _mounts(container.get("volumeMounts") or [], f"{path}.volumeMounts", volumes, causes)
    for key in ("livenessProbe", "readinessProbe", "startupProbe"):
        if key in container:
            _probe(container[key], f"{path}.{key}", key != "readinessProbe", causes)
    causes.extend(resources(container.get("resources") or {}, f"{path}.resources"))


def port_number(value: Any, field: str) -> list[Cause]:
    """A port by number (1 to 65535) or by name."""
    if isinstance(value, int):
        return [] if 0 < value < 65536 else [invalid(field, value, _PORT_RANGE)]
    wrong = names.port_name(value or "")
    return [invalid(field, value, wrong)] if wrong else []


def _ports(ports: list[Json], path: str, causes: list[Cause]) -> None:
    for index, port in enumerate(ports):
        where = f"{path}[{index}]"
        number = port.get("containerPort", 0)
        if not number:
            causes.append(required(f"{where}.containerPort"))
        elif not 0 < number < 65536:
            causes.append(invalid(f"{where}.containerPort", number, _PORT_RANGE))
        if port.get("hostPort") and not 0 < port["hostPort"] < 65536:
            causes.append(invalid(f"{where}.hostPort", port["hostPort"], _PORT_RANGE))
        if port.get("protocol") not in _PROTOCOLS:
            causes.append(unsupported(f"{where}.protocol", port.get("protocol"), _PROTOCOLS))
        if port.get("name") and (wrong := names.port_name(port["name"])):
            causes.append(invalid(f"{where}.name", port["name"], wrong))
    causes.extend(names.unique([port.get("name") for port in ports], path, "name"))


def _environment(container: Json, path: str, causes: list[Cause]) -> None:
    for index, variable in enumerate(container.get("env") or ()):
        where, name = f"{path}.env[{index}]", variable.get("name", "")
        if not name:
            causes.append(required(f"{where}.name"))
        elif wrong := names.env_name(name):
            causes.append(invalid(f"{where}.name", name, wrong))
        source = variable.get("valueFrom")
        if source is None:
            continue
        if variable.get("value"):
            causes.append(invalid(f"{where}.valueFrom", "", "may not be specified when `value` is not empty"))
        if not source:
            causes.append(invalid(f"{where}.valueFrom", "", "must specify one of: `fieldRef`, `resourceFieldRef`, "
                                  "`configMapKeyRef`, `secretKeyRef` or `fileKeyRef`"))  # fmt: skip
        for kind in ("configMapKeyRef", "secretKeyRef"):
            reference = source.get(kind)
            if reference is not None:
                causes.extend(
                    required(f"{where}.valueFrom.{kind}.{key}") for key in ("name", "key") if not reference.get(key)
                )
    for index, source in enumerate(container.get("envFrom") or ()):
        where = f"{path}.envFrom[{index}]"
        if not source.keys() & {"configMapRef", "secretRef"}:
            causes.append(invalid(where, "", "must specify one of: `configMapRef` or `secretRef`"))


def _mounts(mounts: list[Json], path: str, volumes: set[str], causes: list[Cause]) -> None:
    for index, mount in enumerate(mounts):
        where, name = f"{path}[{index}]", mount.get("name", "")
        if not name:
            causes.append(required(f"{where}.name"))
        elif name not in volumes:
            causes.append(not_found(f"{where}.name", name))
        if not mount.get("mountPath"):
            causes.append(required(f"{where}.mountPath"))
        for key in ("subPath", "subPathExpr"):
            if ".." in mount.get(key, "").split("/"):
                causes.append(invalid(f"{where}.{key}", mount[key], "must not contain '..'"))
            if mount.get(key, "").startswith("/"):
                causes.append(invalid(f"{where}.{key}", mount[key], "must be a relative path"))
    paths = [mount.get("mountPath") for mount in mounts]
    for index, value in enumerate(paths):
        if value and value in paths[:index]:
            causes.append(invalid(f"{path}[{index}].mountPath", value, "must be unique"))


def _probe(probe: Json, path: str, only_one_success: bool, causes: list[Cause]) -> None:
    handlers = [key for key in _HANDLERS if key in probe]
    if not handlers:
        causes.append(required(path, "must specify a handler type"))
    for extra in handlers[1:]:
        causes.append(forbidden(f"{path}.{extra}", "may not specify more than 1 handler type"))
    for key in ("httpGet", "tcpSocket", "grpc"):
        if key in probe:
            causes.extend(port_number(probe[key].get("port", 0), f"{path}.{key}.port"))
    if "exec" in probe and not probe["exec"].get("command"):
        causes.append(required(f"{path}.exec.command"))
    for key in ("initialDelaySeconds", "timeoutSeconds", "periodSeconds", "successThreshold", "failureThreshold"):
        if probe.get(key, 0) < 0:
            causes.append(invalid(f"{path}.{key}", probe[key], "must be greater than or equal to 0"))
    if only_one_success and probe.get("successThreshold", 1) != 1:
        causes.append(invalid(f"{path}.successThreshold", probe["successThreshold"], "must be 1"))


def resources(value: Json, path: str) -> list[Cause]:
    """ResourceRequirements: known names, no negative amounts, no request above its limit."""
    causes: list[Cause] = []
    limits = value.get("limits") or {}
    for group in ("limits", "requests"):
        for name, amount in (value.get(group) or {}).items():
            where = f"{path}.{group}[{name}]"
            if "/" not in name and name not in _STANDARD_RESOURCES and not name.startswith("hugepages-"):
                causes.append(invalid(where, name, "must be a standard resource for containers"))
            if quantity.parse(amount) < 0:
                causes.append(invalid(where, amount, "must be greater than or equal to 0"))
    for name, amount in (value.get("requests") or {}).items():
        if name in limits and quantity.parse(amount) > quantity.parse(limits[name]):
            causes.append(
                invalid(f"{path}.requests", amount, f"must be less than or equal to {name} limit of {limits[name]}")
            )
    return causes


def pod_update(new: Json, old: Json) -> list[Cause]:
    """Only images, the deadline, added tolerations, gates and the grace period of a stored Pod may change."""
    if new == old:
        return []
    causes: list[Cause] = []
    if len(new.get("containers") or ()) != len(old.get("containers") or ()):
        return [forbidden("spec.containers", "pod updates may not add or remove containers")]
    if len(new.get("initContainers") or ()) != len(old.get("initContainers") or ()):
        return [forbidden("spec.initContainers", "pod updates may not add or remove containers")]
    tolerations = new.get("tolerations") or []
    if any(toleration not in tolerations for toleration in old.get("tolerations") or ()):
        causes.append(
            forbidden("spec.tolerations", "existing toleration can not be modified except its tolerationSeconds")
        )
    if _frozen(new, old) != _frozen(old, old):
        causes.append(forbidden("spec", _POD_IMMUTABLE))
    return causes


def _frozen(spec: Json, old: Json) -> Json:
    """``spec`` with everything that may change set to what ``old`` has."""
    changeable = ("tolerations", "activeDeadlineSeconds", "schedulingGates", "ephemeralContainers", "nodeSelector")
    frozen = {key: value for key, value in spec.items() if key not in changeable}
    if not old.get("nodeName"):  # binding a Pod is the one way nodeName is set
        frozen.pop("nodeName", None)
    if old.get("terminationGracePeriodSeconds", 0) < 0 and spec.get("terminationGracePeriodSeconds") == 1:
        frozen["terminationGracePeriodSeconds"] = old["terminationGracePeriodSeconds"]
    for key in ("containers", "initContainers"):
        if key in frozen:
            frozen[key] = [{**container, "image": ""} for container in frozen[key] or ()]
    return frozen
