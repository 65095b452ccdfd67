"""Errors as RFC 9457 ``application/problem+json``: one shape for whatever goes wrong, documented in one place."""

from __future__ import annotations

import errno
import logging
import os
from collections.abc import Callable, Mapping
from typing import Any

from asgi_correlation_id import correlation_id
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from wholetrack.api.metrics import Metrics
from wholetrack.errors import ErrorKind, ServiceError

_log = logging.getLogger(__name__)

MEDIA_TYPE = "application/problem+json"
PREDICT_PATH = "/v1/predict"


class Problem(BaseModel):
    """What went wrong (RFC 9457); ``code`` is stable, ``request_id`` is in the service's log too."""

    type: str = Field(description="Names the kind of problem.", examples=["urn:wholetrack:problem:upload_too_large"])
    title: str = Field(description="The kind of problem in words.")
    status: int = Field(description="The HTTP status.")
    detail: str = Field(description="What happened and what to do.")
    code: str = Field(description="Stable name of the kind of problem, for programs.")
    request_id: str | None = Field(description="Identifies the request; also in the header X-Request-ID.")

    @classmethod
    def of(cls, kind: ErrorKind, detail: str, *, request_id: str | None) -> Problem:
        """The problem for an entry of the error table."""
        return cls(
            type=f"urn:wholetrack:problem:{kind.code}",
            title=kind.title,
            status=kind.status,
            detail=detail,
            code=kind.code,
            request_id=request_id,
        )


def problem_response(
    error: ServiceError, *, headers: Mapping[str, str] | None = None, request_id: str | None = None
) -> Response:
    """The response for an error; of the request under way if ``request_id`` names no other."""
    all_headers = dict(headers or {})
    if error.retry_after_s is not None:
        all_headers["Retry-After"] = str(error.retry_after_s)
    problem = Problem.of(error.kind, error.detail, request_id=request_id or correlation_id.get())
    return JSONResponse(problem.model_dump(), error.kind.status, headers=all_headers, media_type=MEDIA_TYPE)


def documented(*kinds: ErrorKind) -> dict[int | str, dict[str, Any]]:
    """The ``responses`` of a route that may answer with these errors, each with an example."""
    responses: dict[int | str, dict[str, Any]] = {}
    for kind in kinds:
        entry = responses.setdefault(
            kind.status,
            {"description": "", "content": {MEDIA_TYPE: {"schema": _SCHEMA, "examples": {}}}},
        )
        entry["description"] = f"{entry['description']}; `{kind.code}`".removeprefix("; ")
        example = Problem.of(kind, _EXAMPLES[kind], request_id="3f0c9b4be0e54c7d8f3c4e1d2a6b7c8d")
        entry["content"][MEDIA_TYPE]["examples"][kind.code] = {"summary": kind.title, "value": example.model_dump()}
    return responses


def install(app: FastAPI) -> None:
    """Answer every error of the application with a problem, and have its documentation say what that is."""
    metrics: Metrics = app.state.metrics
    _document(app)

    def answered(request: Request, error: ServiceError, headers: Mapping[str, str] | None = None) -> Response:
        if request.url.path == PREDICT_PATH:
            metrics.predictions.labels(error.kind.code).inc()
        return problem_response(error, headers=headers)

    @app.exception_handler(ServiceError)
    async def _service_error(request: Request, error: ServiceError) -> Response:
        if error.kind is ErrorKind.CLIENT_GONE:
            _log.info("the client left")
        # Which scheme, as RFC 9110 wants to be told with every 401.
        headers = {"WWW-Authenticate": "Bearer"} if error.kind is ErrorKind.UNAUTHORISED else None
        return answered(request, error, headers)

    @app.exception_handler(RequestValidationError)
    async def _invalid(request: Request, error: RequestValidationError) -> Response:
        complaints = "; ".join(f"{e['loc'][-1]}: {e['msg'][0].lower()}{e['msg'][1:]}" for e in error.errors())
        return answered(request, ServiceError(ErrorKind.INVALID_PARAMETER, f"{complaints}."))

    @app.exception_handler(HTTPException)
    async def _http(request: Request, error: HTTPException) -> Response:
        return answered(request, _of_http(error), error.headers)

    @app.exception_handler(OSError)
    async def _no_room(request: Request, error: OSError) -> Response:
        return answered(request, _exhausted(error))

    def unforeseen(request: Request) -> Response:
        return answered(
            request, ServiceError(ErrorKind.INTERNAL_ERROR, "The service failed; give the request id to its operator.")
        )

    # Added before all others, it is inside them: its answers have their headers, too, and its request a record.
    app.add_middleware(_UnforeseenErrors, answer=unforeseen)


