"""The application: routes, errors, request ids and the documentation page, around one pipeline."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from anyio import to_thread
from asgi_correlation_id import CorrelationIdMiddleware
from fastapi import Depends, FastAPI
from fastapi_offline import FastAPIOffline
from starlette.middleware.cors import CORSMiddleware

from wholetrack import __version__
from wholetrack.api import health, models, predict, problems
from wholetrack.api.access_log import InFlight, RequestRecords
from wholetrack.api.keys import Gate, Keys
from wholetrack.api.metrics import Metrics
from wholetrack.api.predict import Predictions
from wholetrack.api.problems import documented
from wholetrack.api.security_headers import SecurityHeaders
from wholetrack.api.tracing import Tracing
from wholetrack.api.upload_folder import upload_folder
from wholetrack.errors import ErrorKind
from wholetrack.pipeline import Pipeline
from wholetrack.settings import Settings

_LAST_WORDS_S = 10.0
# A UUID with or without its hyphens; any other id of a client's is replaced.
_REQUEST_ID = re.compile("[0-9A-Fa-f]{8}(-?)(?:[0-9A-Fa-f]{4}\\1){3}[0-9A-Fa-f]{12}")

_DESCRIPTION = """Hears a whole recording and says what genre it is, when, and how sure it is.

`curl -F file=@song.mp3 http://127.0.0.1:8000/v1/predict`

Every error is an `application/problem+json` with a stable `code`."""


def create_app(pipeline: Pipeline, settings: Settings) -> FastAPI:
    """The application around a pipeline that is ready; closing the application closes the pipeline."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        with upload_folder(settings.temp_dir) as folder:
            app.state.predictions = Predictions(pipeline, settings, app.state.metrics, tracing, folder)
            yield
            # uvicorn has waited for the requests under way, or cancelled them: those are about to be told why.
            await in_flight.wait_for_none(_LAST_WORDS_S)
            await to_thread.run_sync(app.state.predictions.close)
            await to_thread.run_sync(pipeline.close)
            await to_thread.run_sync(tracing.close)

    in_flight = InFlight()

    # FastAPI's own documentation pages load their scripts from another host; these bring them along.
    app = FastAPIOffline(
        title="wholetrack",
        version=__version__,
        description=_DESCRIPTION,
        lifespan=lifespan,
        redoc_url=None,
        # An address with one slash too many would be sent to whatever host the request names.
        redirect_slashes=False,
        license_info={"name": "Apache-2.0", "identifier": "Apache-2.0"},
    )
    app.state.pipeline = pipeline
    app.state.metrics = Metrics(pipeline.models)
    _include_routers(app, settings)
    problems.install(app)
    app.add_middleware(RequestRecords, in_flight=in_flight)
    app.add_middleware(CorrelationIdMiddleware, validator=_is_request_id)
    if settings.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.cors_origins,
            allow_methods=["GET", "POST"],
            allow_headers=["Authorization", "Content-Type"],
            expose_headers=["X-Request-ID", "Server-Timing", "Retry-After"],
        )
    app.add_middleware(SecurityHeaders, for_other_origins=bool(settings.cors_origins))
    tracing = Tracing(app, settings.otlp_endpoint)
    return app


def _is_request_id(given: str) -> bool:
    return _REQUEST_ID.fullmatch(given) is not None


def _include_routers(app: FastAPI, settings: Settings) -> None:
    """All routes, those that are not open behind a gate where keys are configured."""
    keys = Keys.load(settings)
    routers = (
        (predict.router, False),
        (models.router, False),
        (health.router, settings.open_health),
        (health.metrics_router, settings.open_metrics),
    )
    for router, is_open in routers:
        if keys is None or is_open:
            app.include_router(router)
        else:
            answers = documented(ErrorKind.UNAUTHORISED, ErrorKind.OVERLOADED)
            app.include_router(router, dependencies=[Depends(Gate(keys))], responses=answers)
