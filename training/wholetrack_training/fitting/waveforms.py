"""Draws stretches of audio from a pool on a device, and changes their sound at random.

The taggers are asked about the changed audio, so that every change yields new audio to learn from, with its own
targets (Beyer et al. 2022, "Knowledge distillation: A good teacher is patient and consistent").
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from wholetrack_training.data.audio_pool import FULL_SCALE, POOL_RATE, AudioPool

# Lengths before a change of speed are multiples of this many samples, because the Fourier transform of a length with
# large prime factors is slow.
_LENGTH_STEP = 480
_EQUALISER_KNOTS = 8
_KNEE_HZ = 200.0


@dataclass(frozen=True, slots=True, kw_only=True)
class SoundChanges:
    """How strongly audio is changed; zero switches a change off.

    Attributes:
        speed: Largest change of speed, which moves tempo and pitch together.
        mixed: Share of the stretches to which another stretch is added.
        mix_db: Level of the added stretch relative to its own, the lowest and the highest.
        equaliser_db: Standard deviation of a smooth random curve over frequency.
        low_passed: Share of the stretches that lose what is above a random frequency.
        low_pass_hz: The lowest and the highest of these frequencies.
        gain_db: The lowest and the highest gain.
    """

    speed: float = 0.08
    mixed: float = 0.5
    mix_db: tuple[float, float] = (-15.0, 0.0)
    equaliser_db: float = 4.0
    low_passed: float = 0.15
    low_pass_hz: tuple[float, float] = (4000.0, 12000.0)
    gain_db: tuple[float, float] = (-12.0, 6.0)


UNCHANGED = SoundChanges(speed=0.0, mixed=0.0, equaliser_db=0.0, low_passed=0.0, gain_db=(0.0, 0.0))


class Waveforms:
    """Stretches of audio from random positions of random recordings.

    Recordings that are shorter than a stretch are repeated. All randomness is that of PyTorch's global generator.
    """

    def __init__(self, pool: AudioPool, device: torch.device) -> None:
        """Copy a pool to a device.

        Args:
            pool: The recordings.
            device: Where to compute.
        """
        self._samples = torch.from_numpy(pool.samples.copy()).to(device)
        self._offsets = torch.from_numpy(pool.offsets)
        self._device = device
        self.n_recordings = len(pool)

    def draw(self, recordings: Tensor, seconds: float, changes: SoundChanges) -> Stretches:
        """Draw a stretch of each recording.

        Args:
            recordings: Indices of recordings, ``[N]``.
            seconds: Length of the stretches after the change of speed.
            changes: How to change them.
        """
        speed = 1.0 + changes.speed * (2.0 * float(self._uniform(1)) - 1.0)
        length = round(seconds * POOL_RATE)
        cut = round(length * speed / _LENGTH_STEP) * _LENGTH_STEP if changes.speed else length
        first, whole = self._offsets[recordings], self._offsets[recordings + 1] - self._offsets[recordings]
        start = (self._uniform(len(recordings)) * (whole - cut + 1).clamp(min=1)).long()
        first, whole, start = (value.to(self._device)[:, None] for value in (first, whole, start))
        at = first + (start + torch.arange(cut, device=self._device)) % whole
        audio = self._samples[at].float() / FULL_SCALE
        if changes.mixed:
            audio = self._mixed(audio, changes)
        return Stretches(self._filtered(audio, length, changes), seconds)

    def _mixed(self, audio: Tensor, changes: SoundChanges) -> Tensor:
        n = len(audio)
        low, high = changes.mix_db
        gain = 10 ** ((low + (high - low) * self._uniform(n)) / 20) * (self._uniform(n) < changes.mixed)
        other = torch.randperm(n)
        return audio + gain.to(self._device)[:, None] * audio[other.to(self._device)]

    def _filtered(self, audio: Tensor, length: int, changes: SoundChanges) -> Tensor:
        """Return the spectrum of the whole stretches, ``[N, length / 2 + 1]``, at the new speed."""
        n = len(audio)
        spectrum = torch.fft.rfft(audio)[:, : length // 2 + 1]
        if spectrum.shape[1] < length // 2 + 1:
            spectrum = torch.nn.functional.pad(spectrum, (0, length // 2 + 1 - spectrum.shape[1]))
        hz = torch.arange(length // 2 + 1, device=self._device) * (POOL_RATE / length)
        low, high = changes.gain_db
        gain_db = (low + (high - low) * self._uniform(n, 1)).to(self._device)
        if changes.equaliser_db:
            knots = torch.randn(n, _EQUALISER_KNOTS) * changes.equaliser_db
            gain_db = gain_db + _curve(knots.to(self._device), hz)
        gain = 10 ** (gain_db / 20) * (length / audio.shape[1])
        if changes.low_passed:
            lowest, highest = changes.low_pass_hz
            cutoff = lowest + (highest - lowest) * self._uniform(n, 1)
            cutoff = torch.where(self._uniform(n, 1) < changes.low_passed, cutoff, torch.tensor(float(POOL_RATE)))
            gain = gain * (hz <= cutoff.to(self._device))
        filtered: Tensor = spectrum * gain
        return filtered

    def _uniform(self, *shape: int) -> Tensor:
        return torch.rand(*shape)


class Stretches:
    """Stretches of audio that can be resampled to any rate, by cutting or padding their spectrum."""

    def __init__(self, spectrum: Tensor, seconds: float) -> None:
        self._spectrum, self._seconds = spectrum, seconds
        self._at: dict[int, Tensor] = {}

    def at(self, sample_rate: int) -> Tensor:
        """Return the samples at a rate, ``[N, seconds * sample_rate]``."""
        if sample_rate not in self._at:
            length = round(self._seconds * sample_rate)
            whole = round(self._seconds * POOL_RATE)
            kept = self._spectrum[:, : length // 2 + 1]
            self._at[sample_rate] = torch.fft.irfft(kept, n=length) * (length / whole)
        return self._at[sample_rate]


def windows_of(audio: Tensor, length: int, *, beyond: int = 0) -> Tensor:
    """Cut stretches ``[N, n_samples]`` into windows without overlap, ``[N * n_windows, length + beyond]``.

    Args:
        audio: The stretches.
        length: Distance between windows in samples.
        beyond: Samples that follow each window; zeros behind the last.
    """
    n_windows = audio.shape[1] // length
    padded = torch.nn.functional.pad(audio[:, : n_windows * length], (0, beyond))
    return padded.unfold(1, length + beyond, length).reshape(-1, length + beyond)


def _curve(knots: Tensor, hz: Tensor) -> Tensor:
    """Interpolate ``[N, n_knots]`` over frequencies, with the knots at equal distances on a logarithmic scale."""
    scale = torch.log1p(hz / _KNEE_HZ) / math.log1p(POOL_RATE / 2 / _KNEE_HZ) * (knots.shape[1] - 1)
    below = scale.long().clamp(max=knots.shape[1] - 2)
    share = scale - below
    return knots[:, below] * (1 - share) + knots[:, below + 1] * share
