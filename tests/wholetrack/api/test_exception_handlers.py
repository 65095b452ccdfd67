"""Unexpected errors become problems like all others: with headers and a request id, and logged once."""

from __future__ import annotations

import asyncio
import errno
import logging
from collections.abc import AsyncIterator

import httpx
import pytest
from fastapi import FastAPI
from starlette.responses import StreamingResponse

from wholetrack.api.admission import Admission
from wholetrack.api.app import create_app
from wholetrack.pipeline import Pipeline
from wholetrack.settings import Settings


@pytest.fixture
def app(pipeline: Pipeline) -> FastAPI:
    app = create_app(pipeline, Settings(device="cpu"), Admission(1))

    @app.get("/unexpected")
    async def _unexpected() -> None:
        raise ValueError("a secret detail")

    @app.get("/broken-disk")
    async def _broken_disk() -> None:
        raise OSError(errno.EIO, "a secret detail of the disk")

    @app.get("/full-disk")
    async def _full_disk() -> None:
        raise OSError(errno.ENOSPC, "a secret detail of the disk")

    @app.get("/halfway")
    async def _halfway() -> StreamingResponse:
        async def content() -> AsyncIterator[bytes]:
            yield b"the first half"
            raise ValueError("too late for another response")

        return StreamingResponse(content())

    return app


def get(app: FastAPI, path: str) -> httpx.Response:
    async def request() -> httpx.Response:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://service") as client:
            return await client.get(path)

    return asyncio.run(request())


@pytest.mark.parametrize("path", ["/unexpected", "/broken-disk"])
def test_an_unexpected_error_is_a_problem_like_all_others(
    app: FastAPI, path: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        response = get(app, path)
    assert response.status_code == 500
    problem = response.json()
    assert problem["code"] == "internal_error"
    assert problem["request_id"] == response.headers["X-Request-ID"]
    assert "secret" not in response.text
    assert response.headers["Content-Type"] == "application/problem+json"
    assert response.headers["X-Content-Type-Options"] == "nosniff"
    assert response.headers["Cache-Control"] == "no-store"
    errors = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert [str(record.exc_info[1]).count("secret") for record in errors if record.exc_info] == [1]
    assert [record.__dict__["status"] for record in caplog.records if record.name == "wholetrack.access"] == [500]


def test_a_full_disk_asks_the_client_to_retry(app: FastAPI) -> None:
    response = get(app, "/full-disk")
    assert (response.status_code, response.json()["code"]) == (429, "overloaded")
    assert response.headers["Retry-After"] == "5"
    assert "secret" not in response.text


def test_a_response_that_has_started_is_not_followed_by_another(app: FastAPI) -> None:
    with pytest.raises(ValueError, match="too late"):
        get(app, "/halfway")
