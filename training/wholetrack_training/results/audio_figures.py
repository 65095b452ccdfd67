"""All figures of a judged model, from the outputs of its networks."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter

from wholetrack.aggregation.confidence import tempered
from wholetrack_training.errors import DataError
from wholetrack_training.results.audio_sets import BEYOND, CLIPS, NO_MUSIC, WINDOWS
from wholetrack_training.results.beyond import GROUPS, BeyondFigures, BeyondRecording, genre_ranks, judge_beyond
from wholetrack_training.results.calibration import fit_temperature
from wholetrack_training.results.calibration_error import CalibrationError, calibration_error
from wholetrack_training.results.domain import flattened
from wholetrack_training.results.domain_figures import DomainFigures, domain_figures
from wholetrack_training.results.failures import Failure, failures, worst
from wholetrack_training.results.genre_bias import GenreBias, biased, fit_bias, shares_of
from wholetrack_training.results.intervals import Share
from wholetrack_training.results.judged_files import Judged
from wholetrack_training.results.judging import ClassifiedSet
from wholetrack_training.systems.tag_kinds import KINDS
from wholetrack_training.systems.taxonomy import GTZAN

_MIN_SHARE = 1e-6
_DESCRIBING_TAGS = 4
_DESCRIPTIVE_KINDS = frozenset({"genre", "mood", "instrument", "voice", "not_music"})


@dataclass(frozen=True, slots=True)
class FoldFigures:
    """How many recordings of GTZAN are right, each classified by the network that was trained on none of its artists.

    Attributes:
        right: In GTZAN's taxonomy.
        by_fold: The same for each fold that any of them belongs to.
        all_labels: Among all labels of the model.
        confusion: Number of recordings by true and predicted genre of GTZAN, ``[10, 10]``.
    """

    right: Share
    by_fold: Mapping[int, Share]
    all_labels: Share
    confusion: tuple[tuple[int, ...], ...]


@dataclass(frozen=True, slots=True)
class AudioFigures:
    """The figures of a model.

    Attributes:
        windows: Excerpts of one window.
        clips: Clips by summed score.
        beyond: Recordings beyond GTZAN, with biases fitted to all but the judged one.
        windows_unbiased: Excerpts without biases.
        clips_unbiased: Clips without biases.
        beyond_unbiased: Recordings beyond GTZAN without biases.
        groups: Number of recordings by group and leading label, ``[n_groups, n_labels]``.
        bias: The published bias of each genre; empty for a model without any.
        temperature: The published temperature.
        no_music_confidence: The largest confidence for a sound that is no music.
        calibration: Error of the confidence beyond GTZAN, for all recordings with a right answer.
        domain: How well ``in_domain`` works; None for a model without what it needs.
        failures: The worst answers.
    """

    windows: FoldFigures
    clips: FoldFigures
    beyond: BeyondFigures
    windows_unbiased: FoldFigures
    clips_unbiased: FoldFigures
    beyond_unbiased: BeyondFigures
    groups: Mapping[str, tuple[int, ...]]
    bias: Mapping[str, float]
    temperature: float
    no_music_confidence: float
    calibration: CalibrationError
    domain: DomainFigures | None
    failures: tuple[Failure, ...]


def audio_figures(judged: Judged) -> AudioFigures:
    """Compute all figures of a model."""
    domain = domain_figures(judged)
    if domain and domain.known:
        judged = flattened(judged)
    labels, found = judged.labels, judged.sets[BEYOND]
    bias, none = fit_bias(judged), np.zeros(len(labels))
    windows, clips = judged.sets[WINDOWS], judged.sets[CLIPS]
    of_windows, of_clips, of_beyond = (
        biased(judged.sets[name].logs, bias.of_windows(judged, name)) for name in (WINDOWS, CLIPS, BEYOND)
    )
    clip_shares, shares = shares_of(of_clips, clips), shares_of(of_beyond, found)
    confidence = Confidence.fitted(judged, clip_shares, shares)
    ranks = genre_ranks(found.groups, shares, labels)
    has_genre = ranks >= 0
    return AudioFigures(
        windows=_fold_figures(judged, windows, of_windows),
        clips=_fold_figures(judged, clips, of_clips),
        beyond=_beyond(found, of_beyond, labels),
        windows_unbiased=_fold_figures(judged, windows, biased(windows.logs, none)),
        clips_unbiased=_fold_figures(judged, clips, biased(clips.logs, none)),
        beyond_unbiased=_beyond(found, biased(found.logs, none), labels),
        groups=_by_group(found, shares, labels),
        bias=bias.by_genre(labels),
        temperature=confidence.temperature,
        no_music_confidence=_largest_confidence(judged, bias, confidence.temperature),
        calibration=calibration_error(confidence.beyond[has_genre], ranks[has_genre] == 0),
        domain=domain,
        failures=tuple(worst(_failures(judged, clip_shares, shares, confidence))),
    )


def read_figures(path: Path) -> AudioFigures:
    """Return the figures in a record.

    Args:
        path: The JSON file.

    Raises:
        DataError: If it is missing or damaged.
    """
    try:
        return TypeAdapter(AudioFigures).validate_python(json.loads(path.read_text())["figures"])
    except (OSError, ValueError, KeyError) as error:
        raise DataError(f"{path} is not a record of a judged model: {error}") from error


def as_document(figures: AudioFigures) -> dict[str, Any]:
    """Return the figures for JSON: shares with their intervals, numbers to four decimals."""
    document = _plain(figures)
    assert isinstance(document, dict)
    return document


@dataclass(frozen=True, slots=True)
class Confidence:
    """Confidences at temperatures that were fitted to other recordings.

    Attributes:
        temperature: Fitted to all recordings.
        clips: Confidence of each clip, at the temperature fitted to the other folds and the recordings beyond GTZAN.
        beyond: Confidence of each recording beyond GTZAN, at the temperature fitted to all others.
    """

    temperature: float
    clips: NDArray[np.float64]
    beyond: NDArray[np.float64]

    @classmethod
    def fitted(cls, judged: Judged, clip_shares: NDArray[np.float64], shares: NDArray[np.float64]) -> Confidence:
        """Fit temperatures to clips by fold and to recordings beyond GTZAN.

        Args:
            judged: The outputs.
            clip_shares: Share of each label for each clip.
            shares: Share of each label for each recording beyond GTZAN.
        """
        clips, found, labels = judged.sets[CLIPS], judged.sets[BEYOND], judged.labels
        genres = [GROUPS.get(group) for group in found.groups]
        rows = np.array([i for i, genre in enumerate(genres) if genre in labels])
        truth = np.array([labels.index(str(genres[i])) for i in rows])
        clip_truth = np.array([labels.index(group) for group in clips.groups])
        everything = np.concatenate((clip_shares, shares[rows]))
        all_truth = np.concatenate((clip_truth, truth))

        def without(excluded: NDArray[np.bool_]) -> float:
            return fit_temperature(_bounded(everything[~excluded]), all_truth[~excluded])

        of_clips = np.zeros(len(clips))
        for fold in np.unique(clips.folds):
            own = clips.folds == fold
            temperature = without(np.concatenate((own, np.zeros(len(rows), dtype=np.bool_))))
            of_clips[own] = tempered(_bounded(clip_shares[own]), temperature).max(axis=1)
        overall = without(np.zeros(len(everything), dtype=np.bool_))
        of_beyond = tempered(_bounded(shares), overall).max(axis=1)
        for position, row in enumerate(rows):
            excluded = np.zeros(len(everything), dtype=np.bool_)
            excluded[len(clips) + position] = True
            of_beyond[row] = tempered(_bounded(shares[row : row + 1]), without(excluded)).max()
        return cls(round(overall, 4), of_clips, of_beyond)


def _fold_figures(judged: Judged, found: ClassifiedSet, probabilities: NDArray[np.float64]) -> FoldFigures:
    truth = np.array([GTZAN.index(group) for group in found.groups])
    predicted = _gtzan_shares(probabilities, found, judged.labels).argmax(axis=1)
    confusion = np.zeros((len(GTZAN), len(GTZAN)), dtype=np.int_)
    np.add.at(confusion, (truth, predicted), 1)
    right = predicted == truth
    leading = shares_of(probabilities, found).argmax(axis=1)
    of_all = [judged.labels[i] == group for i, group in zip(leading, found.groups, strict=True)]
    return FoldFigures(
        right=Share(int(right.sum()), len(right)),
        by_fold={
            int(k): Share(int(right[found.folds == k].sum()), int((found.folds == k).sum()))
            for k in np.unique(found.folds)
        },
        all_labels=Share(sum(of_all), len(of_all)),
        confusion=tuple(tuple(row) for row in confusion.tolist()),
    )


def _gtzan_shares(
    probabilities: NDArray[np.float64], found: ClassifiedSet, labels: Sequence[str]
) -> NDArray[np.float64]:
    """Return the share of each of GTZAN's genres, folded for each window as the service does, ``[n, 10]``."""
    ten = probabilities[:, [labels.index(genre) for genre in GTZAN]]
    return shares_of(ten / ten.sum(axis=1, keepdims=True), found)


