"""Rows of Parquet files for predictions, and for files that could not be predicted.

pyarrow takes 170 MB and 0.3 s to import, so only the commands that write Parquet files import it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from wholetrack.catalogue.listed_file import ListedFile
from wholetrack.contracts import ModelCard, Ranking, TrackPrediction
from wholetrack.errors import ServiceError

_SUMMED = pa.list_(pa.struct([("genre", pa.string()), ("share", pa.float64())]))
_VOTED = pa.list_(pa.struct([("genre", pa.string()), ("share", pa.float64()), ("windows", pa.int64())]))
_SECTIONS = pa.list_(
    pa.struct([("start_s", pa.float64()), ("end_s", pa.float64()), ("genre", pa.string()), ("share", pa.float64())])
)
_TAGS = pa.list_(pa.struct([("name", pa.string()), ("probability", pa.float64())]))
_WARNINGS = pa.list_(pa.struct([("code", pa.string()), ("detail", pa.string())]))
_TIME = pa.timestamp("us", tz="UTC")

FAILURES = pa.schema(
    [
        ("file", pa.string()),
        ("size_bytes", pa.int64()),
        ("etag", pa.string()),
        ("modified", _TIME),
        ("code", pa.string()),
        ("detail", pa.string()),
    ]
)
"""Columns of the files that could not be predicted."""


@dataclass(frozen=True, slots=True)
class Predicted:
    """The prediction of a file.

    Attributes:
        file: The file.
        size_bytes: Number of bytes that were read.
        sha256: SHA-256 of these bytes, in hexadecimal.
        prediction: The prediction.
    """

    file: ListedFile
    size_bytes: int
    sha256: str
    prediction: TrackPrediction


@dataclass(frozen=True, slots=True)
class Failed:
    """Why a file could not be predicted: a stable code and a sentence."""

    file: ListedFile
    code: str
    detail: str

    @classmethod
    def of(cls, file: ListedFile, error: ServiceError) -> Failed:
        """Return the failure for an error of the pipeline."""
        return cls(file, error.kind.code, error.detail)


def verdict_schema(card: ModelCard) -> list[tuple[str, pa.DataType]]:
    """Return the columns that every Parquet file with a row for each recording has, in their order."""
    spec = card.outputs.embedding
    return [
        ("file", pa.string()),
        ("duration_s", pa.float64()),
        ("model", pa.string()),
        ("version", pa.string()),
        ("genre", pa.string()),
        ("share", pa.float64()),
        ("voted_genre", pa.string()),
        ("confidence", pa.float64()),
        ("in_domain", pa.bool_()),
        ("embedding", pa.list_(pa.float32(), spec.length) if spec else pa.list_(pa.float32())),
    ]


def verdict_row(file: str, prediction: TrackPrediction) -> dict[str, Any]:
    """Return the row of a prediction, with the columns of :func:`verdict_schema`."""
    embedding = prediction.embedding
    return {
        "file": file,
        "duration_s": prediction.duration_s,
        "model": prediction.card.name,
        "version": prediction.card.version,
        "genre": prediction.summed_score.genre,
        "share": prediction.summed_score.share,
        "voted_genre": prediction.majority_vote.genre,
        "confidence": prediction.confidence,
        "in_domain": prediction.in_domain,
        "embedding": None if embedding is None or embedding.track is None else embedding.track,
    }


def prediction_table(predicted: list[Predicted], card: ModelCard, *, top_k: int) -> pa.Table:
    """Return a table of predictions.

    Args:
        predicted: The predictions.
        card: Contents of the ``model.json`` of the model.
        top_k: Number of genres in each ranking.
    """
    return pa.Table.from_pylist([_row(each, top_k) for each in predicted], schema=_prediction_schema(card))


def failure_table(failed: list[Failed]) -> pa.Table:
    """Return a table of the files that could not be predicted."""
    rows = [
        {
            "file": each.file.text,
            "size_bytes": each.file.size_bytes,
            "etag": each.file.etag,
            "modified": each.file.modified,
            "code": each.code,
            "detail": each.detail,
        }
        for each in failed
    ]
    return pa.Table.from_pylist(rows, schema=FAILURES)


def _prediction_schema(card: ModelCard) -> pa.Schema:
    verdict = verdict_schema(card)
    return pa.schema(
        [
            *verdict[:-1],
            ("voted_share", pa.float64()),
            ("agreement", pa.bool_()),
            ("summed_top_k", _SUMMED),
            ("voted_top_k", _VOTED),
            ("sections", _SECTIONS),
            ("tags", _TAGS),
            ("windows", pa.int64()),
            ("silent_windows", pa.int64()),
            ("warnings", _WARNINGS),
            verdict[-1],
            ("hop_s", pa.float64()),
            ("taxonomy", pa.string()),
            ("codec", pa.string()),
            ("container", pa.string()),
            ("sample_rate_hz", pa.int64()),
            ("channels", pa.int64()),
            ("size_bytes", pa.int64()),
            ("sha256", pa.string()),
            ("etag", pa.string()),
            ("modified", _TIME),
        ]
    )


def _row(predicted: Predicted, top_k: int) -> dict[str, Any]:
    file, found = predicted.file, predicted.prediction
    summed, voted = found.summed_score, found.majority_vote
    return verdict_row(file.text, found) | {
        "voted_share": voted.share,
        "agreement": summed.genre == voted.genre,
        "summed_top_k": _top(summed, top_k),
        "voted_top_k": _top(voted, top_k),
        "sections": [
            {"start_s": each.start_s, "end_s": each.end_s, "genre": each.genre, "share": each.share}
            for each in found.sections
        ],
        "tags": _tags(found),
        "windows": len(found.windows.start_s),
        "silent_windows": int(found.windows.silent.sum()),
        "warnings": [{"code": str(each.code), "detail": each.detail} for each in found.warnings],
        "hop_s": found.hop_s,
        "taxonomy": found.taxonomy,
        "codec": found.stream.codec,
        "container": found.stream.container,
        "sample_rate_hz": found.stream.sample_rate_hz,
        "channels": found.stream.channels,
        "size_bytes": predicted.size_bytes,
        "sha256": predicted.sha256,
        "etag": file.etag,
        "modified": file.modified,
    }


def _top(ranking: Ranking, top_k: int) -> list[dict[str, Any]]:
    return [{"genre": each.genre, "share": each.share, "windows": each.windows} for each in ranking.ranked[:top_k]]


def _tags(prediction: TrackPrediction) -> list[dict[str, Any]] | None:
    """Return the tags of the track by descending probability; None if it is silent, or the model has none."""
    if prediction.tags is None or prediction.tags.track is None:
        return None
    found = zip(prediction.tags.tags, prediction.tags.track.tolist(), strict=True)
    return [{"name": tag.name, "probability": value} for tag, value in sorted(found, key=lambda pair: -pair[1])]
