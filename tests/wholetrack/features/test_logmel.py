"""Frames compared with librosa's and with precomputed spectrograms, for chunks of any size."""

from __future__ import annotations

import csv
from pathlib import Path

import librosa
import numpy as np
import pytest
from numpy.typing import NDArray

from wholetrack.contracts import FeatureSpec, RelativeToMax
from wholetrack.decoding.decoder import FfmpegDecoder
from wholetrack.features.logmel import LogMel

RATE = 22050


def spec(**changes: object) -> FeatureSpec:
    fields = {
        "n_fft": 2048,
        "frames_per_second": 13,
        "n_mels": 128,
        "fmin": 0.0,
        "fmax": 11025.0,
        "floor": 1e-10,
        "normalisation": RelativeToMax(range_db=60),
    }
    return FeatureSpec.model_validate({**fields, **changes})


def assert_close(ours: NDArray[np.float32], theirs: NDArray[np.float32], *, power: int = 2) -> None:
    """Compare to within 1e-3 dB, down to 80 dB below a frame's maximum; float32 has few digits for fainter values."""
    audible = theirs > theirs.max(axis=-1, keepdims=True) - 80 * power / 2
    np.testing.assert_allclose(ours[audible], theirs[audible], rtol=0, atol=1e-3)


def all_frames(features: LogMel, samples: NDArray[np.float32], pieces: list[int]) -> NDArray[np.float32]:
    stream = features.stream()
    parts = [stream.push(piece) for piece in np.split(samples, pieces)]
    return np.concatenate([*parts, stream.finish()])


@pytest.mark.parametrize(
    "changes",
    [
        {"frames_per_second": 14},
        {"frames_per_second": None, "hop_length": 512},
        {"frames_per_second": None, "hop_length": 512, "mel_scale": "htk", "mel_norm": None, "power": 1},
        {"frames_per_second": None, "hop_length": 256, "n_fft": 1024, "n_mels": 64, "fmin": 30.0, "fmax": 8000.0},
    ],
)
def test_frames_equal_those_of_librosa(tune: NDArray[np.float32], changes: dict[str, object]) -> None:
    features = LogMel(spec(**changes), RATE)
    s = features.spec
    ours = all_frames(features, tune, [])
    mel = librosa.feature.melspectrogram(
        y=np.concatenate((tune, np.zeros(s.n_fft, dtype=np.float32))),
        sr=RATE,
        n_fft=s.n_fft,
        hop_length=features.grid.start(1),
        center=False,
        power=s.power,
        n_mels=s.n_mels,
        fmin=s.fmin,
        fmax=s.fmax,
        htk=s.mel_scale == "htk",
        norm=s.mel_norm,
    )
    theirs = librosa.power_to_db(mel, ref=1.0, amin=1e-10, top_db=None).T[: len(ours)]
    assert_close(ours, theirs, power=s.power)


def test_natural_logarithm(tune: NDArray[np.float32]) -> None:
    decibels = all_frames(LogMel(spec(), RATE), tune, [])
    natural = all_frames(LogMel(spec().model_copy(update={"log": "ln"}), RATE), tune, [])
    np.testing.assert_allclose(natural * 10 / np.log(10), decibels, atol=1e-3)


def test_frames_of_a_fractional_grid_start_at_the_nearest_sample(tune: NDArray[np.float32]) -> None:
    features = LogMel(spec(), RATE)
    ours = all_frames(features, tune, [])
    assert len(ours) == 130
    for frame in (0, 1, 2, 64, 127):
        begin = round(frame * RATE / 13)
        mel = librosa.feature.melspectrogram(y=tune[begin : begin + 2048], sr=RATE, n_fft=2048, center=False)
        assert_close(ours[frame], librosa.power_to_db(mel[:, 0], top_db=None))


@pytest.mark.parametrize("length", [1, 2047, 2048, 70_000, 220_500])
def test_the_size_of_the_chunks_does_not_change_a_single_bit(
    tune: NDArray[np.float32], rng: np.random.Generator, length: int
) -> None:
    features = LogMel(spec(), RATE)
    samples = tune[:length]
    whole = all_frames(features, samples, [])
    assert len(whole) == features.grid.frames_started_by(length)
    for n_cuts in (1, 5, 200):
        cuts = sorted(rng.integers(0, length + 1, n_cuts).tolist())
        assert np.array_equal(all_frames(features, samples, cuts), whole)


def test_silence_is_below_the_threshold_and_the_quietest_music_above_it(tune: NDArray[np.float32]) -> None:
    features = LogMel(spec(), RATE)
    assert all_frames(features, np.zeros(RATE, dtype=np.float32), []).max() < features.silence
    one_bit = np.random.default_rng(0).integers(-1, 2, RATE).astype(np.float32) / np.float32(32768)
    assert all_frames(features, one_bit, []).max() < features.silence
    assert all_frames(features, tune * np.float32(1e-4), []).max() > features.silence


@pytest.mark.data
def test_real_clips_reproduce_the_precomputed_spectrograms(music: Path, decoder: FfmpegDecoder) -> None:
    """The recipe of the data set, with our frames in place of librosa's; values differ by one of 256 levels at most."""
    features = LogMel(spec(frames_per_second=None, hop_length=512), RATE)
    with np.load(music / "gtzan-mel.npz") as arrays:
        levels = dict(zip(arrays["track"].tolist(), arrays["mel"], strict=True))
    with (music / "tracks.csv").open() as table:
        complete = [row for row in csv.DictReader(table) if row["audio"] and row["track"].endswith("00000")]
    assert len(complete) == 10
    for row in complete:
        with decoder.open(music / row["audio"], sample_rate=RATE, max_duration_s=60) as decoding:
            samples = np.concatenate(list(decoding.blocks()))
        # librosa centres its frames, so that the first one starts 1,024 samples before the track.
        centred = np.concatenate((np.zeros(1024, dtype=np.float32), samples, np.zeros(1024, dtype=np.float32)))
        n_frames = 1 + len(samples) // 512
        decibels = features.frames(centred, np.arange(n_frames) * 512)
        relative = np.maximum(decibels - decibels.max(), -80.0)
        scaled = (relative - relative.min()) / (relative.max() - relative.min()) * 256
        columns = np.floor((np.arange(387) + 0.5) * n_frames / 387.5).astype(int)
        ours = np.clip(scaled.astype(int), 0, 255)[columns].T
        assert np.abs(ours - levels[row["track"]].astype(int)).max() <= 1, row["track"]
