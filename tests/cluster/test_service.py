"""The service on Ray responds as the service without it does, and loses no request when replicas or nodes are lost.

All tests share one cluster, so that they are in one file, which runs in one process. Their order matters: the last one
leaves the cluster with a single node.
"""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil
import pytest
from numpy.typing import NDArray

from tests.cluster.conftest import MAX_REQUESTS
from tests.e2e.live_client import joined, predict_live
from tests.harness.ray_cluster import RayCluster
from tests.harness.recordings import LOSSY, Recorder, wav_bytes
from tests.harness.server import Server
from tests.harness.waiting import until
from wholetrack.sandbox.layers import ALL_LAYERS

pytestmark = pytest.mark.timing

Service = Server | RayCluster
Request = Callable[[Service], httpx.Response]

# Probabilities and shares have four decimals.
_ROUNDED = 1.01e-4


@pytest.fixture(scope="session")
def song(tune: NDArray[np.float32]) -> bytes:
    """A tune with a silent part."""
    return wav_bytes(np.concatenate([tune, np.zeros(8 * 22050, dtype=np.float32), tune]), 22050)


def assert_same(first: Any, second: Any, path: str = "") -> None:
    """Compare two bodies. Ids and times differ, and numbers may be rounded differently."""
    if path.endswith(("request_id", "timing_ms")):
        return
    assert type(first) is type(second), path
    if isinstance(first, dict):
        assert list(first) == list(second), path
        for name, value in first.items():
            assert_same(value, second[name], f"{path}/{name}")
    elif isinstance(first, list):
        assert len(first) == len(second), path
        for i, (one, other) in enumerate(zip(first, second, strict=True)):
            assert_same(one, other, f"{path}/{i}")
    elif isinstance(first, float):
        assert first == pytest.approx(second, abs=_ROUNDED), path
    else:
        assert first == second, path


def assert_same_response(server: Server, cluster: RayCluster, request: Request) -> httpx.Response:
    plain, remote = request(server), request(cluster)
    assert remote.status_code == plain.status_code, remote.text
    for name in ("content-type", "cache-control", "vary", "retry-after", "www-authenticate", "content-security-policy"):
        assert remote.headers.get(name) == plain.headers.get(name), name
    assert len(remote.headers.get_list("x-request-id")) == 1
    if plain.headers["content-type"].endswith("json"):
        assert_same(plain.json(), remote.json())
    return remote


@pytest.mark.parametrize(
    "query",
    [
        {},
        {"tags": "windows", "embedding": "windows", "top_k": 5},
        {"taxonomy": "gtzan", "windows": "top"},
        {"model": "wholetrack-crnn-gtzan", "hop_s": 0.25},
        {"model": "deepsound-crnn"},
    ],
    ids=str,
)
def test_predictions_are_the_same(server: Server, cluster: RayCluster, song: bytes, query: dict[str, Any]) -> None:
    response = assert_same_response(server, cluster, lambda service: service.post(song, "song.wav", **query))
    assert response.status_code == 200
    assert response.headers["server-timing"]


def test_a_compressed_recording_is_predicted_in_the_same_way(
    server: Server, cluster: RayCluster, song: bytes, recorder: Recorder, tmp_path: Any
) -> None:
    source, target = tmp_path / "song.wav", tmp_path / "song.mp3"
    source.write_bytes(song)
    recorder.run("-i", source, *LOSSY[0].arguments, target)
    assert assert_same_response(server, cluster, lambda service: service.post(target)).status_code == 200


