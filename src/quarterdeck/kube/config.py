"""Where the Kubernetes API is and who we are there: kubeconfig files, in-cluster credentials, exec plugins.

Follows client-go's loading rules: an explicit path, else ``$KUBECONFIG`` (first file that exists), else the Pod's own
ServiceAccount, else ``~/.kube/config``.
"""

from __future__ import annotations

import base64
import binascii
import json
import os
import ssl
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from time import time
from typing import Any

import yaml

from quarterdeck.errors import ConfigError

SERVICE_ACCOUNT_DIR = Path("/var/run/secrets/kubernetes.io/serviceaccount")
_TOKEN_FILE_AGE = 60.0
_EXEC_TIMEOUT = 60.0


@dataclass(frozen=True, slots=True)
class ExecPlugin:
    """A credential plugin of a kubeconfig user (client.authentication.k8s.io/v1 or v1beta1)."""

    command: str
    args: tuple[str, ...] = ()
    env: tuple[tuple[str, str], ...] = ()
    api_version: str = "client.authentication.k8s.io/v1"
    install_hint: str = ""
    cluster: dict[str, Any] | None = None


@dataclass(slots=True)
class ClientConfig:
    """One API server and one identity. ``*_data`` are PEM texts and win over the ``*_file`` paths.

    ``unix_socket`` replaces the TCP connection; ``base_url`` then only gives the Host header and the scheme.
    """

    base_url: str
    token: str = ""
    token_file: str = ""
    ca_file: str = ""
    ca_data: str = ""
    client_cert: str = ""
    client_key: str = ""
    client_cert_data: str = ""
    client_key_data: str = ""
    unix_socket: str = ""
    insecure_skip_tls_verify: bool = False
    tls_server_name: str = ""
    namespace: str = "default"
    username: str = ""
    password: str = field(default="", repr=False)
    impersonate: str = ""
    impersonate_groups: tuple[str, ...] = ()
    exec_plugin: ExecPlugin | None = None
    timeout: float = 30.0
    user_agent: str = "quarterdeck"


@dataclass(slots=True)
class Credential:
    """What an exec plugin or token file gave. ``expires`` in seconds since the epoch, None when it does not expire."""

    token: str = field(default="", repr=False)
    certificate: str = ""
    key: str = field(default="", repr=False)
    expires: float | None = None


class CredentialSource:
    """The current credential of a config; token files are read again every minute, plugins run again at expiry."""

    def __init__(self, config: ClientConfig, now: Callable[[], float] = time) -> None:
        self._config = config
        self._now = now
        self._current: Credential | None = None

    @property
    def renewable(self) -> bool:
        return bool(self._config.token_file) or self._config.exec_plugin is not None

    @property
    def blocking(self) -> bool:
        """Whether the next :meth:`current` starts a process, so the caller should use a thread."""
        return self._config.exec_plugin is not None and self._stale()

    def forget(self) -> None:
        """Read or ask again at the next call: the server refused the credential."""
        self._current = None

    def current(self) -> Credential:
        """Raises ConfigError when the file or the plugin gives nothing usable."""
        if self._current is None or self._stale():
            self._current = self._load()
        return self._current

    def _stale(self) -> bool:
        current = self._current
        return current is None or (current.expires is not None and self._now() >= current.expires)

    def _load(self) -> Credential:
        config = self._config
        if config.exec_plugin is not None:
            return run_exec_plugin(config.exec_plugin)
        if config.token_file:
            try:
                token = Path(config.token_file).read_text().strip()
            except OSError as error:
                raise ConfigError(f"token file {config.token_file}: {error.strerror}") from error
            return Credential(token, expires=self._now() + _TOKEN_FILE_AGE)
        return Credential(config.token)


