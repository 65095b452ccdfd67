"""How well a head predicts recordings that it was not fitted to, as figures and as a report in Markdown."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wholetrack.aggregation.confidence import tempered
from wholetrack_training.fitting.evaluation import expected_calibration_error
from wholetrack_training.fitting.head import HeadData, HeldOut
from wholetrack_training.results.calibration import fit_temperature
from wholetrack_training.results.intervals import Share
from wholetrack_training.results.markdown import markdown_table

_RESAMPLES = 2000
# Shares of 0 have no logarithm.
_MIN_SHARE = 1e-6
_DIGITS = 4


@dataclass(frozen=True, slots=True)
class HeadFigures:
    """Figures of a head in cross-validation.

    Attributes:
        labels: Genres.
        confusion: Number of recordings by true genre (rows) and predicted genre.
        top3: Recordings whose genre is among the first three.
        mean_recall_interval: 95 % interval of the mean recall, from resampled recordings of each genre.
        temperature: Temperature of the confidence, fitted to all held-out recordings.
        ece_before: Expected calibration error of the leading shares.
        ece_after: The same at temperatures fitted to the other folds.
        folds: Number of folds.
        groups: Number of groups of recordings that were held out together: artists, or single recordings.
        grouped: Whether recordings of one artist were held out together.
    """

    labels: tuple[str, ...]
    confusion: NDArray[np.int_]
    top3: Share
    mean_recall_interval: tuple[float, float]
    temperature: float
    ece_before: float
    ece_after: float
    folds: int
    groups: int
    grouped: bool

    @property
    def recall(self) -> dict[str, Share]:
        """Share of the recordings of each genre that are predicted correctly."""
        counts = self.confusion.tolist()
        return {label: Share(counts[i][i], sum(counts[i])) for i, label in enumerate(self.labels)}

    @property
    def mean_recall(self) -> float:
        """Mean over the genres of the recall."""
        return float(np.mean([share.value for share in self.recall.values()]))

    @property
    def accuracy(self) -> Share:
        """Share of all recordings that are predicted correctly."""
        return Share(int(np.trace(self.confusion)), int(self.confusion.sum()))

    @property
    def protocol(self) -> str:
        """How the recordings were held out, as a clause."""
        if self.folds == self.groups:
            return f"leaving one {'artist' if self.grouped else 'recording'} out"
        together = "recordings of one artist together" if self.grouped else "without regard to artists"
        return f"{self.folds} folds, {together}"

    @property
    def is_calibrated(self) -> bool:
        """Whether the temperature reduces the calibration error on recordings that it was not fitted to."""
        return self.ece_after < self.ece_before

    def as_dict(self) -> dict[str, Any]:
        """Return all figures, for JSON."""
        return {
            "recordings": self.accuracy.n,
            "protocol": self.protocol,
            "mean_recall": round(self.mean_recall, _DIGITS),
            "mean_recall_interval": _rounded(self.mean_recall_interval),
            "accuracy": _as_dict(self.accuracy),
            "top3": _as_dict(self.top3),
            "recall": {label: _as_dict(share) for label, share in self.recall.items()},
            "confusion": self.confusion.tolist(),
            "calibration": {
                "temperature": self.temperature,
                "ece_before": round(self.ece_before, _DIGITS),
                "ece_after": round(self.ece_after, _DIGITS),
            },
        }


def head_figures(held_out: HeldOut, data: HeadData, labels: Sequence[str], *, grouped: bool) -> HeadFigures:
    """Return the figures of predictions for held-out recordings.

    Args:
        held_out: The predictions.
        data: The recordings.
        labels: Names of the genres.
        grouped: Whether recordings of one artist were held out together.
    """
    genres = data.genres
    shares = np.maximum(held_out.shares, _MIN_SHARE)
    shares /= shares.sum(axis=1, keepdims=True)
    order = np.argsort(-shares, axis=1, kind="stable")
    correct = order[:, 0] == genres
    n_labels = len(labels)
    confusion = np.bincount(genres * n_labels + order[:, 0], minlength=n_labels**2).reshape(n_labels, n_labels)
    return HeadFigures(
        labels=tuple(labels),
        confusion=confusion,
        top3=Share(int((order[:, :3] == genres[:, None]).any(axis=1).sum()), len(genres)),
        mean_recall_interval=_mean_recall_interval(correct, genres),
        temperature=round(fit_temperature(shares, genres), _DIGITS),
        ece_before=expected_calibration_error(shares.max(axis=1), correct),
        ece_after=expected_calibration_error(_calibrated(held_out, shares, genres).max(axis=1), correct),
        folds=len(held_out.folds),
        groups=len(set(data.groups)),
        grouped=grouped,
    )


def report(
    name: str, figures: HeadFigures, left_out: Mapping[str, str], warnings: Sequence[str], *, source: str
) -> str:
    """Return the report as Markdown.

    Args:
        name: Name of the head, for the title.
        figures: Its figures.
        left_out: Reason for each recording that could not be used, by name.
        warnings: Sentences about the data.
        source: What the genres are computed from, such as "the embedding of triplet 1".
    """
    return (
        "\n".join([f"# {name}", "", *_summary(figures, source), "", *_tables(figures), *_remarks(left_out, warnings)])
        + "\n"
    )


def _summary(figures: HeadFigures, source: str) -> Iterator[str]:
    low, high = figures.mean_recall_interval
    yield f"{len(figures.labels)} genres, from {source}."
    yield ""
    yield (
        f"{figures.accuracy.n} recordings of {len(figures.labels)} genres, each predicted by a head that was not "
        f"fitted to it ({figures.protocol}); 95 % intervals in brackets:"
    )
    yield ""
    calibrated = "used" if figures.is_calibrated else "not used, since it does not reduce the error"
    yield from markdown_table(
        ("", ""),
        (
            ("mean recall", f"{figures.mean_recall:.3f} [{low:.3f}, {high:.3f}]"),
            ("accuracy", str(figures.accuracy)),
            ("genre among the first three", str(figures.top3)),
            ("guessing", f"{1 / len(figures.labels):.3f}"),
            ("calibration error of the share, of the confidence", f"{figures.ece_before:.3f}, {figures.ece_after:.3f}"),
            ("temperature", f"{figures.temperature:.2f} ({calibrated})"),
        ),
    )


def _tables(figures: HeadFigures) -> Iterator[str]:
    yield "## Recall by genre"
    yield ""
    yield from markdown_table(("genre", "recall"), ((label, str(share)) for label, share in figures.recall.items()))
    yield ""
    yield "## Confusion matrix"
    yield ""
    rows = zip(figures.labels, figures.confusion.tolist(), strict=True)
    header = ("true \\ predicted", *figures.labels)
    yield from markdown_table(header, ((label, *map(str, row)) for label, row in rows))


def _remarks(left_out: Mapping[str, str], warnings: Sequence[str]) -> Iterator[str]:
    if warnings:
        yield from ("", "## Limitations", "", *(f"- {sentence}" for sentence in warnings))
    if left_out:
        yield from ("", "## Left out", "", *(f"- {name}: {reason}" for name, reason in left_out.items()))


def _calibrated(held_out: HeldOut, shares: NDArray[np.float64], genres: NDArray[np.int_]) -> NDArray[np.float64]:
    """Return the shares of each fold at the temperature that was fitted to the other folds."""
    found = np.empty_like(shares)
    for fold in held_out.folds:
        others = np.setdiff1d(np.arange(len(genres)), fold)
        found[fold] = tempered(shares[fold], fit_temperature(shares[others], genres[others]))
    return found


def _mean_recall_interval(correct: NDArray[np.bool_], genres: NDArray[np.int_]) -> tuple[float, float]:
    """Return the 95 % interval of the mean recall (bootstrap, stratified by genre; Efron 1979)."""
    rng = np.random.default_rng(0)
    recalls = []
    for genre in range(int(genres.max()) + 1):
        own = correct[genres == genre]
        recalls.append(own[rng.integers(len(own), size=(_RESAMPLES, len(own)))].mean(axis=1))
    low, high = np.quantile(np.mean(recalls, axis=0), (0.025, 0.975))
    return float(low), float(high)


def _as_dict(share: Share) -> dict[str, Any]:
    return {"value": round(share.value, _DIGITS), "interval": _rounded(share.interval), "n": share.n}


def _rounded(interval: tuple[float, float]) -> list[float]:
    return [round(bound, _DIGITS) for bound in interval]
