"""``/healthz``, ``/readyz`` and ``/metrics``, for supervisors and monitoring."""

from __future__ import annotations

from anyio import to_thread
from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, Field

from wholetrack.api.admission import Admission, draining_error
from wholetrack.api.examples import HEALTHY, METRICS, READY, success_response
from wholetrack.api.metrics import Metrics
from wholetrack.api.problems import error_responses
from wholetrack.errors import ErrorKind, ServiceError
from wholetrack.track_pipeline import TrackPipeline

router = APIRouter(tags=["operation"])
metrics_router = APIRouter(tags=["operation"])

PROBE_PATHS = ("/healthz", "/readyz")
"""Paths of the routes that supervisors request every few seconds."""


class Health(BaseModel):
    """The process is alive."""

    status: str


class Readiness(BaseModel):
    """The service can predict: every model that is available has a working device."""

    status: str
    models: dict[str, str] = Field(
        description="Device of each model, or unavailable for a model that cannot run until the service is restarted."
    )
    unavailable: dict[str, str] = Field(description="Why each unavailable model cannot run.")
    cpu_fallback: dict[str, str] = Field(
        description="Models that run on the CPU although the device is auto and the machine has an NVIDIA GPU, with "
        "the reason."
    )
    sandbox: list[str] = Field(
        description="Active layers of the sandbox for decoders, out of landlock, limits and seccomp."
    )


@router.get("/healthz", summary="Liveness probe", responses=success_response(HEALTHY))
async def healthz() -> Health:
    """Returns 200 as long as the event loop is running."""
    return Health(status="ok")


@router.get(
    "/readyz",
    summary="Readiness probe",
    responses=success_response(READY) | error_responses(ErrorKind.DEVICE_FAILED, ErrorKind.DRAINING),
)
async def readyz(request: Request) -> Readiness:
    """Returns 200 if every model produced correct results on its device at start-up and the device still works.

    A model other than the default may be unavailable, because the device cannot run it or it fails with every
    recording. The service remains ready, since its other models still work.
    """
    admission: Admission = request.app.state.admission
    if admission.draining:
        raise draining_error()
    pipeline: TrackPipeline = request.app.state.pipeline
    if failing := pipeline.failing_models():
        raise ServiceError(ErrorKind.DEVICE_FAILED, f"No working device for {', '.join(failing)}.", retry_after_s=5)
    models = sorted(pipeline.models.items())
    return Readiness(
        status="ready",
        models={name: served.engine.device if served.engine.available else "unavailable" for name, served in models},
        unavailable={name: reason for name, served in models if (reason := served.engine.unavailable_reason)},
        cpu_fallback={name: reason for name, served in models if (reason := served.cpu_fallback)},
        sandbox=sorted(pipeline.sandbox_layers),
    )


@metrics_router.get(
    "/metrics",
    summary="Prometheus metrics",
    response_class=Response,
    responses=success_response(METRICS, media_type="text/plain"),
)
async def metrics(request: Request) -> Response:
    """Returns predictions by outcome, seconds by stage, windows, the state of the devices, and process statistics."""
    collected: Metrics = request.app.state.metrics
    return Response(await to_thread.run_sync(collected.exposition), media_type=Metrics.media_type)
