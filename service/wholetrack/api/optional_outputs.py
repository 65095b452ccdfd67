"""The parts of a response that only some models have: tags and embedding."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from wholetrack.api.schemas import Embedding, TagProbability, Tags
from wholetrack.contracts import Embeddings, TagScores

_DECIMALS = 6
_WINDOW_DECIMALS = 4
# Seven decimals change the length of a vector of 512 components by less than a millionth.
_EMBEDDING_DECIMALS = 7


def tags_part(scores: TagScores) -> Tags:
    """Return the part of the response about tags."""
    track: list[TagProbability] = []
    if scores.track is not None:
        order = np.argsort(-scores.track, kind="stable")
        track = [_tag(scores, int(i), float(scores.track[i])) for i in order]
    if scores.windows is None:
        return Tags(track=track)
    return Tags(
        track=track,
        labels=[tag.name for tag in scores.tags],
        start_s=scores.times.start_s.round(_DECIMALS).tolist(),
        probabilities=_rows(scores.windows, scores.times.silent, _WINDOW_DECIMALS),
    )


def embedding_part(embeddings: Embeddings) -> Embedding:
    """Return the part of the response about the embedding."""
    track = None if embeddings.track is None else embeddings.track.astype("f8").round(_EMBEDDING_DECIMALS).tolist()
    if embeddings.windows is None:
        return Embedding(length=embeddings.length, track=track)
    return Embedding(
        length=embeddings.length,
        track=track,
        start_s=embeddings.times.start_s.round(_DECIMALS).tolist(),
        windows=_rows(embeddings.windows, embeddings.times.silent, _EMBEDDING_DECIMALS),
    )


def _tag(scores: TagScores, index: int, probability: float) -> TagProbability:
    tag = scores.tags[index]
    fields = {"tag": tag.name, "kind": tag.kind, "probability": round(probability, _DECIMALS)}
    if tag.name in scores.unverified:
        fields["unverified"] = True
    if tag.name in scores.parents:
        fields["parent"] = scores.parents[tag.name]
    return TagProbability.model_validate(fields)


def _rows(rows: NDArray[np.float32], silent: NDArray[np.bool_], decimals: int) -> list[list[float] | None]:
    """Return one row per window, for rows of the windows with sound."""
    with_sound = iter(rows.astype("f8").round(decimals).tolist())
    return [None if is_silent else next(with_sound) for is_silent in silent.tolist()]
