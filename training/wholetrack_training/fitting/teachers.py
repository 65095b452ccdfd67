"""The published taggers, asked about batches of windows on a device while a network learns from them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from wholetrack_training.fitting.waveforms import Stretches, windows_of
from wholetrack_training.systems.spectrograms import Spectrogram
from wholetrack_training.systems.taggers.tagger import Tagger, open_tagger
from wholetrack_training.systems.two_towers import WINDOW_S

WINDOW_TAGGERS = ("mn04", "msd_musicnn")
"""The taggers that are asked about each window of 3 s."""
LONG_TAGGER = "msd_fcn"
"""The tagger that is asked about each stretch as a whole, because its window has 29 s."""

_OUTLIER = 8.0
# A batch of the FCN takes 90 MB of memory per window.
_BATCH = 64
_MIN_DEVIATION = 1e-3


@dataclass(frozen=True, slots=True)
class TaggerTargets:
    """What a tagger says about windows.

    Attributes:
        logits: ``[N, n_labels]``.
        embedding: ``[N, length]``; ``length`` is 0 for the FCN.
    """

    logits: Tensor
    embedding: Tensor

    def joined(self) -> Tensor:
        """Return logits and embedding side by side."""
        return torch.cat((self.logits, self.embedding), dim=1)


class Teachers(nn.Module):
    """All taggers with their spectrograms."""

    def __init__(self, taggers: Sequence[Tagger]) -> None:
        super().__init__()
        self.taggers = {tagger.name: tagger for tagger in taggers}
        self.networks = nn.ModuleDict({tagger.name: tagger.network for tagger in taggers})
        self.spectrograms = nn.ModuleDict(
            {tagger.name: Spectrogram(tagger.features, tagger.sample_rate, tagger.frames) for tagger in taggers}
        )
        self.eval().requires_grad_(requires_grad=False)

    @torch.no_grad()
    def targets(self, stretches: Stretches) -> dict[str, TaggerTargets]:
        """Ask about the windows of some stretches.

        Args:
            stretches: Stretches of a whole number of windows.

        Returns:
            The targets of ``N * n_windows`` windows by tagger, those of a stretch one after the other.
        """
        found = {}
        for name in WINDOW_TAGGERS:
            rate = self.taggers[name].sample_rate
            found[name] = self._of(name, windows_of(stretches.at(rate), WINDOW_S * rate))
        tagger = self.taggers[LONG_TAGGER]
        whole = stretches.at(tagger.sample_rate)
        n_windows = whole.shape[1] // (WINDOW_S * tagger.sample_rate)
        needed = round(tagger.window_s * tagger.sample_rate)
        repeated = whole.repeat(1, -(-needed // whole.shape[1]))[:, :needed]
        of_stretch = self._of(LONG_TAGGER, repeated)
        found[LONG_TAGGER] = TaggerTargets(
            of_stretch.logits.repeat_interleave(n_windows, dim=0),
            of_stretch.embedding.repeat_interleave(n_windows, dim=0),
        )
        return found

    def _of(self, name: str, samples: Tensor) -> TaggerTargets:
        found = [self.networks[name](self.spectrograms[name](part)) for part in torch.split(samples, _BATCH)]
        logits, embedding = (torch.cat(parts).float() for parts in zip(*found, strict=True))
        return TaggerTargets(logits, embedding)


class TargetScale(nn.Module):
    """Mean and deviation of everything a tagger says, by which the differences are measured."""

    mean: Tensor
    deviation: Tensor

    def __init__(self, values: Tensor) -> None:
        """Measure a sample, ``[N, length]``."""
        super().__init__()
        self.register_buffer("mean", values.mean(0))
        self.register_buffer("deviation", values.std(0) + _MIN_DEVIATION)

    def standardised(self, values: Tensor) -> Tensor:
        """Return values in deviations from the mean; at most eight of them, in either direction."""
        return ((values - self.mean) / self.deviation).clamp(-_OUTLIER, _OUTLIER)

    def loss(self, found: Tensor, values: Tensor) -> Tensor:
        """Return the mean squared difference of predictions, in deviations, from values in their own unit."""
        return (found - self.standardised(values)).square().mean()


def open_teachers(weights: Path) -> Teachers:
    """Open all taggers from a folder of published weights."""
    return Teachers([open_tagger(name, weights) for name in (*WINDOW_TAGGERS, LONG_TAGGER)])
