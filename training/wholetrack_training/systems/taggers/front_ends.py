"""The log-mel spectrograms that the published taggers were trained on."""

from __future__ import annotations

from wholetrack.contracts import Affine, FeatureSpec, Unchanged

MN04 = FeatureSpec(
    pre_emphasis=0.97,
    n_fft=1024,
    win_length=800,
    window="hann_symmetric",
    centred="reflect",
    hop_length=320,
    n_mels=128,
    fmin=0.0,
    fmax=15000.0,
    mel_scale="kaldi",
    mel_norm=None,
    log="ln",
    offset=1e-5,
    normalisation=Affine(add=4.5, divide_by=5.0),
)
"""Of mn04, for audio at 32 kHz."""

MUSICNN = FeatureSpec(
    n_fft=512,
    centred="reflect",
    hop_length=256,
    n_mels=96,
    fmin=0.0,
    fmax=8000.0,
    log="log10",
    gain=1e4,
    offset=1.0,
    normalisation=Unchanged(),
)
"""Of musicnn, for audio at 16 kHz."""

FCN = FeatureSpec(
    n_fft=512,
    centred="reflect",
    hop_length=256,
    n_mels=96,
    fmin=0.0,
    fmax=8000.0,
    mel_scale="htk",
    mel_norm=None,
    log="db",
    floor=1e-10,
    normalisation=Unchanged(),
)
"""Of the FCN taggers, for audio at 16 kHz."""
