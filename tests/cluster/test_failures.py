"""Clients that leave, too many clients, replicas and nodes that are lost, and an application that is stopped.

The order of the tests matters: the last ones leave the cluster with less than the first ones found.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import numpy as np
import psutil
import pytest
from numpy.typing import NDArray

from tests.cluster.conftest import MAX_REQUESTS
from tests.harness.processes import descendants
from tests.harness.ray_cluster import RayCluster
from tests.harness.recordings import Recorder, wav_bytes
from tests.harness.waiting import until

pytestmark = pytest.mark.timing


@pytest.fixture(scope="session")
def song(tune: NDArray[np.float32]) -> bytes:
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


def test_more_clients_than_permits_are_told_to_try_again(cluster: RayCluster, song: bytes) -> None:
    end = time.monotonic() + 3
    found = outcomes(cluster, song, clients=MAX_REQUESTS + 6, until_done=lambda: time.monotonic() > end)
    assert set(found) <= {"200", "429"}
    assert found["200"]
    assert found["429"]


def test_what_a_killed_replica_has_started_ends_with_it(cluster: RayCluster) -> None:
    replica = cluster.replicas("analysis")[0]
    children = [child for child, _ in descendants(replica)]
    assert len(children) >= 3, "two launchers and a feature worker"
    replica.kill()
    _, alive = psutil.wait_procs(children, timeout=20)
    assert not alive


def test_a_killed_node_loses_no_recording_that_was_accepted(cluster: RayCluster, song: bytes) -> None:
    until(lambda: len(cluster.replicas("analysis")) == 2, poll_s=0.2)
    killed = threading.Event()

    def kill() -> None:
        time.sleep(1.0)
        cluster.command("kill", node=1)
        time.sleep(3.0)
        killed.set()

    killer = threading.Thread(target=kill)
    killer.start()
    found = outcomes(cluster, song, clients=6, until_done=killed.is_set)
    killer.join()
    assert set(found) <= {"200", "503"}
    assert found["200"]
    # The other node takes over.
    response = cluster.post(song, windows="none")
    assert response.status_code == 200, response.text
    until(lambda: cluster.get("/readyz").status_code == 200, poll_s=0.2)


def test_an_application_that_is_stopped_finishes_what_is_in_progress(cluster: RayCluster, long_recording: Path) -> None:
    with ThreadPoolExecutor(1) as threads:
        response = threads.submit(cluster.post, long_recording, windows="none")
        until(lambda: bool(cluster.decoders()), poll_s=0.02)
        cluster.command("delete")
        assert response.result().status_code == 200, response.result().text
    assert not cluster.replicas("analysis")
    assert cluster.get("/readyz").status_code == 404
