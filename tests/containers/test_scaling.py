"""Two instances behind the proxy, for those who have a key, watched by Prometheus."""

from __future__ import annotations

import hashlib
import json
import re
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx
import numpy as np
import pytest
from numpy.typing import NDArray

from tests.conftest import PROJECT
from tests.containers.prometheus import ask
from tests.harness.compose import Composed, composed, run
from tests.harness.recordings import wav_bytes
from tests.harness.waiting import until

pytestmark = [pytest.mark.docker, pytest.mark.timeout(900)]

_PROMETHEUS_PORT = 18324
_KEYS = {"alice": "alices-key-of-enough-characters", "prometheus": "the-key-of-prometheus-alone"}
_DASHBOARD = json.loads((PROJECT / "docker/grafana/dashboards/wholetrack.json").read_text())
_MIB = 1 << 20
_SERVICES = ("proxy", "prometheus")


@pytest.fixture(scope="module")
def scaled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Composed]:
    folder = tmp_path_factory.mktemp("compose")
    keys, metrics_key = folder / "keys.toml", folder / "metrics.key"
    keys.write_text(
        "".join(f'[{name}]\nsha256 = "{hashlib.sha256(key.encode()).hexdigest()}"\n' for name, key in _KEYS.items())
    )
    metrics_key.write_text(f"{_KEYS['prometheus']}\n")
    for secret in (keys, metrics_key):
        secret.chmod(0o644)
    folder.chmod(0o755)
    with composed(
        "wholetrack-scaled",
        18322,
        folder,
        *("docker-compose.yml", "docker/scale.yml", "docker/keys.yml"),
        key=_KEYS["alice"],
        WHOLETRACK_PROMETHEUS_PORT=str(_PROMETHEUS_PORT),
        WHOLETRACK_KEYS_FILE=str(keys),
        WHOLETRACK_METRICS_KEY_FILE=str(metrics_key),
    ) as project:
        project.compose("build", "wholetrack", *_SERVICES)
        project.up("--scale", "wholetrack=2", *_SERVICES)
        until(lambda: project.post(b"RIFF").status_code != 503, seconds=30)
        yield project


@pytest.fixture(scope="module")
def song(tune: NDArray[np.float32]) -> bytes:
    """Half a minute."""
    return wav_bytes(np.tile(tune, 3), 22050)


@pytest.fixture(scope="module")
def long_song(tune: NDArray[np.float32]) -> bytes:
    """A quarter of an hour, which takes seconds to hear."""
    return wav_bytes(np.tile(tune, 90), 22050)


def of_instance(scaled: Composed, index: int, metric: str) -> float:
    """A metric of one instance, from itself: the sum of its series."""
    program = f"""
import urllib.request
asked = urllib.request.Request("http://127.0.0.1:8000/metrics", headers={{"Authorization": "Bearer {scaled.key}"}})
print(urllib.request.urlopen(asked).read().decode())
"""
    lines = scaled.python(program, index=index).splitlines()
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines if re.match(rf"{metric}(\{{.*\}})? ", line))


def test_every_instance_answers_and_only_those_who_have_a_key(scaled: Composed, song: bytes) -> None:
    with ThreadPoolExecutor(8) as clients:
        answers = list(clients.map(lambda _: scaled.post(song, windows="none"), range(16)))
    assert {answer.status_code for answer in answers} == {200}
    assert all(of_instance(scaled, index, "wholetrack_predictions_total") > 0 for index in (1, 2))
    assert httpx.post(f"{scaled.url}/v1/predict", content=song).status_code == 401


