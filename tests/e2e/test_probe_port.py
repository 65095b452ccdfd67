"""The port for probes: what it answers, and that nobody can keep probes out."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass

import httpx
import pytest

from tests.e2e.requests import assert_problem
from tests.harness.ports import free_port
from tests.harness.server import Server, running_server

pytestmark = pytest.mark.timing

# More than the service accepts on either port.
_SILENT = 200


@dataclass(frozen=True, slots=True)
class Ports:
    """The two ports of a service."""

    server: Server
    main: int
    probe: int


@pytest.fixture(scope="module")
def ports(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ports]:
    probe = free_port()
    with running_server(tmp_path_factory.mktemp("probed"), probe_port=probe, max_connections=100) as server:
        yield Ports(server, int(server.url.rpartition(":")[2]), probe)


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/readyz/"])
def test_both_ports_answer_probes_alike(ports: Ports, path: str) -> None:
    main, probe = (httpx.get(f"http://127.0.0.1:{port}{path}") for port in (ports.main, ports.probe))
    assert (main.status_code, main.json()) == (probe.status_code, probe.json()) == (200, main.json())
    assert set(main.headers) == set(probe.headers)


@pytest.mark.parametrize("path", ["/", "/v1/models", "/metrics", "/docs", "/openapi.json", "/healthz/x", "/nowhere"])
def test_the_probe_port_answers_nothing_else(ports: Ports, path: str) -> None:
    assert_problem(httpx.get(f"http://127.0.0.1:{ports.probe}{path}"), 404, "not_found")


@pytest.mark.parametrize("full", ["main", "probe"])
def test_silent_connections_keep_no_probe_out(ports: Ports, full: str) -> None:
    attacked = getattr(ports, full)
    with ExitStack() as stack:
        for _ in range(_SILENT):
            stack.enter_context(socket.create_connection(("127.0.0.1", attacked), timeout=20))
        statuses = [
            httpx.get(f"http://127.0.0.1:{port}/healthz", timeout=20).status_code
            for _ in range(20)
            for port in (ports.main, ports.probe)
        ]
    assert statuses == [200] * 40