def run_exec_plugin(plugin: ExecPlugin) -> Credential:
    """Run a credential plugin and read its ExecCredential. Raises ConfigError naming the command."""
    info: dict[str, Any] = {"kind": "ExecCredential", "apiVersion": plugin.api_version, "spec": {"interactive": False}}
    if plugin.cluster is not None:
        info["spec"]["cluster"] = plugin.cluster
    env = os.environ | dict(plugin.env) | {"KUBERNETES_EXEC_INFO": json.dumps(info)}
    try:
        done = subprocess.run(
            [plugin.command, *plugin.args],
            env=env,
            capture_output=True,
            timeout=_EXEC_TIMEOUT,
            stdin=subprocess.DEVNULL,
        )
    except FileNotFoundError as error:
        hint = f"\n{plugin.install_hint}" if plugin.install_hint else ""
        raise ConfigError(f"credential plugin {plugin.command!r} is not installed{hint}") from error
    except subprocess.TimeoutExpired as error:
        raise ConfigError(f"credential plugin {plugin.command!r} gave no answer in {_EXEC_TIMEOUT:.0f} s") from error
    if done.returncode != 0:
        tail = done.stderr.decode(errors="replace").strip()[-500:]
        raise ConfigError(f"credential plugin {plugin.command!r} exited with {done.returncode}: {tail}")
    return _exec_credential(plugin, done.stdout)


def _exec_credential(plugin: ExecPlugin, output: bytes) -> Credential:
    try:
        answer: dict[str, Any] = json.loads(output)
        status: dict[str, Any] = answer["status"]
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"credential plugin {plugin.command!r} printed no ExecCredential with a status") from error
    if answer.get("apiVersion") != plugin.api_version:
        raise ConfigError(
            f"credential plugin {plugin.command!r} answered in {answer.get('apiVersion')}, "
            f"the kubeconfig says {plugin.api_version}"
        )
    expires = status.get("expirationTimestamp")
    return Credential(
        token=str(status.get("token", "")),
        certificate=str(status.get("clientCertificateData", "")),
        key=str(status.get("clientKeyData", "")),
        expires=datetime.fromisoformat(expires.replace("Z", "+00:00")).timestamp() if expires else None,
    )


def ssl_context(config: ClientConfig, credential: Credential) -> ssl.SSLContext:
    """The TLS settings of a config. Raises ConfigError naming the file that cannot be used."""
    context = ssl.create_default_context()
    if config.insecure_skip_tls_verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    elif config.ca_data or config.ca_file:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        try:
            context.load_verify_locations(cafile=config.ca_file or None, cadata=config.ca_data or None)
        except (OSError, ssl.SSLError) as error:
            raise ConfigError(f"certificate authority {config.ca_file or 'data'}: {error}") from error
    certificate = credential.certificate or config.client_cert_data
    if certificate:
        _load_pem_pair(context, certificate, credential.key or config.client_key_data)
    elif config.client_cert:
        try:
            context.load_cert_chain(config.client_cert, config.client_key or None)
        except (OSError, ssl.SSLError) as error:
            raise ConfigError(f"client certificate {config.client_cert}: {error}") from error
    return context


def _load_pem_pair(context: ssl.SSLContext, certificate: str, key: str) -> None:
    """The ssl module reads certificate chains from files only, so the pair passes through a private one."""
    with tempfile.NamedTemporaryFile("w", suffix=".pem") as file:  # mkstemp: mode 0600
        file.write(certificate.rstrip() + "\n" + key)
        file.flush()
        try:
            context.load_cert_chain(file.name)
        except (OSError, ssl.SSLError) as error:
            raise ConfigError(f"client certificate data: {error}") from error


def load_config(kubeconfig: str | Path | None = None, *, context: str = "") -> ClientConfig:
    """Find and read the configuration (order: see the module). Raises ConfigError naming file and field."""
    if kubeconfig:
        return from_kubeconfig(Path(kubeconfig), context=context)
    named = [name for name in os.environ.get("KUBECONFIG", "").split(os.pathsep) if name]
    for name in named:
        if Path(name).is_file():
            return from_kubeconfig(Path(name), context=context)
    if os.environ.get("KUBERNETES_SERVICE_HOST") and (SERVICE_ACCOUNT_DIR / "token").is_file():
        return in_cluster()
    default = Path.home() / ".kube" / "config"
    if default.is_file():
        return from_kubeconfig(default, context=context)
    if named:
        raise ConfigError(f"KUBECONFIG: {', '.join(named)} is not there; correct it, or start the platform with: qd up")
    raise ConfigError("no Kubernetes configuration found: set KUBECONFIG, or start the platform with: qd up")


def in_cluster(directory: Path = SERVICE_ACCOUNT_DIR) -> ClientConfig:
    """The Pod's own identity. ``directory`` is where the ServiceAccount volume is mounted."""
    host = os.environ.get("KUBERNETES_SERVICE_HOST", "")
    port = os.environ.get("KUBERNETES_SERVICE_PORT", "443")
    if not host:
        raise ConfigError("not in a cluster: KUBERNETES_SERVICE_HOST is not set")
    namespace = directory / "namespace"
    return ClientConfig(
        base_url=f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}",
        token_file=str(directory / "token"),
        ca_file=str(directory / "ca.crt"),
        namespace=namespace.read_text().strip() if namespace.is_file() else "default",
    )


