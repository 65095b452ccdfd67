"""Tags and embedding of a track, from the outputs of the network for its windows with sound."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from wholetrack.contracts import (
    Embeddings,
    ModelCard,
    TagCalibrationSpec,
    TagScores,
    TagsSpec,
    WindowTimes,
    unit_length,
)

_UNCALIBRATED = TagCalibrationSpec(slope=1.0, intercept=0.0)
# Probabilities of 0 and 1 have no logit. In float32 the largest below 1 is 1 - 6e-8.
_MIN_PROBABILITY = 1e-7


def track_tags(
    times: WindowTimes, mean: NDArray[np.float64] | None, windows: NDArray[np.float32] | None, card: ModelCard
) -> TagScores:
    """Return the calibrated probabilities of the tags.

    Args:
        times: All windows of the track.
        mean: Mean over the windows with sound of each tag's probability, ``[n_tags]``; None for a silent track.
        windows: Probabilities for the windows with sound, ``[n, n_tags]``; None if they are not needed.
        card: Contents of the ``model.json`` of a model with tags.
    """
    spec = card.outputs.tags
    assert spec
    return TagScores(
        tags=spec.labels,
        unverified=card.unverified,
        parents={tag: parent for tag, parent in card.parents.items() if tag in spec.names},
        track=None if mean is None else calibrated(mean, spec),
        windows=None if windows is None else calibrated(windows.astype(np.float64), spec).astype(np.float32),
        times=times,
    )


def calibrated(probabilities: NDArray[np.float64], spec: TagsSpec) -> NDArray[np.float64]:
    """Apply the calibration of each tag (Platt 1999): ``sigmoid(slope * logit(probability) + intercept)``.

    Args:
        probabilities: ``[..., n_tags]``.
        spec: The tags. Probabilities of those without a calibration do not change.
    """
    specs = [tag.calibration or _UNCALIBRATED for tag in spec.labels]
    bounded = np.clip(probabilities, _MIN_PROBABILITY, 1.0 - _MIN_PROBABILITY)
    logits = np.log(bounded / (1.0 - bounded))
    scaled = logits * [each.slope for each in specs] + [each.intercept for each in specs]
    is_calibrated = np.array([tag.calibration is not None for tag in spec.labels])
    return np.where(is_calibrated, 1.0 / (1.0 + np.exp(-scaled)), probabilities)


def track_embedding(
    times: WindowTimes, mean: NDArray[np.float64] | None, windows: NDArray[np.float32] | None, card: ModelCard
) -> Embeddings:
    """Return the embedding of a track: the mean over its windows with sound, scaled to unit length.

    Args:
        times: All windows of the track.
        mean: Mean of the vectors of the windows with sound, ``[length]``; None for a silent track.
        windows: Vectors of unit length of the windows with sound, ``[n, length]``; None if they are not needed.
        card: Contents of the ``model.json`` of a model with an embedding.
    """
    spec = card.outputs.embedding
    assert spec
    track = None if mean is None else unit_length(mean.astype(np.float32))
    return Embeddings(length=spec.length, track=track, windows=windows, times=times)
