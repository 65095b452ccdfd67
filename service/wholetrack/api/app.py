"""The application: routes, error handling and middleware around one pipeline."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from anyio import to_thread
from asgi_correlation_id import CorrelationIdMiddleware
from fastapi import Depends, FastAPI
from starlette.middleware.cors import CORSMiddleware

from wholetrack.api import health, inference_protocol, live, models, predict, similarity
from wholetrack.api.access_log import AccessLog, InFlight
from wholetrack.api.admission import Admission
from wholetrack.api.compression import Compression
from wholetrack.api.documentation import documented_app
from wholetrack.api.exception_handlers import install_exception_handlers
from wholetrack.api.host_check import HostCheck, hosts_to_check
from wholetrack.api.inferences import Inferences
from wholetrack.api.keys import Keys, RequireKey
from wholetrack.api.live import LiveSessions
from wholetrack.api.metrics import Metrics
from wholetrack.api.paths import NormalPaths
from wholetrack.api.predictions import Predictions
from wholetrack.api.problems import Problem, add_schemas, error_responses
from wholetrack.api.rankings import Rankings
from wholetrack.api.security_headers import SecurityHeaders
from wholetrack.api.tensors import InferenceRequest
from wholetrack.api.tracing import Tracing
from wholetrack.errors import ErrorKind
from wholetrack.settings import Settings
from wholetrack.spool_folder import spool_folder
from wholetrack.track_pipeline import TrackPipeline

# Time for requests that were cancelled at shutdown to send their responses.
_SHUTDOWN_GRACE_S = 10.0
# A UUID with or without hyphens. Any other request id from a client is replaced.
_REQUEST_ID = re.compile("[0-9A-Fa-f]{8}(-?)(?:[0-9A-Fa-f]{4}\\1){3}[0-9A-Fa-f]{12}")


def create_app(
    pipeline: TrackPipeline, settings: Settings, admission: Admission, custom_metrics: Metrics | None = None
) -> FastAPI:
    """Create the application around a pipeline.

    Args:
        pipeline: Predicts the tracks; it is closed when the application shuts down.
        settings: Settings of the service.
        admission: Limits the predictions in progress. To drain the application, the server sets
            ``admission.draining``.
        custom_metrics: Counts the predictions; None for metrics of this process alone.

    Raises:
        StartupError: If API keys or tracing cannot be set up.
    """

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        with spool_folder(settings.temp_dir) as folder:
            predictions = Predictions(
                pipeline, settings, admission=admission, metrics=metrics, tracing=tracing, folder=folder
            )
            app.state.predictions = predictions
            app.state.live = LiveSessions(predictions, settings, keys=keys, admission=admission)
            yield
            # By now uvicorn has waited for the requests in flight, or cancelled them.
            await in_flight.wait_for_none(_SHUTDOWN_GRACE_S)
            await to_thread.run_sync(predictions.close)
            await to_thread.run_sync(inferences.close)
            await to_thread.run_sync(pipeline.close)
            await to_thread.run_sync(tracing.close)

    app = documented_app(lifespan=lifespan, root_path=settings.root_path.rstrip("/"))
    in_flight, metrics = InFlight(), custom_metrics or Metrics.of_process(pipeline)
    app.state.pipeline, app.state.admission, app.state.metrics = pipeline, admission, metrics
    app.state.rankings = Rankings(settings, admission)
    app.state.inferences = inferences = Inferences(settings, admission)
    keys = Keys.load(settings)
    _include_routers(app, settings, keys)
    add_schemas(app, Problem, InferenceRequest)
    install_exception_handlers(app, metrics)
    _add_middleware(app, settings, in_flight, needs_key=keys is not None)
    tracing = Tracing(app, settings.otlp_endpoint)
    return app


def _add_middleware(app: FastAPI, settings: Settings, in_flight: InFlight, *, needs_key: bool) -> None:
    """Add the middleware from the innermost to the outermost."""
    if (allowed := hosts_to_check(settings, needs_key=needs_key)) is not None:
        app.add_middleware(HostCheck, allowed=allowed)
    app.add_middleware(AccessLog, in_flight=in_flight)
    app.add_middleware(CorrelationIdMiddleware, validator=_is_request_id)
    if settings.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.cors_origins,
            allow_methods=["GET", "POST"],
            allow_headers=["Authorization", "Content-Type"],
            expose_headers=["X-Request-ID", "Server-Timing", "Retry-After"],
        )
    app.add_middleware(SecurityHeaders, cross_origin=bool(settings.cors_origins))
    app.add_middleware(Compression)
    app.add_middleware(NormalPaths)


def _is_request_id(value: str) -> bool:
    return _REQUEST_ID.fullmatch(value) is not None


def _include_routers(app: FastAPI, settings: Settings, keys: Keys | None) -> None:
    """Add all routes. If keys are configured, routes that are not open require one."""
    routers = (
        (predict.router, False),
        (models.router, False),
        (similarity.router, False),
        (inference_protocol.router, False),
        # The key is in the first message.
        (live.router, True),
        (health.router, settings.open_health),
        (health.metrics_router, settings.open_metrics),
    )
    for router, is_open in routers:
        if keys is None or is_open:
            app.include_router(router)
        else:
            responses = error_responses(ErrorKind.UNAUTHORISED, ErrorKind.OVERLOADED)
            app.include_router(router, dependencies=[Depends(RequireKey(keys))], responses=responses)
