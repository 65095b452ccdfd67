"""A reference implementation of decoding and features, which uses third-party libraries for every step.

ffmpeg decodes the whole file without filters, pydub reads the result, and librosa resamples it and computes the
features of each window separately, as in the four published systems. It is eight times as slow as the service, whose
results are compared with it. Only the positions of windows and frames come from the service.

Needs the extra ``verify``.
"""

from __future__ import annotations

import math
import subprocess
import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, assert_never

import librosa
import numpy as np
from numpy.typing import NDArray

from wholetrack.contracts import Affine, FeatureSpec, InputSpec, MinMax, ModelCard, RelativeToMax, Rows, Unchanged
from wholetrack.features.grid import FrameGrid, WindowGrid
from wholetrack.features.mel import mel_filters

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


def reference_windows(samples: NDArray[np.float32], card: ModelCard) -> tuple[NDArray[np.float64], Rows]:
    """Divide a recording into windows, and compute the features of each separately.

    Args:
        samples: Mono PCM at the sample rate of the model, ``[n_samples]``.
        card: Contents of the model's ``model.json``.

    Returns:
        The start of each window in seconds, ``[n_windows]``, and its features, ``[n_windows, n_frames, n_mels]`` for
        each input.
    """
    rate = card.audio.sample_rate
    grids = [FrameGrid.of(entry.features, rate) for entry in card.inputs]
    slowest = min(range(len(grids)), key=lambda i: grids[i].rate)
    windows = WindowGrid.of(card.windows_of(card.inputs[slowest]), grids[slowest])
    starts_s = [windows.frames.time_s(first) for first in windows.starts(len(samples))]
    if len(samples) < windows.window_samples:
        samples = np.resize(samples, windows.window_samples)
    inputs = [
        _input(samples, entry, grid, [_nearest_frame(start_s, grid) for start_s in starts_s])
        for entry, grid in zip(card.inputs, grids, strict=True)
    ]
    return np.array(starts_s), Rows(tuple(inputs))


def _nearest_frame(start_s: float, grid: FrameGrid) -> int:
    # Halves are rounded up. A time in seconds is off by less than a billionth of a frame.
    return math.floor(start_s * float(grid.rate) + 0.5 + 1e-9)


def _input(
    samples: NDArray[np.float32], entry: InputSpec, grid: FrameGrid, starts: Sequence[int]
) -> NDArray[np.float32]:
    """Return one input of all windows, which begin at these frames, ``[n_windows, n_frames, n_mels]``."""
    spec, padded = entry.features, _padded(samples, entry.features)
    span = np.arange(spec.n_fft)
    windows = []
    for first in starts:
        frames = np.array([grid.start(first + i) for i in range(entry.frames)], dtype=np.intp)
        windows.append(_features(padded[frames[:, None] + span], spec, grid.sample_rate))
    return np.stack(windows)


def _padded(samples: NDArray[np.float32], spec: FeatureSpec) -> NDArray[np.float32]:
    """Return the samples after the pre-emphasis, with what frames contain beyond the ends of the recording."""
    if spec.pre_emphasis is not None:
        samples = librosa.effects.preemphasis(samples, coef=spec.pre_emphasis, zi=0.0)
    lead = spec.n_fft // 2 if spec.centred else 0
    mode: Literal["reflect", "constant"] = "reflect" if spec.centred == "reflect" else "constant"
    return np.pad(samples, (lead, lead or spec.n_fft), mode)


def _features(frames: NDArray[np.float32], spec: FeatureSpec, sample_rate: int) -> NDArray[np.float32]:
    """Return the features of one window from the samples of its frames, ``[n_frames, n_fft]``."""
    length = spec.win_length or spec.n_fft
    spectrum = librosa.stft(
        frames.ravel(),
        n_fft=spec.n_fft,
        hop_length=spec.n_fft,
        win_length=length,
        window=librosa.filters.get_window("hann", length, fftbins=spec.window == "hann"),
        center=False,
    )
    mel = _filters(spec, sample_rate) @ np.abs(spectrum) ** spec.power
    return _level(spec.gain * mel.T, spec).astype(np.float32)


def _filters(spec: FeatureSpec, sample_rate: int) -> NDArray[np.float64]:
    """Return the filters, ``[n_mels, n_fft // 2 + 1]``; librosa has no filters in the form of Kaldi."""
    bands: dict[str, Any] = {
        "n_fft": spec.n_fft,
        "n_mels": spec.n_mels,
        "fmin": spec.fmin,
        "fmax": spec.fmax,
        "norm": spec.mel_norm,
    }
    if spec.mel_scale == "kaldi":
        return mel_filters(sample_rate=sample_rate, scale="kaldi", empty_bands=spec.empty_bands, **bands).T
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Empty filters", UserWarning)
        filters = librosa.filters.mel(sr=sample_rate, htk=spec.mel_scale == "htk", dtype=np.float64, **bands)
    return np.asarray(filters)


def _level(mel: NDArray[np.float64], spec: FeatureSpec) -> NDArray[np.float64]:
    """Return the normalised level of one window from the values of its bands."""
    match spec.normalisation:
        case Affine(add=add, divide_by=divide_by):
            return (_logarithm(mel, spec) + add) / divide_by
        case Unchanged():
            return _logarithm(mel, spec)
        case RelativeToMax(range_db=range_db):
            return np.asarray(_relative_db(mel, spec, range_db) / range_db + 1.0)
        case MinMax(range_db=range_db, low=low, high=high):
            decibels = _relative_db(mel, spec, range_db)
            return np.asarray(low + (high - low) * librosa.util.normalize(decibels - decibels.min(), axis=None))
        case _:
            assert_never(spec.normalisation)


def _logarithm(mel: NDArray[np.float64], spec: FeatureSpec) -> NDArray[np.float64]:
    bounded = np.maximum(mel, spec.floor) if spec.floor is not None else mel + (spec.offset or 0.0)
    match spec.log:
        case "ln":
            return np.asarray(np.log(bounded))
        case "log10":
            return np.asarray(np.log10(bounded))
        case "db":
            return np.asarray(librosa.power_to_db(bounded, ref=1.0, amin=1e-30, top_db=None))
        case _:
            assert_never(spec.log)


def _relative_db(mel: NDArray[np.float64], spec: FeatureSpec, range_db: float) -> NDArray[np.float64]:
    bounded, amin = (mel, spec.floor) if spec.floor is not None else (mel + (spec.offset or 0.0), 1e-30)
    return np.asarray(librosa.power_to_db(bounded, ref=np.max, amin=amin, top_db=range_db))
