"""Command line of the gateway."""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from quarterdeck.errors import UsageError

from .audit.options import AuditOptions, add_flags, from_flags, path_of
from .config.standalone import FileOptions, Settings, file_options, load
from .workers.share import Share

Address = tuple[str, int]


@dataclass(frozen=True, slots=True)
class Options:
    """Where the gateway listens and what it reads. An address of None is not served."""

    local: Address | None
    workloads: Address | None
    stats: Address | None
    ready: Address | None
    admin: Address | None
    control_plane: str = ""
    control_plane_ca: Path | None = None
    gateway: str = "quarterdeck-system/quarterdeck"
    token_file: Path | None = None
    data_dir: Path = Path("gateway")
    config: Path | None = None
    key_file: Path | None = None
    """The key that all replicas share; None makes one in ``data_dir``."""
    audit_file: Path | None = None
    """None is standard output."""
    audit: AuditOptions = field(default_factory=AuditOptions)
    endpoints_file: Path | None = None
    limits_file: Path | None = None
    """Where the workers of one gateway keep counters and circuit breakers together; None: there is one worker."""
    peers: Address | Path | None = None
    """Where other processes of this gateway reach this one: an address, or a directory for a socket; None: nowhere."""
    bind: str = "127.0.0.1"
    """Where listeners of the configuration are bound that name no address."""
    public_url: str = ""
    """How clients reach the gateway; empty: at what they ask for."""
    trusted_hops: tuple[str, ...] = ()
    """Networks of proxies in front, whose forwarded headers are believed."""
    workers: int = 1
    """Processes that serve; more than one are kept by a supervisor."""
    share: Share | None = None
    """Set in a worker."""
    file: FileOptions | None = None
    """A configuration for people instead of ``config``."""
    log_level: str = ""
    """``info``, or ``info,gateway.mcp=debug``."""
    log_format: str = ""


def address(text: str) -> Address | None:
    """``HOST:PORT`` (``[v6]:PORT``); port 0 takes a free one; ``off`` is None. Raises UsageError."""
    if text == "off":
        return None
    host, colon, port = text.rpartition(":")
    if not colon or not port.isdigit() or int(port) > 65535:
        raise UsageError(f"{text!r} is not HOST:PORT (port 0 takes a free one, 'off' serves nothing)")
    return host.strip("[]") or "127.0.0.1", int(port)


def parse(arguments: list[str]) -> Options:
    """Flags win over ``QUARTERDECK_*`` variables, those over what the file says. Raises UsageError, ConfigError."""
    parser = argparse.ArgumentParser(
        prog="python -m quarterdeck.gateway", description="The Quarterdeck gateway.", allow_abbrev=False
    )
    pod_ip = os.environ.get("POD_IP", "127.0.0.1")

    def flag(name: str, default: str, text: str) -> None:
        variable = "QUARTERDECK_GATEWAY_" + name.replace("-", "_").upper()
        parser.add_argument(f"--{name}", default=os.environ.get(variable, default), help=f"{text} [{variable}]")

    flag("local", "127.0.0.1:8701", "listener for people and local clients, HOST:PORT")
    flag("workloads", "127.0.0.1:8702", "listener for workloads; always needs a token")
    flag("stats", f"{pod_ip}:15020", "/metrics")
    flag("ready", f"{pod_ip}:15021", "/healthz/ready")
    flag("admin", "127.0.0.1:15000", "/config_dump, /logging")
    flag("bind", pod_ip, "address of the listeners of the configuration that name none")
    flag("public-url", "", "http(s)://HOST[/PATH] that clients use, for URLs in metadata and agent cards")
    flag(
        "trusted-hops", "", "networks (CIDR, separated by commas) of proxies in front whose X-Forwarded-* are believed"
    )
    flag("control-plane", "", "URL of the control plane that streams the configuration")
    flag("control-plane-ca", "", "PEM file to verify the control plane with")
    flag("gateway", "quarterdeck-system/quarterdeck", "NAMESPACE/NAME of the Gateway to serve")
    flag("token-file", "", "file with the gateway's own token")
    flag("data-dir", "gateway", "directory for the key and the last good configuration")
    flag("key-file", "", "file with the key of 32 bytes that all replicas share, older ones after it (default: made)")
    flag("peers", "", "HOST:PORT at which other replicas reach this one (default: a socket in DATA_DIR/peers)")
    flag("config", "", "file with a snapshot (JSON), instead of a control plane")
    flag("file", "", "agentgateway file or mcp.json to serve, instead of a control plane")
    flag("inline", "", "the text of such a file")
    flag("compat", "", "generation of an agentgateway file: oct (October 2025) or now (default: told by its fields)")
    parser.add_argument(
        "--allow-anonymous", action="store_true", help="serve the file's routes without authentication to all"
    )
    flag("audit-file", "", "file for audit records; '-' is standard output, 'off' none (default: DATA_DIR/audit.jsonl)")
    add_flags(flag)
    flag("limits-file", "", "file that all workers of this gateway share: counters and circuit breakers")
    flag("workers", "1", "processes that serve: a number, or 'auto' for one on each CPU")
    parser.add_argument("--worker", default="", help=argparse.SUPPRESS)
    flag("endpoints-file", "", "file to write the bound addresses to (JSON)")
    given = parser.parse_args(arguments)
    if [bool(given.control_plane), bool(given.config), bool(given.file or given.inline)].count(True) != 1:
        raise UsageError("give one of --control-plane URL, --config FILE and --file FILE")
    file, settings = None, Settings()
    if given.file or given.inline:
        file = file_options(_path(given.file), given.inline, given.compat, allow_anonymous=given.allow_anonymous)
        settings = load(file).settings
        _use(given, settings.flags, arguments)
    data_dir = Path(given.data_dir)
    audit_file: str = given.audit_file
    audit = path_of({"": str(data_dir / "audit.jsonl"), "off": os.devnull}.get(audit_file, audit_file))
    return Options(
        local=address(given.local),
        workloads=address(given.workloads),
        stats=address(given.stats),
        ready=address(given.ready),
        admin=address(given.admin),
        control_plane=given.control_plane,
        control_plane_ca=_path(given.control_plane_ca),
        gateway=given.gateway,
        token_file=_path(given.token_file),
        data_dir=data_dir,
        config=_path(given.config),
        key_file=_path(given.key_file),
        audit_file=audit,
        audit=from_flags(given),
        endpoints_file=_path(given.endpoints_file),
        limits_file=_path(given.limits_file),
        peers=address(given.peers) if given.peers else data_dir / "peers",
        bind=given.bind,
        public_url=given.public_url,
        trusted_hops=tuple(hop.strip() for hop in given.trusted_hops.split(",") if hop.strip()),
        workers=_workers(given.workers),
        share=Share.parse(given.worker),
        file=file,
        log_level=settings.log_level,
        log_format=settings.log_format,
    )


def _use(given: argparse.Namespace, flags: Mapping[str, str], arguments: list[str]) -> None:
    """What a file says about the process, where neither a flag nor a variable does."""
    for name, text in flags.items():
        flag = f"--{name}"
        named = any(word == flag or word.startswith(f"{flag}=") for word in arguments)
        if not named and "QUARTERDECK_GATEWAY_" + name.replace("-", "_").upper() not in os.environ:
            setattr(given, name.replace("-", "_"), text)


def _workers(text: str) -> int:
    if text == "auto":
        return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if not text.isdigit() or not 1 <= int(text) <= 64:
        raise UsageError(f"--workers {text!r} is neither a number from 1 to 64 nor 'auto'")
    return int(text)


def _path(text: str) -> Path | None:
    return Path(text) if text else None
