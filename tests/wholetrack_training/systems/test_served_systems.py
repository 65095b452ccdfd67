"""Every system from tracks to a bundle that the service runs: short training, publishing, prediction."""

from __future__ import annotations

from collections.abc import Container, Iterable
from pathlib import Path

import numpy as np
import pytest
from _pytest.mark import ParameterSet
from numpy.typing import NDArray

from tests.harness.recordings import wav_bytes
from wholetrack.cli.verify import compare
from wholetrack.decoding.decoder import FfmpegDecoder
from wholetrack.pipeline import Pipeline
from wholetrack.settings import Settings
from wholetrack.startup import build_pipeline

pytest.importorskip("torch", reason="PyTorch is not installed: pip install -e '.[train]'")

from tests.wholetrack_training.small_network import record_of, toy_spec
from tests.wholetrack_training.toys import toy_set
from wholetrack_training.data.folder import load_folder
from wholetrack_training.data.tracks import TrackSet
from wholetrack_training.fitting.runs import Run
from wholetrack_training.publishing.bundles import publish
from wholetrack_training.systems.recipe import Recipe, Source
from wholetrack_training.systems.registry import SYSTEMS

pytestmark = pytest.mark.torch

SHORT = {"schedule.epochs": 1, "schedule.batch": 16, "schedule.learning_rate": 3e-3, "schedule.averaging": 0.0}


def served(recipe: Recipe, tracks: TrackSet, folder: Path) -> Pipeline:
    """Train, publish, and return the service's pipeline with the bundle."""
    run, name = Run(folder / "run"), recipe.system
    run.fit(tracks, toy_spec(tracks), recipe)
    models = folder / "models"
    publish(run, [record_of(run)], tracks, name=name, version="1", licence="Apache-2.0", models=models)
    return build_pipeline(Settings(models_dir=models, default_model=name, device="cpu"))


def _in_short_and_long(systems: Iterable[str], *, short: Container[str]) -> list[ParameterSet]:
    """Return the systems, of which `make test` trains some, and `make long` the others."""
    return [pytest.param(name, marks=() if name in short else pytest.mark.long) for name in systems]


@pytest.mark.parametrize("name", _in_short_and_long(SYSTEMS, short={"wholetrack-crnn"}))
def test_a_system_is_trained_on_precomputed_spectrograms_and_served(
    name: str, tmp_path: Path, tune: NDArray[np.float32]
) -> None:
    recipe = SYSTEMS[name].of(Source.PRECOMPUTED).changed(SHORT)
    pipeline = served(recipe, toy_set(per_genre=6), tmp_path)
    song = tmp_path / "song.wav"
    song.write_bytes(wav_bytes(np.tile(tune, 4), 22050))
    try:
        found = pipeline.predict(song, max_duration_s=60)
        assert compare(pipeline, song, model=None, max_duration_s=60).agrees
    finally:
        pipeline.close()
    assert (found.card.strips is not None) == (name == "shared-trunk-crnn")
    starts, windows = found.windows.start_s, recipe.windows
    np.testing.assert_allclose(found.windows.probabilities.sum(axis=1), 1.0, atol=1e-5)
    if name == "deepsound-crnn":
        # A window of 29 s has 47 steps. The second window begins at 11 s and adds the steps after the first one.
        assert found.card.outputs.scores.steps == 47
        np.testing.assert_allclose(starts[:47], np.arange(47) * 29 / 47, atol=1e-9)
        assert 40 - 29 / 47 - 0.1 < starts[-1] < 40
        assert np.all(np.diff(starts) > 29 / 47 / 2 - 1e-9)
    else:
        whole_hops = int((40 - windows.window_s) // windows.hop_s)
        assert len(starts) == whole_hops + 1
        np.testing.assert_allclose(starts, np.arange(len(starts)) * windows.hop_s, atol=0.5 / 13 + 1e-9)


@pytest.mark.parametrize(
    "name", _in_short_and_long([name for name in SYSTEMS if name != "wholetrack-crnn"], short={"hilsdorf-crnn"})
)
def test_a_system_trained_on_audio_agrees_with_the_reference_implementation(
    name: str, decoder: FfmpegDecoder, tmp_path: Path, tune: NDArray[np.float32]
) -> None:
    music = tmp_path / "music"
    for genre, gain in (("soft", 0.3), ("loud", -1.0)):
        (music / genre).mkdir(parents=True)
        for i in range(6):
            # The windows of deepsound-crnn are 30 s long.
            sound = np.roll(np.tile(tune, 3 if name == "deepsound-crnn" else 1), 9000 * i) * np.float32(gain)
            (music / genre / f"{i}.wav").write_bytes(wav_bytes(sound, 22050))
    recipe = SYSTEMS[name].of(Source.AUDIO).changed({**SHORT, "schedule.epochs": 1})
    tracks = load_folder(
        music, audio=recipe.audio, features=recipe.features, decoder=decoder, cache=tmp_path / "features"
    )
    pipeline = served(recipe, tracks, tmp_path)
    song = tmp_path / "song.wav"
    song.write_bytes(wav_bytes(np.tile(tune[::-1], 4), 22050))
    try:
        comparison = compare(pipeline, song, model=None, max_duration_s=60)
    finally:
        pipeline.close()
    assert comparison.agrees, comparison.text()
