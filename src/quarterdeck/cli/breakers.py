"""``qd gateway breakers``: which tools a gateway does not call for now, and how to make it try again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from quarterdeck.wire.client import Origin

_DEFAULT = "http://127.0.0.1:15000"
_HEADER = ["SERVER", "TOOL", "STATE", "FAILURES", "OPENED", "SINCE", "RETRY IN"]


def register(group: typer.Typer) -> None:
    group.command("breakers")(breakers)


def breakers(
    reset: Annotated[
        str, typer.Option("--reset", help="NAMESPACE/SERVER/TOOL, or NAMESPACE/SERVER for all of its tools.")
    ] = "",
    admin: Annotated[
        str,
        typer.Option(
            "--admin",
            help="Admin address of the gateway; default: that of this machine's.",
            envvar="QUARTERDECK_ADMIN_URL",
        ),
    ] = "",
    output: Annotated[str, typer.Option("--output", "-o", help="json or yaml.")] = "",
) -> None:
    """Show the circuit breakers that are open or count failures, or close some."""
    import asyncio

    from quarterdeck.errors import UsageError

    if output not in ("", "json", "yaml"):
        raise UsageError(f"-o {output}: one of json, yaml")
    server, tool = _parts(reset) if reset else ("", "")
    found = asyncio.run(_ask(admin, "GET", "/breakers"))["breakers"]
    if not reset:
        print(shown(found, output), end="")
        return
    count = sum(view["server"] == server and tool in ("", view["tool"]) for view in found)
    asyncio.run(_ask(admin, "POST", _reset_target(server, tool)))  # each of several workers says what it closed itself
    print(closed(reset, count))


def shown(found: list[dict[str, Any]], output: str) -> str:
    """The breakers as a table, JSON or YAML."""
    from datetime import datetime

    from . import output as printed

    if output:
        return printed.to_json(found) if output == "json" else printed.to_yaml(found)
    if not found:
        return "no circuit breaker is open or counts failures\n"
    rows = [
        [
            view["server"], view["tool"], view["state"], str(view["failures"]), str(view["opened"]),
            datetime.fromtimestamp(view["since"]).astimezone().isoformat(timespec="seconds"),
            f"{view['retry_in']:.0f}s" if view["retry_in"] else "-",
        ]
        for view in found
    ]  # fmt: skip
    return printed.table(rows, header=_HEADER)


def closed(name: str, count: int) -> str:
    """What a reset did. Raises NotFound when there was nothing to do."""
    from quarterdeck.errors import NotFound

    if not count:
        raise NotFound(f"no circuit breaker of {name} is open or counts failures; see: qd gateway breakers")
    return f"{count} circuit breaker(s) of {name} closed"


def _parts(name: str) -> tuple[str, str]:
    """Server and tool; no tool: all of them. Raises UsageError."""
    from quarterdeck.errors import UsageError

    parts = name.split("/", 2)
    if len(parts) < 2 or not all(parts):
        raise UsageError(f"--reset {name}: give NAMESPACE/SERVER/TOOL, or NAMESPACE/SERVER for all of its tools")
    return "/".join(parts[:2]), parts[2] if len(parts) == 3 else ""


def _reset_target(server: str, tool: str) -> str:
    from urllib.parse import urlencode

    return f"/breakers/reset?{urlencode({'server': server, 'tool': tool} if tool else {'server': server})}"


async def _ask(admin: str, method: str, target: str) -> dict[str, Any]:
    """Raises ConfigError when no gateway answers there, UpstreamError when something else does."""
    import msgspec

    from quarterdeck.errors import ConfigError, UpstreamError
    from quarterdeck.wire.client import Pool

    admin = admin or await _own() or _DEFAULT
    pool = Pool()
    try:
        response = await pool.request(method, _origin(admin), target, [(b"host", b"localhost:0")], timeout=5.0)
        body = await response.read()
    except UpstreamError as error:
        text = f"{error}; is the gateway's admin port there? Give --admin URL, or forward it: kubectl port-forward"
        raise ConfigError(text) from error
    finally:
        pool.close()
    if response.status != 200:
        raise UpstreamError(f"{admin}{target} answered {response.status}: {body[:200].decode(errors='replace')}")
    try:
        return msgspec.json.decode(body)
    except msgspec.DecodeError as error:
        raise UpstreamError(f"{admin} is no gateway's admin port: {error}") from error


async def _own() -> str:
    """Where the gateway of this machine's platform has its admin port; empty when there is no such platform."""
    from quarterdeck.controllers.bootstrap import GATEWAY, SYSTEM_NAMESPACE
    from quarterdeck.errors import QuarterdeckError
    from quarterdeck.kube.resource import DEPLOYMENT
    from quarterdeck.server.ports import listeners_of

    from .home import home, kubeconfig_path
    from .target import connect

    path = kubeconfig_path(home())
    if not path.is_file():
        return ""
    try:
        async with connect(str(path)) as client:
            port = listeners_of(await client.get(DEPLOYMENT, GATEWAY, SYSTEM_NAMESPACE)).get("admin")
    except QuarterdeckError:
        return ""
    return f"http://127.0.0.1:{port}" if port else ""


def _origin(admin: str) -> Origin:
    from urllib.parse import urlsplit

    from quarterdeck.errors import UsageError

    parts = urlsplit(admin if "//" in admin else f"http://{admin}")
    if not parts.hostname or parts.scheme != "http":
        raise UsageError(f"--admin {admin}: give http://HOST:PORT")
    return parts.hostname, parts.port or 80, False