class _UnforeseenErrors:
    """Middleware that answers what nobody else does; starlette's own would answer outside of all other middleware."""

    def __init__(self, app: ASGIApp, answer: Callable[[Request], Response]) -> None:
        self._app = app
        self._answer = answer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on; an error that comes back is written to the log and answered, if there is no answer yet."""
        has_begun = False

        async def noting(message: Message) -> None:
            nonlocal has_begun
            has_begun = True
            await send(message)

        try:
            await self._app(scope, receive, noting)
        except Exception as error:
            if has_begun or scope["type"] != "http":
                raise
            _log.error("an unforeseen error", exc_info=error)
            await self._answer(Request(scope))(scope, receive, send)


def _of_http(error: HTTPException) -> ServiceError:
    if error.status_code == ErrorKind.METHOD_NOT_ALLOWED.status:
        return ServiceError(ErrorKind.METHOD_NOT_ALLOWED, "See /docs for the methods of this address.")
    if error.status_code == ErrorKind.NOT_FOUND.status:
        return ServiceError(ErrorKind.NOT_FOUND, "See /docs for the addresses of this service.")
    return ServiceError(ErrorKind.MALFORMED_REQUEST, "The request could not be read.")


def _exhausted(error: OSError) -> ServiceError:
    """What is said where the machine has no more of something; any other error is raised again."""
    if error.errno not in _EXHAUSTED:
        raise error
    _log.error("the machine has no more of something: %s", os.strerror(error.errno))
    return ServiceError(
        ErrorKind.OVERLOADED,
        "The service has no room for the request; try again when Retry-After says.",
        retry_after_s=5,
    )


def _document(app: FastAPI) -> None:
    openapi_of_routes = app.openapi

    def openapi() -> dict[str, Any]:
        document = openapi_of_routes()
        document["components"]["schemas"]["Problem"] = Problem.model_json_schema()
        return document

    app.openapi = openapi  # type: ignore[method-assign] # as FastAPI's documentation has it


# Disk, descriptors, memory, processes: used up for now, by this service or its neighbours.
_EXHAUSTED = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EAGAIN})

_SCHEMA = {"$ref": "#/components/schemas/Problem"}

_EXAMPLES = {
    ErrorKind.MALFORMED_REQUEST: "Send exactly one file, as the multipart field 'file' or as the raw body.",
    ErrorKind.UNAUTHORISED: "Send a valid key in the header Authorization, as a bearer token.",
    ErrorKind.UNKNOWN_MODEL: "Choose one of the models served: wholetrack-crnn.",
    ErrorKind.NOT_FOUND: "See /docs for the addresses of this service.",
    ErrorKind.METHOD_NOT_ALLOWED: "See /docs for the methods of this address.",
    ErrorKind.REQUEST_TOO_SLOW: "The upload came too slowly: less than 4096 bytes a second.",
    ErrorKind.UPLOAD_TOO_LARGE: "The upload exceeds the limit of 536870912 bytes.",
    ErrorKind.AUDIO_TOO_LONG: "The recording is longer than the limit of 10800 seconds; send a shorter one, or ask the "
    "operator to raise max_duration_s.",
    ErrorKind.UNSUPPORTED_MEDIA: "Send audio as wav, flac, mp3, ogg, opus, m4a, aac, aiff, wma or webm.",
    ErrorKind.UNDECODABLE_AUDIO: "The file starts like audio but cannot be opened: it is cut off or corrupt. Send a "
    "complete file.",
    ErrorKind.NO_AUDIO_STREAM: "The file was opened but has no audio stream.",
    ErrorKind.EMPTY_AUDIO: "The file has no bytes; send a recording.",
    ErrorKind.INVALID_PARAMETER: "top_k: input should be greater than or equal to 1.",
    ErrorKind.HEADERS_TOO_LARGE: "The request's headers are too large.",
    ErrorKind.OVERLOADED: "64 predictions are under way; try again when Retry-After says.",
    ErrorKind.INTERNAL_ERROR: "The service failed; give the request id to its operator.",
    ErrorKind.NOT_READY: "The service is starting; try again in a moment.",
    ErrorKind.DRAINING: "The service is shutting down; send the request to another instance.",
    ErrorKind.DEVICE_FAILED: "The inference device failed; try again in a moment.",
    ErrorKind.MODEL_UNAVAILABLE: "The model cannot run on this server at present. Choose another one.",
    ErrorKind.DEADLINE_EXCEEDED: "The request took longer than the limit of 600 seconds.",
}
