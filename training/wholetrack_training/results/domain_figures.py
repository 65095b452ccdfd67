"""How often a model takes music of an unknown genre, or no music at all, for a genre that it knows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wholetrack_training.export.two_towers import KNOWN_GENRE, KnownGenre
from wholetrack_training.results.audio_sets import BEYOND, CLIPS, FREE, NO_MUSIC
from wholetrack_training.results.beyond import GROUPS
from wholetrack_training.results.domain import (
    NOTHING_LEFT_OUT,
    choose_threshold,
    domain_fold,
    fit_domain,
    fits_by_fold,
    known_probability,
    own_labels,
)
from wholetrack_training.results.intervals import Share
from wholetrack_training.results.judged_files import Judged
from wholetrack_training.results.judging import ClassifiedSet

_Score = Callable[[ClassifiedSet, NDArray[np.int_] | None], NDArray[np.float64]]


@dataclass(frozen=True, slots=True)
class DomainFigures:
    """How many recordings are in domain.

    Attributes:
        known: Weights of the regression; None for a model that goes by its largest probabilities.
        threshold: The published threshold.
        clips: Held-out clips of GTZAN.
        clips_left_out: The same without the label of their genre.
        beyond: Recordings beyond GTZAN whose genre is among the labels.
        beyond_left_out: The same without that label.
        beyond_unlabelled: Recordings beyond GTZAN whose genre is not among the labels.
        free_music: Free music of any genre; None if none was classified.
        no_music: Sounds that are no music.
        by_kind: The same by kind of sound.
        precision: Of the recordings that are in domain, counting each clip and each recording beyond GTZAN once with
            the label of its genre and once without, those that have it.
    """

    known: KnownGenre | None
    threshold: float
    clips: Share
    clips_left_out: Share
    beyond: Share
    beyond_left_out: Share
    beyond_unlabelled: Share | None
    free_music: Share | None
    no_music: Share
    by_kind: dict[str, Share]
    precision: Share


def domain_figures(judged: Judged) -> DomainFigures | None:
    """Return the figures of a model; None if it has neither the tag that is needed nor a threshold.

    Figures of recordings that a regression is fitted to come from one that was fitted to other folds.
    """
    if KNOWN_GENRE in judged.window_tags:
        return _of_regression(judged)
    return None if judged.least_peak is None else _of_peaks(judged, judged.least_peak)


def _of_regression(judged: Judged) -> DomainFigures:
    fit, by_fold = fit_domain(judged), fits_by_fold(judged)

    def held_out(found: ClassifiedSet, left_out: NDArray[np.int_] | None) -> NDArray[np.float64]:
        folds = domain_fold(found)
        of_fold = {k: known_probability(found, judged, each, left_out=left_out) for k, each in by_fold.items()}
        return np.array([of_fold[int(fold)][i] for i, fold in enumerate(folds)])

    def published(found: ClassifiedSet, left_out: NDArray[np.int_] | None) -> NDArray[np.float64]:
        return known_probability(found, judged, fit, left_out=left_out)

    threshold = choose_threshold(held_out(judged.sets[CLIPS], None))
    return _figures(judged, held_out, published, threshold, fit)


def _of_peaks(judged: Judged, least_peak: float) -> DomainFigures:
    def mean_peak(found: ClassifiedSet, left_out: NDArray[np.int_] | None) -> NDArray[np.float64]:
        probabilities = np.exp(found.logs.astype(np.float64))
        if left_out is not None:
            of_window = left_out[found.owner]
            rows = np.flatnonzero(of_window != NOTHING_LEFT_OUT)
            probabilities[rows, of_window[rows]] = 0.0
            probabilities /= probabilities.sum(axis=1, keepdims=True)
        peaks = np.bincount(found.owner, weights=probabilities.max(axis=1), minlength=len(found))
        return np.asarray(peaks / np.maximum(found.n_windows, 1))

    return _figures(judged, mean_peak, mean_peak, least_peak, None)


def _figures(
    judged: Judged, held_out: _Score, published: _Score, threshold: float, fit: KnownGenre | None
) -> DomainFigures:
    clips, beyond, no_music = judged.sets[CLIPS], judged.sets[BEYOND], judged.sets[NO_MUSIC]
    own = _genre_labels(beyond, judged.labels)
    labelled = own != NOTHING_LEFT_OUT
    of_clips = held_out(clips, None) >= threshold
    of_clips_left_out = held_out(clips, own_labels(clips, judged.labels)) >= threshold
    of_beyond, of_beyond_left_out = published(beyond, None) >= threshold, published(beyond, own) >= threshold
    of_noise, kinds = held_out(no_music, None) >= threshold, np.array(no_music.groups)
    right = int(of_clips.sum() + of_beyond[labelled].sum())
    wrong = int(of_clips_left_out.sum() + of_beyond_left_out[labelled].sum())
    return DomainFigures(
        known=fit,
        threshold=threshold,
        clips=_share(of_clips),
        clips_left_out=_share(of_clips_left_out),
        beyond=_share(of_beyond[labelled]),
        beyond_left_out=_share(of_beyond_left_out[labelled]),
        beyond_unlabelled=_share(of_beyond[~labelled]) if (~labelled).any() else None,
        free_music=_share(published(judged.sets[FREE], None) >= threshold) if FREE in judged.sets else None,
        no_music=_share(of_noise),
        by_kind={kind: _share(of_noise[kinds == kind]) for kind in dict.fromkeys(no_music.groups)},
        precision=Share(right, max(right + wrong, 1)),
    )


def _genre_labels(found: ClassifiedSet, labels: Sequence[str]) -> NDArray[np.int_]:
    genres = [GROUPS.get(group) for group in found.groups]
    return np.array([labels.index(genre) if genre in labels else NOTHING_LEFT_OUT for genre in genres])


def _share(accepted: NDArray[np.bool_]) -> Share:
    return Share(int(accepted.sum()), len(accepted))
