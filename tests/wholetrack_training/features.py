"""The features that tests extract from recordings: those of our own system."""

from __future__ import annotations

from wholetrack.contracts import AudioSpec, FeatureSpec, RelativeToMax

AUDIO = AudioSpec(sample_rate=22050)
FEATURES = FeatureSpec(
    n_fft=2048,
    frames_per_second=13,
    n_mels=128,
    fmin=0.0,
    fmax=11025.0,
    floor=1e-10,
    normalisation=RelativeToMax(range_db=60),
)
