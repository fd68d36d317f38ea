"""Checking a configuration as far as serving it would, without network, ports or processes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from quarterdeck.errors import ConfigError
from quarterdeck.snapshot import Snapshot
from quarterdeck.snapshot.policies import Policies

from .standalone import FileOptions, Loaded, load


def validated(options: FileOptions, environment: Mapping[str, str] | None = None, base: Path | None = None) -> Loaded:
    """What the configuration says, once every table and rule of it has been compiled. Raises ConfigError."""
    from ..policy.chain import Chain, Services
    from ..table import Table
    from ..upstream import Upstreams

    loaded = load(options, environment, base)
    upstreams = Upstreams()
    try:
        services = Services(upstreams)
        for where, policies in attached(loaded.snapshot):  # before the table, which goes on with routes that are closed
            Chain(policies, services, where=where)
        table = Table(loaded.snapshot, upstreams, services=services)
        for name, problem in table.listeners.problems.items():
            raise ConfigError(problem if name in problem else f"listener {name}: {problem}")
    except ConfigError as error:
        places = loaded.places
        raise ConfigError(places.located(str(error)) if places is not None else f"{loaded.name}: {error}") from error
    finally:
        upstreams.close()
    return loaded


def attached(snapshot: Snapshot) -> Iterator[tuple[str, Policies]]:
    """Every set of policies of a snapshot, with the name of what carries it."""
    for listener in snapshot.listeners:
        yield f"listener/{listener.name}", listener.policies
        for route in listener.routes:
            yield f"route/{route.name}", route.policies
            for backend in route.backends:
                yield f"route/{route.name}", backend.policies
                for target in backend.mcp.targets if backend.mcp is not None else ():
                    yield f"route/{route.name}/{target.name}", target.policies
