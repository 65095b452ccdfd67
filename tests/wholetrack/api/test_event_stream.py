"""The response that sends the events of a prediction: its last event, and how its prediction ends."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from starlette.responses import Response
from starlette.types import Message

from wholetrack.api.event_stream import EventStream
from wholetrack.api.formats import ResponseFormat
from wholetrack.api.live_events import LiveEvents
from wholetrack.api.problems import problem_response
from wholetrack.api.schemas import WindowDetail
from wholetrack.errors import ErrorKind, ServiceError

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


async def last_event(prediction: asyncio.Task[Response]) -> tuple[str, dict[str, Any], list[ServiceError]]:
    """Send the events of a prediction; return the name and the data of the last one, and the errors reported."""
    sent: list[bytes] = []
    errors: list[ServiceError] = []

    async def send(message: Message) -> None:
        sent.append(message.get("body", b""))

    async def receive() -> Message:
        return {"type": "http.disconnect"}

    live = LiveEvents(WindowDetail.FULL)
    prediction.add_done_callback(lambda _: live.wake())
    await EventStream(prediction, live, ResponseFormat.NDJSON, on_error=errors.append)({}, receive, send)
    event = json.loads(sent[-1])
    return event["event"], event["data"], errors


@pytest.mark.parametrize("retry_after_s", [5, None])
async def test_an_error_says_when_to_retry_as_the_header_of_a_response_does(retry_after_s: int | None) -> None:
    error = ServiceError(ErrorKind.DEVICE_FAILED, "The device failed.", retry_after_s=retry_after_s)

    async def fail() -> Response:
        raise error

    name, problem, errors = await last_event(asyncio.create_task(fail()))
    assert (name, errors) == ("error", [error])
    assert problem["retry_after_s"] == retry_after_s
    response = problem_response(error)
    assert problem == json.loads(bytes(response.body))
    assert response.headers.get("Retry-After") == (str(retry_after_s) if retry_after_s else None)


async def test_a_cancelled_prediction_ends_with_the_error_of_a_shutdown() -> None:
    prediction = asyncio.create_task(asyncio.sleep(60, Response()))
    prediction.cancel()
    name, problem, errors = await last_event(prediction)
    assert (name, problem["code"]) == ("error", "draining")
    assert [error.kind for error in errors] == [ErrorKind.DRAINING]


async def test_an_unexpected_error_is_an_event_without_its_text() -> None:
    async def fail() -> Response:
        raise ValueError("secret")

    name, problem, _ = await last_event(asyncio.create_task(fail()))
    assert (name, problem["code"]) == ("error", "internal_error")
    assert "secret" not in json.dumps(problem)