def from_kubeconfig(path: Path, *, context: str = "") -> ClientConfig:
    """One context of a kubeconfig file. Relative paths inside are relative to the file, as kubectl reads them."""
    try:
        document: Any = yaml.safe_load(path.read_bytes())
    except OSError as error:
        raise ConfigError(f"kubeconfig {path}: {error.strerror}") from error
    except yaml.MarkedYAMLError as error:
        where = f", line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise ConfigError(f"kubeconfig {path}{where} is not YAML: {error.problem}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"kubeconfig {path} is not YAML: {error}") from error
    if not isinstance(document, dict):
        raise ConfigError(f"kubeconfig {path} is not a mapping")
    name = context or str(document.get("current-context") or "")
    chosen = _named(document, "contexts", "context", name, path)
    cluster = _named(document, "clusters", "cluster", str(chosen.get("cluster", "")), path)
    user = _named(document, "users", "user", str(chosen["user"]), path) if chosen.get("user") else {}
    server = cluster.get("server")
    if not isinstance(server, str) or not server:
        raise ConfigError(f"kubeconfig {path}: cluster {chosen.get('cluster')!r} has no server")

    def file(section: dict[str, Any], key: str) -> str:
        value = str(section.get(key) or "")
        return str(path.parent / value) if value else ""

    return ClientConfig(
        base_url=server.rstrip("/"),
        token=str(user.get("token") or ""),
        token_file=file(user, "tokenFile"),
        ca_file=file(cluster, "certificate-authority"),
        ca_data=_pem(cluster, "certificate-authority-data", path),
        client_cert=file(user, "client-certificate"),
        client_key=file(user, "client-key"),
        client_cert_data=_pem(user, "client-certificate-data", path),
        client_key_data=_pem(user, "client-key-data", path),
        insecure_skip_tls_verify=bool(cluster.get("insecure-skip-tls-verify")),
        tls_server_name=str(cluster.get("tls-server-name") or ""),
        namespace=str(chosen.get("namespace") or "default"),
        username=str(user.get("username") or ""),
        password=str(user.get("password") or ""),
        impersonate=str(user.get("as") or ""),
        impersonate_groups=tuple(user.get("as-groups") or ()),
        exec_plugin=_exec_plugin(user.get("exec"), cluster, path),
    )


def _named(document: dict[str, Any], section: str, key: str, name: str, path: Path) -> dict[str, Any]:
    entries: list[dict[str, Any]] = document.get(section) or []
    for entry in entries:
        if entry.get("name") == name and name:
            return entry.get(key) or {}
    known = ", ".join(str(entry.get("name")) for entry in entries) or "none"
    raise ConfigError(f"kubeconfig {path}: no entry {name!r} in {section} (has: {known})")


def _pem(section: dict[str, Any], key: str, path: Path) -> str:
    try:
        return base64.b64decode(section.get(key) or "", validate=True).decode()
    except (binascii.Error, UnicodeDecodeError) as error:
        raise ConfigError(f"kubeconfig {path}: {key} is not base64 of a PEM text") from error


def _exec_plugin(section: dict[str, Any] | None, cluster: dict[str, Any], path: Path) -> ExecPlugin | None:
    if not section:
        return None
    command = str(section.get("command") or "")
    if not command:
        raise ConfigError(f"kubeconfig {path}: users[].user.exec has no command")
    info = None
    if section.get("provideClusterInfo"):
        keys = ("server", "tls-server-name", "insecure-skip-tls-verify", "certificate-authority-data")
        info = {key: cluster[key] for key in keys if key in cluster}
    return ExecPlugin(
        # A path with a slash is relative to the kubeconfig; a bare name is looked up in PATH.
        command=str(path.parent / command) if "/" in command else command,
        args=tuple(str(a) for a in section.get("args") or ()),
        env=tuple((str(e["name"]), str(e["value"])) for e in section.get("env") or ()),
        api_version=str(section.get("apiVersion") or "client.authentication.k8s.io/v1"),
        install_hint=str(section.get("installHint") or ""),
        cluster=info,
    )
