"""``GET /v1/models``: the bundles served, with their cards."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Request

from wholetrack.api.examples import MODEL, MODELS, answered
from wholetrack.api.problems import documented
from wholetrack.api.schemas import ModelList, ModelSummary
from wholetrack.errors import ErrorKind
from wholetrack.pipeline import Pipeline, ServedModel

router = APIRouter(prefix="/v1/models", tags=["models"])


@router.get("", summary="Which models are served?", responses=answered(MODELS))
async def list_models(request: Request) -> ModelList:
    """All served models with their cards: labels, features, windows, metrics and licence."""
    pipeline: Pipeline = request.app.state.pipeline
    return ModelList(models=[_summary(pipeline, served) for _, served in sorted(pipeline.models.items())])


@router.get("/{name}", summary="What is this model?", responses=answered(MODEL) | documented(ErrorKind.UNKNOWN_MODEL))
async def show_model(
    request: Request, name: Annotated[str, Path(description="Name of a served model.", examples=["wholetrack-crnn"])]
) -> ModelSummary:
    """One served model with its card."""
    pipeline: Pipeline = request.app.state.pipeline
    return _summary(pipeline, pipeline.model(name))


def _summary(pipeline: Pipeline, served: ServedModel) -> ModelSummary:
    return ModelSummary.of(
        served.card,
        device=served.engine.device,
        precision=served.engine.precision,
        default=served.card.name == pipeline.default_model,
    )
