"""Every published model: served by name with its own windows, in agreement with the reference implementation."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.harness.recordings import wav_bytes
from tests.harness.server import Server
from wholetrack.cli.verify import compare
from wholetrack.decoding.ffmpeg import find_ffmpeg
from wholetrack.inference.bundle import BUILT_IN_MODELS, load_bundles
from wholetrack.pipeline import Pipeline
from wholetrack.sandbox.client import Sandbox
from wholetrack.sandbox.target import Program

BUNDLES = load_bundles(BUILT_IN_MODELS)
FIGURES = (
    "window_accuracy",
    "track_accuracy_summed",
    "track_accuracy_voted",
    "track_macro_f1_summed",
    "track_macro_f1_voted",
    "top2",
    "top3",
    "ece",
)
SECONDS = 40


@pytest.fixture(scope="module")
def song(tune: NDArray[np.float32], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("song") / "song.wav"
    path.write_bytes(wav_bytes(np.tile(tune, 4)[: SECONDS * 22050], 22050))
    return path


@pytest.mark.parametrize("name", list(BUNDLES))
def test_a_model_is_served_by_name_with_its_own_windows(name: str, server: Server, song: Path) -> None:
    card = BUNDLES[name].card
    body = server.post(song, model=name).json()
    assert body["model"]["name"] == name
    assert body["model"]["window_s"] == card.windows.window_s
    assert body["model"]["hop_s"] == card.windows.hop_s
    starts = np.array(body["windows"]["start_s"])
    if card.outputs.scores.steps is None:
        assert body["model"]["step_s"] is None
        # Windows start on frames.
        frame_s = card.windows.window_s / min(entry.frames for entry in card.inputs)
        np.testing.assert_allclose(np.diff(starts)[:-1], card.windows.hop_s, atol=frame_s)
    else:
        # Steps follow each other up to the end of the track.
        assert body["model"]["step_s"] == pytest.approx(card.windows.window_s / card.outputs.scores.steps)
        assert np.diff(starts).max() < 1.6 * card.step_s
        assert starts[-1] > SECONDS - 2 * card.step_s
    assert body["windows"]["count"] == len(starts)
    np.testing.assert_allclose(np.sum(body["windows"]["probabilities"], axis=1), 1.0, atol=1e-3)


@pytest.mark.parametrize("name", list(BUNDLES))
def test_a_model_agrees_with_the_reference_implementation(name: str, pipeline: Pipeline, song: Path) -> None:
    comparison = compare(pipeline, song, model=name, max_duration_s=60)
    assert comparison.agrees, comparison.text()


def test_the_card_of_the_default_states_how_it_was_judged(server: Server) -> None:
    metrics = server.get("/v1/models/wholetrack-crnn").json()["card"]["metrics"]
    assert metrics["parameters"] > 0
    assert metrics["mflop_per_window"] > 0
    for group, figure in (("windows", "right"), ("clips", "right"), ("beyond", "gtzan"), ("beyond", "groups_top1")):
        stated = metrics[group][figure]
        assert stated["n"] >= 50
        low, high = stated["interval"]
        assert 0.3 < low < stated["share"] < high < 1


@pytest.mark.parametrize("name", [name for name in BUNDLES if name != "wholetrack-crnn"])
def test_a_card_states_the_metrics_of_both_protocols(name: str, server: Server) -> None:
    shown = server.get(f"/v1/models/{name}").json()
    metrics = shown["card"]["metrics"]
    assert metrics["parameters"] > 0
    assert metrics["mflop_per_window"] > 0
    for protocol, min_runs in (("random_split", 2), ("artist_filtered", 3)):
        stated = metrics[protocol]
        assert stated["runs"] >= min_runs
        for figure in FIGURES:
            assert 0 <= stated[figure] <= 1
            assert 0 <= stated[f"{figure}_sd"] < 0.5
    # A random split overestimates accuracy, because artists occur in training and test data.
    assert metrics["random_split"]["track_accuracy_summed"] > metrics["artist_filtered"]["track_accuracy_summed"]


def test_all_models_are_listed_and_ready(server: Server) -> None:
    listed = {model["name"] for model in server.get("/v1/models").json()["models"]}
    assert listed == set(BUNDLES)
    layers = sorted(Sandbox(Program(find_ffmpeg().path)).layers)
    assert server.get("/readyz").json() == {
        "status": "ready",
        "models": dict.fromkeys(BUNDLES, "cpu"),
        "unavailable": {},
        "cpu_fallback": {},
        "sandbox": layers,
    }
