"""How good a network is on tracks it never saw: per window, per track, per genre, and whether it knows itself."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wholetrack.aggregation.confidence import mean_peak
from wholetrack.aggregation.ranking import majority_vote, summed_score
from wholetrack.contracts import AudioSpec, FeatureSpec, WindowScores, WindowSpec
from wholetrack.features.normalise import normalise
from wholetrack_training.data.grid import window_at, window_starts
from wholetrack_training.data.tracks import Track, TrackSet

Classify = Callable[[NDArray[np.float32]], NDArray[np.float32]]
"""Normalised windows ``[N, frames, n_mels]`` to probabilities ``[N, n_labels]`` or ``[N, steps, n_labels]``."""

_CALIBRATION_BINS = 10


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Figures of one network on one set of tracks; all in [0, 1] but the counts.

    Attributes:
        confusion: tracks by true (row) and predicted (column) genre, by summed score.
        ece: expected calibration error of the track's leading share (Guo et al. 2017), ten bins.
        truth: the true genre of every track.
        shares: every track's share of each genre in the summed score, to four decimals.
        peaks: the mean of the highest probabilities of every track's windows, to four decimals.
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
        """All figures by name, for JSON."""
        return asdict(self)


def cut_windows(track: Track, features: FeatureSpec, windows: WindowSpec, audio: AudioSpec) -> NDArray[np.float32]:
    """The normalised windows of one track on the serving grid, ``[n_windows, frames, n_mels]``."""
    starts = window_starts(len(track.frames), features, windows, audio)
    cut = np.stack([window_at(track.frames, start, windows.frames) for start in starts])
    return normalise(cut, features.normalisation)


def evaluate(
    tracks: TrackSet, classify: Classify, *, features: FeatureSpec, windows: WindowSpec, audio: AudioSpec
) -> Evaluation:
    """Classify all windows of all tracks and count; a step with a belief of its own counts as a window."""
    answers = [classify(cut_windows(track, features, windows, audio)) for track in tracks.tracks]
    probabilities = [answer.reshape(-1, answer.shape[-1]) for answer in answers]
    return evaluate_scores(probabilities, [track.genre for track in tracks.tracks], tracks.labels)


def evaluate_scores(
    probabilities: Sequence[NDArray[np.float32]], truth: Sequence[int], labels: Sequence[str]
) -> Evaluation:
    """Count, given the probabilities of each track's windows and each track's genre."""
    n_labels = len(labels)
    summed, voted, confidences, ranks, shares = [], [], [], [], []
    for scores, genre in zip(probabilities, truth, strict=True):
        heard = WindowScores(np.zeros(len(scores)), scores, np.zeros(len(scores), dtype=np.bool_))
        by_sum = summed_score(heard, labels)
        summed.append(labels.index(by_sum.ranked[0].genre))
        voted.append(labels.index(majority_vote(heard, labels).ranked[0].genre))
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
    """Mean distance between confidence and accuracy over bins of equal width, weighted by their tracks."""
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
    """Unweighted mean over the genres that occur, as true or as predicted."""
    hits = np.diag(confusion)
    occurrences = confusion.sum(axis=0) + confusion.sum(axis=1)
    present = occurrences > 0
    return float(np.mean(2 * hits[present] / occurrences[present]))
