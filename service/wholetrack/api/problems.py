"""Errors as RFC 9457 ``application/problem+json``: rendering them, and describing them in the OpenAPI document."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from asgi_correlation_id import correlation_id
from fastapi import FastAPI
from pydantic import BaseModel, Field
from pydantic.json_schema import models_json_schema
from starlette.responses import JSONResponse, Response

from wholetrack.errors import ErrorKind, ServiceError

MEDIA_TYPE = "application/problem+json"

_SCHEMA = {"$ref": "#/components/schemas/Problem"}

# One example of `detail` for each error that the OpenAPI document describes.
_EXAMPLES = {
    ErrorKind.MALFORMED_REQUEST: "Send exactly one file, as the form field 'file' or as the raw body.",
    ErrorKind.UNAUTHORISED: "Send a valid API key in the Authorization header, as a bearer token.",
    ErrorKind.FORBIDDEN_ORIGIN: "The page that opened this WebSocket may not use the service. Ask its operator to "
    "add the origin of the page to WHOLETRACK_CORS_ORIGINS.",
    ErrorKind.UNKNOWN_MODEL: "Choose one of the models served: wholetrack-crnn.",
    ErrorKind.NOT_FOUND: "See /docs for the paths of this service.",
    ErrorKind.METHOD_NOT_ALLOWED: "See /docs for the methods of this path.",
    ErrorKind.NOT_ACCEPTABLE: "The header Accept allows none of these: application/json, application/x-ndjson, "
    "application/jsonl, text/event-stream, text/csv, application/vnd.apache.parquet, image/svg+xml, image/png.",
    ErrorKind.REQUEST_TOO_SLOW: "The upload was too slow: it must average at least 16384 bytes per second.",
    ErrorKind.UPLOAD_TOO_LARGE: "The upload exceeds the limit of 536870912 bytes.",
    ErrorKind.AUDIO_TOO_LONG: "The recording is longer than the limit of 10800 seconds. Send a shorter one, or ask the "
    "operator to raise max_duration_s.",
    ErrorKind.UNSUPPORTED_MEDIA: "Send audio as wav, flac, mp3, ogg, opus, m4a, aac, aiff, wma or webm.",
    ErrorKind.UNKNOWN_HOST: "Address the service as localhost or by its IP address, or ask its operator to add the "
    "name in the Host header to WHOLETRACK_ALLOWED_HOSTS.",
    ErrorKind.UNDECODABLE_AUDIO: "The file looks like audio but cannot be opened: it is truncated or corrupt. Send a "
    "complete file.",
    ErrorKind.NO_AUDIO_STREAM: "The file was opened but has no audio stream.",
    ErrorKind.EMPTY_AUDIO: "The file is empty. Send a recording.",
    ErrorKind.INVALID_PARAMETER: "top_k: input should be greater than or equal to 1.",
    ErrorKind.UPGRADE_REQUIRED: "Open a WebSocket at this path.",
    ErrorKind.HEADERS_TOO_LARGE: "The headers of the request are too large.",
    ErrorKind.OVERLOADED: "The limit of predictions in progress is reached (64). Try again in 4 s.",
    ErrorKind.INTERNAL_ERROR: "The request failed because of an error in the service. Report the request id to its "
    "operator.",
    ErrorKind.UNSUPPORTED_TRANSFER_CODING: "Send the body uncompressed. The only transfer coding is 'chunked'.",
    ErrorKind.NOT_READY: "The service is starting. Try again in a moment.",
    ErrorKind.DRAINING: "The service is shutting down. Send the request to another instance.",
    ErrorKind.DEVICE_FAILED: "The inference device failed. Try again in a moment.",
    ErrorKind.MODEL_UNAVAILABLE: "The model cannot run on this server: every run raises an error. Choose another one.",
    ErrorKind.DEADLINE_EXCEEDED: "The request took longer than the limit of 600 seconds.",
}

_RETRY_AFTER_S = {ErrorKind.OVERLOADED: 4, ErrorKind.DEVICE_FAILED: 5}


class Problem(BaseModel):
    """An error response (RFC 9457). `code` is stable; `request_id` also appears in the log of the service."""

    type: str = Field(
        description="URI that identifies the kind of problem.", examples=["urn:wholetrack:problem:upload_too_large"]
    )
    title: str = Field(description="Short description of the kind of problem.")
    status: int = Field(description="HTTP status code.")
    detail: str = Field(description="What happened and, where possible, what to do about it.")
    code: str = Field(description="Stable name of the kind of problem, for use in programs.")
    request_id: str | None = Field(description="Id of the request, also sent in the header X-Request-ID.")
    retry_after_s: int | None = Field(
        description="Time after which a retry may succeed, in seconds; null if a retry will not help. A response also "
        "sends it in the header Retry-After, which the event `error` cannot."
    )

    @classmethod
    def of(cls, error: ServiceError, *, request_id: str | None) -> Problem:
        """Return the problem for an error."""
        kind = error.kind
        return cls(
            type=f"urn:wholetrack:problem:{kind.code}",
            title=kind.title,
            status=kind.status,
            detail=error.detail,
            code=kind.code,
            request_id=request_id,
            retry_after_s=error.retry_after_s,
        )


def problem_response(
    error: ServiceError,
    *,
    headers: Mapping[str, str] | None = None,
    request_id: str | None = None,
    extensions: Mapping[str, str] | None = None,
) -> Response:
    """Return the response for an error.

    Args:
        error: What went wrong.
        headers: Additional response headers.
        request_id: Id of the request; None for the id of the current one.
        extensions: Additional members of the problem.
    """
    all_headers = dict(headers or {})
    if error.retry_after_s is not None:
        all_headers["Retry-After"] = str(error.retry_after_s)
    problem = problem_of(error, request_id=request_id)
    document = problem.model_dump() | dict(extensions or {})
    return JSONResponse(document, error.kind.status, headers=all_headers, media_type=MEDIA_TYPE)


def problem_of(error: ServiceError, *, request_id: str | None = None) -> Problem:
    """Return the problem for an error; ``request_id`` is None for the id of the current request."""
    return Problem.of(error, request_id=request_id or correlation_id.get())


def error_responses(*kinds: ErrorKind) -> dict[int | str, dict[str, Any]]:
    """Return the ``responses`` argument for a route that can fail with these errors, with an example of each."""
    responses: dict[int | str, dict[str, Any]] = {}
    for kind in kinds:
        entry = responses.setdefault(
            kind.status,
            {"description": "", "content": {MEDIA_TYPE: {"schema": _SCHEMA, "examples": {}}}},
        )
        entry["description"] = f"{entry['description']}; `{kind.code}`".removeprefix("; ")
        error = ServiceError(kind, _EXAMPLES[kind], retry_after_s=_RETRY_AFTER_S.get(kind))
        example = Problem.of(error, request_id="3f0c9b4be0e54c7d8f3c4e1d2a6b7c8d")
        entry["content"][MEDIA_TYPE]["examples"][kind.code] = {"summary": kind.title, "value": example.model_dump()}
    return responses


def add_schemas(app: FastAPI, *models: type[BaseModel]) -> None:
    """Add schemas that routes reference, but which FastAPI cannot derive from them, to the OpenAPI document."""
    openapi_of_routes = app.openapi
    _, schemas = models_json_schema(
        [(model, "validation") for model in models], ref_template="#/components/schemas/{model}"
    )

    def openapi() -> dict[str, Any]:
        document = openapi_of_routes()
        document["components"]["schemas"] |= schemas["$defs"]
        return document

    app.openapi = openapi  # type: ignore[method-assign] # as FastAPI documents it
