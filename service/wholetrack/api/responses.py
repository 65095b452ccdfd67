"""Building the response to a prediction from the result of the pipeline."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from wholetrack.api.optional_outputs import embedding_part, tags_part
from wholetrack.api.schemas import (
    MajorityVote,
    Model,
    Prediction,
    PredictionResponse,
    PredictionWarning,
    RankedGenre,
    Section,
    SummedScore,
    Timing,
    Track,
    VotedGenre,
    WindowDetail,
    Windows,
)
from wholetrack.contracts import Ranking, TrackPrediction, WindowScores

# For shares, confidence and times. The network computes in float32, which has about seven significant digits.
_DECIMALS = 6
# The probabilities of windows are by far the largest part of a response.
_WINDOW_DECIMALS = 4


@dataclass(frozen=True, slots=True)
class SourceFile:
    """What the response states about a recording in addition to the result of the pipeline.

    Attributes:
        filename: Name of the file, if known.
        sha256: SHA-256 of the file, in hexadecimal.
        n_bytes: Size of the file in bytes.
        began: ``time.monotonic()`` at the start of the request.
        receive_s: Time taken to receive the file, in seconds.
    """

    filename: str | None
    sha256: str
    n_bytes: int
    began: float
    receive_s: float = 0.0


def prediction_response(
    prediction: TrackPrediction, source: SourceFile, *, top_k: int, detail: WindowDetail
) -> PredictionResponse:
    """Build the response for one track.

    Args:
        prediction: The result of the pipeline.
        source: The file that was predicted.
        top_k: Number of genres in each ranking.
        detail: How much to say about each window.
    """
    card = prediction.card
    parents = {label: parent for label, parent in card.parents.items() if label in card.labels}
    parents = parents if prediction.taxonomy is None else {}
    optional: dict[str, Any] = {}
    if prediction.tags:
        optional["tags"] = tags_part(prediction.tags)
    if prediction.embedding:
        optional["embedding"] = embedding_part(prediction.embedding)
    return PredictionResponse(
        track=_track(prediction, source),
        model=Model(
            name=card.name,
            version=card.version,
            device=prediction.device,
            precision=prediction.precision,
            window_s=card.windows.window_s,
            hop_s=prediction.hop_s,
            step_s=None if card.outputs.scores.steps is None else card.step_s,
            taxonomy=prediction.taxonomy,
            labels=prediction.labels,
        ),
        prediction=Prediction(
            summed_score=_summed_score(prediction.summed_score, top_k, parents),
            majority_vote=_majority_vote(prediction.majority_vote, top_k, parents),
            agreement=prediction.summed_score.genre == prediction.majority_vote.genre,
            confidence=_rounded(prediction.confidence),
            in_domain=prediction.in_domain,
        ),
        sections=[
            Section(start_s=round(s.start_s, 3), end_s=round(s.end_s, 3), genre=s.genre, share=_rounded(s.share))
            for s in prediction.sections
        ],
        windows=_windows(prediction.windows, prediction.labels, detail),
        **optional,
        timing_ms=_timing(prediction, source),
        warnings=[PredictionWarning(code=w.code, detail=w.detail) for w in prediction.warnings],
    )


def _track(prediction: TrackPrediction, source: SourceFile) -> Track:
    stream = prediction.stream
    return Track(
        filename=source.filename,
        sha256=source.sha256,
        bytes=source.n_bytes,
        codec=stream.codec,
        container=stream.container,
        sample_rate_hz=stream.sample_rate_hz,
        channels=stream.channels,
        duration_s=_rounded(prediction.duration_s),
    )


def _summed_score(ranking: Ranking, top_k: int, parents: Mapping[str, str]) -> SummedScore:
    top = [
        RankedGenre(genre=r.genre, **_parent(r.genre, parents), share=_rounded(r.share)) for r in ranking.ranked[:top_k]
    ]
    return SummedScore(genre=ranking.genre, share=_rounded(ranking.share), top_k=top)


def _majority_vote(ranking: Ranking, top_k: int, parents: Mapping[str, str]) -> MajorityVote:
    top = [
        VotedGenre(genre=r.genre, **_parent(r.genre, parents), share=_rounded(r.share), windows=r.windows or 0)
        for r in ranking.ranked[:top_k]
    ]
    return MajorityVote(genre=ranking.genre, share=_rounded(ranking.share), top_k=top)


def _parent(genre: str, parents: Mapping[str, str]) -> dict[str, Any]:
    """Return the field for the parent of a genre; none if the model has no parent genres."""
    return {"parent": parents.get(genre)} if parents else {}


def _rounded(value: float) -> float:
    return round(value, _DECIMALS)


def window_fields(scores: WindowScores, labels: tuple[str, ...], detail: WindowDetail) -> dict[str, Any]:
    """Return the requested fields of :class:`Windows`."""
    fields: dict[str, Any] = {"count": len(scores.start_s), "silent": scores.silent.nonzero()[0].tolist()}
    if detail is not WindowDetail.NONE:
        leading = scores.probabilities.argmax(axis=1).tolist()
        fields["start_s"] = scores.start_s.round(_DECIMALS).tolist()
        fields["genre"] = [
            None if silent else labels[i] for i, silent in zip(leading, scores.silent.tolist(), strict=True)
        ]
    if detail is WindowDetail.FULL:
        fields["probabilities"] = scores.probabilities.astype("f8").round(_WINDOW_DECIMALS).tolist()
    return fields


def _windows(scores: WindowScores, labels: tuple[str, ...], detail: WindowDetail) -> Windows:
    fields = window_fields(scores, labels, detail)
    return Windows.model_construct(**fields, _fields_set=set(fields))


def _timing(prediction: TrackPrediction, source: SourceFile) -> Timing:
    times = prediction.times
    return Timing(
        receive=round(source.receive_s * 1e3, 3),
        decode=round(times.decode, 3),
        features=round(times.features, 3),
        queue=round(times.queue, 3),
        inference=round(times.inference, 3),
        total=round((time.monotonic() - source.began) * 1e3, 3),
    )
