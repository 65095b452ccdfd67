"""``/healthz``, ``/readyz`` and ``/metrics``: for supervisors and monitoring."""

from __future__ import annotations

from anyio import to_thread
from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, Field

from wholetrack.api.examples import HEALTHY, METRICS, READY, answered
from wholetrack.api.metrics import Metrics
from wholetrack.api.predict import Predictions
from wholetrack.api.problems import documented
from wholetrack.errors import ErrorKind, ServiceError
from wholetrack.pipeline import Pipeline

router = APIRouter(tags=["operation"])
metrics_router = APIRouter(tags=["operation"])


class Health(BaseModel):
    """The process answers."""

    status: str


class Readiness(BaseModel):
    """Every model is on a device that gave right answers at start-up and whose thread is alive."""

    status: str
    models: dict[str, str] = Field(description="Device of each model.")
    sandbox: list[str] = Field(
        description="What holds decoders back: landlock, limits, seccomp, as far as it is there."
    )


@router.get("/healthz", summary="Is the process alive?", responses=answered(HEALTHY))
async def healthz() -> Health:
    """Answers as long as the event loop turns."""
    return Health(status="ok")


@router.get(
    "/readyz",
    summary="Can it predict?",
    responses=answered(READY) | documented(ErrorKind.DEVICE_FAILED, ErrorKind.DRAINING),
)
async def readyz(request: Request) -> Readiness:
    """Answers 200 only when every model gave right answers on its device and can still be asked."""
    predictions: Predictions = request.app.state.predictions
    if predictions.admission.draining:
        raise predictions.admission.goodbye()
    pipeline: Pipeline = request.app.state.pipeline
    failing = sorted(name for name, served in pipeline.models.items() if not served.engine.healthy)
    if failing:
        raise ServiceError(ErrorKind.DEVICE_FAILED, f"No device answers for {', '.join(failing)}.", retry_after_s=5)
    return Readiness(
        status="ready",
        models={name: served.engine.device for name, served in sorted(pipeline.models.items())},
        sandbox=sorted(pipeline.decoder.sandbox.layers),
    )


@metrics_router.get(
    "/metrics",
    summary="Metrics for Prometheus",
    response_class=Response,
    responses=answered(METRICS, media_type="text/plain"),
)
async def metrics(request: Request) -> Response:
    """Requests by outcome, seconds by stage, windows, and the process."""
    collected: Metrics = request.app.state.metrics
    return Response(await to_thread.run_sync(collected.exposition), media_type=Metrics.media_type)
