"""Mix the channels of a recording to mono.

The mix is the mean of all channels, as in ``librosa.to_mono``. If one channel is the inverse of another, because of a
wrongly wired cable or a stereo effect, the mean is silence although there is sound. Where that happens, the first
channel is used instead.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

# A mean with less than a hundredth of the power of the first channel, 20 dB, is the remainder of channels that cancel.
# Uncorrelated channels lose 3 dB.
_CANCELLED_POWER = 0.01
_CELL_S = 1.0
_CROSSFADE_S = 0.05
# Power of 16-bit rounding noise. A mean that is silent because its channels are silent is not a loss.
_SILENT_POWER = 1e-9
# The power is estimated from every fourth sample. Aliasing does not change it.
_POWER_STRIDE = 4


class MonoMixer:
    """Mixes channels to mono, deciding for each second of audio whether they cancel.

    The decisions are made on a fixed grid of whole seconds, so they do not depend on how the audio is divided into
    blocks. Between seconds with different decisions, the output is crossfaded for 50 ms. Audio in which no channels
    cancel is returned unchanged.

    Args:
        rate: Sample rate in Hz.

    Attributes:
        cell: Number of samples of a cell of the grid.
        cancelled_s: Duration of the audio in which the first channel was used, in seconds.
    """

    def __init__(self, rate: int) -> None:
        self._rate = rate
        self._fade = np.linspace(0.0, 1.0, max(2, round(_CROSSFADE_S * rate)), dtype=np.float32)
        self._was_cancelled: bool | None = None
        self.cell = max(1, round(_CELL_S * rate))
        self.cancelled_s = 0.0

    def mix(self, frames: NDArray[np.float32]) -> NDArray[np.float32]:
        """Mix a whole number of cells, or the last samples of the recording.

        Args:
            frames: The mean of all channels and the first channel, ``[n_samples, 2]``.

        Returns:
            Mono samples, ``[n_samples]``.
        """
        mono = np.ascontiguousarray(frames[:, 0])
        first = frames[:, 1]
        # Float formats can hold numbers whose squares do not fit.
        with np.errstate(over="ignore", invalid="ignore"):
            for start in range(0, len(mono), self.cell):
                cell = slice(start, start + self.cell)
                self._mix_cell(mono[cell], first[cell])
        return mono

    def _mix_cell(self, mono: NDArray[np.float32], first: NDArray[np.float32]) -> None:
        """Replace the mean in ``mono``, wholly or partly, if the channels of this cell or the previous one cancel."""
        power = _power(first)
        is_cancelled = power > _SILENT_POWER and _power(mono) < _CANCELLED_POWER * power
        was_cancelled = is_cancelled if self._was_cancelled is None else self._was_cancelled
        self._was_cancelled = is_cancelled
        if not (is_cancelled or was_cancelled):
            return
        weight = np.full(len(mono), np.float32(is_cancelled))
        if is_cancelled != was_cancelled:
            fade = self._fade[: len(mono)]
            weight[: len(fade)] = fade if is_cancelled else 1 - fade
        mono += weight * (first - mono)
        self.cancelled_s += is_cancelled * len(mono) / self._rate


def _power(samples: NDArray[np.float32]) -> float:
    """Return the mean square of samples, or 0 if they are not finite."""
    # Not np.dot, for which the linear algebra library would start threads.
    power = float(np.square(samples[::_POWER_STRIDE]).mean(dtype=np.float64))
    return power if np.isfinite(power) else 0.0
