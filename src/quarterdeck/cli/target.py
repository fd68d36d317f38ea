"""Which Kubernetes API a command talks to, and the options that choose it. Imports only typer at load."""

from __future__ import annotations

import os
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from .complete import namespaces

if TYPE_CHECKING:
    from quarterdeck.kube.client import ClientConfig, KubeClient

T = TypeVar("T")

Kubeconfig = Annotated[str, typer.Option("--kubeconfig", help="Path of a kubeconfig file.")]
Context = Annotated[str, typer.Option("--context", help="Context of the kubeconfig.")]
As = Annotated[str, typer.Option("--as", help="User to impersonate.")]
Namespace = Annotated[str, typer.Option("--namespace", "-n", help="Namespace.", autocompletion=namespaces)]
AllNamespaces = Annotated[bool, typer.Option("--all-namespaces", "-A", help="All namespaces.")]
Selector = Annotated[str, typer.Option("--selector", "-l", help="Label selector.")]


def find_config(kubeconfig: str = "", context: str = "", as_user: str = "") -> ClientConfig:
    """``--kubeconfig``, else ``$KUBECONFIG``, else the platform of this machine, else what kubectl would use.

    Raises ConfigError when there is nothing to talk to.
    """
    from quarterdeck.kube.config import load_config

    from .home import await_restart, home, kubeconfig_path

    local = kubeconfig_path(home())
    named = kubeconfig or os.environ.get("KUBECONFIG")
    if not named and local.is_file():
        await_restart(home())
    config = load_config(kubeconfig or (None if named or not local.is_file() else local), context=context)
    if as_user:
        config.impersonate = as_user
    return config


def connect(kubeconfig: str = "", context: str = "", as_user: str = "", namespace: str = "") -> KubeClient:
    """A client whose ``config.namespace`` is the one to use by default. Close it, or use ``async with``."""
    from quarterdeck.kube.client import KubeClient

    config = find_config(kubeconfig, context, as_user)
    config.user_agent = "qd"
    if namespace:
        config.namespace = namespace
    return KubeClient(config, on_warning=_warn_once())


def _warn_once() -> Callable[[str], None]:
    """Prints each warning of the server once, as kubectl does."""
    from .output import note

    said: set[str] = set()

    def warn(text: str) -> None:
        if text not in said:
            said.add(text)
            note(f"Warning: {text}")

    return warn


def agents_namespace(namespace: str) -> str:
    """The namespace of agents and their tools: the one given, else the context's own, else ``kagent``."""
    from quarterdeck.errors import ConfigError

    if namespace:
        return namespace
    try:
        found = find_config().namespace
    except ConfigError:
        return "kagent"
    return "kagent" if found in ("", "default") else found


def agent_name(agent: str, namespace: str) -> str:
    """``NAMESPACE/NAME`` of an agent that may be given by its name alone."""
    return agent if "/" in agent else f"{agents_namespace(namespace)}/{agent}"


def whose(agent: str, namespace: str, everywhere: bool) -> dict[str, str]:
    """A query of the management API: what is an agent's, a namespace's or (nothing) anybody's."""
    if agent:
        return {"agent": agent_name(agent, namespace)}
    return {} if everywhere else {"namespace": agents_namespace(namespace)}


def run(work: Coroutine[Any, Any, T]) -> T:
    import asyncio

    return asyncio.run(work)