def _beyond(found: ClassifiedSet, probabilities: NDArray[np.float64], labels: Sequence[str]) -> BeyondFigures:
    recordings = [
        BeyondRecording(name, group, genre if (genre := GROUPS.get(group)) in GTZAN else None, bool(agreed))
        for name, group, agreed in zip(found.names, found.groups, found.agreed, strict=True)
    ]
    shares = shares_of(probabilities, found)
    return judge_beyond(recordings, shares, labels, gtzan_shares=_gtzan_shares(probabilities, found, labels))


def _by_group(found: ClassifiedSet, shares: NDArray[np.float64], labels: Sequence[str]) -> dict[str, tuple[int, ...]]:
    leading, groups = shares.argmax(axis=1), np.array(found.groups)
    return {
        group: tuple(np.bincount(leading[groups == group], minlength=len(labels)).tolist())
        for group in sorted(set(found.groups))
    }


def _largest_confidence(judged: Judged, bias: GenreBias, temperature: float) -> float:
    sounds = judged.sets[NO_MUSIC]
    shares = shares_of(biased(sounds.logs, bias.published), sounds)
    return float(tempered(_bounded(shares), temperature).max())


def _failures(
    judged: Judged, clip_shares: NDArray[np.float64], shares: NDArray[np.float64], confidence: Confidence
) -> list[Failure]:
    clips, found = judged.sets[CLIPS], judged.sets[BEYOND]
    right = [GROUPS.get(group) for group in found.groups]
    return [
        *failures(
            clips.names, clips.groups, clip_shares, confidence.clips, judged.labels, tags=_strongest_tags(judged, clips)
        ),
        *failures(found.names, right, shares, confidence.beyond, judged.labels, tags=_strongest_tags(judged, found)),
    ]


