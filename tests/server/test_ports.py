"""Ports of the gateway are kept while it runs, and are somebody else's when it does not."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from quarterdeck.controllers.bootstrap import GatewayListeners, gateway
from quarterdeck.errors import QuarterdeckError
from quarterdeck.server.options import ServerOptions
from quarterdeck.server.ports import LISTENERS, gateway_runs, listeners_of, reserve


def options(**ports: int) -> ServerOptions:
    zero = dict.fromkeys(("kubernetes_port", "api_port", "kagent_port", "gateway_port", "workloads_port"), 0)
    return ServerOptions(Path("home"), Path("kubeconfig"), **(zero | ports))


@pytest.fixture
def taken() -> Iterator[int]:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        sock.listen()
        yield int(sock.getsockname()[1])


def test_free_ports_are_all_different() -> None:
    found = reserve(options(), {}, gateway_runs=False)
    assert set(found) == {*LISTENERS, "api", "kagent"} and len(set(found.values())) == len(found)


def test_a_running_gateway_keeps_its_ports(taken: int) -> None:
    before = {"local": taken, "stats": taken}
    for port in (taken, 0):
        found = reserve(options(gateway_port=port), before, gateway_runs=True)
        assert (found["local"], found["stats"]) == (taken, taken)


@pytest.mark.parametrize("runs", [True, False])
def test_somebody_elses_port_is_named_with_its_flag(taken: int, runs: bool) -> None:
    before = {} if runs else {"local": taken}
    with pytest.raises(QuarterdeckError, match=f"port {taken} .*--gateway-port"):
        reserve(options(gateway_port=taken), before, gateway_runs=runs)
    with pytest.raises(QuarterdeckError, match="--api-port"):
        reserve(options(api_port=taken), {}, gateway_runs=runs)


def test_a_gateway_that_ended_gets_its_ports_again_when_they_are_free(taken: int) -> None:
    free = reserve(options(), {}, gateway_runs=False)
    again = reserve(options(), {"stats": free["stats"], "ready": taken}, gateway_runs=False)
    assert again["stats"] == free["stats"] and again["ready"] != taken


def test_ports_are_read_from_the_deployment() -> None:
    listeners = GatewayListeners("http://127.0.0.1:1", *(f"127.0.0.1:{n}" for n in (1, 2, 3, 4, 5)))
    deployment = next(d for d in gateway(listeners) if d["kind"] == "Deployment")
    assert listeners_of(deployment) == {"local": 1, "workloads": 2, "stats": 3, "ready": 4, "admin": 5}
    assert listeners_of(None) == {}


def test_no_records_no_gateway(tmp_path: Path) -> None:
    assert not gateway_runs(tmp_path)
