"""Clients that disconnect, and a service that shuts down: work is stopped or finished, and nothing is left behind."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import httpx
import numpy as np
import psutil
import pytest
from numpy.typing import NDArray

from tests.e2e.requests import assert_problem, start_upload, wait_for_outcome
from tests.harness.ports import free_port
from tests.harness.recordings import Recorder, wav_bytes
from tests.harness.server import Server, running_server

pytestmark = pytest.mark.timing


@pytest.fixture
def song(tune: NDArray[np.float32]) -> bytes:
    return wav_bytes(tune, 22050)


def test_a_client_that_disconnects_during_its_upload(tmp_path: Path, song: bytes) -> None:
    with running_server(tmp_path) as server:
        with start_upload(server, content_length=len(song)) as connection:
            connection.sendall(song[:200_000])
            while not server.leftovers()["files"]:
                time.sleep(0.01)
        wait_for_outcome(server, "client_gone", 1)
        server.wait_until_clean()


def test_a_client_that_disconnects_while_its_recording_is_processed(tmp_path: Path, recorder: Recorder) -> None:
    long = tmp_path / "long.flac"
    recorder.run("-f", "lavfi", "-i", "anoisesrc=r=22050", "-t", "3000", long)
    content = long.read_bytes()
    with running_server(tmp_path) as server:
        with start_upload(server, content_length=len(content)) as connection:
            connection.sendall(content)
            while not server.leftovers()["children"]:
                time.sleep(0.01)
        wait_for_outcome(server, "client_gone", 1)
        server.wait_until_clean()


@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGHUP])
def test_a_shutdown_finishes_what_is_in_progress(tmp_path: Path, recorder: Recorder, sent: signal.Signals) -> None:
    response = _stopped_during(tmp_path, recorder, seconds=300, shutdown_timeout_s=60, sent=sent)
    assert response.status_code == 200
    assert response.json()["windows"]["count"] == 298


def test_a_prediction_that_outlasts_the_shutdown_timeout_fails_with_draining(
    tmp_path: Path, recorder: Recorder
) -> None:
    assert_problem(_stopped_during(tmp_path, recorder, seconds=5000, shutdown_timeout_s=1), 503, "draining")


def test_nothing_is_admitted_while_draining(tmp_path: Path, recorder: Recorder, song: bytes) -> None:
    def send_requests(server: Server) -> None:
        while server.get("/readyz").status_code == 200:
            time.sleep(0.01)
        assert_problem(server.get("/readyz"), 503, "draining")
        assert_problem(server.post(song), 503, "draining")
        assert server.get("/healthz").status_code == 200

    response = _stopped_during(tmp_path, recorder, seconds=1200, shutdown_timeout_s=60, meanwhile=send_requests)
    assert response.status_code == 200


def test_probes_on_their_own_port_are_answered_until_the_end(tmp_path: Path, recorder: Recorder) -> None:
    port = free_port()
    answers: list[tuple[int, int]] = []

    def probe(server: Server) -> None:
        with suppress(httpx.TransportError):
            while True:
                ready, alive = (httpx.get(f"http://127.0.0.1:{port}/{path}") for path in ("readyz", "healthz"))
                answers.append((ready.status_code, alive.status_code))
        # The process does not close the port before the prediction has finished.
        assert not server.leftovers()["children"]

    response = _stopped_during(
        tmp_path, recorder, seconds=1200, shutdown_timeout_s=60, meanwhile=probe, probe_port=port
    )
    assert response.status_code == 200
    assert set(answers) <= {(200, 200), (503, 200)}
    assert answers[-1] == (503, 200)


def _stopped_during(
    folder: Path,
    recorder: Recorder,
    *,
    seconds: int,
    shutdown_timeout_s: int,
    meanwhile: Callable[[Server], None] = lambda _: None,
    sent: signal.Signals = signal.SIGTERM,
    **settings: int,
) -> httpx.Response:
    """Return the response to a prediction during which the service receives a signal."""
    long = folder / "long.flac"
    recorder.run("-f", "lavfi", "-i", "anoisesrc=r=8000", "-t", str(seconds), long)
    limits = {"shutdown_timeout_s": shutdown_timeout_s, "max_duration_s": 20_000, "max_upload_bytes": 10**9}
    with running_server(folder, **limits, **settings) as stopped, ThreadPoolExecutor(1) as client:
        posted = client.submit(stopped.post, long)
        while not stopped.leftovers()["children"]:
            time.sleep(0.01)
        stopped.process.send_signal(sent)
        meanwhile(stopped)
        response = posted.result()
        while stopped.process.status() != psutil.STATUS_ZOMBIE:
            time.sleep(0.01)
        return response