def _strongest_tags(judged: Judged, found: ClassifiedSet) -> list[list[str]]:
    """Return the most probable tags of each recording, without those that hold for nearly all music."""
    named = [i for i, tag in enumerate(judged.tags) if KINDS.get(tag) in _DESCRIPTIVE_KINDS]
    order = np.argsort(-found.tags[:, named], axis=1, kind="stable")[:, :_DESCRIBING_TAGS]
    return [[judged.tags[named[i]] for i in row] for row in order]


def _bounded(shares: NDArray[np.float64]) -> NDArray[np.float64]:
    # Without a minimum no temperature could raise a share of zero.
    bounded = np.maximum(shares, _MIN_SHARE)
    return np.asarray(bounded / bounded.sum(axis=1, keepdims=True))


def _plain(value: Any) -> Any:  # noqa: ANN401 - any part of the figures
    if isinstance(value, Share):
        low, high = value.interval
        return {
            "right": value.right,
            "n": value.n,
            "share": _plain(value.value),
            "interval": [_plain(low), _plain(high)],
        }
    if isinstance(value, float):
        return round(value, 4)
    if isinstance(value, Mapping):
        return {name: _plain(part) for name, part in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(part) for part in value]
    if hasattr(value, "__dataclass_fields__"):
        return {name: _plain(getattr(value, name)) for name in value.__dataclass_fields__}
    return value
