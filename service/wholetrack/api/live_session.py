"""One live prediction: audio comes in over a WebSocket while events about it go out."""

from __future__ import annotations

import asyncio
import hashlib
import time
from dataclasses import dataclass
from typing import Any

from fastapi import Response
from starlette.websockets import WebSocket, WebSocketDisconnect

from wholetrack.api.admission import Admission, draining_error
from wholetrack.api.deadline import Deadline
from wholetrack.api.event_stream import finished, json_event
from wholetrack.api.failures import service_error
from wholetrack.api.keys import Key, permits
from wholetrack.api.live_events import Event, LiveEvents
from wholetrack.api.live_messages import LiveStart, read_end
from wholetrack.api.predictions import Predictions
from wholetrack.api.responses import SourceFile
from wholetrack.api.spool import upload_too_large
from wholetrack.api.threads import client_gone
from wholetrack.cancellation import Cancellation
from wholetrack.decoding.live_pcm import LivePcm
from wholetrack.errors import ErrorKind, ServiceError

# Above it, nothing is read from the client until the track has taken some: it sends faster than the audio is processed.
_MAX_BUFFERED_BYTES = 4 << 20
# Audio must arrive at least at this part of the speed at which it plays.
_MIN_SPEED = 0.5


@dataclass(frozen=True, slots=True)
class LiveLimits:
    """Limits on what a client sends.

    Attributes:
        max_bytes: Maximum size of the audio.
        grace_s: How long the client may send nothing, and the time before the minimum speed is enforced, in seconds.
        result_timeout_s: Time limit from the end of the audio to the result, in seconds.
    """

    max_bytes: int
    grace_s: float
    result_timeout_s: float


