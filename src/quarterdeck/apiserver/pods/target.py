"""Where a Pod's kubelet is and what to ask it: pure functions on Pod, Node and the caller's query."""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import quote, urlencode

from quarterdeck.apiserver.security.identity import ObjectReader
from quarterdeck.errors import BadRequest, Cause, InternalError, Invalid, NotFound
from quarterdeck.kube.resource import NODE, POD, Object

Query = Sequence[tuple[str, str]]
_ADDRESS_ORDER = ("InternalIP", "Hostname", "InternalDNS", "ExternalIP", "ExternalDNS")
_LOG_NUMBERS = ("sinceSeconds", "tailLines", "limitBytes")
_LOG_FLAGS = ("follow", "previous", "timestamps")
_STREAMS = (("stdin", "input"), ("stdout", "output"), ("stderr", "error"), ("tty", "tty"))


def find_pod(reader: ObjectReader, namespace: str, name: str) -> Object:
    """The Pod. Raises NotFound."""
    pod = reader.get(POD, namespace, name)
    if pod is None:
        raise NotFound(f'pods "{name}" not found', name=name, kind="pods")
    return pod


def kubelet_origin(reader: ObjectReader, pod: Object) -> tuple[str, int, bool] | None:
    """The HTTPS API of the Pod's node; None while the Pod is not scheduled. Raises NotFound or InternalError."""
    node_name = (pod.get("spec") or {}).get("nodeName")
    if not node_name:
        return None
    node = reader.get(NODE, None, node_name)
    if node is None:
        raise NotFound(f'nodes "{node_name}" not found', name=node_name, kind="nodes")
    status = node.get("status") or {}
    addresses = {str(a["type"]): str(a["address"]) for a in reversed(status.get("addresses") or ())}
    host = next((addresses[kind] for kind in _ADDRESS_ORDER if kind in addresses), "")
    port = ((status.get("daemonEndpoints") or {}).get("kubeletEndpoint") or {}).get("Port")
    if not host or not port:
        raise InternalError(
            f'node "{node_name}" has not published its kubelet address and port (status.addresses, '
            "status.daemonEndpoints.kubeletEndpoint.Port)"
        )
    return host, int(port), True


def container_of(pod: Object, wanted: str) -> str:
    """The container to use: ``wanted``, or the only one. Raises BadRequest in kube-apiserver's words."""
    name = pod["metadata"]["name"]
    spec = pod.get("spec") or {}
    main = [str(c["name"]) for c in spec.get("containers") or ()]
    init = [str(c["name"]) for c in spec.get("initContainers") or ()]
    ephemeral = [str(c["name"]) for c in spec.get("ephemeralContainers") or ()]
    if wanted:
        if wanted not in (*main, *init, *ephemeral):
            raise BadRequest(f"container {wanted} is not valid for pod {name}")
        return wanted
    if len(main) == 1:
        return main[0]
    if not main:
        raise BadRequest(f"a container name must be specified for pod {name}")
    message = f"a container name must be specified for pod {name}, choose one of: [{' '.join(main)}]"
    if init:
        message += f" or one of the init containers: [{' '.join(init)}]"
    if ephemeral:
        message += f" or one of the ephemeral containers: [{' '.join(ephemeral)}]"
    raise BadRequest(message)


def log_target(pod: Object, query: Query) -> str:
    """The kubelet's path for a log request. Raises BadRequest or Invalid for options that make no sense."""
    options = dict(query)
    container = container_of(pod, options.get("container", ""))
    out: list[tuple[str, str]] = []
    for key in _LOG_FLAGS:
        if key in options and _flag(key, options[key]):
            out.append((key, "true"))
    causes: list[Cause] = []
    for key in _LOG_NUMBERS:
        if options.get(key):
            causes.extend(_number_causes(key, options[key]))
            out.append((key, options[key]))
    if options.get("sinceTime"):
        out.append(("sinceTime", options["sinceTime"]))
        if options.get("sinceSeconds"):
            causes.append(Cause("sinceTime", "Forbidden: at most one of `sinceTime` or `sinceSeconds` may be specified",
                                "FieldValueForbidden"))  # fmt: skip
    if causes:
        name = pod["metadata"]["name"]
        listed = ", ".join(f"{c.field}: {c.message}" for c in causes)
        text = listed if len(causes) == 1 else f"[{listed}]"
        raise Invalid(
            f'PodLogOptions "{name}" is invalid: {text}', name=name, kind="PodLogOptions", causes=tuple(causes)
        )
    return _path("containerLogs", pod, container, out)


def stream_target(pod: Object, verb: str, query: Query) -> str:
    """The kubelet's path for ``exec`` or ``attach``. Raises BadRequest."""
    options = dict(query)
    container = container_of(pod, options.get("container", ""))
    phase = (pod.get("status") or {}).get("phase")
    if phase in ("Succeeded", "Failed"):
        raise BadRequest(f"cannot exec into a container in a completed pod; current phase is {phase}")
    out = [(theirs, "1") for ours, theirs in _STREAMS if ours in options and _flag(ours, options[ours])]
    if not any(key in ("input", "output", "error") for key, _ in out):
        raise BadRequest("you must specify at least 1 of stdin, stdout, stderr")
    if verb == "exec":
        commands = [("command", value) for key, value in query if key == "command"]
        if not commands:
            raise BadRequest("you must specify at least 1 command")
        out.extend(commands)
    return _path(verb, pod, container, out)


def port_forward_target(pod: Object, query: Query) -> str:
    """The kubelet's path for port forwarding; ``ports`` are those of the WebSocket protocol."""
    out = [("port", port) for key, value in query if key == "ports" for port in value.split(",")]
    if any(not port.isdigit() or not 0 < int(port) < 65536 for _, port in out):
        raise BadRequest("ports must be numbers between 1 and 65535")
    return _path("portForward", pod, "", out)


def _path(verb: str, pod: Object, container: str, query: Query) -> str:
    meta = pod["metadata"]
    parts = [verb, meta["namespace"], meta["name"], *([container] if container else [])]
    path = "/" + "/".join(quote(str(p), safe="") for p in parts)
    return f"{path}?{urlencode(query)}" if query else path


def _flag(key: str, value: str) -> bool:
    """Go's conversion of a query value to bool: present without value is true."""
    if value.lower() in ("false", "0"):
        return False
    if value.lower() in ("", "true", "1"):
        return True
    raise BadRequest(f'invalid value "{value}" for {key}: use true or false')


def _number_causes(key: str, value: str) -> list[Cause]:
    if not value.removeprefix("-").isdigit():
        raise BadRequest(f'invalid value "{value}" for {key}: must be a whole number')
    least = 0 if key == "tailLines" else 1
    if int(value) >= least:
        return []
    return [Cause(key, f"Invalid value: {value}: must be greater than or equal to {least}" if least == 0
                  else f"Invalid value: {value}: must be greater than 0")]  # fmt: skip
