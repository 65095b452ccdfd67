"""A reference implementation of decoding and features, which uses third-party libraries for every step.

ffmpeg decodes the whole file without filters, pydub reads the result, and librosa resamples it and computes the
features of each window separately, as in the four published systems. It is eight times as slow as the service, whose
results are compared with it. Only the positions of windows and frames come from the service.

Needs the extra ``verify``.
"""

from __future__ import annotations

import subprocess
import tempfile
import warnings
from pathlib import Path
from typing import assert_never

import librosa
import numpy as np
from numpy.typing import NDArray

from wholetrack.contracts import FeatureSpec, MinMax, ModelCard, RelativeToMax, Unchanged
from wholetrack.features.grid import FrameGrid, WindowGrid

with warnings.catch_warnings():
    # pydub warns if there is no ffmpeg on PATH, but only the one given to `decode` is used.
    warnings.simplefilter("ignore", RuntimeWarning)
    from pydub import AudioSegment


def decode(path: Path, ffmpeg: Path, *, sample_rate: int, temp_dir: Path | None) -> NDArray[np.float32]:
    """Decode a recording, mix it to mono and resample it.

    Args:
        path: The recording.
        ffmpeg: The executable.
        sample_rate: Sample rate of the result, in Hz.
        temp_dir: Folder for the decoded file; None for that of the system.

    Returns:
        Samples in [-1, 1], ``[n_samples]``.
    """
    with tempfile.TemporaryDirectory(dir=temp_dir) as folder:
        # pydub's own call of ffmpeg rounds to 16 bits, an error as large as the signal at the end of a fade-out.
        decoded = Path(folder) / "decoded.wav"
        command = [str(ffmpeg), "-v", "error", "-nostdin"]
        subprocess.run([*command, "-i", f"file:{path}", "-map", "0:a:0", "-c:a", "pcm_s32le", str(decoded)], check=True)
        with decoded.open("rb") as file:
            segment = AudioSegment.from_wav(file)
    channels = np.array(segment.get_array_of_samples(), dtype=np.float32).reshape(-1, segment.channels)
    mono = channels.mean(axis=1) / segment.max_possible_amplitude
    resampled: NDArray[np.float32] = librosa.resample(
        mono, orig_sr=segment.frame_rate, target_sr=sample_rate, res_type="soxr_hq"
    )
    return resampled


def reference_windows(samples: NDArray[np.float32], card: ModelCard) -> tuple[NDArray[np.float64], NDArray[np.float32]]:
    """Divide a recording into windows, and compute the features of each separately.

    Args:
        samples: Mono PCM at the sample rate of the model, ``[n_samples]``.
        card: Contents of the model's ``model.json``.

    Returns:
        The start of each window in seconds, ``[n_windows]``, and its features, ``[n_windows, n_frames, n_mels]``.
    """
    frames = FrameGrid.of(card.features, card.audio.sample_rate)
    grid = WindowGrid.of(card.windows, frames)
    if len(samples) < grid.window_samples:
        samples = np.resize(samples, grid.window_samples)
    within = np.array([frames.start(i) for i in range(card.windows.frames)], dtype=np.intp)
    padded = np.concatenate((samples, np.zeros(card.features.n_fft, dtype=np.float32)))
    starts = list(grid.starts(len(samples)))
    span = np.arange(card.features.n_fft)
    windows = [_features(padded[(frames.start(first) + within)[:, None] + span], card) for first in starts]
    return np.array([frames.time_s(first) for first in starts]), np.stack(windows)


def _features(frames: NDArray[np.float32], card: ModelCard) -> NDArray[np.float32]:
    """Return the features of one window from the samples of its frames, ``[n_frames, n_fft]``."""
    spec = card.features
    mel = librosa.feature.melspectrogram(
        y=frames.ravel(),
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
    return _normalise(mel.T, spec).astype(np.float32)


def _normalise(mel: NDArray[np.float32], spec: FeatureSpec) -> NDArray[np.float32]:
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
