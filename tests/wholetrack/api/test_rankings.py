"""Rankings are bounded like predictions, have permits of their own, and leave most of the time to predictions."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager

import pytest
from fastapi import Request
from starlette.types import Message

from wholetrack.api import rankings as module
from wholetrack.api.admission import Admission
from wholetrack.api.keys import Key, KeySpec
from wholetrack.api.rankings import Rankings
from wholetrack.api.similarity_schemas import SimilarityResponse
from wholetrack.errors import ErrorKind, ServiceError
from wholetrack.settings import Settings

pytestmark = [pytest.mark.timing, pytest.mark.anyio]

BODY = json.dumps({"query": [1, 0], "items": [{"id": "song", "embedding": [1, 0]}]}).encode()


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def request(
    body: bytes = BODY,
    *,
    held: asyncio.Event | None = None,
    headers: Sequence[tuple[str, str]] = (),
    key: object = None,
) -> Request:
    """Return a request whose body ends when ``held`` is set."""
    parts = iter([body, b""])

    async def receive() -> Message:
        part = next(parts)
        if not part and held:
            await held.wait()
        return {"type": "http.request", "body": part, "more_body": bool(part)}

    raw = [(name.encode(), value.encode()) for name, value in headers]
    return Request({"type": "http", "method": "POST", "headers": raw, "wholetrack.key": key}, receive)


async def error_of(rankings: Rankings, asked: Request) -> ServiceError:
    with pytest.raises(ServiceError) as caught:
        await rankings.respond(asked)
    return caught.value


@asynccontextmanager
async def in_progress(rankings: Rankings, count: int, key: object = None) -> AsyncIterator[None]:
    """Keep rankings in progress, whose bodies arrive at the end of the block."""
    held = asyncio.Event()
    tasks = [asyncio.create_task(rankings.respond(request(held=held, key=key))) for _ in range(count)]
    await asyncio.sleep(0.05)
    try:
        yield
    finally:
        held.set()
        await asyncio.gather(*tasks)


async def test_a_body_may_have_8_mib_and_no_more() -> None:
    rankings = Rankings(Settings(), Admission(1))
    largest = BODY + b" " * ((8 << 20) - len(BODY))
    assert (await rankings.respond(request(largest))).count == 1
    assert (await error_of(rankings, request(largest + b" "))).kind is ErrorKind.UPLOAD_TOO_LARGE
    announced = request(headers=[("content-length", str((8 << 20) + 1))])
    assert (await error_of(rankings, announced)).kind is ErrorKind.UPLOAD_TOO_LARGE


async def test_compressed_bodies_are_refused() -> None:
    rankings = Rankings(Settings(), Admission(1))
    refused = await error_of(rankings, request(headers=[("content-encoding", "gzip")]))
    assert refused.kind is ErrorKind.UNSUPPORTED_MEDIA


async def test_few_bodies_are_received_at_a_time_and_they_take_no_permits_from_predictions() -> None:
    predictions = Admission(1)
    rankings = Rankings(Settings(), predictions)
    async with in_progress(rankings, 8):
        refused = await error_of(rankings, request())
        assert refused.kind is ErrorKind.OVERLOADED
        assert refused.detail.startswith("The limit of rankings in progress is reached (8).")
        assert refused.retry_after_s
        async with predictions.admit():
            pass
    assert (await rankings.respond(request())).count == 1


async def test_rankings_count_for_the_limits_of_their_key() -> None:
    spec = KeySpec(sha256="0" * 64, concurrent=1, requests_per_minute=1)
    key = Key("alice", spec, Settings())
    rankings = Rankings(Settings(), Admission(1))
    async with in_progress(rankings, 1, key):
        key.count_request()
        refused = await error_of(rankings, request(key=key))
        assert refused.detail.startswith("This key has reached its limit of requests in progress (1).")
        # A refused request does not count for the rate.
        key.count_request()


async def test_rankings_are_refused_while_the_service_shuts_down() -> None:
    predictions = Admission(1)
    rankings = Rankings(Settings(), predictions)
    predictions.draining = True
    assert (await error_of(rankings, request())).kind is ErrorKind.DRAINING


async def test_a_body_must_arrive_before_the_deadline() -> None:
    rankings = Rankings(Settings(request_timeout_s=0.05), Admission(1))
    assert (await error_of(rankings, request(held=asyncio.Event()))).kind is ErrorKind.DEADLINE_EXCEEDED


@pytest.mark.parametrize("n_predictions", [0, 1])
async def test_rankings_pause_while_predictions_are_in_progress(
    monkeypatch: pytest.MonkeyPatch, n_predictions: int
) -> None:
    running = threading.Lock()
    times: list[float] = []

    def ranked(_body: bytearray) -> SimilarityResponse:
        assert running.acquire(blocking=False), "two rankings at a time"
        times.append(time.monotonic())
        time.sleep(0.1)
        times.append(time.monotonic())
        running.release()
        return SimilarityResponse(count=1, ranked=[])

    monkeypatch.setattr(module, "_ranked", ranked)
    predictions = Admission(1)
    rankings = Rankings(Settings(), predictions)
    async with AsyncExitStack() as stack:
        for _ in range(n_predictions):
            await stack.enter_async_context(predictions.admit())
        await asyncio.gather(*(rankings.respond(request()) for _ in range(3)))
    pauses_s = [times[2] - times[1], times[4] - times[3]]
    assert all(pause >= 0.29 for pause in pauses_s) if n_predictions else all(pause < 0.2 for pause in pauses_s)
