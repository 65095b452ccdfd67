"""Positions of frames and windows on the time axis, in exact arithmetic.

All positions are computed from rational numbers, so that training and serving agree to the sample in tracks of any
length.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from wholetrack.contracts import FeatureSpec, WindowSpec


def _rounded_quotient(numerator: int, denominator: int) -> int:
    """Round ``numerator / denominator`` to the nearest integer, halves up (not to even, as ``round`` does)."""
    return (2 * numerator + denominator) // (2 * denominator)


def decimal_fraction(seconds: float) -> Fraction:
    """Return the exact value of a decimal number of seconds: 0.1 becomes 1/10, not the nearest binary fraction."""
    return Fraction(repr(float(seconds)))


@dataclass(frozen=True, slots=True)
class FrameGrid:
    """Frame ``i`` covers the samples ``[start(i) - lead, start(i) - lead + n_fft)``.

    Attributes:
        sample_rate: Sample rate in Hz.
        n_fft: Samples per frame.
        rate: Frames per second, as an exact fraction.
        lead: Samples of a frame that lie before its position: half of them if frames are centred, else none.
    """

    sample_rate: int
    n_fft: int
    rate: Fraction
    lead: int = 0

    @classmethod
    def of(cls, features: FeatureSpec, sample_rate: int) -> FrameGrid:
        """Return the grid of a bundle's features."""
        lead = features.n_fft // 2 if features.centred else 0
        return cls(sample_rate=sample_rate, n_fft=features.n_fft, rate=features.frame_rate(sample_rate), lead=lead)

    def start(self, frame: int) -> int:
        """Return the position of a frame, in samples: ``round(frame * sample_rate / rate)``."""
        return _rounded_quotient(frame * self.sample_rate * self.rate.denominator, self.rate.numerator)

    def starts(self, first: int, n_frames: int) -> NDArray[np.int64]:
        """Return the positions of consecutive frames, as :meth:`start` does."""
        period = self.sample_rate / self.rate
        frames = np.arange(first, first + n_frames, dtype=np.int64)
        return (2 * period.numerator * frames + period.denominator) // (2 * period.denominator)

    def time_s(self, frame: int) -> float:
        """Return the position of a frame in seconds."""
        return frame * self.rate.denominator / self.rate.numerator

    def frames_started_by(self, n_samples: int) -> int:
        """Return the number of frames whose position is before sample ``n_samples``."""
        # start(i) < n exactly when i * sample_rate / rate + 1/2 < n, so i < (n - 1/2) * rate / sample_rate.
        numerator = (2 * n_samples - 1) * self.rate.numerator
        return max(0, -(-numerator // (2 * self.sample_rate * self.rate.denominator)))

    def frames_complete_by(self, n_samples: int) -> int:
        """Return the number of frames that end at or before sample ``n_samples``."""
        return self.frames_started_by(n_samples + self.lead - self.n_fft + 1)


@dataclass(frozen=True, slots=True)
class WindowGrid:
    """Window ``k`` consists of the frames ``[start(k), start(k) + spec.frames)``.

    Attributes:
        frames: Positions of the frames.
        spec: Length of the windows, and the rules for the last window and for short tracks.
        hop: Distance between window starts in seconds, as an exact fraction. Windows start at the nearest frame.
        window_samples: Length of a window in samples.
    """

    frames: FrameGrid
    spec: WindowSpec
    hop: Fraction
    window_samples: int

    @classmethod
    def of(cls, spec: WindowSpec, frames: FrameGrid, hop_s: float | None = None) -> WindowGrid:
        """Return the grid of windows for a hop.

        Args:
            spec: The bundle's windows.
            frames: Positions of the bundle's frames.
            hop_s: Distance between window starts in seconds; None for the bundle's default.

        Raises:
            ValueError: If ``hop_s`` is shorter than a frame or longer than a window, or if the frames of a window
                extend beyond its end.
        """
        hop = decimal_fraction(spec.hop_s if hop_s is None else hop_s)
        shortest, longest = 1 / frames.rate, decimal_fraction(spec.window_s)
        if not shortest <= hop <= longest:
            raise ValueError(f"hop_s must be between one frame ({float(shortest):.6g} s) and the window ({longest} s)")
        length = longest * frames.sample_rate
        window_samples = _rounded_quotient(length.numerator, length.denominator)
        if frames.start(spec.frames - 1) >= window_samples:
            raise ValueError(
                f"{spec.frames} frames do not start within a window of {spec.window_s} s: use fewer frames"
            )
        return cls(frames=frames, spec=spec, hop=hop, window_samples=window_samples)

    def start(self, window: int) -> int:
        """Return the first frame of a window: the frame nearest to ``window * hop``."""
        step = self.hop * self.frames.rate
        return _rounded_quotient(window * step.numerator, step.denominator)

    def fits(self, first_frame: int, n_samples: int) -> bool:
        """Return whether a window that starts at ``first_frame`` ends within a track of ``n_samples``."""
        return self.frames.start(first_frame) + self.window_samples <= n_samples

    def starts(self, n_samples: int, *, from_window: int = 0) -> Iterator[int]:
        """Yield the first frame of each window of a track of ``n_samples``, starting with window ``from_window``.

        A track shorter than one window has exactly one window, at frame 0, which the short-track rule fills. If the
        track extends beyond the last whole hop and the rule is ``align_to_end``, there is one more window: the latest
        that fits.
        """
        window = from_window
        while self.fits(first := self.start(window), n_samples):
            yield first
            window += 1
        if window == 0:
            yield 0
        elif self.spec.last_window == "align_to_end":
            last = self.frames.frames_started_by(n_samples - self.window_samples + 1) - 1
            if last > self.start(window - 1):
                yield last


@dataclass(frozen=True, slots=True)
class InputGrid:
    """The frames of one input that belong to a window.

    Windows start at frames of the reference grid. An input with another frame rate starts at its frame nearest to that
    time, so that it covers the same audio to within half a frame.

    Attributes:
        n_frames: Frames per window.
        ratio: Frames of the input per frame of the reference grid.
    """

    n_frames: int
    ratio: Fraction

    @classmethod
    def of(cls, frames: FrameGrid, windows: WindowGrid, *, n_frames: int) -> InputGrid:
        """Return the grid of an input.

        Args:
            frames: Positions of the frames of the input.
            windows: Positions of the windows.
            n_frames: Frames per window.

        Raises:
            ValueError: If the last frame does not start within every window, including those that start half a frame
                before the first frame.
        """
        ratio = frames.rate / windows.frames.rate
        late = Fraction(0) if ratio == 1 else Fraction(1, 2)
        last = (n_frames - 1 + late) * frames.sample_rate / frames.rate
        # Three positions are rounded to samples.
        if last + (2 if late else 0) >= windows.window_samples:
            window_s = windows.spec.window_s
            raise ValueError(f"{n_frames} frames do not start within every window of {window_s} s: use fewer frames")
        return cls(n_frames, ratio)

    def start(self, reference_frame: int) -> int:
        """Return the first frame of a window that starts at a frame of the reference grid, halves rounded up."""
        return _rounded_quotient(reference_frame * self.ratio.numerator, self.ratio.denominator)
