"""``GET /v1/models``: the served models and their cards."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Request

from wholetrack.api.examples import MODEL, MODELS, success_response
from wholetrack.api.problems import error_responses
from wholetrack.api.schemas import ModelList, ModelSummary
from wholetrack.errors import ErrorKind
from wholetrack.pipeline import Pipeline, ServedModel

router = APIRouter(prefix="/v1/models", tags=["models"])


@router.get("", summary="List the served models", responses=success_response(MODELS))
async def list_models(request: Request) -> ModelList:
    """Returns all served models with their cards: labels, features, windows, metrics and licence."""
    pipeline: Pipeline = request.app.state.pipeline
    return ModelList(models=[_summary(pipeline, served) for _, served in sorted(pipeline.models.items())])


@router.get(
    "/{name}",
    summary="Describe one model",
    responses=success_response(MODEL) | error_responses(ErrorKind.UNKNOWN_MODEL),
)
async def show_model(
    request: Request, name: Annotated[str, Path(description="Name of a served model.", examples=["wholetrack-crnn"])]
) -> ModelSummary:
    """Returns one served model with its card."""
    pipeline: Pipeline = request.app.state.pipeline
    return _summary(pipeline, pipeline.model(name))


def _summary(pipeline: Pipeline, served: ServedModel) -> ModelSummary:
    return ModelSummary.of(
        served.card,
        device=served.engine.device,
        precision=served.engine.precision,
        default=served.card.name == pipeline.default_model,
        available=served.engine.available,
        unavailable_reason=served.engine.unavailable_reason,
    )
