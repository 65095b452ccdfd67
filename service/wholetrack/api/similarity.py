"""``POST /v1/similarity``: ranks embeddings that the client keeps. The service stores none."""

from __future__ import annotations

from functools import partial
from typing import Annotated, Any

import numpy as np
from anyio import CapacityLimiter, to_thread
from fastapi import APIRouter, Request
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import ErrorDetails

from wholetrack.aggregation.similarity import most_similar
from wholetrack.api.examples import SIMILARITY, success_response
from wholetrack.api.problems import error_responses
from wholetrack.api.upload import UploadLimits, body_chunks
from wholetrack.errors import ErrorKind, ServiceError
from wholetrack.settings import Settings

# About 1,500 vectors of 512 numbers. Parsing that much takes a tenth of a second, during which no other thread runs.
_MAX_BODY_BYTES = 8 << 20
_MAX_ITEMS = 10_000
_MAX_LENGTH = 4096
# Far beyond a vector of unit length, and the squares of 4,096 of them fit into float32.
_MAX_COMPONENT = 1e6
# Each request may hold a multiple of its body in memory.
_AT_ONCE = CapacityLimiter(2)

_Vector = Annotated[
    list[Annotated[float, Field(ge=-_MAX_COMPONENT, le=_MAX_COMPONENT, allow_inf_nan=False)]],
    Field(
        min_length=2,
        max_length=_MAX_LENGTH,
        description="An embedding, of a track or of a window: at most 4096 numbers.",
    ),
]


class SimilarityItem(BaseModel):
    """An embedding to compare with the query."""

    model_config = ConfigDict(strict=True, extra="forbid")

    id: str = Field(max_length=1024, description="The client's identifier; returned as it is.")
    embedding: _Vector


class SimilarityRequest(BaseModel):
    """A query, and the embeddings to rank."""

    model_config = ConfigDict(strict=True, extra="forbid")

    query: _Vector
    items: list[SimilarityItem] = Field(
        min_length=1,
        max_length=_MAX_ITEMS,
        description="Embeddings to rank, at most 10,000, of the same model and length as the query.",
    )
    top_k: int = Field(default=10, ge=1, le=_MAX_ITEMS, description="Length of the ranking.")


class SimilarItem(BaseModel):
    """One embedding of the ranking."""

    id: str = Field(description="The client's identifier.")
    similarity: float = Field(description="Cosine of the angle to the query, from -1 to 1; 1 for the same direction.")


class SimilarityResponse(BaseModel):
    """The most similar embeddings, in descending order."""

    count: int = Field(description="Number of embeddings compared.")
    ranked: list[SimilarItem]


router = APIRouter(tags=["similarity"])

_ERRORS = (
    ErrorKind.MALFORMED_REQUEST,
    ErrorKind.REQUEST_TOO_SLOW,
    ErrorKind.UPLOAD_TOO_LARGE,
    ErrorKind.UNKNOWN_HOST,
    ErrorKind.INVALID_PARAMETER,
    ErrorKind.OVERLOADED,
    ErrorKind.HEADERS_TOO_LARGE,
    ErrorKind.INTERNAL_ERROR,
    ErrorKind.UNSUPPORTED_TRANSFER_CODING,
)


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
    responses=success_response(SIMILARITY) | error_responses(*_ERRORS),
    openapi_extra={"requestBody": {"required": True, "content": {"application/json": {"schema": _schema()}}}},
)
async def similarity(request: Request) -> SimilarityResponse:
    """Ranks embeddings, which predictions with `embedding=track` or `embedding=windows` return.

    Nothing is stored: the client sends all embeddings that it wants to compare. Only embeddings of the same model and
    version are comparable. The body may be up to 8 MiB; for larger libraries use the command `wholetrack similar`.
    """
    settings: Settings = request.app.state.settings
    limits = UploadLimits(_MAX_BODY_BYTES, settings.min_upload_bytes_per_s, settings.client_timeout_s)
    body = bytearray()
    async for chunk in body_chunks(request, limits):
        body += chunk
    return await to_thread.run_sync(partial(_ranked, bytes(body)), limiter=_AT_ONCE)


def _ranked(body: bytes) -> SimilarityResponse:
    wanted = _parsed(body)
    query = np.array(wanted.query, dtype=np.float32)
    if not query.any():
        raise _invalid("query: an embedding of zeros has no direction")
    for i, item in enumerate(wanted.items):
        if len(item.embedding) != len(query):
            raise _invalid(
                f"items.{i}.embedding: it has {len(item.embedding)} numbers and the query {len(query)}; compare only "
                "embeddings of the same model"
            )
    vectors = np.array([item.embedding for item in wanted.items], dtype=np.float32)
    ranked = most_similar(query, vectors, limit=wanted.top_k)
    items = [SimilarItem(id=wanted.items[i].id, similarity=round(cosine, 6)) for i, cosine in ranked]
    return SimilarityResponse(count=len(wanted.items), ranked=items)


def _parsed(body: bytes) -> SimilarityRequest:
    try:
        return SimilarityRequest.model_validate_json(body)
    except ValidationError as error:
        first: ErrorDetails = error.errors(include_url=False, include_input=False)[0]
        if first["type"] == "json_invalid":
            raise ServiceError(
                ErrorKind.MALFORMED_REQUEST, "Send a JSON object with the fields query and items."
            ) from error
        place = ".".join(map(str, first["loc"])) or "body"
        raise _invalid(f"{place}: {first['msg'][0].lower()}{first['msg'][1:]}") from error


def _invalid(problem: str) -> ServiceError:
    return ServiceError(ErrorKind.INVALID_PARAMETER, f"{problem}.")
