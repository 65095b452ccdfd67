"""Comparing the service's prediction of a recording with that of the reference implementation."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from wholetrack.aggregation.window_scores import window_scores
from wholetrack.cli.reference import decode, reference_windows
from wholetrack.errors import ErrorKind, ServiceError
from wholetrack.pipeline import Pipeline

_TOLERANCE = 0.005


@dataclass(frozen=True, slots=True)
class Comparison:
    """How much the service's prediction differs from that of the reference implementation.

    Attributes:
        n_windows: Number of windows compared, without the silent ones.
        features: Largest difference of a normalised feature, where 1 is the whole range.
        probabilities: Largest difference of a probability.
        genres: Genres by summed probability, service first; None if the service finds the whole track silent.
        seconds: Wall-clock times in seconds, service first.
    """

    n_windows: int
    features: float
    probabilities: float
    genres: tuple[str | None, str]
    seconds: tuple[float, float]

    @property
    def agrees(self) -> bool:
        """Whether at least one window was compared, and no probability differs by more than 0.005."""
        return self.n_windows > 0 and self.probabilities <= _TOLERANCE

    def text(self) -> str:
        """Return the comparison as text."""
        return "\n".join(
            (
                f"windows compared                     {self.n_windows}",
                f"largest difference of a feature      {self.features:.6f}",
                f"largest difference of a probability  {self.probabilities:.6f} (allowed: {_TOLERANCE})",
                f"genre by the service                 {self.genres[0]} ({self.seconds[0]:.2f} s)",
                f"genre by the reference               {self.genres[1]} ({self.seconds[1]:.2f} s)",
                self._verdict(),
            )
        )

    def _verdict(self) -> str:
        if self.n_windows == 0:
            return "nothing to compare: every window is silent"
        return f"the service and the reference {'agree' if self.agrees else 'DISAGREE'}"


def compare(
    pipeline: Pipeline, path: Path, *, model: str | None, max_duration_s: float, temp_dir: Path | None = None
) -> Comparison:
    """Predict a recording with the service and with the reference implementation.

    Args:
        pipeline: Pipeline of the service; the reference implementation uses its network and its ffmpeg.
        path: The recording.
        model: Name of a served model; None for the default.
        max_duration_s: A longer recording is rejected.
        temp_dir: Folder for the decoded recording; None for that of the system.

    Raises:
        OSError: If the recording cannot be read, or the folder cannot be written.
        ServiceError: If the service cannot predict the recording, or divides it into a different number of windows.
    """
    began = time.monotonic()
    prediction = pipeline.predict(path, model=model, max_duration_s=max_duration_s)
    service_s = time.monotonic() - began
    features = pipeline.normalised_windows(path, model=model, max_duration_s=max_duration_s)

    began = time.monotonic()
    served, card = pipeline.model(model), prediction.card
    samples = decode(path, pipeline.decoder.ffmpeg.path, sample_rate=card.audio.sample_rate, temp_dir=temp_dir)
    starts, reference = reference_windows(samples, card)
    classifier = served.engine.classifiers[0]
    runs = (served.outputs_of(classifier.run(reference[i : i + 1])) for i in range(len(reference)))
    outputs = np.concatenate([run.arrays[0] for run in runs])
    expected = window_scores(starts, outputs, np.zeros(len(outputs), dtype=np.bool_), card)
    reference_s = time.monotonic() - began

    if abs(len(features) - len(reference)) > 1:
        raise ServiceError(
            ErrorKind.INTERNAL_ERROR,
            f"The service found {len(features)} windows, the reference implementation {len(reference)}.",
        )
    # Decoders may disagree by one packet about the end of a lossy file. The last windows are then not comparable.
    same_length = round(prediction.duration_s * card.audio.sample_rate) == len(samples)
    n_windows = min(len(features), len(reference)) - (not same_length)
    found = prediction.windows
    # A model with several steps per window has more scores than windows.
    n_scores = int(np.sum(found.start_s[: len(expected.start_s)] == expected.start_s[: len(found.start_s)]))
    audible = ~found.silent[:n_scores]
    differences = found.probabilities[:n_scores] - expected.probabilities[:n_scores]
    summed = expected.probabilities.sum(axis=0, dtype=np.float64)
    return Comparison(
        n_windows=int(audible.sum()),
        features=max(
            _largest(ours[:n_windows] - theirs[:n_windows])
            for ours, theirs in zip(features.arrays, reference.arrays, strict=True)
        ),
        probabilities=_largest(differences[audible]),
        genres=(prediction.summed_score.genre, card.labels[int(summed.argmax())]),
        seconds=(service_s, reference_s),
    )


def _largest(differences: NDArray[np.float32]) -> float:
    return float(np.abs(differences).max(initial=0.0))