def test_the_proxy_holds_no_file(scaled: Composed) -> None:
    """It cannot write anywhere, and has less memory than the upload has bytes."""
    host = scaled.facts("proxy")[0]["HostConfig"]
    size = 300 * _MIB
    assert host["Memory"] < size
    assert host["ReadonlyRootfs"]
    assert not host.get("Tmpfs")
    head = wav_bytes(np.zeros(0, dtype=np.float32), 22050, stated_bytes=size)

    def chunks() -> Iterator[bytes]:
        yield head
        for _ in range(size // _MIB):
            yield bytes(_MIB)

    answer = scaled.post(chunks(), windows="none", timeout=300)
    assert answer.status_code == 200
    assert answer.json()["track"]["bytes"] == len(head) + size
    assert answer.json()["prediction"]["summed_score"]["genre"] is None


def test_answers_of_the_service_pass(scaled: Composed) -> None:
    refused = scaled.post(b"#EXTM3U\nfile:///etc/passwd\n")
    assert (refused.status_code, refused.json()["code"]) == (415, "unsupported_media")
    given = "0123456789abcdef0123456789abcdef"
    headers = {"Authorization": f"Bearer {scaled.key}", "X-Request-ID": given}
    assert httpx.get(f"{scaled.url}/v1/models", headers=headers).headers["X-Request-ID"] == given


def test_metrics_are_not_for_those_outside(scaled: Composed) -> None:
    headers = {"Authorization": f"Bearer {scaled.key}"}
    for path in ("/metrics", "/METRICS", "/metrics?x=1"):
        answer = httpx.get(f"{scaled.url}{path}", headers=headers)
        assert answer.status_code == 404
        assert answer.headers["content-type"] == "application/problem+json"


def test_a_client_that_leaves_is_gone_behind_the_proxy_too(scaled: Composed, long_song: bytes) -> None:
    head = (
        "POST /v1/predict HTTP/1.1\r\nHost: x\r\n"
        f"Authorization: Bearer {scaled.key}\r\nContent-Length: {len(long_song)}\r\n\r\n"
    )

    def under_way() -> float:
        return sum(of_instance(scaled, index, "wholetrack_predictions_in_progress") for index in (1, 2))

    gone = sum(of_instance(scaled, index, 'wholetrack_predictions_total.code="client_gone".') for index in (1, 2))
    with socket.create_connection(("127.0.0.1", scaled.port)) as client:
        client.sendall(head.encode() + long_song)
        until(lambda: under_way() == 1, seconds=30)
    until(lambda: under_way() == 0, seconds=10)
    now = sum(of_instance(scaled, index, 'wholetrack_predictions_total.code="client_gone".') for index in (1, 2))
    assert now == gone + 1


def test_prometheus_asks_every_instance_and_the_dashboard_shows_it(scaled: Composed, song: bytes) -> None:
    until(lambda: sorted(v for _, v in ask(_PROMETHEUS_PORT, 'up{job="wholetrack"}')) == [1.0, 1.0], seconds=60)
    # Rates need two looks, a quarter of a minute apart, with something between them.
    stopping = threading.Event()

    def keep_asking() -> None:
        while not stopping.wait(1.0):
            scaled.post(song, windows="none")
            scaled.post(b"no recording")

    client = threading.Thread(target=keep_asking)
    client.start()
    try:
        queries = [
            target["expr"].replace("$instance", ".*").replace("$__rate_interval", "1m")
            for panel in _DASHBOARD["panels"]
            for target in panel["targets"]
            # There is no GPU here.
            if "wholetrack_device_memory" not in target["expr"]
        ]
        assert len(queries) > 15
        until(lambda: all(ask(_PROMETHEUS_PORT, query) for query in queries), seconds=90)
    finally:
        stopping.set()
        client.join()


def test_alerts_are_told_from_peace(scaled: Composed) -> None:
    # It works in a folder of its own, and all but one are only read.
    promtool = ("run", "--rm", "--no-deps", "-T", "-e", "TMPDIR=/prometheus", "--entrypoint", "promtool", "prometheus")
    scaled.compose(*promtool, "check", "config", "/etc/prometheus/prometheus.yml")
    assert "SUCCESS" in scaled.compose(*promtool, "test", "rules", "/etc/prometheus/alerts_test.yml")
    rules = httpx.get(f"http://127.0.0.1:{_PROMETHEUS_PORT}/api/v1/rules").json()["data"]["groups"][0]["rules"]
    tried = (PROJECT / "docker/prometheus/alerts_test.yml").read_text()
    assert all(tried.count(f"alertname: {rule['name']}") >= 2 for rule in rules)
    assert {rule["health"] for rule in rules} == {"ok"}


def test_an_instance_that_dies_costs_what_it_heard_and_nothing_is_done_twice(
    scaled: Composed, song: bytes, long_song: bytes
) -> None:
    def hearing(index: int) -> bool:
        return of_instance(scaled, index, "wholetrack_predictions_in_progress") == 1

    instances = scaled.compose("ps", "--quiet", "wholetrack").split()
    containers = {facts["Config"]["Labels"]["com.docker.compose.container-number"]: facts for facts in scaled.facts()}
    assert len(instances) == len(containers) == 2
    with ThreadPoolExecutor(1) as clients:
        asked = clients.submit(scaled.post, long_song, windows="none")
        until(lambda: hearing(1) or hearing(2), seconds=30)
        victim, other = (1, 2) if hearing(1) else (2, 1)
        heard = of_instance(scaled, other, "wholetrack_predictions_total")
        run("docker", "kill", containers[str(victim)]["Id"])
        answer = asked.result()
    assert (answer.status_code, answer.json()["code"]) == (502, "instance_lost")
    assert answer.headers["content-type"] == "application/problem+json"
    assert not hearing(other)
    assert of_instance(scaled, other, "wholetrack_predictions_total") == heard
    assert scaled.post(song, windows="none").status_code == 200
    scaled.up("--scale", "wholetrack=2", *_SERVICES)


def test_who_asks_while_there_is_no_instance_is_told_so(scaled: Composed, song: bytes) -> None:
    scaled.compose("stop", "wholetrack")
    refused = scaled.post(song, timeout=30)
    assert (refused.status_code, refused.json()["code"]) == (503, "not_ready")
    scaled.up("--scale", "wholetrack=2", *_SERVICES)
    until(lambda: scaled.post(song, windows="none").status_code == 200, seconds=30)


def test_nothing_accepted_is_lost_when_all_are_stopped(scaled: Composed, song: bytes) -> None:
    with ThreadPoolExecutor(8) as clients:
        asked = [clients.submit(scaled.post, song, windows="none") for _ in range(8)]
        until(lambda: any(done.done() for done in asked), seconds=30)
        scaled.compose("stop")
        statuses = [answer.result().status_code for answer in asked]
    assert set(statuses) <= {200, 503}
    assert statuses.count(200) >= 1
    assert {facts["State"]["ExitCode"] for facts in scaled.facts("wholetrack")} == {0}
    assert {facts["State"]["ExitCode"] for facts in scaled.facts("proxy")} == {0}
