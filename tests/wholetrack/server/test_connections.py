"""Answers larger than the kernel's buffers, which the service's own answers hardly are."""

from __future__ import annotations

import http.client
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import closing
from functools import partial
from itertools import chain, repeat
from typing import Any

import pytest
import uvicorn

from tests.harness.waiting import until
from wholetrack.server.connections import ConnectionLimits, GuardedProtocol

_STALLED_S = 0.5
_BYTES = 12 << 20
_PIECE = 128 << 10


async def _large(scope: Any, receive: Any, send: Any) -> None:
    del scope, receive
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % _BYTES)]})
    await send({"type": "http.response.body", "body": bytes(_BYTES)})


@pytest.fixture
def port() -> Iterator[int]:
    limits = ConnectionLimits(most=4, head_bytes=4096, stalled_s=_STALLED_S)
    config = uvicorn.Config(
        _large,
        port=0,
        http=partial(GuardedProtocol, limits=limits),  # type: ignore[arg-type] # called as a class is
        ws="none",
        lifespan="off",
        log_config=None,
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    until(lambda: server.started)
    yield server.servers[0].sockets[0].getsockname()[1]
    server.should_exit = True
    thread.join()


def read(port: int, *, pauses_s: Iterable[float]) -> int:
    """How many bytes come of the answer, if its client pauses after each of the first pieces."""
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=20)) as client:
        client.request("GET", "/")
        answer, length = client.getresponse(), 0
        try:
            for pause_s in chain(pauses_s, repeat(0.0)):
                if not (piece := answer.read(_PIECE)):
                    break
                length += len(piece)
                time.sleep(pause_s)
        except (ConnectionResetError, http.client.IncompleteRead):
            pass
    return length


def test_an_answer_that_is_taken_slowly_comes_whole(port: int) -> None:
    """Of megabytes that the kernel holds, what goes is seen although the server's own buffer seems not to move."""
    assert read(port, pauses_s=repeat(_STALLED_S / 10)) == _BYTES


def test_an_answer_that_is_not_taken_any_more_is_given_up(port: int) -> None:
    assert read(port, pauses_s=[4 * _STALLED_S]) < _BYTES
