"""The sound of a filter is made of the moments that excite it, from different recordings."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.harness.recordings import wav_bytes
from wholetrack.contracts import Unchanged
from wholetrack.decoding.decoder import FfmpegDecoder

pytest.importorskip("torch", reason="PyTorch is not installed: pip install -e '.[train]'")

import torch
from torch import Tensor, nn

from wholetrack_training.data.tracks import DataError
from wholetrack_training.results.filter_sounds import loudest_moments, write_sounds
from wholetrack_training.systems.layers import as_image
from wholetrack_training.systems.recipe import Source
from wholetrack_training.systems.wholetrack_crnn import WholetrackCrnn

pytestmark = pytest.mark.torch

_PUBLISHED = WholetrackCrnn.of(Source.AUDIO)
# Absolute levels, so that a burst is loud beside another window and not only beside its own.
RECIPE = replace(_PUBLISHED, features=_PUBLISHED.features.model_copy(update={"normalisation": Unchanged()}))
RATE = 22050


class TwoEars(nn.Module):
    """One filter hears the lower half of the bands, the other the upper."""

    def __init__(self) -> None:
        super().__init__()
        self.ears = nn.Conv2d(1, 2, (128, 1), bias=False)
        weight = torch.zeros(2, 1, 128, 1)
        weight[0, :, :64], weight[1, :, 64:] = 1.0, 1.0
        self.ears.weight = nn.Parameter(weight)

    def forward(self, windows: Tensor) -> Tensor:
        heard: Tensor = self.ears(as_image(windows)).mean((2, 3))
        return heard


def burst(noise: NDArray[np.float64], *, at_s: float, high: bool) -> NDArray[np.float32]:
    """Ten seconds of faint noise with half a second of strong noise in one half of the spectrum."""
    spectrum = np.fft.rfft(noise)
    upper = np.fft.rfftfreq(len(noise), 1 / RATE) > 2500
    spectrum[upper != high] = 0
    loud = np.fft.irfft(spectrum, len(noise))
    time = np.arange(len(noise)) / RATE
    return (1e-4 * noise + 0.2 * loud * ((time >= at_s) & (time < at_s + 0.5))).astype(np.float32)


def test_a_filter_is_heard_where_it_is_excited(
    tmp_path: Path, decoder: FfmpegDecoder, rng: np.random.Generator
) -> None:
    noise = rng.standard_normal(10 * RATE)
    files = []
    for name, at_s, high in (("low", 2.0, False), ("high", 7.0, True), ("high-too", 4.0, True)):
        files.append(tmp_path / f"{name}.wav")
        files[-1].write_bytes(wav_bytes(burst(noise, at_s=at_s, high=high), RATE))
    (tmp_path / "notes.txt").write_text("no music")
    network = TwoEars().eval()
    found = loudest_moments(network, RECIPE, [*files, tmp_path / "notes.txt"], decoder, moments=2)
    assert set(found) == {("ears", 0), ("ears", 1)}
    lower, upper = found["ears", 0], found["ears", 1]
    assert lower[0].recording.name == "low.wav"
    assert lower[0].at_s == pytest.approx(2.25, abs=0.4)
    assert {moment.recording.name: round(moment.at_s) for moment in upper} == {"high.wav": 7, "high-too.wav": 4}
    assert upper[0].excitement >= upper[1].excitement

    page = write_sounds(found, tmp_path / "sounds", decoder)
    text = page.read_text()
    for number in (0, 1):
        sound = page.with_name(f"ears-{number:03}.ogg")
        assert sound.name in text
        with decoder.open(sound, sample_rate=RATE, max_duration_s=60) as decoding:
            heard = np.concatenate(list(decoding.blocks()))
        assert len(heard) / RATE == pytest.approx(1.6, abs=0.1)
        power = np.square(np.abs(np.fft.rfft(heard)))
        above = np.fft.rfftfreq(len(heard), 1 / RATE) > 2500
        # Filter 1 is nearly all high; what filter 0 has as its second recording is high noise, but its first is low.
        assert (power[above].sum() / power.sum() > 0.9) == (number == 1)


def test_nothing_to_hear(tmp_path: Path, decoder: FfmpegDecoder, tune: NDArray[np.float32]) -> None:
    (tmp_path / "notes.txt").write_text("no music")
    with pytest.raises(DataError, match="no recording can be heard"):
        loudest_moments(TwoEars(), RECIPE, [tmp_path / "notes.txt"], decoder, moments=2)
    (tmp_path / "tune.wav").write_bytes(wav_bytes(tune, RATE))
    with pytest.raises(DataError, match="no convolution"):
        loudest_moments(nn.Flatten(), RECIPE, [tmp_path / "tune.wav"], decoder, moments=2)
