"""Log-mel spectrograms of batches of windows in PyTorch, on any device.

They have the same values as those of the service (:mod:`wholetrack.features.logmel`), which are computed one track at
a time on the CPU.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from wholetrack.contracts import Affine, FeatureSpec, RelativeToMax, Unchanged
from wholetrack.features.logmel import LogMel


class Spectrogram(nn.Module):
    """Maps the samples of windows ``[N, n_samples]`` to normalised frames ``[N, frames, n_mels]``.

    Every window is treated as a whole recording: centred frames at its ends are padded as the features say, and samples
    beyond its end are zero.
    """

    window: Tensor
    filters: Tensor
    positions: Tensor

    def __init__(self, spec: FeatureSpec, sample_rate: int, frames: int) -> None:
        """Prepare a spectrogram.

        Args:
            spec: The features.
            sample_rate: Sample rate in Hz.
            frames: Frames per window.
        """
        super().__init__()
        features = LogMel(spec, sample_rate)
        self.spec = spec
        self.lead = features.grid.lead
        starts = torch.from_numpy(features.grid.starts(0, frames))
        self.register_buffer("window", torch.from_numpy(features.window), persistent=False)
        self.register_buffer("filters", torch.from_numpy(features.filters), persistent=False)
        self.register_buffer("positions", starts[:, None] + torch.arange(spec.n_fft), persistent=False)
        self.needed = int(starts[-1]) + spec.n_fft

    def forward(self, samples: Tensor) -> Tensor:
        """Return the frames, in float32."""
        if self.spec.pre_emphasis is not None:
            samples = torch.cat((samples[:, :1], samples[:, 1:] - self.spec.pre_emphasis * samples[:, :-1]), dim=1)
        if self.lead:
            mode = "reflect" if self.spec.centred == "reflect" else "constant"
            samples = nn.functional.pad(samples[:, None], (self.lead, self.lead), mode=mode)[:, 0]
        if samples.shape[1] < self.needed:
            samples = nn.functional.pad(samples, (0, self.needed - samples.shape[1]))
        spectrum = torch.fft.rfft(samples[:, self.positions] * self.window)
        magnitude = spectrum.real.square() + spectrum.imag.square()
        if self.spec.power == 1:
            magnitude = magnitude.sqrt()
        return self._normalised(self._log(magnitude @ self.filters))

    def _log(self, mel: Tensor) -> Tensor:
        mel = mel * self.spec.gain
        mel = mel + (self.spec.offset or 0.0) if self.spec.floor is None else mel.clamp(min=self.spec.floor)
        if self.spec.log == "ln":
            return mel.log()
        return mel.log10() * (10.0 if self.spec.log == "db" else 1.0)

    def _normalised(self, frames: Tensor) -> Tensor:
        match self.spec.normalisation:
            case RelativeToMax(range_db=range_db):
                relative = frames - frames.amax((1, 2), keepdim=True)
                return (relative / range_db + 1.0).clamp(min=0.0)
            case Affine(add=add, divide_by=divide_by):
                return (frames + add) / divide_by
            case Unchanged():
                return frames
            case other:
                raise ValueError(f"{type(other).__name__} is not available in training")
