"""``GET /v1/models``: the served models; ``GET /v1/models/{name}``: one of them with its card."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Path, Request

from wholetrack.api.examples import MODEL, MODELS, success_response
from wholetrack.api.problems import error_responses
from wholetrack.api.schemas import ModelDescription, ModelList, ModelSummary
from wholetrack.errors import ErrorKind
from wholetrack.track_pipeline import TrackPipeline

router = APIRouter(prefix="/v1/models", tags=["models"])


@router.get("", summary="List the served models", responses=success_response(MODELS))
async def list_models(request: Request) -> ModelList:
    """Returns all served models in brief."""
    pipeline: TrackPipeline = request.app.state.pipeline
    return ModelList(models=[ModelSummary(**_summary(pipeline, key)) for key in sorted(pipeline.models)])


@router.get(
    "/{name}",
    summary="Describe one model",
    responses=success_response(MODEL) | error_responses(ErrorKind.UNKNOWN_MODEL),
)
async def show_model(
    request: Request,
    name: Annotated[str, Path(description="Name of a served model, or NAME@VERSION.", examples=["wholetrack-crnn"])],
) -> ModelDescription:
    """Returns one served model with its card: labels, features, windows, metrics and licence."""
    pipeline: TrackPipeline = request.app.state.pipeline
    key = pipeline.key(name)
    return ModelDescription(**_summary(pipeline, key), card=pipeline.models[key].document)


def _summary(pipeline: TrackPipeline, key: str) -> dict[str, Any]:
    """Return the fields of a :class:`ModelSummary`."""
    served = pipeline.models[key]
    return {
        "name": served.card.name,
        "version": served.card.version,
        "device": served.engine.device,
        "precision": served.engine.precision,
        "default": key == pipeline.default_model,
        "available": served.engine.available,
        "unavailable_reason": served.engine.unavailable_reason,
        "labels": served.card.labels,
        "summary": served.card.summary,
    }
