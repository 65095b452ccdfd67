"""The wire format of ``POST /v1/similarity``."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

_MAX_ITEMS = 10_000
_MAX_LENGTH = 4096
# Far beyond a vector of unit length, and the squares of 4,096 of them fit into float32.
_MAX_COMPONENT = 1e6

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
