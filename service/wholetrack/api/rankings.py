"""Ranking embeddings that the client sends: admission, the body, and a thread that must not slow predictions down."""

from __future__ import annotations

from functools import partial

import numpy as np
from fastapi import Request
from pydantic import ValidationError
from pydantic_core import ErrorDetails

from wholetrack.aggregation.similarity import most_similar
from wholetrack.api.admission import Admission
from wholetrack.api.deadline import Deadline
from wholetrack.api.keys import key_of, permits
from wholetrack.api.one_at_a_time import OneAtATime
from wholetrack.api.similarity_schemas import SimilarItem, SimilarityRequest, SimilarityResponse
from wholetrack.api.upload import UploadLimits, body_chunks
from wholetrack.errors import ErrorKind, ServiceError
from wholetrack.settings import Settings

# About 1,500 vectors of 512 numbers.
_MAX_BODY_BYTES = 8 << 20
# Each of them may hold a whole body in memory.
_MAX_IN_PROGRESS = 8


class Rankings:
    """Handles the rankings of one application. They have permits of their own, so they take none from predictions.

    Args:
        settings: Limits on the body and on the time of a request.
        predictions: Admits the predictions. Rankings make way for them, and end with them when the service shuts down.
    """

    def __init__(self, settings: Settings, predictions: Admission) -> None:
        self._limits = UploadLimits(_MAX_BODY_BYTES, settings.min_upload_bytes_per_s, settings.client_timeout_s)
        self._timeout_s = settings.request_timeout_s
        self._predictions = predictions
        self._admission = Admission(_MAX_IN_PROGRESS, kind="rankings")
        self._one_at_a_time = OneAtATime(predictions)

    async def respond(self, request: Request) -> SimilarityResponse:
        """Receive embeddings and rank them.

        Raises:
            ServiceError: Any error that the route documents.
        """
        deadline = Deadline(self._timeout_s)
        self._admission.draining = self._predictions.draining
        async with permits(key_of(request.scope), self._admission), deadline.enforced():
            body = bytearray()
            async for chunk in body_chunks(request, self._limits, envelope_bytes=0):
                body += chunk
            return await self._one_at_a_time.run(partial(_ranked, body))


def _ranked(body: bytearray) -> SimilarityResponse:
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


def _parsed(body: bytearray) -> SimilarityRequest:
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
