"""Every system: the network its authors describe, from either source, trained end to end to a bundle that is served."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from numpy.typing import NDArray

from tests.harness.recordings import wav_bytes
from wholetrack.cli.verify import compare
from wholetrack.decoding.decoder import FfmpegDecoder
from wholetrack.features.logmel import LogMel
from wholetrack.pipeline import Pipeline
from wholetrack.settings import Settings
from wholetrack.startup import build_pipeline

torch = pytest.importorskip("torch", reason="PyTorch is not installed: pip install -e '.[train]'")

from wholetrack_training.data.dataset import load_folder  # noqa: E402
from wholetrack_training.data.splits import Protocol, random_split  # noqa: E402
from wholetrack_training.data.tracks import TrackSet  # noqa: E402
from wholetrack_training.export.onnx_export import INPUT, OUTPUT, export_onnx, mflop_per_window  # noqa: E402
from wholetrack_training.fitting.runs import Run, RunSpec  # noqa: E402
from wholetrack_training.publishing.publish import publish  # noqa: E402
from wholetrack_training.results.records import Record  # noqa: E402
from wholetrack_training.systems import SYSTEMS  # noqa: E402
from wholetrack_training.systems.augmentation import add_white_noise, shift_pitch  # noqa: E402
from wholetrack_training.systems.guimaraes_cnn import cut_out, turn  # noqa: E402
from wholetrack_training.systems.recipe import Recipe, Source  # noqa: E402

pytestmark = pytest.mark.torch
torch.set_num_threads(1)


@pytest.mark.parametrize(
    ("name", "source", "window_s", "input_size"),
    [
        # What the authors print of their input: 130 x 100, 128 x 94, 128 x 32, and what 13 frames a second give.
        ("hilsdorf-crnn", Source.AUDIO, None, (130, 100)),
        ("hilsdorf-crnn", Source.PRECOMPUTED, None, (39, 128)),
        ("hilsdorf-crnn", Source.PRECOMPUTED, 30.0, (377, 128)),
        ("campana-crnn", Source.AUDIO, 3.0, (94, 128)),
        ("campana-crnn", Source.AUDIO, 1.0, (32, 128)),
        ("campana-crnn", Source.AUDIO, 5.0, (157, 128)),
        ("campana-crnn", Source.PRECOMPUTED, 1.0, (13, 128)),
        ("campana-crnn", Source.PRECOMPUTED, 30.0, (377, 128)),
        ("guimaraes-cnn", Source.AUDIO, None, (130, 128)),
        ("guimaraes-cnn", Source.PRECOMPUTED, None, (20, 128)),
        ("deepsound-crnn", Source.AUDIO, None, (646, 128)),
        ("deepsound-crnn", Source.PRECOMPUTED, None, (377, 128)),
        ("wholetrack-crnn", Source.AUDIO, None, (39, 128)),
    ],
)
def test_a_network_hears_what_its_authors_say_and_is_the_same_in_onnx(
    name: str, source: Source, window_s: float | None, input_size: tuple[int, int]
) -> None:
    recipe = SYSTEMS[name].of(source, window_s=window_s)
    frames, n_mels = recipe.windows.frames, recipe.features.n_mels
    assert (frames, n_mels) == input_size
    network = recipe.network(10).eval()
    content = export_onnx(network, frames=frames, n_mels=n_mels)
    windows = np.random.default_rng(1).random((3, frames, n_mels), dtype=np.float32)
    with torch.inference_mode():
        expected = network(torch.from_numpy(windows)).numpy()
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    np.testing.assert_allclose(session.run(None, {"windows": windows})[0], expected, atol=1e-5)
    assert expected.shape == ((3, frames // 8, 10) if name == "deepsound-crnn" else (3, 10))
    assert type(recipe).from_dict(recipe.as_dict()) == recipe


@pytest.mark.parametrize(
    ("name", "source", "shortest"),
    [
        ("campana-crnn", Source.PRECOMPUTED, 8 / 13),
        ("guimaraes-cnn", Source.PRECOMPUTED, 16 / 13),
        ("deepsound-crnn", Source.PRECOMPUTED, 8 / 13),
        ("campana-crnn", Source.AUDIO, 32 * 512 / 16000),
    ],
)
def test_a_window_too_short_for_the_network_is_refused(name: str, source: Source, shortest: float) -> None:
    recipe = SYSTEMS[name].of(source, window_s=shortest)
    windows = torch.zeros(2, recipe.windows.frames, recipe.features.n_mels)
    assert recipe.network(10).eval()(windows).shape[-1] == 10
    with pytest.raises(ValueError, match=f"{name} needs windows of at least"):
        SYSTEMS[name].of(source, window_s=shortest - 0.1)


@pytest.mark.parametrize(("name", "parameters"), [("hilsdorf-crnn", 400_000), ("wholetrack-crnn", 360_000)])
def test_the_size_of_a_network(name: str, parameters: int) -> None:
    network = SYSTEMS[name].of(Source.AUDIO).network(10)
    assert sum(parameter.numel() for parameter in network.parameters()) == pytest.approx(parameters, rel=0.02)


def test_the_flagship_costs_at_most_150_mflop_a_window() -> None:
    network = SYSTEMS["wholetrack-crnn"].of(Source.AUDIO).network(10)
    assert mflop_per_window(export_onnx(network, frames=39, n_mels=128)) < 150


SHORT = {"schedule.epochs": 2, "schedule.batch": 16, "schedule.learning_rate": 3e-3, "schedule.averaging": 0.0}


def _published(recipe: Recipe, tracks: TrackSet, folder: Path) -> Pipeline:
    run, name = Run(folder / "run"), recipe.system
    split = random_split(tracks, seed=1, test=0.25)
    run.fit(tracks, RunSpec("toys", Protocol.RANDOM, 1, 0, tracks.labels, split), recipe)
    models = folder / "models"
    publish(run, [Record.of(run)], tracks, name=name, version="1", licence="Apache-2.0", models=models)
    return build_pipeline(Settings(models_dir=models, default_model=name, device="cpu"))


@pytest.mark.parametrize("name", list(SYSTEMS))
def test_a_system_from_tracks_to_a_served_bundle(
    name: str, toys: TrackSet, tmp_path: Path, tune: NDArray[np.float32]
) -> None:
    recipe = SYSTEMS[name].of(Source.PRECOMPUTED).changed(SHORT)
    pipeline = _published(recipe, toys, tmp_path)
    song = tmp_path / "song.wav"
    song.write_bytes(wav_bytes(np.tile(tune, 4), 22050))
    try:
        found = pipeline.predict(song, max_duration_s=60)
        assert compare(pipeline, song, model=None, max_duration_s=60).agrees
    finally:
        pipeline.close()
    starts, windows = found.windows.start_s, recipe.windows
    np.testing.assert_allclose(found.windows.probabilities.sum(axis=1), 1.0, atol=1e-5)
    if name == "deepsound-crnn":
        # 29 s are 47 steps; the second window begins at 11 s and adds what the first has not heard.
        assert found.card.onnx.steps == 47
        np.testing.assert_allclose(starts[:47], np.arange(47) * 29 / 47, atol=1e-9)
        assert 40 - 29 / 47 - 0.1 < starts[-1] < 40
        assert np.all(np.diff(starts) > 29 / 47 / 2 - 1e-9)
    else:
        whole_hops = int((40 - windows.window_s) // windows.hop_s)
        assert len(starts) == whole_hops + 1
        np.testing.assert_allclose(starts, np.arange(len(starts)) * windows.hop_s, atol=0.5 / 13 + 1e-9)


def test_deaf_bands_are_not_heard() -> None:
    recipe = SYSTEMS["wholetrack-crnn"].of(Source.PRECOMPUTED).changed({"shape.deaf_bands": 6})
    network = recipe.network(10).eval()
    windows = torch.rand(2, 39, 128)
    changed = windows.clone()
    changed[:, :, -6:] = torch.rand(2, 39, 6)
    with torch.inference_mode():
        assert torch.equal(network(windows), network(changed))
        changed[:, :, -7] = 0.0
        assert not torch.equal(network(windows), network(changed))
    onnx = export_onnx(network, frames=39, n_mels=128)
    session = onnxruntime.InferenceSession(onnx, providers=["CPUExecutionProvider"])
    with torch.inference_mode():
        np.testing.assert_allclose(
            session.run([OUTPUT], {INPUT: windows.numpy()})[0], network(windows).numpy(), atol=1e-4
        )


@pytest.mark.parametrize("name", [name for name in SYSTEMS if name != "wholetrack-crnn"])
def test_a_system_with_its_own_features_answers_as_the_reference_does(
    name: str, decoder: FfmpegDecoder, tmp_path: Path, tune: NDArray[np.float32]
) -> None:
    music = tmp_path / "music"
    for genre, gain in (("soft", 0.3), ("loud", -1.0)):
        (music / genre).mkdir(parents=True)
        for i in range(6):
            sound = np.roll(np.tile(tune, 3), 9000 * i) * np.float32(gain)
            (music / genre / f"{i}.wav").write_bytes(wav_bytes(sound, 22050))
    recipe = SYSTEMS[name].of(Source.AUDIO).changed({**SHORT, "schedule.epochs": 1})
    tracks = load_folder(
        music, audio=recipe.audio, features=recipe.features, decoder=decoder, cache=tmp_path / "features"
    )
    pipeline = _published(recipe, tracks, tmp_path)
    song = tmp_path / "song.wav"
    song.write_bytes(wav_bytes(np.tile(tune[::-1], 4), 22050))
    try:
        comparison = compare(pipeline, song, model=None, max_duration_s=60)
    finally:
        pipeline.close()
    assert comparison.agrees, comparison.text()


def test_a_semitone_moves_a_tone_by_a_semitone() -> None:
    features = LogMel(SYSTEMS["campana-crnn"].of(Source.PRECOMPUTED).features, 22050)

    def frame_of(pitch: float) -> NDArray[np.float32]:
        time = np.arange(features.spec.n_fft) / 22050
        return features.frames(np.sin(2 * np.pi * pitch * time).astype(np.float32), np.array([0]))

    for pitch in (500.0, 2000.0, 5000.0):
        shifted = shift_pitch(frame_of(pitch), 1.0, features.spec)
        expected = frame_of(pitch * 2 ** (1 / 12))
        assert abs(int(shifted.argmax()) - int(expected.argmax())) <= 1
        assert np.array_equal(shift_pitch(frame_of(pitch), 0.0, features.spec), frame_of(pitch))


def test_white_noise_is_so_far_below_the_music() -> None:
    windows = np.full((1, 5, 8), -30.0, dtype=np.float32)
    windows[0, 0] = -200.0
    noisy = add_white_noise(windows, -20.0)
    # Four fifths of the points carry the power of -30 dB; the silent fifth is then all noise.
    assert noisy[0, 0, 0] == pytest.approx(-30 - 20 + 10 * np.log10(0.8), abs=1e-4)
    assert noisy[0, 1, 0] == pytest.approx(-30 + 10 * np.log10(1 + 0.008), abs=1e-4)


def test_flip_and_cutout(rng: np.random.Generator) -> None:
    windows = rng.random((400, 20, 128), dtype=np.float32) + np.float32(0.1)
    turned = turn(windows, 0.5, rng)
    same = (turned == windows).all(axis=(1, 2))
    assert 150 < same.sum() < 250
    assert np.array_equal(turned[~same], windows[~same, ::-1])
    cut = cut_out(windows, 0.5, rng)
    touched = (cut == 0).any(axis=(1, 2))
    assert 150 < touched.sum() < 250
    assert np.array_equal(cut[~touched], windows[~touched])
    bands, frames = (cut == 0).all(axis=1).sum(axis=1), (cut == 0).all(axis=2).sum(axis=1)
    assert set(bands[touched]) <= {1, 2, 3}
    assert set(frames[touched]) <= {1, 2, 3, 4}
