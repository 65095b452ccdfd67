"""``/v1/live``: a WebSocket for audio that is predicted while it is recorded."""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from http import HTTPStatus
from typing import Any

from asgi_correlation_id import correlation_id
from fastapi import APIRouter, Response
from starlette.websockets import WebSocket, WebSocketDisconnect

from wholetrack.api.admission import Admission, draining_error
from wholetrack.api.event_stream import json_event
from wholetrack.api.failures import service_error
from wholetrack.api.keys import Key, Keys, authenticate
from wholetrack.api.live_messages import GOING_AWAY, NORMAL_CLOSURE, close_code, read_object, read_start
from wholetrack.api.live_session import LiveLimits, LiveSession
from wholetrack.api.origins import check_origin
from wholetrack.api.predictions import Predictions
from wholetrack.api.problems import error_responses, problem_of, problem_response
from wholetrack.api.threads import client_gone
from wholetrack.errors import ErrorKind, ServiceError
from wholetrack.settings import Settings

LIVE_PATH = "/v1/live"

_log = logging.getLogger(__name__)

router = APIRouter(tags=["prediction"])


@router.get(
    LIVE_PATH,
    summary="Predict audio while it is recorded, over a WebSocket",
    status_code=HTTPStatus.SWITCHING_PROTOCOLS,
    response_class=Response,
    responses=error_responses(
        ErrorKind.FORBIDDEN_ORIGIN, ErrorKind.UNKNOWN_HOST, ErrorKind.UPGRADE_REQUIRED, ErrorKind.DRAINING
    ),
)
async def live_without_upgrade() -> Response:
    """Predicts audio as it arrives: the probabilities of each window are sent as soon as it is classified.

    A browser may open the WebSocket if its page is from this host or from one of `cors_origins`.

    The client sends, as text, a JSON object with `encoding` (`float32` or `int16`, little endian), `sample_rate_hz`,
    `channels` (1 by default; the samples of the channels alternate), `key` (if the service requires API keys), and any
    of the parameters of `POST /v1/predict` except `format`. Then it sends audio without a container as binary messages
    of at most 1 MiB, each with whole samples of all channels, and of at least 256 bytes on average. At the end it sends
    `{"end": true}` as text.

    The service sends text messages that are JSON objects with `event` and `data`, the same as `POST /v1/predict` sends
    with `Accept: application/x-ndjson`: `start`, `progress`, `windows`, and `heartbeat` if nothing happened for ten
    seconds, and finally `result`, the response as JSON. Instead of `result`, it sends `error` with a problem. A client
    that closes the connection without the final message gets no result.

    The limits are those of an upload: its size, the duration of the recording, and the number of windows. Audio must
    arrive at least half as fast as it plays. The close code is 1000 after a result; 1012 if the service shuts down,
    in which case it ends the audio itself and sends the result of what it has received; and after an error 1007 (a
    message is malformed), 1009 (too much audio), 1011 (the service failed), 1013 (try again later) or 1008 (any other).
    """
    raise ServiceError(ErrorKind.UPGRADE_REQUIRED, "Open a WebSocket at this path.")


@router.websocket(LIVE_PATH)
async def live(websocket: WebSocket) -> None:
    """Handle a connection."""
    sessions: LiveSessions = websocket.app.state.live
    await sessions.serve(websocket)


class LiveSessions:
    """Handles the live predictions of one application.

    They have permits of their own as well, so that they cannot take those of all other predictions for hours.

    Args:
        predictions: Runs the predictions.
        settings: Limits.
        keys: The API keys; None if none are needed.
        admission: Limits all predictions.
    """

    def __init__(
        self, predictions: Predictions, settings: Settings, *, keys: Keys | None, admission: Admission
    ) -> None:
        self._predictions = predictions
        self._keys = keys
        self._admission = admission
        self._live = Admission(settings.max_live, kind="live predictions")
        self._origins = settings.cors_origins
        self._limits = LiveLimits(
            max_bytes=settings.max_upload_bytes,
            grace_s=settings.client_timeout_s,
            result_timeout_s=settings.request_timeout_s,
        )

    async def serve(self, websocket: WebSocket) -> None:
        """Handle a connection until it is closed."""
        try:
            check_origin(websocket.headers, self._origins)
            if self._admission.draining:
                raise draining_error()
        except ServiceError as error:
            headers = {"X-Request-ID": correlation_id.get() or ""}
            with suppress(WebSocketDisconnect):
                await websocket.send_denial_response(problem_response(error, headers=headers))
            return
        try:
            await _accept(websocket)
            outcome = await self._predict(websocket)
        except WebSocketDisconnect:
            outcome = client_gone()
        except asyncio.CancelledError:
            outcome = draining_error()
        except Exception as error:  # noqa: BLE001 - every error is reported to the client
            outcome = service_error(error)
        if isinstance(outcome, ServiceError):
            self._predictions.count_error(outcome)
            if outcome.kind is ErrorKind.CLIENT_GONE:
                return
            code = close_code(outcome)
            last = json_event("error", problem_of(outcome).model_dump_json().encode())
        else:
            body, ended_by_shutdown = outcome
            code = GOING_AWAY if ended_by_shutdown else NORMAL_CLOSURE
            last = json_event("result", body)
        try:
            await websocket.send_text(last.decode())
            await websocket.close(code, outcome.kind.code if isinstance(outcome, ServiceError) else None)
        except WebSocketDisconnect:
            _log.info("the client left before the last event")

    async def _predict(self, websocket: WebSocket) -> tuple[bytes, bool] | ServiceError:
        """Return the response as JSON and whether the service ended the audio, or the error to report."""
        fields = read_object(await self._first_message(websocket))
        key = self._authenticate(websocket, fields.get("key"))
        start = read_start(fields)
        self._predictions.check(start)
        session = LiveSession(websocket, start, key, self._limits, self._predictions)
        outcome = await session.run(self._live, self._admission)
        return outcome if isinstance(outcome, ServiceError) else (bytes(outcome.body), session.ended_by_shutdown)

    async def _first_message(self, websocket: WebSocket) -> str | None:
        """Return the text of the first message; None if it is binary.

        Raises:
            ServiceError: ``request_too_slow``, or ``draining`` if the service shuts down before it arrives.
            WebSocketDisconnect: If the client leaves.
        """
        receiving = asyncio.create_task(websocket.receive())
        draining = asyncio.create_task(self._admission.wait_draining())
        try:
            await asyncio.wait([receiving, draining], timeout=self._limits.grace_s, return_when=asyncio.FIRST_COMPLETED)
        finally:
            draining.cancel()
            receiving.cancel()
        if not receiving.done() or receiving.cancelled():
            if self._admission.draining:
                raise draining_error()
            raise ServiceError(ErrorKind.REQUEST_TOO_SLOW, "The first message did not arrive in time.")
        message: dict[str, Any] = dict(receiving.result())
        if message["type"] == "websocket.disconnect":
            raise WebSocketDisconnect(message.get("code", 1006))
        text: str | None = message.get("text")
        return text

    def _authenticate(self, websocket: WebSocket, presented: object) -> Key | None:
        if self._keys is None:
            return None
        text = presented if isinstance(presented, str) else None
        return authenticate(self._keys, text, websocket.scope, where='in the first message, as "key"')


async def _accept(websocket: WebSocket) -> None:
    """Accept a connection.

    Raises:
        WebSocketDisconnect: If the client has left. Starlette raises that only once a connection is accepted.
    """
    try:
        await websocket.accept()
    except OSError as error:
        raise WebSocketDisconnect(1006) from error
