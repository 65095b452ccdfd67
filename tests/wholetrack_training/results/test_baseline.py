"""The baseline: its timbre statistics, calculated by hand, and its accuracy on the toys."""

from __future__ import annotations

import librosa
import numpy as np
import pytest

pytest.importorskip("torch", reason="PyTorch is not installed: pip install -e '.[train]'")

from tests.wholetrack_training.small_network import toy_spec
from wholetrack_training.data.splits import Protocol, all_tracks
from wholetrack_training.data.tracks import TrackSet
from wholetrack_training.errors import DataError
from wholetrack_training.fitting.runs import RunSpec
from wholetrack_training.results.baseline import fit_baseline, timbre
from wholetrack_training.results.records import BASELINE
from wholetrack_training.systems.campana_crnn import CampanaCrnn
from wholetrack_training.systems.recipe import Source

pytestmark = pytest.mark.torch

RECIPE = CampanaCrnn.of(Source.PRECOMPUTED)


def test_the_statistics_of_a_steady_and_of_an_alternating_band() -> None:
    windows = np.full((1, 10, 128), -200.0, dtype=np.float32)
    windows[:, :, 40] = 0.0
    steady = timbre(windows, RECIPE.features)[0].reshape(3, 25)
    mean, deviation, change = steady
    assert mean[20] == pytest.approx(librosa.mel_frequencies(130, fmax=11025)[41])
    assert mean[21] == pytest.approx(0, abs=1e-3)
    assert mean[22] == pytest.approx(mean[20])
    assert mean[23] < -190 + 10 * np.log10(128)
    assert np.abs(deviation).max() == pytest.approx(0, abs=1e-6)
    assert np.abs(change).max() == pytest.approx(0, abs=1e-6)
    windows[:, ::2] = np.roll(windows[:, ::2], 20, axis=2)
    moving = timbre(windows, RECIPE.features)[0].reshape(3, 25)
    assert moving[1, 20] > 100
    assert moving[2, 20] == pytest.approx(2 * moving[1, 20], rel=0.02)
    # All the power moves to another band in nine of ten frames.
    assert moving[0, 24] == pytest.approx(2 * 0.9, rel=1e-3)


def test_the_baseline_learns_the_toys_and_is_recorded(toys: TrackSet) -> None:
    spec = toy_spec(toys)
    found = fit_baseline(toys, spec, RECIPE)
    assert found.figures.track_accuracy_summed == 1.0
    assert found.figures.n_tracks == len(spec.split.test)
    assert found.label == f"{BASELINE}-3s"
    assert found.parameters > 0
    with pytest.raises(DataError, match="none are left for validation"):
        fit_baseline(toys, RunSpec("toys", Protocol.ALL, 1, 0, toys.labels, all_tracks(toys)), RECIPE)
