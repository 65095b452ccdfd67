"""The same recording answered a second time by the reference road, with other people's code at every step.

ffmpeg decodes whole and unfiltered, pydub reads it, librosa mixes, resamples and computes the features of every window
by itself, and the network hears one window at a time: the way of the four published systems, eight times as slow, and
what the fast road is held against. Only the positions of windows and frames are the model's own.
"""

from __future__ import annotations

import subprocess
import tempfile
import time
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import assert_never

import numpy as np
from numpy.typing import NDArray

from wholetrack.aggregation.window_scores import window_scores
from wholetrack.contracts import FeatureSpec, MinMax, ModelCard, RelativeToMax, Unchanged
from wholetrack.errors import ErrorKind, ServiceError, StartupError
from wholetrack.features.grid import FrameGrid, WindowGrid
from wholetrack.pipeline import Pipeline

_TOLERANCE = 0.005


@dataclass(frozen=True, slots=True)
class Comparison:
    """How far the service's answer is from the reference's.

    Attributes:
        n_windows: compared.
        features: largest difference of a normalised feature, where 1 is the whole range.
        probabilities: largest difference of a probability.
        genres: what the summed probabilities name, service first; None if the service heard silence.
        seconds: wall time of each, service first.
    """

    n_windows: int
    features: float
    probabilities: float
    genres: tuple[str | None, str]
    seconds: tuple[float, float]

    @property
    def agrees(self) -> bool:
        """Whether there was something to compare, and no probability differs by more than 0.005."""
        return self.n_windows > 0 and self.probabilities <= _TOLERANCE

    def text(self) -> str:
        """The comparison in words."""
        return "\n".join(
            (
                f"windows compared                    {self.n_windows}",
                f"largest difference of a feature     {self.features:.6f}",
                f"largest difference of a probability {self.probabilities:.6f} (allowed {_TOLERANCE})",
                f"genre by the service                {self.genres[0]} ({self.seconds[0]:.2f} s)",
                f"genre by the reference              {self.genres[1]} ({self.seconds[1]:.2f} s)",
                self._verdict(),
            )
        )

    def _verdict(self) -> str:
        if self.n_windows == 0:
            return "nothing to compare: every window is silent"
        return f"the fast road and the reference {'agree' if self.agrees else 'DISAGREE'}"


def compare(pipeline: Pipeline, path: Path, *, model: str | None, max_duration_s: float) -> Comparison:
    """Answer a recording on both roads.

    Raises:
        ServiceError: if the service cannot answer it, or hears another number of windows.
        StartupError: if pydub or librosa is not installed.
    """
    began = time.monotonic()
    found = pipeline.predict(path, model=model, max_duration_s=max_duration_s)
    service_s = time.monotonic() - began
    features = pipeline.normalised_windows(path, model=model, max_duration_s=max_duration_s)

    began = time.monotonic()
    served, card = pipeline.model(model), found.card
    samples = _decode(path, pipeline, sample_rate=card.audio.sample_rate)
    reference_starts, reference = _windows(samples, card)
    classifier = served.engine.classifiers[0]
    answers = np.concatenate([classifier.run(window[None]) for window in reference])
    expected = window_scores(reference_starts, answers, np.zeros(len(answers), dtype=np.bool_), card)
    reference_s = time.monotonic() - began

    if abs(len(features) - len(reference)) > 1:
        raise ServiceError(
            ErrorKind.INTERNAL_ERROR, f"The service heard {len(features)} windows, the reference {len(reference)}."
        )
    # Two decoders may disagree by a packet about the end of a lossy file, and with it about the last window.
    n_windows = min(len(features), len(reference)) - (round(found.duration_s * card.audio.sample_rate) != len(samples))
    starts = found.windows.start_s
    n_answers = int(np.sum(starts[: len(expected.start_s)] == expected.start_s[: len(starts)]))
    heard = ~found.windows.silent[:n_answers]
    off = found.windows.probabilities[:n_answers] - expected.probabilities[:n_answers]
    summed = expected.probabilities.sum(axis=0, dtype=np.float64)
    return Comparison(
        n_windows=int(heard.sum()),
        features=_largest(features[:n_windows] - reference[:n_windows]),
        probabilities=_largest(off[heard]),
        genres=(found.summed_score.genre, card.labels[int(summed.argmax())]),
        seconds=(service_s, reference_s),
    )


