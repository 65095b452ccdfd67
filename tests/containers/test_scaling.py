"""Two instances behind the proxy, with API keys and monitored by Prometheus."""

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

from tests.containers.prometheus import query_prometheus
from tests.e2e.live_client import END, MONO, live, receive, receive_all
from tests.harness.commands import run
from tests.harness.compose import ComposeProject, compose_project
from tests.harness.paths import PROJECT
from tests.harness.recordings import wav_bytes
from tests.harness.waiting import until

pytestmark = [pytest.mark.docker, pytest.mark.timeout(900)]

_PROMETHEUS_PORT = 18324
_KEYS = {"alice": "alices-key-of-enough-characters", "prometheus": "the-key-of-prometheus-alone"}
_DASHBOARD = json.loads((PROJECT / "docker/grafana/dashboards/wholetrack.json").read_text())
_MIB = 1 << 20
_SERVICES = ("proxy", "prometheus")
_INSTANCES = (1, 2)
_DISCONNECTED = 'wholetrack_predictions_total.code="client_gone".'


@pytest.fixture(scope="module")
def scaled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ComposeProject]:
    folder = tmp_path_factory.mktemp("compose")
    keys, metrics_key = folder / "keys.toml", folder / "metrics.key"
    keys.write_text(
        "".join(f'[{name}]\nsha256 = "{hashlib.sha256(key.encode()).hexdigest()}"\n' for name, key in _KEYS.items())
    )
    metrics_key.write_text(f"{_KEYS['prometheus']}\n")
    for secret in (keys, metrics_key):
        secret.chmod(0o644)
    folder.chmod(0o755)
    with compose_project(
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
    """Half a minute of audio."""
    return wav_bytes(np.tile(tune, 3), 22050)


@pytest.fixture(scope="module")
def long_song(tune: NDArray[np.float32]) -> bytes:
    """A quarter of an hour of audio, which takes seconds to process."""
    return wav_bytes(np.tile(tune, 90), 22050)


def metric(scaled: ComposeProject, index: int, pattern: str) -> float:
    """Return the sum of the series of one instance whose names and labels match a pattern."""
    program = f"""
import urllib.request
request = urllib.request.Request("http://127.0.0.1:8000/metrics", headers={{"Authorization": "Bearer {scaled.key}"}})
print(urllib.request.urlopen(request).read().decode())
"""
    lines = scaled.python(program, index=index).splitlines()
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines if re.match(rf"{pattern}(\{{.*\}})? ", line))


def total(scaled: ComposeProject, pattern: str) -> float:
    """Return the sum of a metric over both instances."""
    return sum(metric(scaled, index, pattern) for index in _INSTANCES)


def busy(scaled: ComposeProject, index: int) -> bool:
    """Return whether an instance works on exactly one track."""
    return metric(scaled, index, "wholetrack_predictions_in_progress") == 1


def instances(scaled: ComposeProject) -> dict[int, str]:
    """Return the identifiers of the containers by the index of the instance."""
    number = "com.docker.compose.container-number"
    return {int(container["Config"]["Labels"][number]): container["Id"] for container in scaled.inspect()}


def test_every_instance_serves_requests_with_a_key_and_no_others(scaled: ComposeProject, song: bytes) -> None:
    with ThreadPoolExecutor(8) as clients:
        responses = list(clients.map(lambda _: scaled.post(song, windows="none"), range(16)))
    assert {response.status_code for response in responses} == {200}
    assert all(metric(scaled, index, "wholetrack_predictions_total") > 0 for index in _INSTANCES)
    assert httpx.post(f"{scaled.url}/v1/predict", content=song).status_code == 401


