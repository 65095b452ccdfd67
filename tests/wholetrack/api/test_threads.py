"""Each admitted prediction runs in a thread of its own, and is cancelled when its result is no longer needed."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from fastapi import Request, Response
from numpy.typing import NDArray
from starlette.types import Message

from tests.harness.recordings import wav_bytes
from wholetrack.api.admission import Admission
from wholetrack.api.app import create_app
from wholetrack.api.deadline import Deadline
from wholetrack.api.threads import PredictionThreads
from wholetrack.cancellation import Cancellation
from wholetrack.contracts import TrackPrediction
from wholetrack.errors import ErrorKind, ServiceError
from wholetrack.pipeline import Pipeline
from wholetrack.settings import Settings
from wholetrack.startup import build_pipeline

pytestmark = pytest.mark.timing


def test_all_admitted_predictions_run_at_the_same_time(
    tune: NDArray[np.float32], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even if only one track may be open: the fair queue of the pipeline is the only queue."""
    n_requests = 6
    settings = Settings(device="cpu", temp_dir=tmp_path, max_requests=n_requests, tracks_open=1, tracks_at_once=1)
    all_running = threading.Barrier(n_requests, timeout=30)
    predict = Pipeline.predict

    def waiting_predict(self: Pipeline, path: Path, **options: Any) -> TrackPrediction:
        all_running.wait()
        return predict(self, path, **options)

    monkeypatch.setattr(Pipeline, "predict", waiting_predict)
    song = wav_bytes(tune, 22050)

    async def request_all() -> list[int]:
        app = create_app(build_pipeline(settings), settings, Admission(settings.max_requests))
        transport = httpx.ASGITransport(app)
        async with app.router.lifespan_context(app), httpx.AsyncClient(transport=transport, timeout=60) as client:
            posts = [client.post("http://service/v1/predict", content=song) for _ in range(n_requests)]
            return [response.status_code for response in await asyncio.gather(*posts)]

    assert asyncio.run(request_all()) == [200] * n_requests


class Work:
    """Waits until it is cancelled, and records when its thread has ended."""

    def __init__(self) -> None:
        self.cancellation = Cancellation()
        self.started = threading.Event()
        self.ended = False
        self._cancelled = threading.Event()

    def __call__(self) -> Response:
        with self.cancellation.calling(lambda _: self._cancelled.set()):
            self.started.set()
            assert self._cancelled.wait(30)
        self.ended = True
        self.cancellation.check()
        raise AssertionError("it was not cancelled")


async def connected() -> Message:
    await asyncio.sleep(3600)
    raise AssertionError


async def disconnected() -> Message:
    return {"type": "http.disconnect"}


async def run(work: Work, *, receive: Callable[[], Any], limit_s: float) -> Response:
    threads = PredictionThreads(1)
    try:
        request = Request({"type": "http", "method": "POST", "headers": []}, receive)
        return await threads.run(work, request=request, deadline=Deadline(limit_s), cancellation=work.cancellation)
    finally:
        assert work.ended, "the thread is still reading the upload"
        threads.close()


@pytest.mark.parametrize(
    ("receive", "limit_s", "kind"),
    [(disconnected, 30.0, ErrorKind.CLIENT_GONE), (connected, 0.05, ErrorKind.DEADLINE_EXCEEDED)],
)
def test_a_prediction_is_cancelled_when_its_result_is_no_longer_needed(
    receive: Callable[[], Any], limit_s: float, kind: ErrorKind
) -> None:
    with pytest.raises(ServiceError) as caught:
        asyncio.run(run(Work(), receive=receive, limit_s=limit_s))
    assert caught.value.kind is kind


def test_a_request_cancelled_by_the_server_fails_with_draining() -> None:
    async def cancel() -> None:
        work = Work()
        task = asyncio.create_task(run(work, receive=connected, limit_s=30.0))
        await asyncio.to_thread(work.started.wait, 10)
        # uvicorn may cancel more than once; the thread must still end before the request does.
        task.cancel()
        await asyncio.sleep(0)
        task.cancel()
        await task

    with pytest.raises(ServiceError) as caught:
        asyncio.run(cancel())
    assert caught.value.kind is ErrorKind.DRAINING
