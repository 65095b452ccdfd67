"""Turning every exception that a request can raise into a problem response."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from wholetrack.api.failures import from_os_error, internal_error
from wholetrack.api.inference_protocol import PROTOCOL_PREFIX
from wholetrack.api.metrics import Metrics
from wholetrack.api.paths import route_path
from wholetrack.api.predict import PREDICT_PATH
from wholetrack.api.problems import problem_response
from wholetrack.errors import ErrorKind, ServiceError

_log = logging.getLogger(__name__)

# RFC 9110 requires these headers in every response with that status.
_REQUIRED_HEADERS = {
    ErrorKind.UNAUTHORISED: {"WWW-Authenticate": "Bearer"},
    ErrorKind.UPGRADE_REQUIRED: {"Upgrade": "websocket", "Connection": "upgrade"},
}


def install_exception_handlers(app: FastAPI, metrics: Metrics) -> None:
    """Respond to every error of an application with a problem, and count the failed predictions.

    Call this before any other middleware is added: the middleware for unexpected errors must be the innermost.
    """

    def respond(request: Request, error: ServiceError, headers: Mapping[str, str] | None = None) -> Response:
        path = route_path(request.scope)
        # Clients of the Open Inference Protocol expect the text of an error in this member.
        extensions = {"error": error.detail} if f"{path}/".startswith(f"{PROTOCOL_PREFIX}/") else None
        response = problem_response(error, headers=headers, extensions=extensions)
        if path == PREDICT_PATH:
            metrics.predictions.labels(error.kind.code).inc()
            # Which status a request gets, for instance a 406, may depend on the header.
            response.headers.add_vary_header("Accept")
        return response

    @app.exception_handler(ServiceError)
    async def _service_error(request: Request, error: ServiceError) -> Response:
        if error.kind is ErrorKind.CLIENT_GONE:
            _log.info("the client disconnected")
        return respond(request, error, _REQUIRED_HEADERS.get(error.kind))

    @app.exception_handler(RequestValidationError)
    async def _validation_error(request: Request, error: RequestValidationError) -> Response:
        complaints = "; ".join(f"{e['loc'][-1]}: {e['msg'][0].lower()}{e['msg'][1:]}" for e in error.errors())
        return respond(request, ServiceError(ErrorKind.INVALID_PARAMETER, f"{complaints}."))

    @app.exception_handler(HTTPException)
    async def _http_exception(request: Request, error: HTTPException) -> Response:
        return respond(request, _from_http_exception(error), error.headers)

    @app.exception_handler(OSError)
    async def _os_error(request: Request, error: OSError) -> Response:
        return respond(request, from_os_error(error))

    def unexpected_error(request: Request) -> Response:
        return respond(request, internal_error())

    app.add_middleware(_UnexpectedErrors, respond=unexpected_error)


class _UnexpectedErrors:
    """Middleware that responds to exceptions without a handler.

    Starlette's own handler of last resort runs outside all other middleware, so its responses would lack the security
    headers and the request id, and the request would be missing from the access log.
    """

    def __init__(self, app: ASGIApp, respond: Callable[[Request], Response]) -> None:
        self._app = app
        self._respond = respond

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request. An exception is logged and, unless the response has started, turned into a response."""
        response_started = False

        async def tracking_send(message: Message) -> None:
            nonlocal response_started
            response_started = True
            await send(message)

        try:
            await self._app(scope, receive, tracking_send)
        except Exception as error:
            if response_started or scope["type"] != "http":
                raise
            _log.error("unexpected error", exc_info=error)
            await self._respond(Request(scope))(scope, receive, send)


def _from_http_exception(error: HTTPException) -> ServiceError:
    if error.status_code == ErrorKind.METHOD_NOT_ALLOWED.status:
        return ServiceError(ErrorKind.METHOD_NOT_ALLOWED, "See /docs for the methods of this path.")
    if error.status_code == ErrorKind.NOT_FOUND.status:
        return ServiceError(ErrorKind.NOT_FOUND, "See /docs for the paths of this service.")
    return ServiceError(ErrorKind.MALFORMED_REQUEST, "The request could not be parsed.")
