"""How a live prediction ends if its connection behaves in ways that a client cannot cause on purpose."""

from __future__ import annotations

import asyncio
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import pytest
from fastapi import Response

from wholetrack.api.admission import Admission
from wholetrack.api.live_messages import LiveStart
from wholetrack.api.live_session import LiveLimits, LiveSession
from wholetrack.cancellation import Cancellation
from wholetrack.decoding.live_pcm import LivePcm, PcmEncoding
from wholetrack.errors import ErrorKind, ServiceError

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class Predictions:
    """Waits for the end of the audio."""

    def track_in_progress(self) -> AbstractContextManager[None]:
        return nullcontext()

    def start_live(
        self, audio: LivePcm, *_: object, cancellation: Cancellation, **__: object
    ) -> asyncio.Future[Response]:
        def wait() -> Response:
            with cancellation.calling(lambda _: audio.end()):
                audio.wait(1e9)
            cancellation.check()
            return Response(b"{}")

        return asyncio.get_running_loop().run_in_executor(None, wait)


class WebSocket:
    """Sends what it is told, and returns messages until there are none."""

    def __init__(self, *messages: dict[str, Any], then: BaseException | None = None) -> None:
        self._messages = list(messages)
        self._then = then

    async def send_text(self, text: str) -> None:
        assert text

    async def receive(self) -> dict[str, Any]:
        if self._messages:
            return self._messages.pop(0)
        if self._then:
            raise self._then
        await asyncio.Event().wait()
        raise AssertionError


END = {"type": "websocket.receive", "text": '{"end": true}'}


async def run(
    websocket: WebSocket, *, grace_s: float = 30.0, timeout_s: float = 30.0, admission: Admission | None = None
) -> Response | ServiceError:
    start = LiveStart(encoding=PcmEncoding.INT16, sample_rate_hz=8000)
    limits = LiveLimits(max_bytes=1000, grace_s=grace_s, result_timeout_s=timeout_s)
    session = LiveSession(websocket, start, None, limits, Predictions())  # type: ignore[arg-type]
    async with asyncio.timeout(30):
        return await session.run(Admission(1), admission or Admission(1))


def kind(outcome: Response | ServiceError) -> ErrorKind | None:
    return outcome.kind if isinstance(outcome, ServiceError) else None


async def test_the_end_of_the_audio_leads_to_the_result() -> None:
    audio = {"type": "websocket.receive", "bytes": bytes(500)}
    assert kind(await run(WebSocket(audio, audio, END))) is None


async def test_an_unexpected_error_of_the_connection_ends_the_prediction() -> None:
    assert kind(await run(WebSocket(then=RuntimeError("broken")))) is ErrorKind.INTERNAL_ERROR


async def test_limits_end_the_prediction() -> None:
    audio = {"type": "websocket.receive", "bytes": bytes(800)}
    assert kind(await run(WebSocket(audio, audio))) is ErrorKind.UPLOAD_TOO_LARGE
    assert kind(await run(WebSocket(), grace_s=0.05)) is ErrorKind.REQUEST_TOO_SLOW
    gone = {"type": "websocket.disconnect", "code": 1001}
    assert kind(await run(WebSocket(audio, gone))) is ErrorKind.CLIENT_GONE


async def test_a_result_that_does_not_come_in_time_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LiveSession, "_end", lambda session: session._ended.set())
    assert kind(await run(WebSocket(END), timeout_s=0.05)) is ErrorKind.DEADLINE_EXCEEDED


async def test_a_shutdown_ends_the_audio_and_a_cancellation_the_prediction(monkeypatch: pytest.MonkeyPatch) -> None:
    admission = Admission(1)
    running = asyncio.create_task(run(WebSocket(), admission=admission))
    await asyncio.sleep(0.05)
    admission.draining = True
    assert kind(await running) is None
    monkeypatch.setattr(LiveSession, "_end", lambda session: session._ended.set())
    running = asyncio.create_task(run(WebSocket()))
    await asyncio.sleep(0.05)
    running.cancel()
    assert kind(await running) is ErrorKind.DRAINING
