"""The mel filter bank in float64, so that serving does not need librosa. The tests compare it with librosa's."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

MelScale = Literal["slaney", "htk", "kaldi"]

# Slaney's Auditory Toolbox (1998): linear below 1 kHz (66 2/3 Hz per mel), logarithmic above it (27 mels per factor of
# 6.4).
_LINEAR_HZ_PER_MEL = 200.0 / 3
_BREAK_HZ = 1000.0
_BREAK_MEL = _BREAK_HZ / _LINEAR_HZ_PER_MEL
_LOG_STEP = np.log(6.4) / 27.0


def hz_to_mel(hz: NDArray[np.float64], scale: MelScale) -> NDArray[np.float64]:
    """Convert frequencies in Hz to mel.

    Args:
        hz: Frequencies in Hz.
        scale: That of Slaney, of HTK (``2595 log10(1 + f / 700)``) or of Kaldi (``1127 ln(1 + f / 700)``).
    """
    if scale == "htk":
        return np.asarray(2595.0 * np.log10(1.0 + hz / 700.0))
    if scale == "kaldi":
        return np.asarray(1127.0 * np.log(1.0 + hz / 700.0))
    logarithmic = _BREAK_MEL + np.log(np.maximum(hz, _BREAK_HZ) / _BREAK_HZ) / _LOG_STEP
    return np.where(hz < _BREAK_HZ, hz / _LINEAR_HZ_PER_MEL, logarithmic)


def mel_to_hz(mel: NDArray[np.float64], scale: MelScale) -> NDArray[np.float64]:
    """Convert mel to Hz; the inverse of :func:`hz_to_mel`."""
    if scale == "htk":
        return np.asarray(700.0 * (10.0 ** (mel / 2595.0) - 1.0))
    if scale == "kaldi":
        return np.asarray(700.0 * (np.exp(mel / 1127.0) - 1.0))
    logarithmic = _BREAK_HZ * np.exp(_LOG_STEP * (np.maximum(mel, _BREAK_MEL) - _BREAK_MEL))
    return np.where(mel < _BREAK_MEL, mel * _LINEAR_HZ_PER_MEL, logarithmic)


def mel_edges(*, n_mels: int, fmin: float, fmax: float, scale: MelScale) -> NDArray[np.float64]:
    """Return the edges of the triangular filters in Hz, evenly spaced on the mel scale, ``[n_mels + 2]``.

    Filter ``i`` rises from edge ``i`` to its peak at edge ``i + 1`` and falls to edge ``i + 2``.
    """
    lowest, highest = hz_to_mel(np.array([fmin, fmax], dtype=np.float64), scale)
    return mel_to_hz(np.linspace(lowest, highest, n_mels + 2), scale)


def mel_filters(
    *,
    sample_rate: int,
    n_fft: int,
    n_mels: int,
    fmin: float,
    fmax: float,
    scale: MelScale,
    norm: Literal["slaney"] | None,
    empty_bands: Literal["refuse", "allow"] = "refuse",
) -> NDArray[np.float64]:
    """Return triangular filters, evenly spaced on the mel scale.

    The filters of the scales of Slaney and HTK are triangles over Hz, as in ``librosa.filters.mel``; those of Kaldi are
    triangles over mel, as in its ``MelBanks``.

    Returns:
        Weights, ``[n_fft // 2 + 1, n_mels]``. With ``norm="slaney"`` each triangle has unit area in Hz, otherwise unit
        height.

    Raises:
        ValueError: If a filter contains no bin of the transform, so that its output would always be zero, unless
            ``empty_bands`` allows that.
    """
    bins: NDArray[np.float64] = np.arange(n_fft // 2 + 1, dtype=np.float64) * (sample_rate / n_fft)
    edges = mel_edges(n_mels=n_mels, fmin=fmin, fmax=fmax, scale=scale)
    if scale == "kaldi":
        bins, edges = hz_to_mel(bins, scale), hz_to_mel(edges, scale)
    widths = np.diff(edges)
    rising = (bins[:, None] - edges[None, :-2]) / widths[None, :-1]
    falling = (edges[None, 2:] - bins[:, None]) / widths[None, 1:]
    weights: NDArray[np.float64] = np.maximum(0.0, np.minimum(rising, falling))
    if norm == "slaney":
        weights *= 2.0 / (edges[2:] - edges[:-2])
    empty = np.flatnonzero(weights.max(axis=0) == 0).tolist()
    if empty and empty_bands == "refuse":
        raise ValueError(f"mel bands {empty} contain no bin of a {n_fft}-point transform at {sample_rate} Hz")
    return weights
