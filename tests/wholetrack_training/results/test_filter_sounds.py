"""The sound of a filter consists of the moments that activate it most, from different recordings."""

from __future__ import annotations

import re
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

from wholetrack_training.errors import DataError
from wholetrack_training.results.filter_sounds import Moment, strongest_moments, write_sounds
from wholetrack_training.systems.layers import as_image
from wholetrack_training.systems.recipe import Source
from wholetrack_training.systems.wholetrack_crnn import WholetrackCrnn

pytestmark = pytest.mark.torch

_PUBLISHED = WholetrackCrnn.of(Source.AUDIO)
# Not normalised, so that a burst is louder than other windows, not only louder than the rest of its own window.
RECIPE = replace(_PUBLISHED, features=_PUBLISHED.features.model_copy(update={"normalisation": Unchanged()}))
RATE = 22050


class TwoFilters(nn.Module):
    """A network with one filter for the lower half of the bands and one for the upper."""

    def __init__(self) -> None:
        super().__init__()
        self.filters = nn.Conv2d(1, 2, (128, 1), bias=False)
        weight = torch.zeros(2, 1, 128, 1)
        weight[0, :, :64], weight[1, :, 64:] = 1.0, 1.0
        self.filters.weight = nn.Parameter(weight)

    def forward(self, windows: Tensor) -> Tensor:
        activation: Tensor = self.filters(as_image(windows)).mean((2, 3))
        return activation


def burst(noise: NDArray[np.float64], *, at_s: float, high: bool) -> NDArray[np.float32]:
    """Return ten seconds of faint noise with half a second of loud noise in one half of the spectrum."""
    spectrum = np.fft.rfft(noise)
    upper = np.fft.rfftfreq(len(noise), 1 / RATE) > 2500
    spectrum[upper != high] = 0
    loud = np.fft.irfft(spectrum, len(noise))
    time = np.arange(len(noise)) / RATE
    return (1e-4 * noise + 0.2 * loud * ((time >= at_s) & (time < at_s + 0.5))).astype(np.float32)


def test_the_moments_of_a_filter_are_where_its_activation_is_highest(
    tmp_path: Path, decoder: FfmpegDecoder, rng: np.random.Generator
) -> None:
    noise = rng.standard_normal(10 * RATE)
    files = []
    for name, at_s, high in (("low", 2.0, False), ("high", 7.0, True), ("high-too", 4.0, True)):
        files.append(tmp_path / f"{name}.wav")
        files[-1].write_bytes(wav_bytes(burst(noise, at_s=at_s, high=high), RATE))
    (tmp_path / "notes.txt").write_text("not music")
    network = TwoFilters().eval()
    found = strongest_moments(network, RECIPE, [*files, tmp_path / "notes.txt"], decoder, moments=2)
    assert set(found) == {("filters", 0), ("filters", 1)}
    lower, upper = found["filters", 0], found["filters", 1]
    assert lower[0].recording.name == "low.wav"
    assert lower[0].at_s == pytest.approx(2.25, abs=0.4)
    assert {moment.recording.name: round(moment.at_s) for moment in upper} == {"high.wav": 7, "high-too.wav": 4}
    assert upper[0].activation >= upper[1].activation

    page = write_sounds(found, tmp_path / "sounds", decoder)
    text = page.read_text()
    for number in (0, 1):
        sound = page.with_name(f"filters-{number:03}.ogg")
        assert sound.name in text
        with decoder.open(sound, sample_rate=RATE, max_duration_s=60) as decoding:
            samples = np.concatenate(list(decoding.blocks()))
        assert len(samples) / RATE == pytest.approx(1.6, abs=0.1)
        power = np.square(np.abs(np.fft.rfft(samples)))
        above = np.fft.rfftfreq(len(samples), 1 / RATE) > 2500
        # The sound of filter 1 is almost entirely high noise. That of filter 0 begins with low noise, but its second
        # moment is high noise, because only one recording has a low burst.
        assert (power[above].sum() / power.sum() > 0.9) == (number == 1)


def test_the_page_says_when_and_how_many_moments_there_are(
    tmp_path: Path, decoder: FfmpegDecoder, rng: np.random.Generator
) -> None:
    song = tmp_path / "song.wav"
    song.write_bytes(wav_bytes((0.1 * rng.standard_normal(130 * RATE)).astype(np.float32), RATE))
    moments = [Moment(1.0 - at_s / 1000, song, at_s) for at_s in (0.04, 59.94, 59.96, 121.25)]
    found = {("filters", 0): moments, ("filters", 1): moments[:1]}
    text = write_sounds(found, tmp_path / "sounds", decoder).read_text()
    assert re.findall(r"</span> ([0-9:.]+)</li>", text) == ["0:00.0", "0:59.9", "1:00.0", "2:01.2", "0:00.0"]
    assert re.findall(r"<summary>(.*?)</summary>", text) == ["4 moments", "1 moment"]


def test_recordings_or_networks_without_moments_are_refused(
    tmp_path: Path, decoder: FfmpegDecoder, tune: NDArray[np.float32]
) -> None:
    (tmp_path / "notes.txt").write_text("not music")
    with pytest.raises(DataError, match="no recording can be decoded"):
        strongest_moments(TwoFilters(), RECIPE, [tmp_path / "notes.txt"], decoder, moments=2)
    (tmp_path / "tune.wav").write_bytes(wav_bytes(tune, RATE))
    with pytest.raises(DataError, match="no convolution"):
        strongest_moments(nn.Flatten(), RECIPE, [tmp_path / "tune.wav"], decoder, moments=2)