class LiveSession:
    """One live prediction, from the first message of the client to the result.

    Args:
        websocket: The accepted connection, whose first message has been read.
        start: The first message.
        key: The key of the client, if the service needs one.
        limits: Limits on what the client sends.
        predictions: Runs the prediction.

    Attributes:
        ended_by_shutdown: Whether the service has ended the audio because it is shutting down.
    """

    def __init__(
        self, websocket: WebSocket, start: LiveStart, key: Key | None, limits: LiveLimits, predictions: Predictions
    ) -> None:
        self.ended_by_shutdown = False
        self._websocket = websocket
        self._start = start
        self._key = key
        self._limits = limits
        self._predictions = predictions
        self._loop = asyncio.get_running_loop()
        self._began = time.monotonic()
        self._n_bytes = 0
        self._sha256 = hashlib.sha256()
        self._has_room = asyncio.Event()
        self._audio = LivePcm(start.audio, on_taken=self._make_room)
        self._ended = asyncio.Event()
        self._cancellation = Cancellation()

    async def run(self, live: Admission, admission: Admission) -> Response | ServiceError:
        """Predict the audio of the client; return the ordinary response, or the error to report.

        Args:
            live: Limits the live predictions.
            admission: Limits all predictions.

        Raises:
            ServiceError: ``overloaded`` or ``draining``, if it is not admitted.
        """
        async with permits(self._key, live, admission):
            with self._predictions.track_in_progress():
                return await self._predict(admission)

    async def _predict(self, admission: Admission) -> Response | ServiceError:
        events = LiveEvents(self._start.windows, start_at_once=True)
        prediction = self._predictions.start_live(
            self._audio,
            self._start,
            self._source,
            weight=self._key.weight if self._key else 1,
            observer=events,
            cancellation=self._cancellation,
        )
        prediction.add_done_callback(lambda _: events.wake())
        prediction.add_done_callback(lambda _: self._has_room.set())
        following = [
            asyncio.create_task(self._follow_client(prediction)),
            asyncio.create_task(self._follow_shutdown(admission)),
        ]
        try:
            async for batch in events.batches(prediction, _encoded):
                for event in batch or [_HEARTBEAT]:
                    await self._websocket.send_text(event)
        except WebSocketDisconnect:
            self._cancellation.cancel(client_gone())
        except asyncio.CancelledError:
            # uvicorn cancels what outlasts shutdown_timeout_s. The client is still told why.
            self._cancellation.cancel(draining_error())
        except BaseException:
            self._cancellation.cancel(client_gone())
            raise
        finally:
            outcome = await finished(prediction)
            for task in following:
                task.cancel()
        return outcome

    def _make_room(self) -> None:
        self._loop.call_soon_threadsafe(self._has_room.set)

    def _source(self) -> SourceFile:
        # Called after the end of the audio, when nothing is added any more.
        return SourceFile(None, self._sha256.hexdigest(), self._n_bytes, self._began, self._audio.waited_s)

    async def _follow_shutdown(self, admission: Admission) -> None:
        """End the audio when the service begins to shut down, so that the client gets a result of what it sent."""
        await admission.wait_draining()
        if not self._ended.is_set():
            self.ended_by_shutdown = True
            self._end()

    async def _follow_client(self, prediction: asyncio.Future[Response]) -> None:
        """Pass on what the client sends until the prediction is done. Cancel the prediction if the client fails."""
        try:
            await self._receive_audio()
            deadline = Deadline(self._limits.result_timeout_s)
            while not prediction.done():
                # Anything that arrives after the end is ignored, except that the client leaves.
                await self._next_message(self._loop.time() + deadline.remaining_s)
        except TimeoutError:
            self._cancellation.cancel(Deadline(self._limits.result_timeout_s).error())
        except WebSocketDisconnect:
            self._cancellation.cancel(client_gone())
        except Exception as error:  # noqa: BLE001 - otherwise the audio would never end
            self._cancellation.cancel(service_error(error))

    async def _receive_audio(self) -> None:
        """Receive messages until the audio has ended.

        Raises:
            ServiceError: ``malformed_request``, ``upload_too_large`` or ``request_too_slow``.
            WebSocketDisconnect: If the client leaves.
        """
        # The time at which audio that was as slow as allowed would be used up.
        due = self._loop.time() + self._limits.grace_s
        while not self._ended.is_set():
            try:
                message = await self._next_message(min(due, self._loop.time() + self._limits.grace_s))
            except TimeoutError:
                if not self._ended.is_set():
                    raise _too_slow(self._limits.grace_s) from None
                return
            if self._ended.is_set():
                return
            data = message.get("bytes")
            if data is None:
                read_end(message.get("text"))
                self._end()
                return
            due += self._duration_s(data) / _MIN_SPEED
            self._add(data)
            due += await self._wait_for_room()

    async def _next_message(self, due: float) -> dict[str, Any]:
        async with asyncio.timeout_at(due):
            message: dict[str, Any] = dict(await self._websocket.receive())
        if message["type"] == "websocket.disconnect":
            raise WebSocketDisconnect(message.get("code", 1006))
        return message

    def _duration_s(self, data: bytes) -> float:
        audio = self._start.audio
        return len(data) / (audio.frame_bytes * audio.sample_rate_hz)

    def _add(self, data: bytes) -> None:
        if len(data) % self._start.audio.frame_bytes:
            raise ServiceError(
                ErrorKind.MALFORMED_REQUEST,
                f"A binary message has {len(data)} bytes, which is not a multiple of the "
                f"{self._start.audio.frame_bytes} bytes of a sample of all channels.",
            )
        self._n_bytes += len(data)
        if self._n_bytes > self._limits.max_bytes:
            raise upload_too_large(self._limits.max_bytes)
        self._sha256.update(data)
        self._audio.put(data)

    async def _wait_for_room(self) -> float:
        """Wait until the track has taken enough audio; return how long that took, in seconds."""
        began = self._loop.time()
        while self._audio.n_buffered > _MAX_BUFFERED_BYTES and not self._ended.is_set():
            self._has_room.clear()
            await self._has_room.wait()
        return self._loop.time() - began

    def _end(self) -> None:
        self._ended.set()
        self._audio.end()


def _encoded(events: list[Event]) -> list[str]:
    return [json_event(event.name, event.json.encode()).decode() for event in events]


_HEARTBEAT = json_event("heartbeat", b"{}").decode()


def _too_slow(grace_s: float) -> ServiceError:
    return ServiceError(
        ErrorKind.REQUEST_TOO_SLOW,
        f"The audio arrived too slowly. Send some at least every {grace_s:g} seconds, on average at least at "
        f"{_MIN_SPEED:g} times the speed at which it plays, and end it with a message.",
    )
