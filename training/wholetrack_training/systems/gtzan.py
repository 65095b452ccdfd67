"""The features of ``gtzan-mel.npz``, the precomputed spectrograms that all systems can be trained on."""

from __future__ import annotations

from wholetrack.contracts import AudioSpec, FeatureSpec, Normalisation

GTZAN_AUDIO = AudioSpec(sample_rate=22050)

MAX_PRECOMPUTED_S = 29.0
"""Longest window in whole seconds that fits in a clip of ``gtzan-mel.npz``, 387 frames at 13 frames per second."""


def gtzan_features(normalisation: Normalisation) -> FeatureSpec:
    """Return the features of ``gtzan-mel.npz``: 128 bands, 13 frames per second, 80 dB below the clip's maximum."""
    return FeatureSpec(
        n_fft=2048,
        frames_per_second=13,
        n_mels=128,
        fmin=0.0,
        fmax=11025.0,
        floor=1e-10,
        normalisation=normalisation,
    )
