"""Where frames and windows lie on the time axis, in exact arithmetic.

All positions follow from rational numbers, so two callers never disagree by a sample, however long the track.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction

from wholetrack.contracts import FeatureSpec, WindowSpec


def _rounded_quotient(numerator: int, denominator: int) -> int:
    """``numerator / denominator`` to the nearest integer; halves go up, whatever the parity."""
    return (2 * numerator + denominator) // (2 * denominator)


def decimal_fraction(seconds: float) -> Fraction:
    """The fraction that a person meant by a decimal number of seconds: 0.1 is 1/10, not its binary neighbour."""
    return Fraction(repr(float(seconds)))


@dataclass(frozen=True, slots=True)
class FrameGrid:
    """Frame ``i`` covers the samples ``[start(i), start(i) + n_fft)``.

    Attributes:
        sample_rate: in Hz.
        n_fft: samples per frame.
        rate: frames per second, exact.
    """

    sample_rate: int
    n_fft: int
    rate: Fraction

    @classmethod
    def of(cls, features: FeatureSpec, sample_rate: int) -> FrameGrid:
        """The grid that a bundle prescribes."""
        return cls(sample_rate=sample_rate, n_fft=features.n_fft, rate=features.frame_rate(sample_rate))

    def start(self, frame: int) -> int:
        """First sample of a frame: ``round(frame * sample_rate / rate)``."""
        return _rounded_quotient(frame * self.sample_rate * self.rate.denominator, self.rate.numerator)

    def time_s(self, frame: int) -> float:
        """When a frame starts, in seconds."""
        return frame * self.rate.denominator / self.rate.numerator

    def frames_started_by(self, n_samples: int) -> int:
        """How many frames start before sample ``n_samples``."""
        # start(i) < n exactly when i * sample_rate / rate + 1/2 < n, so i < (n - 1/2) * rate / sample_rate.
        numerator = (2 * n_samples - 1) * self.rate.numerator
        return max(0, -(-numerator // (2 * self.sample_rate * self.rate.denominator)))

    def frames_complete_by(self, n_samples: int) -> int:
        """How many frames end at or before sample ``n_samples``."""
        return self.frames_started_by(n_samples - self.n_fft + 1)


@dataclass(frozen=True, slots=True)
class WindowGrid:
    """Window ``k`` takes the frames ``[start(k), start(k) + spec.frames)``.

    Attributes:
        frames: the grid of frames that windows are slices of.
        spec: length, last-window and short-track rules.
        hop: distance between window starts in seconds, exact; windows start on the nearest frame.
        window_samples: length of a window.
    """

    frames: FrameGrid
    spec: WindowSpec
    hop: Fraction
    window_samples: int

    @classmethod
    def of(cls, spec: WindowSpec, frames: FrameGrid, hop_s: float | None = None) -> WindowGrid:
        """The grid for one track, with its own hop or the bundle's.

        Args:
            spec: the bundle's windows.
            frames: the bundle's grid of frames.
            hop_s: distance between window starts, in seconds; None for the bundle's default.

        Raises:
            ValueError: if ``hop_s`` is shorter than a frame or longer than a window, or if the frames of a window
                reach past its end.
        """
        hop = decimal_fraction(spec.hop_s if hop_s is None else hop_s)
        shortest, longest = 1 / frames.rate, decimal_fraction(spec.window_s)
        if not shortest <= hop <= longest:
            raise ValueError(f"hop_s must lie between one frame ({float(shortest):.6g} s) and the window ({longest} s)")
        length = longest * frames.sample_rate
        window_samples = _rounded_quotient(length.numerator, length.denominator)
        if frames.start(spec.frames - 1) >= window_samples:
            raise ValueError(f"{spec.frames} frames do not start within a window of {spec.window_s} s")
        return cls(frames=frames, spec=spec, hop=hop, window_samples=window_samples)

    def start(self, window: int) -> int:
        """First frame of a window: the frame nearest to ``window * hop``."""
        step = self.hop * self.frames.rate
        return _rounded_quotient(window * step.numerator, step.denominator)

    def fits(self, first_frame: int, n_samples: int) -> bool:
        """Whether a window that starts at ``first_frame`` ends within a track of ``n_samples``."""
        return self.frames.start(first_frame) + self.window_samples <= n_samples

    def starts(self, n_samples: int, *, from_window: int = 0) -> Iterator[int]:
        """First frames of the windows of a whole track of ``n_samples``, from window ``from_window`` on.

        A track shorter than one window has exactly one, at frame 0, which the short-track rule fills. Where whole
        hops leave a rest and the bundle's rule is ``align_to_end``, the last window is the latest that still fits.
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
