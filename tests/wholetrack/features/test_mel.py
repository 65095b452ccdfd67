"""The filter bank compared with librosa's."""

from __future__ import annotations

from typing import Literal

import librosa
import numpy as np
import pytest

from wholetrack.features.mel import hz_to_mel, mel_filters, mel_to_hz


@pytest.mark.parametrize("scale", ["slaney", "htk"])
@pytest.mark.parametrize("norm", ["slaney", None])
@pytest.mark.parametrize(("n_fft", "n_mels", "fmin", "fmax"), [(2048, 128, 0.0, 11025.0), (2048, 100, 40.0, 8000.0)])
def test_filters_equal_those_of_librosa(
    scale: Literal["slaney", "htk"], norm: Literal["slaney"] | None, n_fft: int, n_mels: int, fmin: float, fmax: float
) -> None:
    ours = mel_filters(sample_rate=22050, n_fft=n_fft, n_mels=n_mels, fmin=fmin, fmax=fmax, scale=scale, norm=norm)
    theirs = librosa.filters.mel(
        sr=22050, n_fft=n_fft, n_mels=n_mels, fmin=fmin, fmax=fmax, htk=scale == "htk", norm=norm, dtype=np.float64
    )
    np.testing.assert_allclose(ours.T, theirs, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("scale", ["slaney", "htk"])
def test_the_scale_is_invertible(scale: Literal["slaney", "htk"]) -> None:
    hz = np.array([0.0, 440.0, 999.0, 1000.0, 1001.0, 11025.0])
    np.testing.assert_allclose(mel_to_hz(hz_to_mel(hz, scale), scale), hz, atol=1e-9)


def test_a_band_without_a_bin_is_refused() -> None:
    with pytest.raises(ValueError, match="contain no bin"):
        mel_filters(sample_rate=22050, n_fft=256, n_mels=128, fmin=0, fmax=11025, scale="slaney", norm="slaney")
