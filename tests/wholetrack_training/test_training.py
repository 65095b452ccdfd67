"""From tracks to a served bundle, small enough for every run of the tests: fit, resume, judge, export, publish."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray

from tests.harness.recordings import wav_bytes
from wholetrack.inference.bundle import BUILT_IN_MODELS, load_bundle, load_bundles
from wholetrack.settings import Settings
from wholetrack.startup import build_pipeline

torch = pytest.importorskip("torch", reason="PyTorch is not installed: pip install -e '.[train]'")

from torch import Tensor, nn  # noqa: E402

from wholetrack_training.cli import app  # noqa: E402
from wholetrack_training.data.splits import Protocol, all_tracks, artist_split, random_split  # noqa: E402
from wholetrack_training.data.tracks import DataError, TrackSet  # noqa: E402
from wholetrack_training.export.onnx_export import export_onnx, mflop_per_window  # noqa: E402
from wholetrack_training.export.recurrent import ExportError  # noqa: E402
from wholetrack_training.fitting.evaluation import evaluate_scores, expected_calibration_error  # noqa: E402
from wholetrack_training.fitting.fitting import DifferentRunError, Fit  # noqa: E402
from wholetrack_training.fitting.runs import Run, RunSpec  # noqa: E402
from wholetrack_training.publishing.publish import golden_sound_windows, publish, restate  # noqa: E402
from wholetrack_training.publishing.quantisation import add_int8, quantise  # noqa: E402
from wholetrack_training.results.calibration import Calibration  # noqa: E402
from wholetrack_training.results.records import Record  # noqa: E402
from wholetrack_training.systems.augmentation import (  # noqa: E402
    NO_AUGMENTATION,
    Augmentation,
    change_colour,
    mask,
    mix_style,
    mix_up,
    random_window,
)
from wholetrack_training.systems.recipe import Source  # noqa: E402
from wholetrack_training.systems.wholetrack_crnn import WholetrackCrnn  # noqa: E402

pytestmark = pytest.mark.torch
# Toy layers are too small to share: threads would only wait for each other.
torch.set_num_threads(1)

FULL = WholetrackCrnn.of(Source.PRECOMPUTED)
SMALL = FULL.changed(
    {
        "shape.channels": (4, 8, 8, 16, 16),
        "shape.hidden": 8,
        "windows_per_track": 4,
        "schedule.epochs": 6,
        "schedule.batch": 16,
        "schedule.learning_rate": 1e-2,
        "schedule.averaging": 0.8,
        # What makes toys harder to tell apart, or hides that training stops early, has tests of its own.
        "schedule.keep": "best",
        "shape.centred": False,
        "augmentation.style": 0.0,
        "augmentation.damage": 0.0,
        "outliers": 0,
    }
)


def spec(tracks: TrackSet, seed: int = 0) -> RunSpec:
    return RunSpec("toys", Protocol.RANDOM, 1, seed, tracks.labels, random_split(tracks, seed=1, test=0.25))


def weights(run: Run) -> dict[str, NDArray[np.float32]]:
    return {name: value.numpy() for name, value in run.network().state_dict().items()}


@pytest.fixture(scope="module")
def finished(toys: TrackSet, tmp_path_factory: pytest.TempPathFactory) -> Run:
    run = Run(tmp_path_factory.mktemp("run"))
    run.fit(toys, spec(toys), SMALL)
    return run


def test_a_network_learns_and_the_record_says_how(finished: Run) -> None:
    figures = finished.figures()
    assert figures["track_accuracy_summed"] == 1.0
    assert figures["window_accuracy"] > 0.9
    assert len(figures["history"]) == figures["epochs"] == 6
    assert figures["history"][-1]["train_loss"] < figures["history"][0]["train_loss"]
    assert finished.recipe() == SMALL


def test_a_killed_training_goes_on_where_it_stopped(
    finished: Run, toys: TrackSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saves = 0
    save = Fit._save

    def save_and_die(self: Fit) -> None:
        nonlocal saves
        save(self)
        saves += 1
        if saves in (1, 3):
            raise KeyboardInterrupt

    monkeypatch.setattr(Fit, "_save", save_and_die)
    run = Run(tmp_path / "run")
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            run.fit(toys, spec(toys), SMALL)
    run.fit(toys, spec(toys), SMALL)
    assert saves == SMALL.schedule.epochs
    undisturbed = weights(finished)
    for name, value in weights(run).items():
        np.testing.assert_allclose(value, undisturbed[name], atol=1e-6, err_msg=name)


def test_a_checkpoint_of_another_training_is_refused(finished: Run, toys: TrackSet) -> None:
    for other in (SMALL.changed({"schedule.batch": 8}), SMALL):
        with pytest.raises(DifferentRunError, match="another recipe, seed or set of tracks"):
            finished.fit(toys, spec(toys, seed=0 if other is not SMALL else 1), other)


def test_early_stopping(toys: TrackSet, tmp_path: Path) -> None:
    hopeless = SMALL.changed({"schedule.epochs": 50, "schedule.patience": 2, "schedule.learning_rate": 1e-9})
    run = Run(tmp_path)
    run.fit(toys, spec(toys), hopeless)
    assert run.figures()["epochs"] - run.figures()["best_epoch"] == 2
    assert run.figures()["epochs"] < 50


def test_the_last_weights_are_kept_and_nothing_is_validated(toys: TrackSet, tmp_path: Path) -> None:
    recipe = SMALL.changed({"schedule.keep": "last", "shape.centred": True, "augmentation.style": 0.5})
    asked = spec(toys)
    all_learned = replace(asked, split=asked.split.without_validation())
    assert set(all_learned.split.train) == set(asked.split.train) | set(asked.split.validation)
    run = Run(tmp_path)
    run.fit(toys, all_learned, recipe)
    figures = run.figures()
    assert figures["epochs"] == figures["best_epoch"] == 6
    assert set(figures["history"][0]) == {"train_loss"}
    assert figures["track_accuracy_summed"] == 1.0
    with pytest.raises(ValueError, match="needs validation"):
        Run(tmp_path / "other").fit(toys, asked, recipe.changed({"schedule.rate": "plateau"}))


def test_export_keeps_the_answers_and_tells_nothing_of_this_machine() -> None:
    torch.manual_seed(0)
    network = FULL.network(10).eval()
    content = export_onnx(network, frames=39, n_mels=128)
    assert b"/training/" not in content
    assert b"site-packages" not in content
    import onnxruntime

    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    for n_windows in (1, 5, 70):
        windows = np.random.default_rng(n_windows).random((n_windows, 39, 128), dtype=np.float32)
        with torch.inference_mode():
            expected = network(torch.from_numpy(windows)).numpy()
        np.testing.assert_allclose(session.run(None, {"windows": windows})[0], expected, atol=1e-5)
    # The five convolutions by hand: 2 * 9 * channels in * channels out * bands * frames each, and the GRU.
    convolutions = 9 * (
        2 * 24 * 64 * 39 + 24 * 40 * 64 * 39 + 40 * 64 * 32 * 19 + 64 * 112 * 16 * 19 + 112 * 160 * 4 * 19
    )
    recurrent = 19 * 2 * 3 * 64 * (160 + 64)
    assert mflop_per_window(content) == pytest.approx(2 * (convolutions + recurrent) / 1e6, rel=0.005)


def test_a_recurrent_layer_that_cannot_be_translated_is_refused() -> None:
    class Deep(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.gru = nn.GRU(8, 4, num_layers=2, batch_first=True)

        def forward(self, x: Tensor) -> Tensor:
            return self.gru(x)[0].mean(1)  # type: ignore[no-any-return]

    with pytest.raises(Exception, match="only a GRU or LSTM of one level") as caught:
        export_onnx(Deep(), frames=5, n_mels=8)
    assert caught.type is ExportError or "ExportError" in str(caught.getrepr(chain=True))


def test_a_published_bundle_is_served(finished: Run, toys: TrackSet, tmp_path: Path) -> None:
    folder = publish(
        finished, [Record.of(finished)], toys, name="toy", version="3", licence="Apache-2.0", models=tmp_path / "models"
    )
    card = load_bundles(tmp_path / "models")["toy"].card
    assert card.metrics["random_split"]["runs"] == 1
    assert card.metrics["random_split"]["track_accuracy_summed"] == 1.0
    assert set(card.trained_on["never_seen"]) == set(spec(toys).split.test)
    assert card.metrics["export_max_difference"] < 1e-4
    text = (folder / "CARD.md").read_text()
    assert "| tracks: accuracy by summed score | 1.000 | - |" in text
    pipeline = build_pipeline(Settings(models_dir=tmp_path / "models", default_model="toy", device="cpu"))
    try:
        for pitch, genre in ((200.0, "low"), (6000.0, "high")):
            song = tmp_path / "song.wav"
            time = np.arange(22050 * 5) / 22050
            song.write_bytes(wav_bytes((0.5 * np.sin(2 * np.pi * pitch * time)).astype(np.float32), 22050))
            assert pipeline.predict(song, max_duration_s=60).summed_score.genre == genre
    finally:
        pipeline.close()


@pytest.fixture
def published(finished: Run, toys: TrackSet, tmp_path: Path) -> Path:
    """The folder of a bundle of the finished run."""
    records = [Record.of(finished)]
    return publish(finished, records, toys, name="toy", version="1", licence="Apache-2.0", models=tmp_path / "models")


def test_a_network_in_integers_is_served_where_it_loses_nothing(published: Path, toys: TrackSet) -> None:
    before = load_bundle(published)
    spec = add_int8(published, [published], toys)
    assert spec.metrics["int8"]["track_accuracy_summed"] == spec.metrics["float32"]["track_accuracy_summed"] == 1.0
    assert spec.metrics["between"]["tracks"] == len(before.card.trained_on["never_seen"])
    assert 0 < spec.metrics["between"]["largest_difference"] < 0.2
    bundle = load_bundle(published)
    assert bundle.card.model_copy(update={"int8": None}) == before.card
    assert bundle.onnx == before.onnx
    assert bundle.int8
    operators = {node.op_type for node in onnx.load_from_string(bundle.int8).graph.node}
    assert {"QuantizeLinear", "DequantizeLinear", "GRU"} <= operators
    settings = Settings(models_dir=published.parent.parent, default_model="toy", device="cpu", cpu_precision="int8")
    pipeline = build_pipeline(settings)
    assert pipeline.model("toy").engine.precision == "int8"
    pipeline.close()
    text = (published / "CARD.md").read_text()
    assert "| tracks: accuracy by summed score | 1.000 | 1.000 |" in text
    assert add_int8(published, [published], toys) == spec
    assert (published / "CARD.md").read_text() == text


def test_more_runs_are_stated_of_the_same_network(finished: Run, published: Path, toys: TrackSet) -> None:
    add_int8(published, [published], toys)
    before, text = load_bundle(published), (published / "CARD.md").read_text()
    judged = Record.of(finished)
    assert restate(published, [judged]) == before.card
    assert (published / "CARD.md").read_text() == text
    another = replace(judged, part=2, figures={**judged.figures, "track_accuracy_summed": 0.5})
    card = restate(published, [judged, another])
    after = load_bundle(published)
    assert after.card == card
    assert (after.onnx, after.int8) == (before.onnx, before.int8)
    stated = card.metrics["random_split"]
    assert (stated["runs"], stated["track_accuracy_summed"]) == (2, 0.75)
    assert card.model_copy(update={"metrics": before.card.metrics}) == before.card
    assert "| tracks: accuracy by summed score | 0.750 | 0.354 |" in (published / "CARD.md").read_text()
    for strangers in ([], [replace(judged, parameters=1)], [replace(judged, labels=("other", "genres"))]):
        with pytest.raises(ExportError, match="the records are not of the recipe"):
            restate(published, strangers)
    longer = replace(judged, recipe=SMALL.changed({"schedule.epochs": 7}).as_dict())
    with pytest.raises(ExportError, match="must come from runs of one recipe"):
        restate(published, [judged, longer])


@pytest.mark.parametrize(("after", "is_used"), [(0.03, True), (0.05, False)])
def test_a_temperature_that_does_not_help_is_left_out(
    finished: Run, published: Path, monkeypatch: pytest.MonkeyPatch, *, after: float, is_used: bool
) -> None:
    monkeypatch.setattr(
        "wholetrack_training.publishing.publish.calibrate", lambda _: Calibration(1.2, ece_before=0.04, ece_after=after)
    )
    folds = [replace(Record.of(finished), protocol=Protocol.ARTIST_FILTERED, part=part) for part in (1, 2)]
    card = restate(published, folds)
    assert (card.calibration is not None) == is_used
    assert card.metrics["calibration"] == {"temperature": 1.2, "ece_before": 0.04, "ece_after": after}
    text = (published / "CARD.md").read_text()
    assert ("is calibrated (temperature 1.20)" in text) == is_used
    assert f"error is 0.040, and would be {after:.3f} with a temperature" in text or is_used


def test_integers_that_lose_are_refused(published: Path, toys: TrackSet, monkeypatch: pytest.MonkeyPatch) -> None:
    before = {file.name: file.read_bytes() for file in published.iterdir()}

    def coarse(network: bytes, windows: NDArray[np.float32], *, input_name: str) -> bytes:
        """Of a network that hears windows a tenth as loud: everything above saturates."""
        return quantise(network, windows / np.float32(10), input_name=input_name)

    monkeypatch.setattr("wholetrack_training.publishing.quantisation.quantise", coarse)
    with pytest.raises(ExportError, match=r"int8 loses \d+\.\d points of window_accuracy"):
        add_int8(published, [published], toys)
    assert {file.name: file.read_bytes() for file in published.iterdir()} == before


def test_integers_are_judged_by_the_same_recipe_on_unseen_tracks(published: Path, toys: TrackSet) -> None:
    bundled = BUILT_IN_MODELS / "wholetrack-crnn" / "1"
    with pytest.raises(ExportError, match="not of the recipe"):
        add_int8(published, [bundled], toys)
    card = json.loads((published / "model.json").read_text())
    card["trained_on"]["never_seen"] = []
    (published / "model.json").write_text(json.dumps(card))
    with pytest.raises(ExportError, match="no tracks that they never saw"):
        add_int8(published, [published], toys)


def test_figures_of_another_recipe_are_refused(finished: Run, toys: TrackSet, tmp_path: Path) -> None:
    other = Run(tmp_path / "other")
    other.fit(toys, spec(toys), SMALL.changed({"schedule.epochs": 1}))
    with pytest.raises(ExportError, match="must come from runs of the recipe"):
        publish(
            finished, [Record.of(other)], toys, name="toy", version="1", licence="Apache-2.0", models=tmp_path / "m"
        )


def test_the_golden_sound_belongs_to_nobody_and_is_always_the_same() -> None:
    windows = golden_sound_windows(FULL)
    assert windows.shape == (8, 39, 128)
    assert 0.1 < windows.mean() < 0.9
    assert np.array_equal(windows, golden_sound_windows(FULL))


def test_the_commands(tmp_path: Path, tune: NDArray[np.float32]) -> None:
    from typer.testing import CliRunner

    music = tmp_path / "music"
    for genre in ("a", "b"):
        (music / genre).mkdir(parents=True)
        for i in range(10):
            sound = np.roll(tune, i * 5000) if genre == "a" else -np.roll(tune, i * 7000)[::-1]
            (music / genre / f"{i}.wav").write_bytes(wav_bytes(sound, 22050))
    runner, run = CliRunner(), str(tmp_path / "run")
    done = runner.invoke(app, ["fit", run, "--data", str(music), "--set", "schedule.epochs=1"])
    assert done.exit_code == 0, done.output
    # A network that was read from its file has its weights in another order in memory, and sums in another.
    judged = pytest.approx(json.loads(done.stdout.splitlines()[-1]), abs=1e-6)
    again = runner.invoke(app, ["evaluate", run, "--data", str(music)])
    assert json.loads(again.stdout.splitlines()[-1]) == judged
    assert runner.invoke(app, ["export", run, str(tmp_path / "x.onnx")]).exit_code == 0
    assert onnx.load(tmp_path / "x.onnx").graph.input[0].name == "windows"
    recorded = runner.invoke(app, ["record", run, "--to", str(tmp_path / "results")])
    assert recorded.exit_code == 0, recorded.output
    results = tmp_path / "results" / "wholetrack-crnn-3s"
    figures = json.loads((results / "random-1.json").read_text())["figures"]
    assert {"run": run, **{name: figures[name] for name in judged.expected if name != "run"}} == judged
    assert len(figures["shares"]) == len(figures["peaks"]) == figures["n_tracks"]
    arguments = ["--data", str(music), "--results", str(results), "--models", str(tmp_path / "models")]
    published = runner.invoke(app, ["publish", run, *arguments])
    assert published.exit_code == 0, published.output
    assert load_bundles(tmp_path / "models")["wholetrack-crnn"].card.labels == ("a", "b")
    bundle = str(tmp_path / "models" / "wholetrack-crnn" / "1")
    restated = runner.invoke(app, ["restate", bundle, "--results", str(results)])
    assert json.loads(restated.stdout)["random_split"]["runs"] == 1
    assert runner.invoke(app, ["restate", bundle, "--results", str(tmp_path / "nothing")]).exit_code == 1
    quantised = runner.invoke(app, ["quantise", bundle, "--data", str(music)])
    assert ("float32" in quantised.stdout) == (quantised.exit_code == 0)
    assert ("int8 loses" in quantised.output) == (quantised.exit_code == 1)
    built = runner.invoke(app, ["build", "--data", str(music), "--system", "hilsdorf-crnn"])
    assert built.stdout == "20 tracks of 2 genres, 0 duplicates\n"
    divided = str(tmp_path / "split.json")
    assert runner.invoke(app, ["split", divided, "--data", str(music)]).exit_code == 0
    given = runner.invoke(app, ["fit", run, "--data", str(music), "--split", divided, "--set", "schedule.epochs=1"])
    assert json.loads(given.stdout.splitlines()[-1]) == judged
    other = runner.invoke(app, ["fit", run, "--data", str(music), "--set", "schedule.epochs=2"])
    assert other.exit_code == 1
    assert "belongs to a training with another recipe" in other.output
    missing = runner.invoke(app, ["fit", run, "--data", str(tmp_path / "nothing")])
    assert missing.exit_code == 1
    for arguments, complaint in (
        (["--system", "nobody"], "there is no system nobody; choose one of wholetrack-crnn, "),
        (["--set", "schedule.epoch=1"], "a recipe of wholetrack-crnn has no value schedule.epoch"),
        (["--set", "schedule.epochs"], "is not of the form name=value"),
        (["--set", "schedule.epochs=many"], "schedule.epochs"),
    ):
        refused = runner.invoke(app, ["fit", run, "--data", str(music), *arguments])
        assert refused.exit_code == 1
        assert complaint in refused.output


def test_a_network_that_learned_from_everything(toys: TrackSet, tmp_path: Path) -> None:
    asked = RunSpec("toys", Protocol.ALL, 1, 0, toys.labels, all_tracks(toys))
    run = Run(tmp_path / "run")
    with pytest.raises(DataError, match="none is left for validation"):
        run.fit(toys, asked, SMALL)
    recipe = SMALL.changed({"schedule.keep": "last", "schedule.epochs": 1, "outliers": 4})
    assert run.fit(toys, asked, recipe) is None
    assert run.evaluate(toys) is None
    with pytest.raises(DataError, match="none is left to judge it by"):
        Record.of(run)
    judged = []
    for fold in (1, 2):
        other = Run(tmp_path / f"fold-{fold}")
        split = artist_split(toys, fold=fold, seed=0).without_validation()
        other.fit(toys, RunSpec("toys", Protocol.ARTIST_FILTERED, fold, 0, toys.labels, split), recipe)
        judged.append(Record.of(other))
    folder = publish(run, judged, toys, name="toy", version="2", licence="Apache-2.0", models=tmp_path / "models")
    card = load_bundles(tmp_path / "models")["toy"].card
    assert card.domain is not None
    assert card.domain.least_peak == card.metrics["domain"]["least_peak"]
    assert card.trained_on["tracks"] == len(toys)
    text = (folder / "CARD.md").read_text()
    assert "all 48 tracks, after its recipe was chosen on the artist-filtered folds" in text
    assert "## Confusion of 32 tracks, each by a network that never heard its artist" in text
    assert "`in_domain` is false where" in text


def test_figures_worked_out_by_hand() -> None:
    probabilities = [
        np.array([[1.0, 0.0, 0.0], [0.25, 0.75, 0.0], [0.25, 0.75, 0.0]], dtype=np.float32),
        np.array([[0.0, 0.25, 0.75]], dtype=np.float32),
        np.array([[0.0, 0.625, 0.375]], dtype=np.float32),
    ]
    found = evaluate_scores(probabilities, [0, 2, 2], ("a", "b", "c"))
    assert found.n_windows == 5
    assert found.window_accuracy == pytest.approx(2 / 5)
    # By sum the first track is a tie between 1.5 and 1.5, which goes to label order; by votes it is lost.
    assert found.track_accuracy_summed == pytest.approx(2 / 3)
    assert found.track_accuracy_voted == pytest.approx(1 / 3)
    assert found.confusion == ((1, 0, 0), (0, 0, 0), (0, 1, 1))
    # F1 of a: 1, of b: 0 (only predicted), of c: 2 * 1 / (2 + 1).
    assert found.track_macro_f1_summed == pytest.approx((1 + 0 + 2 / 3) / 3)
    assert found.top2 == 1.0
    assert found.ece == pytest.approx((0.5 + 0.25 + 0.625) / 3, abs=1e-6)


def test_perfect_calibration_has_no_error() -> None:
    confidence = np.array([0.75] * 4 + [1.0])
    assert expected_calibration_error(confidence, np.array([True, True, True, False, True])) == 0.0


def test_augmentation_changes_windows_and_nothing_else(toys: TrackSet, rng: np.random.Generator) -> None:
    track = toys.tracks[0]
    plain = random_window(track.frames, 39, NO_AUGMENTATION, np.random.default_rng(3))
    start = next(i for i in range(390 - 39) if np.allclose(track.frames[i : i + 1].mean(), plain[0].mean(), atol=3))
    assert start >= 0
    windows = np.stack([random_window(track.frames, 39, Augmentation(), rng) for _ in range(16)])
    assert windows.shape == (16, 39, 128)
    assert windows.min() >= track.frames.min()
    assert windows.max() <= track.frames.max()
    assert np.array_equal(change_colour(windows, NO_AUGMENTATION, rng), windows)
    # Shift and curve are the same for every frame of a window: differences between frames survive them.
    coloured = change_colour(windows, Augmentation(shift_bands=0), rng)
    np.testing.assert_allclose(np.diff(coloured, axis=1), np.diff(windows, axis=1), atol=1e-4)
    assert not np.allclose(coloured, windows, atol=1.0)
    positive = windows - windows.min() + 1
    masked = mask(positive, Augmentation(mask_bands=16, mask_frames=6), rng)
    assert ((masked == positive) | (masked == 0)).all()
    assert 0 < (masked == 0).mean() < 0.3
    targets = np.eye(2, dtype=np.float32)[rng.integers(0, 2, 16)]
    mixed, shares = mix_up(positive, targets, Augmentation(), rng)
    assert mixed.shape == positive.shape
    np.testing.assert_allclose(shares.sum(axis=1), 1.0, atol=1e-6)
    assert mix_up(positive, targets, NO_AUGMENTATION, rng)[0] is positive


def test_style_is_level_and_contrast_of_a_band_and_never_its_course(rng: np.random.Generator) -> None:
    windows = rng.normal(size=(50, 39, 8)).astype(np.float32) * rng.uniform(0.1, 2, (50, 1, 8)).astype(np.float32)
    windows += rng.normal(size=(50, 1, 8)).astype(np.float32)
    styled = mix_style(windows, replace(NO_AUGMENTATION, style=0.5), rng)
    changed = (styled != windows).any(axis=(1, 2))
    assert 10 < changed.sum() < 40
    for before, after in zip(windows[changed], styled[changed], strict=True):
        for band in range(8):
            assert np.corrcoef(before[:, band], after[:, band])[0, 1] == pytest.approx(1, abs=1e-4)
    same = np.repeat(windows[:1], 4, axis=0)
    np.testing.assert_allclose(mix_style(same, replace(NO_AUGMENTATION, style=1.0), rng), same, atol=1e-5)
    assert mix_style(windows, NO_AUGMENTATION, rng) is windows


def test_a_network_learns_from_teachers_and_says_so(toys: TrackSet, tmp_path: Path) -> None:
    """Teachers are trainings like any other, with the seeds behind its own."""
    taught = SMALL.changed({"schedule.teachers": 2, "schedule.taught": 1.0, "schedule.epochs": 2})
    run = Run(tmp_path / "run")
    run.fit(toys, spec(toys, seed=5), taught)
    alone = [Run(tmp_path / "alone"), Run(tmp_path / "other")]
    for number, teacher in enumerate(alone, 1):
        teacher.fit(toys, spec(toys, seed=5 + number), SMALL.changed({"schedule.epochs": 2}))
        state = torch.load(run.folder / f"teacher-{number}" / "checkpoint.pt", weights_only=True)
        assert all(torch.equal(state["best"][name], value) for name, value in teacher.network().state_dict().items())
    folder = publish(
        run, [Record.of(run)], toys, name="taught", version="1", licence="Apache-2.0", models=tmp_path / "models"
    )
    assert load_bundle(folder).card.trained_on["teachers"] == 2
    assert "the mean answer of 2 networks" in (folder / "CARD.md").read_text()


class _AlwaysTheFirst(nn.Module):
    """A teacher for whom everything is of the first genre."""

    def forward(self, windows: Tensor) -> Tensor:
        logits: Tensor = torch.tensor([20.0, 0.0]).expand(len(windows), -1)
        return logits


def test_what_teachers_say_is_the_target(toys: TrackSet, tmp_path: Path) -> None:
    sides = spec(toys).split
    recipe = SMALL.changed({"schedule.taught": 1.0})
    fit = Fit(
        recipe,
        toys.named(sides.train),
        toys.named(sides.validation),
        seed=0,
        folder=tmp_path,
        teachers=[_AlwaysTheFirst()],
    )
    network = fit.run()
    heard = torch.from_numpy(np.stack([track.frames[:39] for track in toys.named(sides.test).tracks]))
    assert set(network(heard).argmax(-1).tolist()) == {0}
