"""Sending the events of a live prediction, as server-sent events or as lines of JSON."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from wholetrack.api.admission import draining_error
from wholetrack.api.failures import service_error
from wholetrack.api.formats import ResponseFormat
from wholetrack.api.live_events import Event, LiveEvents
from wholetrack.api.problems import problem_of
from wholetrack.api.threads import wait_despite_cancellation
from wholetrack.errors import ServiceError

# An error that occurs earlier is reported with its own status instead of an event.
_MAX_SILENCE_S = 1.0
# nginx would otherwise collect a response before it forwards it, and other proxies may compress it.
_HEADERS = {"Cache-Control": "no-store, no-transform", "X-Accel-Buffering": "no"}


class EventStream(Response):
    """A response that consists of the events of a prediction, and ends with its result or with a problem.

    Args:
        prediction: Becomes the ordinary response.
        events: The events until then.
        response_format: Server-sent events, or lines of JSON.
        on_error: Called with an error that is sent as an event.
    """

    def __init__(
        self,
        prediction: asyncio.Task[Response],
        events: LiveEvents,
        response_format: ResponseFormat,
        *,
        on_error: Callable[[ServiceError], None],
    ) -> None:
        super().__init__(media_type=response_format.media_type, headers=_HEADERS)
        del self.headers["content-length"]
        self._prediction = prediction
        self._events = events
        self._is_sse = response_format is ResponseFormat.SSE
        self._on_error = on_error

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002 - ASGI
        """Send events until the prediction has finished.

        The task of the prediction receives the client's disconnection; what is sent afterwards is dropped.
        """
        try:
            await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
            await self._send_events(send)
        except asyncio.CancelledError:
            # uvicorn cancels requests that outlast shutdown_timeout_s. The client still gets an event that says why.
            self._prediction.cancel()
        except BaseException:
            self._prediction.cancel()
            raise
        finally:
            outcome = await finished(self._prediction)
        if not isinstance(outcome, Response):
            self._on_error(outcome)
            last = self._encode("error", json.dumps(problem_of(outcome).model_dump()).encode())
        else:
            last = self._encode("result", bytes(outcome.body))
        await send({"type": "http.response.body", "body": last})

    async def _send_events(self, send: Send) -> None:
        async for body in self._events.batches(self._prediction, self._encode_all):
            await send({"type": "http.response.body", "body": body or self._heartbeat(), "more_body": True})

    def _encode_all(self, events: list[Event]) -> bytes:
        return b"".join(self._encode(event.name, event.json.encode()) for event in events)

    def _encode(self, name: str, data: bytes) -> bytes:
        """Encode an event whose data is JSON without line breaks."""
        if self._is_sse:
            return b"event: %b\ndata: %b\n\n" % (name.encode(), data)
        return json_event(name, data) + b"\n"

    def _heartbeat(self) -> bytes:
        return b":\n\n" if self._is_sse else self._encode("heartbeat", b"{}")


def json_event(name: str, data: bytes) -> bytes:
    """Return an event as JSON; so is ``data``."""
    return b'{"event":"%b","data":%b}' % (name.encode(), data)


async def first_event(prediction: asyncio.Task[Response], events: LiveEvents) -> None:
    """Wait until the first audio is decoded, or for a second if the recording has to wait for a slot.

    If the prediction fails in that time, the response has the status of its error.

    Raises:
        ServiceError: The error.
    """
    uploaded = asyncio.create_task(events.uploaded.wait())
    try:
        await asyncio.wait([uploaded, prediction], return_when=asyncio.FIRST_COMPLETED)
        if not prediction.done():
            await events.wait(_MAX_SILENCE_S)
            events.wake()
    except asyncio.CancelledError:
        prediction.cancel()
        await finished(prediction)
    finally:
        uploaded.cancel()
    if prediction.done() and isinstance(outcome := await finished(prediction), ServiceError):
        raise outcome


async def finished(prediction: asyncio.Future[Response]) -> Response | ServiceError:
    """Wait for a prediction, even if the caller is cancelled, and return its response or the error to report."""
    await wait_despite_cancellation(prediction)
    if prediction.cancelled():
        return draining_error()
    error = prediction.exception()
    return prediction.result() if error is None else service_error(error)
