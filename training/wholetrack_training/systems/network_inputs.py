"""The two spectrograms of wholetrack-crnn 2, from the samples of windows."""

from __future__ import annotations

from torch import Tensor, nn

from wholetrack.contracts import RelativeToMax
from wholetrack_training.systems.gtzan import gtzan_features
from wholetrack_training.systems.spectrograms import Spectrogram
from wholetrack_training.systems.two_towers import AUDIO, MUSIC_FEATURES, MUSIC_FRAMES, SPECTRUM_FRAMES

RANGE_DB = 60.0
"""Range of the spectrum tower's input, below the maximum of the window."""

SPECTRUM_FEATURES = gtzan_features(RelativeToMax(range_db=RANGE_DB))
"""The spectrogram of the spectrum tower."""


class NetworkInputs(nn.Module):
    """Maps the samples of windows ``[N, n_samples]`` to the inputs of both towers."""

    def __init__(self) -> None:
        super().__init__()
        self.spectrum = Spectrogram(SPECTRUM_FEATURES, AUDIO.sample_rate, SPECTRUM_FRAMES)
        self.music = Spectrogram(MUSIC_FEATURES, AUDIO.sample_rate, MUSIC_FRAMES)

    def forward(self, samples: Tensor) -> tuple[Tensor, Tensor]:
        """Return ``[N, 39, 128]`` and ``[N, 288, 112]``."""
        return self.spectrum(samples), self.music(samples)