def _post(content: bytes = b"", **options: Any) -> Request:
    return lambda service: httpx.post(f"{service.url}/v1/predict", content=content, timeout=60, **options)


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (_post(), 400),
        (_post(b"not audio at all", params={"top_k": 0}), 422),
        (_post(b"not audio at all"), 415),
        (_post(b"RIFF\x00\x00\x00\x00WAVE"), 422),
        (lambda service: service.post(b"", "empty.mp3"), 422),
        (_post(b"audio", params={"model": "nobody"}), 404),
        (_post(b"audio", params={"taxonomy": "nothing"}), 422),
        (_post(b"audio", headers={"Accept": "application/pdf"}), 406),
        (_post(b"audio", headers={"Content-Encoding": "gzip"}), 415),
        (_post(b"audio", headers={"Host": "attacker.example"}), 421),
        (lambda service: httpx.get(f"{service.url}/v1/predict"), 405),
        (lambda service: httpx.get(f"{service.url}/nothing"), 404),
        (lambda service: httpx.get(f"{service.url}/v1/live"), 426),
    ],
    ids=[
        *("no-file", "parameter", "not-audio", "truncated", "empty", "model", "taxonomy", "accept", "coding", "host"),
        *("method", "path", "upgrade"),
    ],
)
def test_errors_are_the_same(server: Server, cluster: RayCluster, request_: Request, status: int) -> None:
    assert assert_same_response(server, cluster, request_).status_code == status


@pytest.mark.parametrize(
    "path", ["/v1/models", "/v1/models/wholetrack-crnn", "/v2", "/v2/models/wholetrack-crnn/ready"]
)
def test_models_are_described_in_the_same_way(server: Server, cluster: RayCluster, path: str) -> None:
    assert assert_same_response(server, cluster, lambda service: service.get(path)).status_code == 200


def test_the_service_is_ready_and_its_replicas_apply_all_layers_of_the_sandbox(
    server: Server, cluster: RayCluster
) -> None:
    response = assert_same_response(server, cluster, lambda service: service.get("/readyz"))
    assert response.json()["sandbox"] == server.get("/readyz").json()["sandbox"]
    assert set(response.json()["sandbox"]) == set(ALL_LAYERS)


def test_windows_of_a_client_are_classified_in_the_same_way(server: Server, cluster: RayCluster) -> None:
    model = "wholetrack-crnn-gtzan"
    (entry,) = server.get(f"/v2/models/{model}").json()["inputs"]
    rng = np.random.default_rng(3)
    values = rng.random((2, *entry["shape"][1:])).round(3)
    body = {"inputs": [{**entry, "shape": list(values.shape), "data": values.ravel().tolist()}]}
    response = assert_same_response(
        server, cluster, lambda service: httpx.post(f"{service.url}/v2/models/{model}/infer", json=body, timeout=60)
    )
    assert response.status_code == 200, response.text


def test_events_lead_to_the_same_result(server: Server, cluster: RayCluster, song: bytes) -> None:
    lines = _post(song, headers={"Accept": "application/x-ndjson"})(cluster).text.splitlines()
    events = [(event["event"], event["data"]) for event in map(json.loads, lines)]
    assert [name for name, _ in events][:1] == ["start"]
    result = dict(events)["result"]
    plain = server.post(song).json()
    assert_same(plain["prediction"], result["prediction"])
    assert joined(events, "start_s") == plain["windows"]["start_s"]
    assert joined(events, "genre") == plain["windows"]["genre"]
    assert sum(len(data["peaks"]) for name, data in events if name == "progress") == 280


def test_live_audio_leads_to_the_same_result(server: Server, cluster: RayCluster, tune: NDArray[np.float32]) -> None:
    (plain, plain_code), (remote, remote_code) = (
        predict_live(service, tune.tobytes()) for service in (server, cluster)
    )
    assert (remote[-1][0], remote_code) == (plain[-1][0], plain_code) == ("result", 1000)
    assert_same(plain[-1][1]["prediction"], remote[-1][1]["prediction"])
    assert joined(remote, "genre") == remote[-1][1]["windows"]["genre"]


def _series(service: Service) -> set[str]:
    lines = [line for line in service.get("/metrics").text.splitlines() if not line.startswith("#")]
    return {line.partition("{")[0].partition(" ")[0] for line in lines}


def test_metrics_have_the_same_names(server: Server, cluster: RayCluster) -> None:
    assert _series(cluster) >= _series(server)
    replicas = {line.partition('replica="')[2].partition("-")[0] for line in cluster.get("/metrics").text.splitlines()}
    assert replicas >= {"ingress", "analysis", "network"}


