"""Training runs: a network learns, an interrupted run continues, early stopping, and distillation from teachers."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

pytest.importorskip("torch", reason="PyTorch is not installed: pip install -e '.[train]'")

import torch
from torch import Tensor, nn

from tests.wholetrack_training.small_network import SMALL, toy_spec
from wholetrack_training.data.splits import Protocol, all_tracks
from wholetrack_training.data.tracks import TrackSet
from wholetrack_training.errors import DataError, DifferentRunError, RecipeError
from wholetrack_training.fitting.runs import Run, RunSpec
from wholetrack_training.fitting.trainer import Trainer

pytestmark = pytest.mark.torch


def weights(run: Run) -> dict[str, NDArray[np.float32]]:
    return {name: value.numpy() for name, value in run.network().state_dict().items()}


def test_a_network_learns_and_its_figures_are_written(finished: Run) -> None:
    figures = finished.figures()
    assert figures["track_accuracy_summed"] == 1.0
    assert figures["window_accuracy"] > 0.9
    assert len(figures["history"]) == figures["epochs"] == 6
    assert figures["history"][-1]["train_loss"] < figures["history"][0]["train_loss"]
    assert finished.recipe() == SMALL


def test_an_interrupted_run_continues_from_its_checkpoint(
    finished: Run, toys: TrackSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saves = 0
    save = Trainer._save

    def save_and_interrupt(self: Trainer) -> None:
        nonlocal saves
        save(self)
        saves += 1
        if saves in (1, 3):
            raise KeyboardInterrupt

    monkeypatch.setattr(Trainer, "_save", save_and_interrupt)
    run = Run(tmp_path / "run")
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            run.fit(toys, toy_spec(toys), SMALL)
    run.fit(toys, toy_spec(toys), SMALL)
    assert saves == SMALL.schedule.epochs
    undisturbed = weights(finished)
    for name, value in weights(run).items():
        np.testing.assert_allclose(value, undisturbed[name], atol=1e-6, err_msg=name)


def test_a_checkpoint_of_another_run_is_refused(finished: Run, toys: TrackSet) -> None:
    with pytest.raises(DifferentRunError, match="another recipe, seed or set of tracks"):
        finished.fit(toys, toy_spec(toys), SMALL.changed({"schedule.batch": 8}))
    with pytest.raises(DifferentRunError, match="another recipe, seed or set of tracks"):
        finished.fit(toys, toy_spec(toys, seed=1), SMALL)


def test_a_checkpoint_with_former_field_names_is_accepted(toys: TrackSet, tmp_path: Path) -> None:
    sides = toy_spec(toys).split
    train, validation = toys.named(sides.train), toys.named(sides.validation)
    trainer = Trainer(SMALL, train, validation, seed=0, folder=tmp_path)
    trainer.progress.epoch = 3
    trainer._save()
    state = torch.load(trainer.checkpoint, weights_only=True)
    identity = json.loads(state["identity"])
    identity["recipe"]["shape"]["deaf_bands"] = identity["recipe"]["shape"].pop("masked_top_bands")
    torch.save({**state, "identity": json.dumps(identity)}, trainer.checkpoint)
    assert Trainer(SMALL, train, validation, seed=0, folder=tmp_path).progress.epoch == 3
    identity["recipe"]["shape"]["deaf_bands"] = 1
    torch.save({**state, "identity": json.dumps(identity)}, trainer.checkpoint)
    with pytest.raises(DifferentRunError):
        Trainer(SMALL, train, validation, seed=0, folder=tmp_path)


def test_early_stopping(toys: TrackSet, tmp_path: Path) -> None:
    changes = {"schedule.epochs": 50, "schedule.patience": 2, "schedule.learning_rate": 1e-9, "windows_per_track": 1}
    run = Run(tmp_path)
    run.fit(toys, toy_spec(toys), SMALL.changed(changes))
    assert run.figures()["epochs"] - run.figures()["best_epoch"] == 2
    assert run.figures()["epochs"] < 50


def test_the_last_weights_can_be_kept_without_validation(toys: TrackSet, tmp_path: Path) -> None:
    recipe = SMALL.changed({"schedule.keep": "last", "shape.centred": True, "augmentation.style": 0.5})
    spec = toy_spec(toys)
    without_validation = replace(spec, split=spec.split.without_validation())
    assert set(without_validation.split.train) == set(spec.split.train) | set(spec.split.validation)
    run = Run(tmp_path)
    run.fit(toys, without_validation, recipe)
    figures = run.figures()
    assert figures["epochs"] == figures["best_epoch"] == 6
    assert set(figures["history"][0]) == {"train_loss"}
    assert figures["track_accuracy_summed"] == 1.0
    with pytest.raises(RecipeError, match="needs validation"):
        Run(tmp_path / "other").fit(toys, spec, recipe.changed({"schedule.rate": "plateau"}))


def test_a_run_on_all_tracks_is_not_evaluated(toys: TrackSet, tmp_path: Path) -> None:
    spec = RunSpec("toys", Protocol.ALL, 1, 0, toys.labels, all_tracks(toys))
    run = Run(tmp_path / "run")
    with pytest.raises(DataError, match="none are left for validation"):
        run.fit(toys, spec, SMALL)
    recipe = SMALL.changed({"schedule.keep": "last", "schedule.epochs": 1, "windows_per_track": 1})
    assert run.fit(toys, spec, recipe) is None
    assert run.evaluate(toys) is None


def test_an_unfinished_run_is_reported(toys: TrackSet, tmp_path: Path) -> None:
    run = Run(tmp_path)
    with pytest.raises(DataError, match=r"does not hold a finished run: run.json is missing"):
        run.network()
    sides = toy_spec(toys).split
    recipe = SMALL.changed({"schedule.keep": "last", "schedule.epochs": 1, "windows_per_track": 1})
    run.fit(toys, replace(toy_spec(toys), split=sides.without_validation()), recipe)
    (tmp_path / "network.pt").unlink()
    with pytest.raises(DataError, match=r"does not hold a finished run: network.pt is missing"):
        run.network()


def test_teachers_are_trained_with_the_following_seeds(toys: TrackSet, tmp_path: Path) -> None:
    short = SMALL.changed({"schedule.epochs": 2, "windows_per_track": 1})
    run = Run(tmp_path / "run")
    run.fit(toys, toy_spec(toys, seed=5), short.changed({"schedule.teachers": 2, "schedule.distillation": 1.0}))
    for number in (1, 2):
        alone = Run(tmp_path / f"alone-{number}")
        alone.fit(toys, toy_spec(toys, seed=5 + number), short)
        state = torch.load(run.folder / f"teacher-{number}" / "checkpoint.pt", weights_only=True)
        assert all(torch.equal(state["best"][name], value) for name, value in alone.network().state_dict().items())


class _AlwaysTheFirst(nn.Module):
    """A teacher that assigns everything to the first genre."""

    def forward(self, windows: Tensor) -> Tensor:
        logits: Tensor = torch.tensor([20.0, 0.0]).expand(len(windows), -1)
        return logits


def test_the_predictions_of_teachers_are_the_target(toys: TrackSet, tmp_path: Path) -> None:
    sides = toy_spec(toys).split
    trainer = Trainer(
        SMALL.changed({"schedule.distillation": 1.0}),
        toys.named(sides.train),
        toys.named(sides.validation),
        seed=0,
        folder=tmp_path,
        teachers=[_AlwaysTheFirst()],
    )
    network = trainer.run()
    windows = torch.from_numpy(np.stack([track.frames[:39] for track in toys.named(sides.test).tracks]))
    assert set(network(windows).argmax(-1).tolist()) == {0}
