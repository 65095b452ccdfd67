"""Log-mel frames from a stream of samples."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from wholetrack.contracts import FeatureSpec
from wholetrack.features.grid import FrameGrid
from wholetrack.features.mel import mel_filters

# Points per block of frames: 32 frames of 2,048 points or 64 of 1,024. Half and twice as many were slower.
_BLOCK_POINTS = 65536
# A band contains few of the frequencies. In groups of this size, the bands leave out most of the others, and the matrix
# products remain large enough. Groups of 8 and of 40 were slower.
_BANDS_PER_GROUP = 24

# White noise of +-1 in the last bit of 16-bit PCM, as variance. In a band, it occasionally reaches this many times its
# mean; a window that never exceeds that level is silent. For n_fft 2048 and bands of unit area that is a power of 1e-6,
# where a full-scale sine has 5e3.
_LAST_BIT_VARIANCE = 2 / 3 / 32768**2
_PEAK_OVER_MEAN = 23.0


class LogMel:
    """The features of one input of a bundle. Stateless, and shared by all tracks.

    A frame is ``log(max(gain * mel, floor))`` or ``log(gain * mel + offset)``, where ``mel`` is
    ``mel_filters @ |rfft(window * samples)| ** power``. :class:`FeatureSpec` describes the options.

    Attributes:
        spec: The input's features.
        grid: Positions of the frames.
        window: The window function, ``[n_fft]``.
        filters: Weight of each frequency in each band, ``[n_fft // 2 + 1, n_mels]``.
        block: Number of frames that are transformed together. A block always has exactly this size, so that each frame
            is computed by the same BLAS kernels and is bit-identical however the samples arrive.
        silence: Threshold of silence in the unit of the frames, just above the last bit of 16-bit PCM.
    """

    def __init__(self, spec: FeatureSpec, sample_rate: int) -> None:
        self.spec = spec
        self.grid = FrameGrid.of(spec, sample_rate)
        self.window = _window(spec).astype(np.float32)
        filters = mel_filters(
            sample_rate=sample_rate,
            n_fft=spec.n_fft,
            n_mels=spec.n_mels,
            fmin=spec.fmin,
            fmax=spec.fmax,
            scale=spec.mel_scale,
            norm=spec.mel_norm,
            empty_bands=spec.empty_bands,
        )
        self.filters = filters.astype(np.float32)
        self.block = max(1, _BLOCK_POINTS // spec.n_fft)
        self._window_span = _span(self.window)
        self._band_groups = list(_band_groups(self.filters))
        variance = _LAST_BIT_VARIANCE * (1.0 + (spec.pre_emphasis or 0.0) ** 2)
        noise = filters.sum(axis=0).max() * (variance * (self.window.astype(np.float64) ** 2).sum()) ** (spec.power / 2)
        self.silence = float(self._log(np.array([_PEAK_OVER_MEAN * noise], dtype=np.float32))[0])

    def frames(self, samples: NDArray[np.float32], starts: NDArray[np.intp]) -> NDArray[np.float32]:
        """Compute the frames of ``samples`` that begin at ``starts``.

        Args:
            samples: Mono PCM after the pre-emphasis, ``[n_samples]``, which contains every frame completely.
            starts: First sample of each frame, ``[n_frames]``.

        Returns:
            Log-mel values, lowest band first, ``[n_frames, n_mels]``.
        """
        out = np.empty((len(starts), self.spec.n_mels), dtype=np.float32)
        if not len(starts):
            return out
        # Indexing this view copies whole frames, which is faster than indexing single samples.
        span = self._window_span
        frame_at = np.lib.stride_tricks.sliding_window_view(samples, self.spec.n_fft)[:, span]
        cut = np.zeros((self.block, self.spec.n_fft), dtype=np.float32)
        mel = np.empty((self.block, self.spec.n_mels), dtype=np.float32)
        for begin in range(0, len(starts), self.block):
            block = starts[begin : begin + self.block]
            np.multiply(frame_at[block], self.window[span], out=cut[: len(block), span])
            self._sum_bands(cut, mel)
            out[begin : begin + len(block)] = self._log(mel)[: len(block)]
        return out

    def _sum_bands(self, cut: NDArray[np.float32], mel: NDArray[np.float32]) -> None:
        # NumPy transforms float32 in float64 here. In float32 (with norm="forward") it would take half as long, but the
        # values 80 dB below the maximum of a frame would be off by up to 3e-3 dB.
        spectrum = np.fft.rfft(cut).astype(np.complex64, copy=False)
        magnitude: NDArray[np.float32] = spectrum.real**2
        magnitude += spectrum.imag**2
        if self.spec.power == 1:
            np.sqrt(magnitude, out=magnitude)
        for bands, frequencies, weights in self._band_groups:
            np.matmul(magnitude[:, frequencies], weights, out=mel[:, bands])

    def _log(self, mel: NDArray[np.float32]) -> NDArray[np.float32]:
        spec = self.spec
        if spec.gain != 1.0:
            mel *= np.float32(spec.gain)
        if spec.floor is not None:
            np.maximum(mel, np.float32(spec.floor), out=mel)
        else:
            mel += np.float32(spec.offset)
        if spec.log == "ln":
            return np.log(mel, out=mel)
        np.log10(mel, out=mel)
        if spec.log == "db":
            mel *= np.float32(10.0)
        return mel

    def stream(self, *, prompt: bool = False) -> LogMelStream:
        """Return a new stream of frames for one track; see :class:`LogMelStream` for ``prompt``."""
        return LogMelStream(self, prompt=prompt)


class LogMelStream:
    """Turns the samples of one track into frames, as they arrive; at most one block of frames is buffered.

    Args:
        features: The features.
        prompt: Whether frames are returned as soon as they are complete, and not in whole blocks. Blocks that are not
            full take as much time as others. The frames are the same.
    """

    def __init__(self, features: LogMel, *, prompt: bool) -> None:
        self._features = features
        self._prompt = prompt
        self._lead = features.grid.lead
        self._kept: NDArray[np.float32] = np.zeros(0, dtype=np.float32)
        # Position of the first sample kept. That of the padding before the track is negative.
        self._kept_from = -self._lead
        self._padded_start = not self._lead
        self._previous_sample = np.zeros(1, dtype=np.float32)
        self._next_frame = 0
        self.n_samples = 0
        """Samples received so far."""

    def push(self, samples: NDArray[np.float32]) -> NDArray[np.float32]:
        """Add samples and return the frames that are complete, in whole blocks unless the stream is ``prompt``.

        Args:
            samples: The next mono PCM samples, ``[n_samples]``.

        Returns:
            Frames, ``[n_frames, n_mels]``; empty while no block, or with ``prompt`` no frame, is complete.
        """
        self._kept = np.concatenate((self._kept, self._emphasised(samples)))
        self.n_samples += len(samples)
        if not self._padded_start:
            # The reflection of the first sample is not repeated, so that it needs one more sample than it has.
            if self.n_samples <= self._lead:
                return self._take(0)
            self._pad(self._lead, 0)
        complete = self._features.grid.frames_complete_by(self.n_samples) - self._next_frame
        return self._take(complete if self._prompt else complete - complete % self._features.block)

    def finish(self) -> NDArray[np.float32]:
        """Return the remaining frames: all whose position is within the track, padded beyond its end.

        Returns:
            Frames, ``[n_frames, n_mels]``.
        """
        remaining = self._features.grid.frames_started_by(self.n_samples) - self._next_frame
        if remaining:
            # What is kept reaches back as far as a reflection does, because it contains the next frame's first sample.
            self._pad(0 if self._padded_start else self._lead, self._lead or self._features.spec.n_fft)
        return self._take(remaining)

    def _emphasised(self, samples: NDArray[np.float32]) -> NDArray[np.float32]:
        coefficient = self._features.spec.pre_emphasis
        if coefficient is None or not len(samples):
            return samples
        before = np.concatenate((self._previous_sample, samples[:-1]))
        self._previous_sample = samples[-1:].copy()
        before *= np.float32(-coefficient)
        before += samples
        return before

    def _pad(self, before: int, after: int) -> None:
        mode: Literal["reflect", "constant"] = "reflect" if self._features.spec.centred == "reflect" else "constant"
        self._kept = np.pad(self._kept, (before, after), mode)
        self._padded_start = True

    def _take(self, n_frames: int) -> NDArray[np.float32]:
        grid = self._features.grid
        starts = grid.starts(self._next_frame, n_frames) - self._lead - self._kept_from
        frames = self._features.frames(self._kept, starts)
        self._next_frame += n_frames
        used = min(grid.start(self._next_frame) - self._lead - self._kept_from, len(self._kept))
        self._kept = self._kept[used:].copy()
        self._kept_from += used
        return frames


def _window(spec: FeatureSpec) -> NDArray[np.float64]:
    """Return the window function over a whole frame, ``[n_fft]``, as ``scipy.signal.get_window`` and librosa do."""
    length = spec.win_length or spec.n_fft
    period = length if spec.window == "hann" else length - 1
    hann = 0.5 - 0.5 * np.cos(2.0 * np.pi * np.arange(length) / period)
    before = (spec.n_fft - length) // 2
    return np.pad(hann, (before, spec.n_fft - length - before))


def _band_groups(filters: NDArray[np.float32]) -> Iterator[tuple[slice, slice, NDArray[np.float32]]]:
    """Divide the bands into groups.

    Args:
        filters: Weight of each frequency in each band, ``[n_fft // 2 + 1, n_mels]``.

    Yields:
        The bands of a group, the range of their frequencies, and the weights of these, ``[n_frequencies, n_bands]``.
    """
    for first in range(0, filters.shape[1], _BANDS_PER_GROUP):
        bands = slice(first, first + _BANDS_PER_GROUP)
        frequencies = _span(filters[:, bands].max(axis=1))
        yield bands, frequencies, filters[frequencies, bands].copy()


def _span(values: NDArray[np.float32]) -> slice:
    """Return the range from the first to the last value that is not zero; an empty one if there is none."""
    found = np.flatnonzero(values)
    return slice(found[0], found[-1] + 1) if len(found) else slice(0, 0)