def _decode(path: Path, pipeline: Pipeline, *, sample_rate: int) -> NDArray[np.float32]:
    try:
        import librosa

        with warnings.catch_warnings():
            # It looks for ffmpeg on PATH before it can be told of ours.
            warnings.simplefilter("ignore", RuntimeWarning)
            from pydub import AudioSegment
    except ImportError as error:
        raise StartupError("the reference road needs pydub and librosa: install the extra 'verify'") from error
    with tempfile.TemporaryDirectory() as folder:
        # pydub's own call of ffmpeg rounds to 16 bits, which is most of what is left at the end of a fade-out.
        exact = Path(folder) / "exact.wav"
        ffmpeg = [str(pipeline.decoder.ffmpeg.path), "-v", "error", "-nostdin"]
        subprocess.run([*ffmpeg, "-i", str(path), "-map", "0:a:0", "-c:a", "pcm_s32le", str(exact)], check=True)
        with exact.open("rb") as file:
            segment = AudioSegment.from_wav(file)
    channels = np.array(segment.get_array_of_samples(), dtype=np.float32).reshape(-1, segment.channels)
    mono = channels.mean(axis=1) / segment.max_possible_amplitude
    resampled: NDArray[np.float32] = librosa.resample(
        mono, orig_sr=segment.frame_rate, target_sr=sample_rate, res_type="soxr_hq"
    )
    return resampled


def _windows(samples: NDArray[np.float32], card: ModelCard) -> tuple[NDArray[np.float64], NDArray[np.float32]]:
    """Where every window starts, and its features, cut out of the PCM and computed by itself."""
    frames = FrameGrid.of(card.features, card.audio.sample_rate)
    grid = WindowGrid.of(card.windows, frames)
    if len(samples) < grid.window_samples:
        samples = np.resize(samples, grid.window_samples)
    within = np.array([frames.start(i) for i in range(card.windows.frames)], dtype=np.intp)
    padded = np.concatenate((samples, np.zeros(card.features.n_fft, dtype=np.float32)))
    starts = list(grid.starts(len(samples)))
    span = np.arange(card.features.n_fft)
    windows = [_window(padded[(frames.start(first) + within)[:, None] + span], card) for first in starts]
    return np.array([frames.time_s(first) for first in starts]), np.stack(windows)


def _window(cut: NDArray[np.float32], card: ModelCard) -> NDArray[np.float32]:
    """The reference's features of one window whose frames are the rows of ``cut``."""
    import librosa

    spec: FeatureSpec = card.features
    mel = librosa.feature.melspectrogram(
        y=cut.ravel(),
        sr=card.audio.sample_rate,
        n_fft=spec.n_fft,
        hop_length=spec.n_fft,
        center=False,
        power=spec.power,
        n_mels=spec.n_mels,
        fmin=spec.fmin,
        fmax=spec.fmax,
        htk=spec.mel_scale == "htk",
        norm=spec.mel_norm,
    )
    return _normalised(mel.T, spec).astype(np.float32)


def _normalised(mel: NDArray[np.float32], spec: FeatureSpec) -> NDArray[np.float32]:
    import librosa

    match spec.normalisation:
        case Unchanged() if spec.log == "ln":
            return np.asarray(np.log(np.maximum(mel, spec.floor)))
        case Unchanged():
            return np.asarray(librosa.power_to_db(mel, ref=1.0, amin=spec.floor, top_db=None))
        case RelativeToMax(range_db=range_db):
            return np.asarray(librosa.power_to_db(mel, ref=np.max, amin=spec.floor, top_db=range_db) / range_db + 1.0)
        case MinMax(range_db=range_db, low=low, high=high):
            decibels = librosa.power_to_db(mel, ref=np.max, amin=spec.floor, top_db=range_db)
            return np.asarray(low + (high - low) * librosa.util.normalize(decibels - decibels.min(), axis=None))
        case _:
            assert_never(spec.normalisation)


def _largest(difference: NDArray[np.float32]) -> float:
    return float(np.abs(difference).max(initial=0.0))
