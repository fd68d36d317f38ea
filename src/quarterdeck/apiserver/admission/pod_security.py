"""Pod Security Standards: baseline and restricted, switched on by labels of the namespace."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from quarterdeck.apiserver.security.identity import ObjectReader, forbidden_object
from quarterdeck.kube.resource import NAMESPACE, Object

from .attributes import AdmissionAttributes

_LABEL = "pod-security.kubernetes.io/"
_LEVELS = ("privileged", "baseline", "restricted")
_TEMPLATED = {("apps", "deployments"), ("apps", "replicasets"), ("batch", "jobs"), ("batch", "cronjobs")}
_BASELINE_CAPABILITIES = frozenset({
    "AUDIT_WRITE", "CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "MKNOD", "NET_BIND_SERVICE", "SETFCAP",
    "SETGID", "SETPCAP", "SETUID", "SYS_CHROOT",
})  # fmt: skip
_SAFE_SYSCTLS = frozenset({
    "kernel.shm_rmid_forced", "net.ipv4.ip_local_port_range", "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.tcp_syncookies", "net.ipv4.ping_group_range", "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.tcp_keepalive_time", "net.ipv4.tcp_fin_timeout", "net.ipv4.tcp_keepalive_intvl",
    "net.ipv4.tcp_keepalive_probes",
})  # fmt: skip
_RESTRICTED_VOLUMES = frozenset({
    "configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "image", "persistentVolumeClaim", "projected", "secret",
})  # fmt: skip
Check = Callable[[Object, list[dict[str, Any]]], "str | None"]


def check_pod_security(reader: ObjectReader, a: AdmissionAttributes) -> None:
    """Refuse a Pod that breaks the enforced level; warn for the warn level, also on what holds a Pod template."""
    if a.operation not in ("CREATE", "UPDATE") or a.subresource not in ("", "ephemeralcontainers"):
        return
    spec = _pod_spec(a)
    if spec is None or (a.old is not None and a.old.get("spec") == a.obj.get("spec")):
        return
    labels = (reader.get(NAMESPACE, None, a.namespace) or {"metadata": {}})["metadata"].get("labels") or {}
    if a.qualified == ("", "pods"):
        level = labels.get(f"{_LABEL}enforce", "privileged")
        found = violations(spec, level)
        if found:
            name = a.name or str(a.obj["metadata"].get("name") or "")
            version = labels.get(f"{_LABEL}enforce-version", "latest")
            raise forbidden_object("", "pods", name, f'violates PodSecurity "{level}:{version}": {", ".join(found)}')
    level = labels.get(f"{_LABEL}warn", "privileged")
    found = violations(spec, level)
    if found:
        version = labels.get(f"{_LABEL}warn-version", "latest")
        a.warnings.append(f'would violate PodSecurity "{level}:{version}": {", ".join(found)}')


def violations(spec: Object, level: str) -> list[str]:
    """What in a Pod spec breaks ``level``; an unknown level counts as restricted, as upstream does."""
    if level == "privileged":
        return []
    containers = [c for key in ("initContainers", "containers", "ephemeralContainers") for c in spec.get(key) or ()]
    checks = _BASELINE if level == "baseline" else (*_BASELINE[:-1], *_RESTRICTED)
    return [text for text in (check(spec, containers) for check in checks) if text]


def _pod_spec(a: AdmissionAttributes) -> Object | None:
    if a.qualified == ("", "pods"):
        return a.obj.get("spec")
    if a.qualified not in _TEMPLATED:
        return None
    spec = a.obj.get("spec") or {}
    if a.resource.plural == "cronjobs":
        spec = (spec.get("jobTemplate") or {}).get("spec") or {}
    return (spec.get("template") or {}).get("spec")


def _context(container: dict[str, Any]) -> dict[str, Any]:
    return container.get("securityContext") or {}


def _named(offenders: Iterable[dict[str, Any]]) -> str:
    names = [f'"{c["name"]}"' for c in offenders]
    return f"container {names[0]}" if len(names) == 1 else f"containers {', '.join(names)}"


def _host_namespaces(spec: Object, _: list[dict[str, Any]]) -> str | None:
    bad = [f"{key}=true" for key in ("hostNetwork", "hostPID", "hostIPC") if spec.get(key)]
    return f"host namespaces ({', '.join(bad)})" if bad else None


def _privileged(_: Object, containers: list[dict[str, Any]]) -> str | None:
    bad = [c for c in containers if _context(c).get("privileged")]
    return f"privileged ({_named(bad)} must not set securityContext.privileged=true)" if bad else None


def _host_path(spec: Object, _: list[dict[str, Any]]) -> str | None:
    bad = [f'"{v["name"]}"' for v in spec.get("volumes") or () if "hostPath" in v]
    return f"hostPath volumes ({'volume' if len(bad) == 1 else 'volumes'} {', '.join(bad)})" if bad else None


def _host_ports(_: Object, containers: list[dict[str, Any]]) -> str | None:
    bad = [c for c in containers if any(p.get("hostPort") for p in c.get("ports") or ())]
    if not bad:
        return None
    ports = sorted({int(p["hostPort"]) for c in bad for p in c["ports"] if p.get("hostPort")})
    word = "hostPort" if len(ports) == 1 else "hostPorts"
    return f"hostPort ({_named(bad)} {'uses' if len(bad) == 1 else 'use'} {word} {', '.join(map(str, ports))})"


def _capabilities_baseline(_: Object, containers: list[dict[str, Any]]) -> str | None:
    def extra(container: dict[str, Any]) -> set[str]:
        added = (_context(container).get("capabilities") or {}).get("add") or ()
        return {str(c) for c in added} - _BASELINE_CAPABILITIES

    bad = [c for c in containers if extra(c)]
    if not bad:
        return None
    names = ", ".join(f'"{n}"' for n in sorted(set().union(*(extra(c) for c in bad))))
    return f"non-default capabilities ({_named(bad)} must not include {names} in securityContext.capabilities.add)"


def _proc_mount(_: Object, containers: list[dict[str, Any]]) -> str | None:
    bad = [c for c in containers if _context(c).get("procMount", "Default") != "Default"]
    return f"procMount ({_named(bad)} must not set securityContext.procMount)" if bad else None


def _sysctls(spec: Object, _: list[dict[str, Any]]) -> str | None:
    names = [
        s["name"] for s in (spec.get("securityContext") or {}).get("sysctls") or () if s["name"] not in _SAFE_SYSCTLS
    ]
    return f"forbidden sysctls ({', '.join(names)})" if names else None


def _seccomp_baseline(spec: Object, containers: list[dict[str, Any]]) -> str | None:
    def unconfined(holder: dict[str, Any]) -> bool:
        return ((holder.get("securityContext") or {}).get("seccompProfile") or {}).get("type") == "Unconfined"

    bad = [c for c in containers if unconfined(c)]
    who = (["pod"] if unconfined(spec) else []) + ([_named(bad)] if bad else [])
    if not who:
        return None
    return f'seccompProfile ({" and ".join(who)} must not set securityContext.seccompProfile.type to "Unconfined")'


def _restricted_volumes(spec: Object, _: list[dict[str, Any]]) -> str | None:
    bad: dict[str, list[str]] = {}
    for volume in spec.get("volumes") or ():
        for kind in volume.keys() - {"name"} - _RESTRICTED_VOLUMES:
            bad.setdefault(kind, []).append(f'"{volume["name"]}"')
    if not bad:
        return None
    names = ", ".join(n for names in bad.values() for n in names)
    kinds = ", ".join(f'"{k}"' for k in sorted(bad))
    one = names.count('"') == 2
    return (
        f"restricted volume types ({'volume' if one else 'volumes'} {names} {'uses' if one else 'use'} restricted "
        f"volume {'type' if len(bad) == 1 else 'types'} {kinds})"
    )


def _escalation(_: Object, containers: list[dict[str, Any]]) -> str | None:
    bad = [c for c in containers if _context(c).get("allowPrivilegeEscalation") is not False]
    if not bad:
        return None
    return f"allowPrivilegeEscalation != false ({_named(bad)} must set securityContext.allowPrivilegeEscalation=false)"


def _capabilities_restricted(_: Object, containers: list[dict[str, Any]]) -> str | None:
    keeps = [c for c in containers if "ALL" not in ((_context(c).get("capabilities") or {}).get("drop") or ())]
    adds = [
        c for c in containers
        if set((_context(c).get("capabilities") or {}).get("add") or ()) - {"NET_BIND_SERVICE"}
    ]  # fmt: skip
    texts: list[str] = []
    if keeps:
        texts.append(f'{_named(keeps)} must set securityContext.capabilities.drop=["ALL"]')
    if adds:
        extra = sorted({n for c in adds for n in _context(c)["capabilities"]["add"]} - {"NET_BIND_SERVICE"})
        quoted = ", ".join(f'"{n}"' for n in extra)
        texts.append(f"{_named(adds)} must not include {quoted} in securityContext.capabilities.add")
    return f"unrestricted capabilities ({'; '.join(texts)})" if texts else None


def _non_root(spec: Object, containers: list[dict[str, Any]]) -> str | None:
    pod = (spec.get("securityContext") or {}).get("runAsNonRoot")
    wrong = [c for c in containers if _context(c).get("runAsNonRoot") is False]
    missing = [c for c in containers if _context(c).get("runAsNonRoot") is None]
    if wrong:
        return f"runAsNonRoot != true ({_named(wrong)} must not set securityContext.runAsNonRoot=false)"
    if not missing or pod is True:
        return None
    return f"runAsNonRoot != true (pod or {_named(missing)} must set securityContext.runAsNonRoot=true)"


def _root_user(spec: Object, containers: list[dict[str, Any]]) -> str | None:
    bad = [c for c in containers if _context(c).get("runAsUser") == 0]
    who = (["pod"] if (spec.get("securityContext") or {}).get("runAsUser") == 0 else []) + (
        [_named(bad)] if bad else []
    )
    return f"runAsUser=0 ({' and '.join(who)} must not set runAsUser=0)" if who else None


def _seccomp_restricted(spec: Object, containers: list[dict[str, Any]]) -> str | None:
    def kind(holder: dict[str, Any]) -> str | None:
        return ((holder.get("securityContext") or {}).get("seccompProfile") or {}).get("type")

    allowed = ("RuntimeDefault", "Localhost")
    pod = kind(spec)
    wrong = [c for c in containers if kind(c) is not None and kind(c) not in allowed]
    missing = [c for c in containers if kind(c) is None]
    if wrong or (pod is not None and pod not in allowed):
        who = " and ".join((["pod"] if pod not in (None, *allowed) else []) + ([_named(wrong)] if wrong else []))
        return f'seccompProfile ({who} must not set securityContext.seccompProfile.type to "Unconfined")'
    if not missing or pod is not None:
        return None
    return (
        f"seccompProfile (pod or {_named(missing)} must set securityContext.seccompProfile.type "
        'to "RuntimeDefault" or "Localhost")'
    )


# Order of the messages as upstream evaluates; the last baseline check is replaced by its stricter twin.
_BASELINE: tuple[Check, ...] = (
    _host_namespaces, _privileged, _capabilities_baseline, _host_path, _host_ports, _proc_mount, _sysctls,
    _seccomp_baseline,
)  # fmt: skip
_RESTRICTED: tuple[Check, ...] = (
    _escalation, _capabilities_restricted, _restricted_volumes, _non_root, _root_user, _seccomp_restricted,
)  # fmt: skip
