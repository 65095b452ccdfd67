"""Front ends of published networks, compared with implementations of their definitions by other means."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import librosa
import numpy as np
import pytest
import scipy.signal
from numpy.typing import NDArray
from pydantic import ValidationError

from tests.wholetrack.features.test_logmel import all_frames, assert_close
from wholetrack.contracts import FeatureSpec
from wholetrack.features.logmel import LogMel
from wholetrack.features.mel import mel_filters
from wholetrack.features.normalise import normalise

MN04: dict[str, Any] = {
    "pre_emphasis": 0.97,
    "n_fft": 1024,
    "win_length": 800,
    "window": "hann_symmetric",
    "centred": "reflect",
    "hop_length": 320,
    "n_mels": 128,
    "fmin": 0.0,
    "fmax": 15000.0,
    "mel_scale": "kaldi",
    "mel_norm": None,
    "log": "ln",
    "offset": 1e-5,
    "normalisation": {"kind": "affine", "add": 4.5, "divide_by": 5.0},
}
MUSICNN: dict[str, Any] = {
    "n_fft": 512,
    "centred": "reflect",
    "hop_length": 256,
    "n_mels": 96,
    "fmin": 0.0,
    "fmax": 8000.0,
    "log": "log10",
    "gain": 1e4,
    "offset": 1.0,
    "normalisation": {"kind": "unchanged"},
}
FCN: dict[str, Any] = {
    **{name: MUSICNN[name] for name in ("n_fft", "centred", "hop_length", "n_mels", "fmin", "fmax", "normalisation")},
    "mel_scale": "htk",
    "mel_norm": None,
    "log": "db",
    "floor": 1e-10,
}
ALL = {"mn04": (MN04, 32000), "musicnn": (MUSICNN, 16000), "fcn": (FCN, 16000)}


def front_end(fields: dict[str, Any], rate: int, **changes: object) -> LogMel:
    return LogMel(FeatureSpec.model_validate({**fields, **changes}), rate)


def kaldi_banks(n_fft: int, n_mels: int, rate: int, fmin: float, fmax: float) -> NDArray[np.float64]:
    """The triangles of Kaldi's MelBanks, one band and one bin at a time, ``[n_mels, n_fft // 2 + 1]``."""

    def mel(hz: float) -> float:
        return 1127.0 * float(np.log(1.0 + hz / 700.0))

    width = (mel(fmax) - mel(fmin)) / (n_mels + 1)
    banks = np.zeros((n_mels, n_fft // 2 + 1))
    for band in range(n_mels):
        left = mel(fmin) + band * width
        centre, right = left + width, left + 2 * width
        for i in range(n_fft // 2 + 1):
            position = mel(i * rate / n_fft)
            if left < position < right:
                rising = position <= centre
                banks[band, i] = (position - left) / width if rising else (right - position) / width
    return banks


def mn04_reference(samples: NDArray[np.float32], rate: int, fmax: float = 15000.0) -> NDArray[np.float64]:
    """EfficientAT's front end in float64, frame by frame, ``[n_frames, 128]``."""
    emphasised = scipy.signal.lfilter([1.0, -0.97], [1.0], samples.astype(np.float64))
    padded = np.pad(emphasised, 512, mode="reflect")
    window = np.pad(scipy.signal.get_window("hann", 800, fftbins=False), 112)
    banks = kaldi_banks(1024, 128, rate, 0.0, fmax)
    frames = [
        np.log(banks @ np.abs(np.fft.rfft(window * padded[begin : begin + 1024])) ** 2 + 1e-5)
        for begin in range(0, len(samples), 320)
    ]
    return (np.array(frames) + 4.5) / 5.0


def normalised(features: LogMel, samples: NDArray[np.float32]) -> NDArray[np.float32]:
    windows = normalise(all_frames(features, samples, [])[None], features.spec.normalisation)
    return np.asarray(windows[0])


# From torchaudio 2.11.0, compliance.kaldi.get_mel_banks(128, 1024, 32000.0, 0.0, 15000.0, 100.0, -500.0, 1.0):
# for some bands the first bin, its values there, and its sum.
TORCHAUDIO_BANKS = {
    0: (1, (0.18859525,), 0.18859525),
    1: (1, (0.81140476,), 0.81140476),
    40: (37, (0.44743332, 0.86015522, 0.17910729), 1.4866959),
    90: (174, (0.04523728, 0.25587142, 0.46545434, 0.67396814), 4.8383455),
    127: (457, (0.05645002, 0.14287254, 0.22912437, 0.31517851), 11.832726),
}


def test_the_bands_of_kaldi_are_those_of_torchaudio() -> None:
    found = mel_filters(sample_rate=32000, n_fft=1024, n_mels=128, fmin=0.0, fmax=15000.0, scale="kaldi", norm=None)
    for band, (first, values, total) in TORCHAUDIO_BANKS.items():
        assert np.flatnonzero(found[:, band])[0] == first
        np.testing.assert_allclose(found[first : first + len(values), band], values, atol=2e-5)
        assert found[:, band].sum() == pytest.approx(total, abs=2e-4)


PLAIN: dict[str, Any] = {**MUSICNN, "log": "ln", "gain": 1.0, "offset": 1e-3}


@pytest.mark.parametrize(
    ("changes", "pre_emphasis", "level"),
    [
        ({}, 0.0, lambda mel: np.log(mel + 1e-3)),
        ({"pre_emphasis": 0.9}, 0.9, lambda mel: np.log(mel + 1e-3)),
        ({"gain": 50.0}, 0.0, lambda mel: np.log(50 * mel + 1e-3)),
        ({"offset": None, "floor": 0.01}, 0.0, lambda mel: np.log(np.maximum(mel, 0.01))),
        ({"offset": None, "floor": 0.01, "gain": 50.0}, 0.0, lambda mel: np.log(np.maximum(50 * mel, 0.01))),
        ({"log": "log10"}, 0.0, lambda mel: np.log10(mel + 1e-3)),
        ({"log": "db"}, 0.0, lambda mel: 10 * np.log10(mel + 1e-3)),
        (
            {"normalisation": {"kind": "affine", "add": -1.5, "divide_by": 3.0}},
            0.0,
            lambda mel: (np.log(mel + 1e-3) - 1.5) / 3.0,
        ),
    ],
)
def test_every_option_does_what_its_definition_says(
    tune: NDArray[np.float32],
    changes: dict[str, object],
    pre_emphasis: float,
    level: Callable[[NDArray[np.float64]], NDArray[np.float64]],
) -> None:
    samples = tune[:30_000]
    emphasised = scipy.signal.lfilter([1.0, -pre_emphasis], [1.0], samples.astype(np.float64))
    mel = librosa.feature.melspectrogram(
        y=emphasised, sr=16000, n_fft=512, hop_length=256, n_mels=96, pad_mode="reflect", dtype=np.float64
    )
    found = normalised(front_end(PLAIN, 16000, **changes), samples)
    np.testing.assert_allclose(found, level(mel).T[: len(found)], atol=2e-3)


def test_the_package_musicnn_rounds_levels_to_half_precision_and_the_service_does_not(
    tune: NDArray[np.float32],
) -> None:
    """The package is of 2019, when librosa continued recordings by reflection; since 0.9 the default are zeros.

    Its code is ``np.log10(10000 * melspectrogram(...).astype(np.float16) + 1)``, and the product is float32 in the
    versions of numpy that it requires.
    """
    mel = librosa.feature.melspectrogram(y=tune, sr=16000, n_fft=512, hop_length=256, n_mels=96, pad_mode="reflect").T
    expected = np.log10(10000 * mel.astype(np.float16).astype(np.float32) + 1)
    found = normalised(front_end(MUSICNN, 16000), tune)
    np.testing.assert_allclose(found, expected[: len(found)], atol=3e-4)


def test_the_front_end_of_mn04(tune: NDArray[np.float32]) -> None:
    samples = np.concatenate((tune[:60_000], np.zeros(5000, dtype=np.float32), tune[:20_000]))
    found = normalised(front_end(MN04, 32000), samples)
    expected = mn04_reference(samples, 32000)
    assert found.shape == expected.shape == (266, 128)
    np.testing.assert_allclose(found, expected, atol=2e-4)


def test_bands_of_mn04_above_half_the_sample_rate_are_empty(tune: NDArray[np.float32]) -> None:
    with pytest.raises(ValueError, match="contain no bin"):
        front_end(MN04, 22050)
    found = normalised(front_end(MN04, 22050, empty_bands="allow"), tune[:50_000])
    np.testing.assert_allclose(found, mn04_reference(tune[:50_000], 22050), atol=2e-4)
    # 11,025 Hz are 116.9 of 129 steps, so that bands from 116 on begin beyond it.
    np.testing.assert_allclose(found[:, 117:], (np.log(1e-5) + 4.5) / 5, atol=1e-6)
    assert found[:, 115].max() > found[:, 117].max()


@pytest.mark.parametrize("length", [16_000, 16_001, 256 * 187, 700])
def test_the_front_end_of_musicnn(tune: NDArray[np.float32], length: int) -> None:
    samples = tune[:length]
    mel = librosa.feature.melspectrogram(
        y=samples, sr=16000, n_fft=512, hop_length=256, n_mels=96, center=True, pad_mode="reflect"
    )
    expected = np.log10(10000 * mel + 1).T
    found = normalised(front_end(MUSICNN, 16000), samples)
    # librosa has one more frame if the length is a multiple of the hop: around the first sample after the end.
    assert len(found) == -(-length // 256)
    np.testing.assert_allclose(found, expected[: len(found)], atol=2e-5)


def test_the_front_end_of_the_fcn(tune: NDArray[np.float32]) -> None:
    mel = librosa.feature.melspectrogram(
        y=tune, sr=16000, n_fft=512, hop_length=256, n_mels=96, htk=True, norm=None, pad_mode="reflect"
    )
    expected = librosa.power_to_db(mel, ref=1.0, amin=1e-10, top_db=None).T
    found = normalised(front_end(FCN, 16000), tune)
    assert_close(found, expected[: len(found)])


def test_centred_frames_with_zeros_are_those_of_librosa(tune: NDArray[np.float32]) -> None:
    mel = librosa.feature.melspectrogram(y=tune[:30_000], sr=16000, n_fft=512, hop_length=256, n_mels=96)
    found = all_frames(front_end(MUSICNN, 16000, centred="zeros"), tune[:30_000], [])
    np.testing.assert_allclose(found, np.log10(10000 * mel + 1).T[: len(found)], atol=2e-5)


@pytest.mark.torch
def test_centred_frames_with_a_short_window_are_those_of_torch(tune: NDArray[np.float32]) -> None:
    import torch

    spectrum = torch.stft(
        torch.from_numpy(tune[:40_000]),
        n_fft=1024,
        hop_length=320,
        win_length=800,
        window=torch.hann_window(800, periodic=False),
        center=True,
        pad_mode="reflect",
        return_complex=True,
    )
    power = (spectrum.abs() ** 2).T.numpy()
    filters = librosa.filters.mel(sr=32000, n_fft=1024, n_mels=64, htk=True, norm=None)
    features = front_end(MN04, 32000, pre_emphasis=None, mel_scale="htk", n_mels=64, fmax=16000.0)
    found = all_frames(features, tune[:40_000], [])
    np.testing.assert_allclose(found, np.log(power @ filters.T + 1e-5)[: len(found)], atol=1e-3)


@pytest.mark.data
def test_the_filters_are_those_in_the_published_weights_of_the_fcn(music: Path) -> None:
    with np.load(music / "pretrained" / "msd_fcn.npz") as weights:
        published = weights["spec.mel_scale.fb"]
    found = mel_filters(sample_rate=16000, n_fft=512, n_mels=96, fmin=0.0, fmax=8000.0, scale="htk", norm=None)
    np.testing.assert_allclose(found, published, atol=2e-5)


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("length", [1, 2, 256, 257, 511, 512, 513, 514, 1025, 1500, 60_001])
def test_the_size_of_the_chunks_does_not_change_a_single_bit(
    tune: NDArray[np.float32], rng: np.random.Generator, name: str, length: int
) -> None:
    """Reflections at the ends of the track and the sample before a chunk included."""
    features = front_end(*ALL[name])
    samples = tune[1000 : 1000 + length]
    whole = all_frames(features, samples, [])
    assert len(whole) == features.grid.frames_started_by(length) > 0
    for n_cuts in (1, 5, 100):
        cuts = sorted(rng.integers(0, length + 1, n_cuts).tolist())
        assert np.array_equal(all_frames(features, samples, cuts), whole)
    assert np.array_equal(all_frames(features, samples, list(range(1, min(length, 3000)))), whole)


def test_a_centred_frame_contains_what_precedes_its_position(tune: NDArray[np.float32]) -> None:
    """Frames are those of the recording: apart from its ends, a frame does not depend on where a window begins."""
    features = front_end(MUSICNN, 16000)
    whole, later = all_frames(features, tune, []), all_frames(features, tune[256 * 40 :], [])
    np.testing.assert_allclose(later[1:100], whole[41:140], atol=1e-5)
    assert not np.allclose(later[0], whole[40])


@pytest.mark.parametrize("name", ALL)
def test_the_last_bit_is_silent_and_quiet_music_is_not(tune: NDArray[np.float32], name: str) -> None:
    fields, rate = ALL[name]
    features = front_end(fields, rate)
    one_bit = np.random.default_rng(0).integers(-1, 2, 10 * rate).astype(np.float32) / np.float32(32768)
    assert all_frames(features, one_bit, []).max() < features.silence
    assert all_frames(features, tune * np.float32(3e-3), []).max() > features.silence


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"floor": 1e-10}, "give exactly one of floor and offset"),
        ({"offset": None}, "give exactly one of floor and offset"),
        ({"win_length": 2000}, "win_length 2000 must not exceed n_fft 1024"),
        ({"mel_norm": "slaney"}, "mel_scale kaldi have unit height: set mel_norm to null"),
        ({"pre_emphasis": 1.5}, "less than 1"),
        ({"centred": "mirror"}, "'reflect' or 'zeros'"),
        ({"normalisation": {"kind": "affine", "add": 1.0, "divide_by": 0.0}}, "greater than 0"),
        ({"normalisation": {"kind": "min_max", "range_db": 80, "low": 0, "high": 1}}, "min_max needs features in dB"),
    ],
)
def test_impossible_front_ends_are_refused(changes: dict[str, object], complaint: str) -> None:
    with pytest.raises(ValidationError, match=complaint):
        FeatureSpec.model_validate({**MN04, **changes})


def test_a_document_states_a_null_that_is_not_the_default() -> None:
    document = FeatureSpec.model_validate(MN04).document()
    assert document["mel_norm"] is None
    assert "floor" not in document
    assert "frames_per_second" not in document
    assert FeatureSpec.model_validate(document) == FeatureSpec.model_validate(MN04)
