"""A short form of every attack: all health probes succeed meanwhile, and the attackers get what they should."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.attacks.__main__ import make_recording, probe_settings
from bench.attacks.connections import Target
from bench.attacks.kinds import ATTACKS
from bench.attacks.probes import probe_all
from bench.attacks.running import running_attack
from tests.harness.server import Server, running_server

pytestmark = pytest.mark.timing

_SECONDS = 1.0
_MAX_CONNECTIONS = 512
_PROBE_SETTINGS = probe_settings()
# Statuses of the responses to each attack, and close codes; costly requests within the limits are processed.
_STATUSES = {
    "tiny chunks": {400},
    "form lines": {400},
    "costly headers": {200, 404, 422, 431},
    "silent connections": {408, 429},
    "slow readers": {200},
    # 1002: the messages are too small. 1013: there are as many live predictions as allowed.
    "tiny messages": {101, 1002, 1013},
    "silent WebSockets": {101, 429},
    "ignored events": {101},
}


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("recording") / "recording.m4a"
    make_recording(path, seconds=300)
    return path


@pytest.fixture(scope="module")
def attacked(tmp_path_factory: pytest.TempPathFactory, recording: Path) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("attacked")
    # The recordings are cached, so that no client waits for the processor, whatever the first one says about its speed.
    limits = {"max_connections": _MAX_CONNECTIONS, "max_wait_s": 3600}
    with running_server(folder, cache_mb=64, **limits, **_PROBE_SETTINGS) as server:
        server.post(recording, hop_s=0.54).raise_for_status()
        yield server


# Without a port of their own, probes are refused while others hold all connections.
@pytest.mark.parametrize("name", [name for name in ATTACKS if _PROBE_SETTINGS or name != "silent connections"])
def test_probes_succeed_during_an_attack(attacked: Server, recording: Path, name: str) -> None:
    host, port = attacked.url.removeprefix("http://").split(":")
    target = Target(host, int(port), recording)
    ports = {"main_port": int(port)} | _PROBE_SETTINGS
    with running_attack(name, target, seconds=_SECONDS) as attack:
        probes = probe_all(host, ports, seconds=_SECONDS)
        n_connections = sum(c.status == "ESTABLISHED" for c in attacked.process.net_connections())
    for one in probes.values():
        assert one.outcomes["200"] == len(one.latencies_s) > 0, one.outcomes
    assert n_connections <= _MAX_CONNECTIONS + 32
    assert attack.tally.connections >= ATTACKS[name].n_clients
    # Connections that send nothing may be closed without a response.
    assert attack.tally.responses or name == "silent connections"
    assert set(attack.tally.responses) <= _STATUSES[name]
