"""The commands of ``wholetrack-train``, from a folder of music to a published bundle, and their errors."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from typer.testing import CliRunner

from tests.harness.recordings import wav_bytes
from wholetrack.inference.bundle import load_bundles

pytest.importorskip("torch", reason="PyTorch is not installed: pip install -e '.[train]'")

import onnx

from wholetrack_training.cli import app
from wholetrack_training.fitting.runs import Run
from wholetrack_training.results.record_files import read_records

pytestmark = pytest.mark.torch

SMALL = ["--set", "shape.channels=[4, 8, 8, 16, 16]", "--set", "shape.hidden=8", "--set", "outliers=0"]
FIT = [*SMALL, "--set", "schedule.epochs=1"]


@pytest.fixture
def music(tmp_path: Path, tune: NDArray[np.float32]) -> Path:
    music = tmp_path / "music"
    for genre in ("a", "b"):
        (music / genre).mkdir(parents=True)
        for i in range(10):
            sound = np.roll(tune, i * 5000) if genre == "a" else -np.roll(tune, i * 7000)[::-1]
            (music / genre / f"{i}.wav").write_bytes(wav_bytes(sound[: 22050 * 5], 22050))
    return music


def test_from_a_folder_of_music_to_a_bundle(music: Path, tmp_path: Path) -> None:
    runner, run = CliRunner(), str(tmp_path / "run")
    fitted = runner.invoke(app, ["fit", run, "--data", str(music), *FIT])
    assert fitted.exit_code == 0, fitted.output
    # The weights of a network that was read from a file have a different memory layout, and sums a different order.
    figures = pytest.approx(json.loads(fitted.stdout.splitlines()[-1]), abs=1e-6)
    again = runner.invoke(app, ["evaluate", run, "--data", str(music)])
    assert json.loads(again.stdout.splitlines()[-1]) == figures
    assert runner.invoke(app, ["export", run, str(tmp_path / "x.onnx")]).exit_code == 0
    assert onnx.load(tmp_path / "x.onnx").graph.input[0].name == "windows"

    recorded = runner.invoke(app, ["record", run, "--to", str(tmp_path / "results")])
    assert recorded.exit_code == 0, recorded.output
    results = tmp_path / "results" / "wholetrack-crnn-3s"
    assert recorded.stdout == f"{results / 'random-1.json'}\n"
    (record,) = read_records(results)
    found = record.figures.as_dict()
    assert {"run": run, **{name: found[name] for name in figures.expected if name != "run"}} == figures
    assert len(record.figures.shares) == len(record.figures.peaks) == record.figures.n_tracks
    assert record.mflop_per_window > 0

    arguments = ["--data", str(music), "--results", str(results), "--models", str(tmp_path / "models")]
    published = runner.invoke(app, ["publish", run, *arguments])
    assert published.exit_code == 0, published.output
    assert load_bundles(tmp_path / "models")["wholetrack-crnn"].card.labels == ("a", "b")
    bundle = str(tmp_path / "models" / "wholetrack-crnn" / "1")
    for command in ("refresh-card", "restate"):
        refreshed = runner.invoke(app, [command, bundle, "--results", str(results)])
        assert json.loads(refreshed.stdout)["random_split"]["runs"] == 1
        assert ("deprecated" in refreshed.stderr) == (command == "restate")
    assert runner.invoke(app, ["refresh-card", bundle, "--results", str(tmp_path / "nothing")]).exit_code == 1
    quantised = runner.invoke(app, ["quantise", bundle, "--data", str(music)])
    assert ("float32" in quantised.stdout) == (quantised.exit_code == 0)
    assert ("int8 loses" in quantised.output) == (quantised.exit_code == 1)


def test_features_are_built_and_a_written_split_gives_the_same_run(music: Path, tmp_path: Path) -> None:
    runner = CliRunner()
    built = runner.invoke(app, ["build", "--data", str(music), "--system", "hilsdorf-crnn"])
    assert built.stdout == "20 tracks of 2 genres, 0 duplicates\n"
    split, run = str(tmp_path / "split.json"), tmp_path / "run"
    assert runner.invoke(app, ["split", split, "--data", str(music)]).exit_code == 0
    fitted = runner.invoke(app, ["fit", str(run), "--data", str(music), *FIT])
    given = runner.invoke(app, ["fit", str(run), "--data", str(music), "--split", split, *FIT])
    figures = pytest.approx(json.loads(fitted.stdout.splitlines()[-1]), abs=1e-6)
    assert json.loads(given.stdout.splitlines()[-1]) == figures
    assert Run(run).spec().protocol == "given"
    other = runner.invoke(app, ["fit", str(run), "--data", str(music), *SMALL, "--set", "schedule.epochs=2"])
    assert other.exit_code == 1
    assert "belongs to a run with another recipe" in other.output


def test_errors_are_one_sentence_on_stderr(music: Path, tmp_path: Path) -> None:
    runner, run = CliRunner(), str(tmp_path / "run")
    fit = ["fit", run, "--data", str(music)]
    for arguments, complaint in (
        (["fit", run, "--data", "nothing"], "nothing is neither a folder of genres nor an .npz file"),
        ([*fit, "--system", "nobody"], "there is no system nobody; choose one of wholetrack-crnn, "),
        ([*fit, "--set", "schedule.epoch=1"], "the recipe of wholetrack-crnn has no field schedule.epoch"),
        ([*fit, "--set", "schedule.epochs"], "--set schedule.epochs does not have the form name=value"),
        ([*fit, "--set", "schedule.epochs=many"], "schedule.epochs: Input should be a valid integer"),
        ([*fit, "--set", "windows.hop_s=0.01"], "the windows of wholetrack-crnn are impossible: hop_s must be between"),
        ([*fit, "--set", "schedule.epochs=0"], "the recipe of wholetrack-crnn has an impossible value: "),
        ([*fit, "--set", "schedule.learning_rate=-1"], "has an impossible value: Invalid learning rate: -1"),
        ([*fit, "--protocol", "given"], "pass --split"),
        ([*fit, "--protocol", "artist-filtered"], "no track is in fold 1"),
        (["evaluate", run, "--data", str(music)], f"{run} does not hold a finished run: run.json is missing"),
        (["report", "--results", str(tmp_path / "nothing")], f"{tmp_path / 'nothing'}: No such file or directory"),
        (["robustness", str(tmp_path), "--data", str(tmp_path / "x.npz")], "is not a set of precomputed spectrograms"),
    ):
        done = runner.invoke(app, arguments)
        assert done.exit_code == 1, arguments
        # The progress bar leaves an empty line.
        sentence = done.stderr.strip()
        assert sentence.startswith("wholetrack-train: "), sentence
        assert complaint in sentence
        assert "\n" not in sentence
        assert not done.stdout


def test_a_bug_is_not_hidden_behind_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: Path) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("wholetrack_training.results.collection.read_results", fail)
    assert isinstance(CliRunner().invoke(app, ["report"]).exception, ZeroDivisionError)
