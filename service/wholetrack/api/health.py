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
from wholetrack.pipeline import Pipeline

router = APIRouter(tags=["operation"])
metrics_router = APIRouter(tags=["operation"])


class Health(BaseModel):
    """The process is alive."""

    status: str


class Readiness(BaseModel):
    """Every model produced correct results on its device at start-up and still has a working device thread."""

    status: str
    models: dict[str, str] = Field(description="Device of each model.")
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
    """Returns 200 if every model produced correct results on its device at start-up and the device still works."""
    admission: Admission = request.app.state.admission
    if admission.draining:
        raise draining_error()
    pipeline: Pipeline = request.app.state.pipeline
    failing = sorted(name for name, served in pipeline.models.items() if not served.engine.healthy)
    if failing:
        raise ServiceError(ErrorKind.DEVICE_FAILED, f"No working device for {', '.join(failing)}.", retry_after_s=5)
    return Readiness(
        status="ready",
        models={name: served.engine.device for name, served in sorted(pipeline.models.items())},
        sandbox=sorted(pipeline.decoder.sandbox.layers),
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
