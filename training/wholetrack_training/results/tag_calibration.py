"""Platt scaling of the tags that name a genre with enough labelled recordings.

The recordings are GTZAN's excerpts and clips, each classified by the network that was trained on none of its artists,
and those beyond GTZAN. There are no labels for the other tags: moods, instruments and voices.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression

from wholetrack.contracts import TagCalibrationSpec
from wholetrack_training.results.audio_sets import BEYOND, CLIPS, WINDOWS
from wholetrack_training.results.beyond import GROUPS
from wholetrack_training.results.judged_files import Judged
from wholetrack_training.systems.taxonomy import AUDIOSET, GENRES

_MIN_RECORDINGS = 10
_PARTS = 5
_MIN_PROBABILITY = 1e-6
_SEED = 20_261_127


@dataclass(frozen=True, slots=True)
class CalibratedTags:
    """Calibrations, and what they are worth.

    Attributes:
        specs: Calibration by tag.
        figures: For each of these tags the number of recordings it applies to, and the mean squared error of its
            probability (Brier) before and after, the latter with recordings held out.
    """

    specs: Mapping[str, TagCalibrationSpec]
    figures: Mapping[str, Mapping[str, Any]]


def calibrate_tags(judged: Judged) -> CalibratedTags:
    """Calibrate the first tag of each genre that has at least ten labelled recordings.

    A calibration is used only if the tag ranks recordings of its genre above others.
    """
    probabilities, genres = _labelled(judged)
    specs, figures = {}, {}
    for genre in GENRES:
        tag = AUDIOSET[genre][0]
        applies = genres == genre
        if tag not in judged.tags or applies.sum() < _MIN_RECORDINGS:
            continue
        column = probabilities[:, judged.tags.index(tag)]
        spec = _fitted(column, applies)
        if spec is None:
            continue
        specs[tag] = spec
        figures[tag] = {
            "recordings": int(applies.sum()),
            "brier_before": round(float(np.mean((column - applies) ** 2)), 4),
            "brier_after": round(float(np.mean((_held_out(column, applies) - applies) ** 2)), 4),
        }
    return CalibratedTags(specs, figures)


def _labelled(judged: Judged) -> tuple[NDArray[np.float64], NDArray[np.str_]]:
    """Return the probabilities of the tags and the genre of each labelled recording."""
    rows, genres = [], []
    for name in (WINDOWS, CLIPS, BEYOND):
        found = judged.sets[name]
        of_set = [GROUPS.get(group, "") if name == BEYOND else group for group in found.groups]
        kept = [i for i, genre in enumerate(of_set) if genre]
        rows.append(found.tags[kept].astype(np.float64))
        genres += [of_set[i] for i in kept]
    return np.concatenate(rows), np.array(genres)


def _fitted(probabilities: NDArray[np.float64], applies: NDArray[np.bool_]) -> TagCalibrationSpec | None:
    regression = LogisticRegression(C=1e3, max_iter=1000).fit(_logit(probabilities)[:, None], applies)
    slope, intercept = float(regression.coef_[0, 0]), float(regression.intercept_[0])
    if slope <= 0:
        return None
    return TagCalibrationSpec(slope=round(slope, 4), intercept=round(intercept, 4))


def _held_out(probabilities: NDArray[np.float64], applies: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return each recording's probability with the calibration fitted to four fifths without it."""
    parts = np.random.default_rng(_SEED).permutation(len(applies)) % _PARTS
    found = probabilities.copy()
    for part in range(_PARTS):
        own = parts == part
        if spec := _fitted(probabilities[~own], applies[~own]):
            found[own] = 1.0 / (1.0 + np.exp(-(spec.slope * _logit(probabilities[own]) + spec.intercept)))
    return found


def _logit(probabilities: NDArray[np.float64]) -> NDArray[np.float64]:
    bounded = np.clip(probabilities, _MIN_PROBABILITY, 1.0 - _MIN_PROBABILITY)
    return np.asarray(np.log(bounded / (1.0 - bounded)))
