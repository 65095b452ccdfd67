"""Evaluation of a network on tracks that it was not trained on: per window, per track, per genre, and calibration."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wholetrack.aggregation.confidence import mean_peak
from wholetrack.aggregation.ranking import majority_vote, summed_score
from wholetrack.contracts import AudioSpec, FeatureSpec, WindowScores, WindowSpec
from wholetrack_training.data.tracks import TrackSet
from wholetrack_training.data.windows import cut_windows

Classify = Callable[[NDArray[np.float32]], NDArray[np.float32]]
"""Maps normalised windows ``[N, frames, n_mels]`` to probabilities ``[N, n_labels]`` or ``[N, steps, n_labels]``."""

_CALIBRATION_BINS = 10


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Figures of one network on one set of tracks; all but the counts and the loss are in [0, 1].

    Attributes:
        n_tracks: Number of tracks.
        n_windows: Number of windows; a step of a network that classifies every step counts as a window.
        window_accuracy: Share of the windows that are classified correctly.
        window_macro_f1: Unweighted mean over the genres of the F1 score of the windows.
        track_accuracy_summed: Share of the tracks that are classified correctly by summed score.
        track_accuracy_voted: The same by majority vote.
        track_macro_f1_summed: Unweighted mean over the genres of the F1 score of the tracks by summed score.
        track_macro_f1_voted: The same by majority vote.
        top2: Share of the tracks whose genre is among the first two by summed score.
        top3: Share of the tracks whose genre is among the first three.
        ece: Expected calibration error of the leading share of each track (Guo et al. 2017), ten bins.
        window_loss: Mean negative log-probability of the true genre over all windows.
        confusion: Number of tracks by true (row) and predicted (column) genre, by summed score.
        truth: True genre of every track, as an index.
        shares: Share of each genre in the summed score of every track, to four decimals, ``[n_tracks][n_labels]``.
        peaks: Mean of the highest probability of each window of every track, to four decimals.
    """

    n_tracks: int
    n_windows: int
    window_accuracy: float
    window_macro_f1: float
    track_accuracy_summed: float
    track_accuracy_voted: float
    track_macro_f1_summed: float
    track_macro_f1_voted: float
    top2: float
    top3: float
    ece: float
    window_loss: float
    confusion: tuple[tuple[int, ...], ...]
    truth: tuple[int, ...]
    shares: tuple[tuple[float, ...], ...]
    peaks: tuple[float, ...]

    def as_dict(self) -> dict[str, Any]:
        """Return all figures by name, for JSON."""
        return asdict(self)


def evaluate(
    tracks: TrackSet, classify: Classify, *, features: FeatureSpec, windows: WindowSpec, audio: AudioSpec
) -> Evaluation:
    """Classify all windows of all tracks and compute the figures."""
    outputs = [classify(cut_windows(track, features, windows, audio)) for track in tracks.tracks]
    probabilities = [output.reshape(-1, output.shape[-1]) for output in outputs]
    return evaluate_scores(probabilities, [track.genre for track in tracks.tracks], tracks.labels)


def evaluate_scores(
    probabilities: Sequence[NDArray[np.float32]], truth: Sequence[int], labels: Sequence[str]
) -> Evaluation:
    """Compute the figures from the probabilities of windows.

    Args:
        probabilities: Probabilities of each track's windows, ``[n_windows, n_labels]``.
        truth: Genre of each track, as an index into ``labels``.
        labels: Genres in label order.
    """
    n_labels = len(labels)
    summed, voted, confidences, ranks, shares = [], [], [], [], []
    for scores, genre in zip(probabilities, truth, strict=True):
        track = WindowScores(np.zeros(len(scores)), scores, np.zeros(len(scores), dtype=np.bool_))
        by_sum = summed_score(track, labels)
        summed.append(labels.index(by_sum.ranked[0].genre))
        voted.append(labels.index(majority_vote(track, labels).ranked[0].genre))
        confidences.append(by_sum.share)
        share_of = {entry.genre: round(entry.share, 4) for entry in by_sum.ranked}
        shares.append(tuple(share_of[label] for label in labels))
        ranks.append([entry.genre for entry in by_sum.ranked].index(labels[genre]))
    genres = np.array(truth)
    window_truth = np.repeat(genres, [len(scores) for scores in probabilities])
    stacked = np.concatenate(probabilities)
    window_confusion = _confusion(window_truth, stacked.argmax(axis=1), n_labels)
    by_sum_confusion = _confusion(genres, np.array(summed), n_labels)
    by_vote_confusion = _confusion(genres, np.array(voted), n_labels)
    correct = np.array(summed) == genres
    of_truth = stacked[np.arange(len(stacked)), window_truth]
    return Evaluation(
        n_tracks=len(genres),
        n_windows=len(stacked),
        window_accuracy=_accuracy(window_confusion),
        window_macro_f1=_macro_f1(window_confusion),
        track_accuracy_summed=_accuracy(by_sum_confusion),
        track_accuracy_voted=_accuracy(by_vote_confusion),
        track_macro_f1_summed=_macro_f1(by_sum_confusion),
        track_macro_f1_voted=_macro_f1(by_vote_confusion),
        top2=float(np.mean(np.array(ranks) < 2)),
        top3=float(np.mean(np.array(ranks) < 3)),
        ece=expected_calibration_error(np.array(confidences), correct),
        window_loss=float(-np.log(np.maximum(of_truth, 1e-9)).mean()),
        confusion=tuple(tuple(row) for row in by_sum_confusion.tolist()),
        truth=tuple(truth),
        shares=tuple(shares),
        peaks=tuple(round(mean_peak(scores), 4) for scores in probabilities),
    )


def expected_calibration_error(confidence: NDArray[np.float64], correct: NDArray[np.bool_]) -> float:
    """Return the mean gap between confidence and accuracy over bins of equal width, weighted by the number of tracks.

    Args:
        confidence: Confidence of each track in [0, 1], ``[n_tracks]``.
        correct: Whether each track is classified correctly, ``[n_tracks]``.
    """
    bins = np.minimum((confidence * _CALIBRATION_BINS).astype(int), _CALIBRATION_BINS - 1)
    gaps = [
        np.count_nonzero(bins == b) * abs(confidence[bins == b].mean() - correct[bins == b].mean())
        for b in np.unique(bins)
    ]
    return float(sum(gaps) / len(confidence))


def _confusion(truth: NDArray[np.int_], predicted: NDArray[np.int_], n_labels: int) -> NDArray[np.int_]:
    return np.bincount(truth * n_labels + predicted, minlength=n_labels**2).reshape(n_labels, n_labels)


def _accuracy(confusion: NDArray[np.int_]) -> float:
    return float(np.trace(confusion) / confusion.sum())


def _macro_f1(confusion: NDArray[np.int_]) -> float:
    """Return the unweighted mean of F1 over the genres that occur as true or predicted genre."""
    hits = np.diag(confusion)
    occurrences = confusion.sum(axis=0) + confusion.sum(axis=1)
    present = occurrences > 0
    return float(np.mean(2 * hits[present] / occurrences[present]))
