"""A WebSocket whose client leaves before it is accepted."""

from __future__ import annotations

import logging
from collections.abc import MutableMapping
from types import SimpleNamespace
from typing import Any

import pytest
from starlette.websockets import WebSocket
from uvicorn.protocols.utils import ClientDisconnected

from wholetrack.api.admission import Admission
from wholetrack.api.live import LiveSessions
from wholetrack.errors import ErrorKind, ServiceError
from wholetrack.settings import Settings

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


async def test_a_client_that_leaves_before_it_is_accepted_is_no_unexpected_error(
    caplog: pytest.LogCaptureFixture,
) -> None:
    counted: list[ServiceError] = []
    predictions: Any = SimpleNamespace(count_error=counted.append)
    sessions = LiveSessions(predictions, Settings(), keys=None, admission=Admission(1))

    async def receive() -> MutableMapping[str, Any]:
        return {"type": "websocket.connect"}

    async def send(message: MutableMapping[str, Any]) -> None:
        assert message["type"] == "websocket.accept"
        raise ClientDisconnected

    scope = {"type": "websocket", "headers": [], "path": "/v1/live"}
    with caplog.at_level(logging.WARNING):
        await sessions.serve(WebSocket(scope, receive, send))
    assert [error.kind for error in counted] == [ErrorKind.CLIENT_GONE]
    assert not caplog.records
