"""What no part of the service foresaw is a problem like all others: with headers, an id and a record, once."""

from __future__ import annotations

import asyncio
import errno
import logging
from collections.abc import AsyncIterator

import httpx
import pytest
from fastapi import FastAPI
from starlette.responses import StreamingResponse

from wholetrack.api.app import create_app
from wholetrack.pipeline import Pipeline
from wholetrack.settings import Settings


@pytest.fixture
def app(pipeline: Pipeline) -> FastAPI:
    app = create_app(pipeline, Settings(device="cpu"))

    @app.get("/unforeseen")
    async def _unforeseen() -> None:
        raise ValueError("a secret of the inside")

    @app.get("/broken-disk")
    async def _broken_disk() -> None:
        raise OSError(errno.EIO, "a secret of the disk")

    @app.get("/halfway")
    async def _halfway() -> StreamingResponse:
        async def answer() -> AsyncIterator[bytes]:
            yield b"the first half"
            raise ValueError("too late for another answer")

        return StreamingResponse(answer())

    return app


def get(app: FastAPI, path: str) -> httpx.Response:
    async def asked() -> httpx.Response:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://service") as client:
            return await client.get(path)

    return asyncio.run(asked())


@pytest.mark.parametrize("path", ["/unforeseen", "/broken-disk"])
def test_an_unforeseen_error_is_a_problem_like_all_others(
    app: FastAPI, path: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        answer = get(app, path)
    assert answer.status_code == 500
    problem = answer.json()
    assert problem["code"] == "internal_error"
    assert problem["request_id"] == answer.headers["X-Request-ID"]
    assert "secret" not in answer.text
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["Cache-Control"] == "no-store"
    errors = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert [str(record.exc_info[1]).count("secret") for record in errors if record.exc_info] == [1]
    assert [record.__dict__["status"] for record in caplog.records if record.name == "wholetrack.access"] == [500]


def test_an_answer_that_has_begun_is_not_followed_by_another(app: FastAPI) -> None:
    with pytest.raises(ValueError, match="too late"):
        get(app, "/halfway")