def test_the_proxy_streams_uploads(scaled: ComposeProject) -> None:
    """The proxy cannot write anywhere, and its memory limit is smaller than the upload."""
    host = scaled.inspect("proxy")[0]["HostConfig"]
    size = 300 * _MIB
    assert host["Memory"] < size
    assert host["ReadonlyRootfs"]
    assert not host.get("Tmpfs")
    header = wav_bytes(np.zeros(0, dtype=np.float32), 22050, stated_bytes=size)

    def chunks() -> Iterator[bytes]:
        yield header
        for _ in range(size // _MIB):
            yield bytes(_MIB)

    response = scaled.post(chunks(), windows="none", timeout=300)
    assert response.status_code == 200
    assert response.json()["track"]["bytes"] == len(header) + size
    assert response.json()["prediction"]["summed_score"]["genre"] is None


def test_the_proxy_passes_on_responses_unchanged(scaled: ComposeProject) -> None:
    refused = scaled.post(b"#EXTM3U\nfile:///etc/passwd\n")
    assert (refused.status_code, refused.json()["code"]) == (415, "unsupported_media")
    request_id = "0123456789abcdef0123456789abcdef"
    headers = {"Authorization": f"Bearer {scaled.key}", "X-Request-ID": request_id}
    assert httpx.get(f"{scaled.url}/v1/models", headers=headers).headers["X-Request-ID"] == request_id


def test_the_proxy_does_not_expose_metrics(scaled: ComposeProject) -> None:
    headers = {"Authorization": f"Bearer {scaled.key}"}
    for path in ("/metrics", "/METRICS", "/metrics?x=1"):
        response = httpx.get(f"{scaled.url}{path}", headers=headers)
        assert response.status_code == 404
        assert response.headers["content-type"] == "application/problem+json"


def test_the_proxy_aborts_the_request_of_a_client_that_disconnects(scaled: ComposeProject, long_song: bytes) -> None:
    headers = (
        "POST /v1/predict HTTP/1.1\r\nHost: x\r\n"
        f"Authorization: Bearer {scaled.key}\r\nContent-Length: {len(long_song)}\r\n\r\n"
    )
    before = total(scaled, _DISCONNECTED)
    with socket.create_connection(("127.0.0.1", scaled.port)) as client:
        client.sendall(headers.encode() + long_song)
        until(lambda: total(scaled, "wholetrack_predictions_in_progress") == 1, seconds=30)
    until(lambda: total(scaled, "wholetrack_predictions_in_progress") == 0, seconds=10)
    assert total(scaled, _DISCONNECTED) == before + 1


def test_prometheus_scrapes_every_instance_and_every_panel_has_data(scaled: ComposeProject, song: bytes) -> None:
    def up() -> list[float]:
        return sorted(value for _, value in query_prometheus(_PROMETHEUS_PORT, 'up{job="wholetrack"}'))

    until(lambda: up() == [1.0, 1.0], seconds=60)
    # Rates need two scrapes, 15 s apart, with requests in between.
    stopping = threading.Event()

    def send_requests() -> None:
        while not stopping.wait(1.0):
            scaled.post(song, windows="none")
            scaled.post(b"not a recording")

    client = threading.Thread(target=send_requests)
    client.start()
    try:
        queries = [
            target["expr"].replace("$instance", ".*").replace("$__rate_interval", "1m")
            for panel in _DASHBOARD["panels"]
            for target in panel["targets"]
            # There is no GPU.
            if "wholetrack_device_memory" not in target["expr"]
        ]
        assert len(queries) > 15
        until(lambda: all(query_prometheus(_PROMETHEUS_PORT, query) for query in queries), seconds=90)
    finally:
        stopping.set()
        client.join()


def test_every_alert_is_tested_both_firing_and_silent(scaled: ComposeProject) -> None:
    # promtool needs a folder that it can write to; everything else is read-only.
    promtool = ("run", "--rm", "--no-deps", "-T", "-e", "TMPDIR=/prometheus", "--entrypoint", "promtool", "prometheus")
    scaled.compose(*promtool, "check", "config", "/etc/prometheus/prometheus.yml")
    assert "SUCCESS" in scaled.compose(*promtool, "test", "rules", "/etc/prometheus/alerts_test.yml")
    rules = httpx.get(f"http://127.0.0.1:{_PROMETHEUS_PORT}/api/v1/rules").json()["data"]["groups"][0]["rules"]
    tests = (PROJECT / "docker/prometheus/alerts_test.yml").read_text()
    assert all(len(re.findall(rf"alertname: {rule['name']}\b", tests)) >= 2 for rule in rules)
    assert {rule["health"] for rule in rules} == {"ok"}


def test_a_killed_instance_fails_only_its_own_requests_and_none_is_retried(
    scaled: ComposeProject, song: bytes, long_song: bytes
) -> None:
    containers = instances(scaled)
    assert len(containers) == 2
    with ThreadPoolExecutor(1) as clients:
        request = clients.submit(scaled.post, long_song, windows="none")
        until(lambda: busy(scaled, 1) or busy(scaled, 2), seconds=30)
        victim, other = (1, 2) if busy(scaled, 1) else (2, 1)
        before = metric(scaled, other, "wholetrack_predictions_total")
        run("docker", "kill", containers[victim])
        response = request.result()
    assert (response.status_code, response.json()["code"]) == (502, "instance_lost")
    assert response.headers["content-type"] == "application/problem+json"
    assert not busy(scaled, other)
    assert metric(scaled, other, "wholetrack_predictions_total") == before
    assert scaled.post(song, windows="none").status_code == 200
    scaled.up("--scale", "wholetrack=2", *_SERVICES)


def test_the_proxy_passes_on_live_audio_and_its_windows_as_they_come(
    scaled: ComposeProject, tune: NDArray[np.float32]
) -> None:
    with live(scaled, MONO | {"key": scaled.key}) as connection:
        events = [receive(connection)]
        connection.send(tune.tobytes())
        while events[-1][0] != "windows":
            events.append(receive(connection))
        connection.send(tune.tobytes())
        connection.send(END)
        rest, code = receive_all(connection)
    assert events[0][0] == "start"
    assert (rest[-1][0], code) == ("result", 1000)
    assert rest[-1][1]["track"]["duration_s"] == pytest.approx(20.0, abs=0.01)
    with live(scaled, MONO | {"key": "wrong"}) as connection:
        events, code = receive_all(connection)
    assert (events[-1][1]["code"], code) == ("unauthorised", 1008)


def test_an_instance_that_stops_ends_the_audio_and_sends_the_result(
    scaled: ComposeProject, tune: NDArray[np.float32]
) -> None:
    containers = instances(scaled)
    with live(scaled, MONO | {"key": scaled.key}) as connection, ThreadPoolExecutor(1) as threads:
        connection.send(tune.tobytes())
        events = [receive(connection)]
        while events[-1][0] != "windows":
            events.append(receive(connection))
        stopped, other = (1, 2) if busy(scaled, 1) else (2, 1)
        stopping = threads.submit(run, "docker", "stop", containers[stopped])
        rest, code = receive_all(connection)
        stopping.result()
    assert (rest[-1][0], code) == ("result", 1012)
    assert rest[-1][1]["track"]["duration_s"] == pytest.approx(10.0, abs=0.01)
    # The next one is predicted by the other instance.
    with live(scaled, MONO | {"key": scaled.key}) as connection:
        assert receive(connection)[0] == "start"
        assert busy(scaled, other)
        connection.send(tune.tobytes())
        connection.send(END)
        rest, code = receive_all(connection)
    assert (rest[-1][0], code) == ("result", 1000)
    scaled.up("--scale", "wholetrack=2", *_SERVICES)


def test_without_instances_the_proxy_responds_not_ready(scaled: ComposeProject, song: bytes) -> None:
    scaled.compose("stop", "wholetrack")
    refused = scaled.post(song, timeout=30)
    assert (refused.status_code, refused.json()["code"]) == (503, "not_ready")
    scaled.up("--scale", "wholetrack=2", *_SERVICES)
    until(lambda: scaled.post(song, windows="none").status_code == 200, seconds=30)


def test_admitted_requests_finish_when_everything_stops(scaled: ComposeProject, song: bytes) -> None:
    with ThreadPoolExecutor(8) as clients:
        requests = [clients.submit(scaled.post, song, windows="none") for _ in range(8)]
        until(lambda: any(request.done() for request in requests), seconds=30)
        scaled.compose("stop")
        statuses = [request.result().status_code for request in requests]
    assert set(statuses) <= {200, 503}
    assert statuses.count(200) >= 1
    assert {container["State"]["ExitCode"] for container in scaled.inspect("wholetrack")} == {0}
    assert {container["State"]["ExitCode"] for container in scaled.inspect("proxy")} == {0}
