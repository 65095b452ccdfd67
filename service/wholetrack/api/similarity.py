"""``POST /v1/similarity``: the route and its documentation."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request

from wholetrack.api.examples import SIMILARITY, success_response
from wholetrack.api.problems import BODY_ERRORS, error_responses
from wholetrack.api.rankings import Rankings
from wholetrack.api.similarity_schemas import SimilarityRequest, SimilarityResponse

router = APIRouter(tags=["similarity"])


def _schema() -> dict[str, Any]:
    """Return the schema of the request. FastAPI cannot derive it, because the route limits the body as it arrives."""
    schema = SimilarityRequest.model_json_schema()
    item = schema.pop("$defs")["SimilarityItem"]
    fields = schema["properties"]
    fields["items"]["items"] = item
    # The descriptions state the limits. Programs that test the limits of a schema would send bodies of 40 MB, which are
    # refused for their size.
    for field in (fields["items"], fields["query"], item["properties"]["embedding"]):
        del field["maxItems"]
    return schema


@router.post(
    "/v1/similarity",
    summary="Rank embeddings by their similarity",
    responses=success_response(SIMILARITY) | error_responses(*BODY_ERRORS),
    openapi_extra={"requestBody": {"required": True, "content": {"application/json": {"schema": _schema()}}}},
)
async def similarity(request: Request) -> SimilarityResponse:
    """Ranks embeddings, which predictions with `embedding=track` or `embedding=windows` return.

    Nothing is stored: the client sends all embeddings that it wants to compare. Only embeddings of the same model and
    version are comparable. The body may be up to 8 MiB; for larger libraries use the command `wholetrack similar`.
    """
    rankings: Rankings = request.app.state.rankings
    return await rankings.respond(request)
