"""Log-mel frames from a stream of samples."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from wholetrack.contracts import FeatureSpec
from wholetrack.features.grid import FrameGrid
from wholetrack.features.mel import mel_filters

# Frames are transformed in blocks of exactly this size, padded with zeros. Each frame is then computed by the same BLAS
# kernel, so that the result is bit-identical however the samples arrive. A block of 32 frames of 2,048 points (256 KB)
# fits in the second-level cache; 16 and 64 were slower.
_BLOCK = 32

# Mel power of the last bit of 16-bit PCM: white noise of +-1 LSB (3e-5 of full scale) gives 4e-8 per band with n_fft
# 2048, occasionally ten times that, and a full-scale sine 5e3. A window that never exceeds this threshold is silent.
_SILENCE_POWER = 1e-6


class LogMel:
    """The features of one bundle. Stateless, and shared by all tracks.

    A frame is ``log(max(mel_filters @ |rfft(hann * samples)| ** power, floor))``, in dB (``10 log10``) or as a natural
    logarithm. The first frame starts at the first sample: frames are not centred, and nothing is padded before them.

    Attributes:
        spec: The bundle's features.
        grid: Positions of the frames.
        silence: Threshold of silence in the unit of the frames, just above the last bit of 16-bit PCM.
    """

    def __init__(self, spec: FeatureSpec, sample_rate: int) -> None:
        self.spec = spec
        self.grid = FrameGrid.of(spec, sample_rate)
        # Periodic Hann, as scipy.signal.get_window("hann", n_fft, fftbins=True), which librosa uses.
        phase = 2.0 * np.pi * np.arange(spec.n_fft) / spec.n_fft
        self._hann = (0.5 - 0.5 * np.cos(phase)).astype(np.float32)
        self._filters = mel_filters(
            sample_rate=sample_rate,
            n_fft=spec.n_fft,
            n_mels=spec.n_mels,
            fmin=spec.fmin,
            fmax=spec.fmax,
            scale=spec.mel_scale,
            norm=spec.mel_norm,
        ).astype(np.float32)
        self._offsets = np.arange(spec.n_fft)
        self.silence = float(self._log(np.array([_SILENCE_POWER ** (spec.power / 2)], dtype=np.float32))[0])

    def frames(self, samples: NDArray[np.float32], starts: NDArray[np.intp]) -> NDArray[np.float32]:
        """Compute the frames of ``samples`` that begin at ``starts``.

        Args:
            samples: Mono PCM, ``[n_samples]``, which contains every frame completely.
            starts: First sample of each frame, ``[n_frames]``.

        Returns:
            Log-mel values, lowest band first, ``[n_frames, n_mels]``.
        """
        out = np.empty((len(starts), self.spec.n_mels), dtype=np.float32)
        for begin in range(0, len(starts), _BLOCK):
            block = starts[begin : begin + _BLOCK]
            cut = np.zeros((_BLOCK, self.spec.n_fft), dtype=np.float32)
            cut[: len(block)] = samples[block[:, None] + self._offsets]
            cut *= self._hann
            out[begin : begin + len(block)] = self._log_mel(cut)[: len(block)]
        return out

    def _log_mel(self, cut: NDArray[np.float32]) -> NDArray[np.float32]:
        spectrum = np.fft.rfft(cut).astype(np.complex64, copy=False)
        magnitude: NDArray[np.float32] = spectrum.real**2
        magnitude += spectrum.imag**2
        if self.spec.power == 1:
            np.sqrt(magnitude, out=magnitude)
        mel = magnitude @ self._filters
        return self._log(mel)

    def _log(self, mel: NDArray[np.float32]) -> NDArray[np.float32]:
        np.maximum(mel, np.float32(self.spec.floor), out=mel)
        if self.spec.log == "ln":
            return np.log(mel, out=mel)
        np.log10(mel, out=mel)
        mel *= np.float32(10.0)
        return mel

    def stream(self) -> LogMelStream:
        """Return a new stream of frames for one track."""
        return LogMelStream(self)


class LogMelStream:
    """Turns the samples of one track into frames, as they arrive; at most one block of frames is buffered."""

    def __init__(self, features: LogMel) -> None:
        self._features = features
        self._kept: NDArray[np.float32] = np.zeros(0, dtype=np.float32)
        self._kept_from = 0
        self._next_frame = 0
        self.n_samples = 0
        """Samples received so far."""

    def push(self, samples: NDArray[np.float32]) -> NDArray[np.float32]:
        """Add samples and return the frames that are complete, in whole blocks.

        Args:
            samples: The next mono PCM samples, ``[n_samples]``.

        Returns:
            Frames, ``[n_frames, n_mels]``; empty while no block is complete.
        """
        self._kept = np.concatenate((self._kept, samples))
        self.n_samples += len(samples)
        complete = self._features.grid.frames_complete_by(self.n_samples) - self._next_frame
        return self._take(complete - complete % _BLOCK)

    def finish(self) -> NDArray[np.float32]:
        """Return the remaining frames: all that start within the track, padded with zeros beyond its end.

        Returns:
            Frames, ``[n_frames, n_mels]``.
        """
        remaining = self._features.grid.frames_started_by(self.n_samples) - self._next_frame
        self._kept = np.concatenate((self._kept, np.zeros(self._features.spec.n_fft, dtype=np.float32)))
        return self._take(remaining)

    def _take(self, n_frames: int) -> NDArray[np.float32]:
        grid = self._features.grid
        wanted = range(self._next_frame, self._next_frame + n_frames)
        starts = np.array([grid.start(frame) for frame in wanted], dtype=np.intp) - self._kept_from
        frames = self._features.frames(self._kept, starts)
        self._next_frame += n_frames
        used = min(grid.start(self._next_frame) - self._kept_from, len(self._kept))
        self._kept = self._kept[used:].copy()
        self._kept_from += used
        return frames