@pytest.fixture(scope="session")
def longer_song(tune: NDArray[np.float32]) -> bytes:
    return wav_bytes(np.tile(tune, 3), 22050)


@pytest.fixture(scope="session")
def long_recording(recorder: Recorder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten minutes, which take a few seconds."""
    path = tmp_path_factory.mktemp("long") / "long.flac"
    recorder.run("-f", "lavfi", "-i", "anoisesrc=r=22050", "-t", "600", path)
    return path


def outcomes(cluster: RayCluster, content: bytes, *, clients: int, until_done: Callable[[], bool]) -> Counter[str]:
    """Send recordings with several clients until ``until_done``; return how often each outcome occurred."""
    found: Counter[str] = Counter()
    lock = threading.Lock()

    def client() -> None:
        while not until_done():
            response = cluster.post(content, windows="none")
            with lock:
                found[str(response.status_code)] += 1
            if response.status_code != 200:
                assert response.headers["content-type"] == "application/problem+json", response.text
                assert int(response.headers["retry-after"]) > 0
                time.sleep(0.2)

    with ThreadPoolExecutor(clients) as threads:
        for done in [threads.submit(client) for _ in range(clients)]:
            done.result()
    return found


def test_a_client_that_leaves_ends_its_decoder(cluster: RayCluster, long_recording: Path) -> None:
    with pytest.raises(httpx.ReadTimeout), long_recording.open("rb") as file:
        httpx.post(f"{cluster.url}/v1/predict", content=file, timeout=httpx.Timeout(60, read=1.0))
    until(lambda: not cluster.decoders(), seconds=20, poll_s=0.05)
    until(lambda: not list(cluster.temp_dir.glob("*/uploads/*")), seconds=20, poll_s=0.05)
    assert cluster.get("/readyz").status_code == 200


def test_more_clients_than_permits_are_told_to_try_again(cluster: RayCluster, longer_song: bytes) -> None:
    end = time.monotonic() + 3
    found = outcomes(cluster, longer_song, clients=MAX_REQUESTS + 6, until_done=lambda: time.monotonic() > end)
    assert set(found) <= {"200", "429"}
    assert found["200"]
    assert found["429"]


def test_a_replica_that_is_no_longer_needed_finishes_what_is_in_progress(
    cluster: RayCluster, long_recording: Path
) -> None:
    # More than one replica can decode at the same time, so that either of them has some.
    with ThreadPoolExecutor(4) as threads:
        responses = [threads.submit(cluster.post, long_recording, windows="none") for _ in range(4)]
        until(lambda: len(cluster.decoders()) >= 2, poll_s=0.02)
        cluster.command("deploy", analysis={"autoscaling_config": {"min_replicas": 1, "max_replicas": 1}})
        assert [response.result().status_code for response in responses] == [200] * 4
    until(lambda: len(cluster.replicas("analysis")) == 1, poll_s=0.2)
    cluster.command("deploy")
    until(lambda: len(cluster.replicas("analysis")) == 2, poll_s=0.2)


def test_a_killed_node_loses_no_recording_that_was_accepted(cluster: RayCluster, longer_song: bytes) -> None:
    killed = threading.Event()
    started: list[int] = []

    def kill() -> None:
        time.sleep(1.0)
        started.extend(cluster.command("kill", node=1))
        time.sleep(3.0)
        killed.set()

    killer = threading.Thread(target=kill)
    killer.start()
    found = outcomes(cluster, longer_song, clients=6, until_done=killed.is_set)
    killer.join()
    assert set(found) <= {"200", "503"}
    assert found["200"]
    # The launchers and feature workers of its replicas have ended with them.
    assert len(started) >= 3
    until(lambda: not any(map(psutil.pid_exists, started)), seconds=20, poll_s=0.1)
    # The other node takes over.
    response = cluster.post(longer_song, windows="none")
    assert response.status_code == 200, response.text
    until(lambda: cluster.get("/readyz").status_code == 200, poll_s=0.2)
