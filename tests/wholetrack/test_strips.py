"""A model with a graph for strips gives the same predictions as with the graph for single windows."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.harness.recordings import wav_bytes
from tests.harness.strip_bundle import write_strip_bundle
from wholetrack.cli.verify import compare
from wholetrack.contracts import TrackPrediction
from wholetrack.decoding.live_pcm import LivePcm, PcmEncoding, PcmFormat
from wholetrack.inference.bundle import load_bundles
from wholetrack.pipeline import Pipeline
from wholetrack.settings import Settings
from wholetrack.startup import build_pipeline

pytestmark = pytest.mark.timing

RATE = 22050


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pipeline]:
    models = tmp_path_factory.mktemp("models")
    write_strip_bundle(models, name="strips")
    write_strip_bundle(models, name="windows", strips=False)
    pipeline = build_pipeline(Settings(device="cpu", default_model="strips"), load_bundles(models))
    yield pipeline
    pipeline.close()


def recording(folder: Path, samples: NDArray[np.float32]) -> Path:
    path = folder / f"{len(samples)}.wav"
    path.write_bytes(wav_bytes(samples, RATE))
    return path


def assert_same(found: TrackPrediction, expected: TrackPrediction) -> None:
    np.testing.assert_array_equal(found.windows.start_s, expected.windows.start_s)
    np.testing.assert_array_equal(found.windows.silent, expected.windows.silent)
    np.testing.assert_allclose(found.windows.probabilities, expected.windows.probabilities, atol=1e-5)
    # Saturated probabilities would agree whatever the network computes.
    assert found.windows.probabilities.max() < 0.99


def test_the_worker_sends_strips(pipeline: Pipeline) -> None:
    assert pipeline.model("strips").features.in_strips
    assert not pipeline.model("windows").features.in_strips


@pytest.mark.parametrize("hop_s", [None, 1 / 13, 0.5, 3.0])
@pytest.mark.parametrize("seconds", [0.3, 2.9, 3.0, 3.05, 31.4])
def test_predictions_are_the_same_for_any_length_and_hop(
    pipeline: Pipeline, tmp_path: Path, tune: NDArray[np.float32], seconds: float, hop_s: float | None
) -> None:
    song = recording(tmp_path, np.tile(tune, 4)[: round(seconds * RATE)])
    found, expected = (
        pipeline.predict(song, model=model, hop_s=hop_s, max_duration_s=3600) for model in ("strips", "windows")
    )
    assert_same(found, expected)


def test_silent_windows_are_left_out(pipeline: Pipeline, tmp_path: Path, tune: NDArray[np.float32]) -> None:
    silence = np.zeros(7 * RATE, dtype=np.float32)
    song = recording(tmp_path, np.concatenate((silence, tune[: 5 * RATE], silence, tune[: 9 * RATE], silence)))
    found, expected = (pipeline.predict(song, model=model, max_duration_s=3600) for model in ("strips", "windows"))
    assert 0 < found.windows.silent.sum() < len(found.windows.silent)
    assert_same(found, expected)
    silent = pipeline.predict(recording(tmp_path, silence), max_duration_s=3600)
    assert silent.windows.silent.all()


def test_tracks_at_the_same_time_do_not_mix(pipeline: Pipeline, tmp_path: Path, tune: NDArray[np.float32]) -> None:
    songs = [recording(tmp_path, np.roll(np.tile(tune, 3), 5000 * i)[: (20 + i) * RATE]) for i in range(6)]
    with ThreadPoolExecutor(len(songs)) as threads:
        found = list(threads.map(lambda song: pipeline.predict(song, max_duration_s=3600), songs))
    for song, prediction in zip(songs, found, strict=True):
        assert_same(prediction, pipeline.predict(song, model="windows", max_duration_s=3600))


def test_live_audio_is_classified_as_a_file_is(pipeline: Pipeline, tmp_path: Path, tune: NDArray[np.float32]) -> None:
    samples = tune[: 8 * RATE]
    source = LivePcm(PcmFormat(PcmEncoding.FLOAT32, RATE, 1))
    with ThreadPoolExecutor(1) as thread:
        found = thread.submit(pipeline.predict, source, max_duration_s=60)
        for part in np.split(samples, 8):
            source.put(part.astype("<f4").tobytes())
        source.end()
        live = found.result(timeout=60)
    expected = pipeline.predict(recording(tmp_path, samples), max_duration_s=60)
    assert len(live.windows.start_s) == 6
    # The file has 16 bits.
    np.testing.assert_allclose(live.windows.probabilities, expected.windows.probabilities, atol=1e-3)


def test_the_reference_implementation_agrees(pipeline: Pipeline, tmp_path: Path, tune: NDArray[np.float32]) -> None:
    song = recording(tmp_path, tune)
    assert compare(pipeline, song, model="strips", max_duration_s=3600).agrees
    rows = [pipeline.normalised_windows(song, model=model, max_duration_s=3600) for model in ("strips", "windows")]
    np.testing.assert_array_equal(rows[0].arrays[0], rows[1].arrays[0])
