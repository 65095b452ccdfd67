"""Teaching the music tower: an interrupted run continues, another plan is refused, and the student comes closer."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch", reason="PyTorch is not installed: pip install -e '.[train]'")

import torch

from tests.wholetrack_training.mn04_weights import write_mn04
from wholetrack_training.data.teaching_store import Targets, TaughtRecording, TeachingStore
from wholetrack_training.errors import DataError, DifferentRunError
from wholetrack_training.fitting.distillation import DistillationPlan, TaughtWindows, distil

pytestmark = pytest.mark.torch

_N_LABELS = 7
PLAN = DistillationPlan(steps=4, batch=4, warm_up=1)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_mn04(tmp_path_factory.mktemp("weights"), n_labels=_N_LABELS)


@pytest.fixture(scope="module")
def recordings(tmp_path_factory: pytest.TempPathFactory) -> list[TaughtRecording]:
    """Two recordings of three windows; musicnn was asked about every second window only."""
    rng = np.random.default_rng(0)
    store = TeachingStore(tmp_path_factory.mktemp("store"))
    for name in ("one", "two"):
        mn04 = Targets(np.arange(3), *(rng.normal(size=(3, n)).astype(np.float32) for n in (_N_LABELS, 384)))
        musicnn = Targets(np.array([0, 2]), *(rng.normal(size=(2, n)).astype(np.float32) for n in (5, 20)))
        samples = rng.normal(0, 0.1, 9 * 22050).astype(np.float32)
        store.add(name, samples, np.array([0.0, 3.0, 6.0]), {"mn04": mn04, "msd_musicnn": musicnn})
    return store.recordings()


def test_an_interrupted_run_ends_with_the_same_weights(
    weights: Path, recordings: list[TaughtRecording], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = distil(recordings, PLAN, mn04=weights, folder=tmp_path / "whole")
    monkeypatch.setattr("wholetrack_training.fitting.distillation._CHECKPOINT_STEPS", 2)
    steps = iter(range(100))

    def interrupted(*arguments: object) -> float:
        if next(steps) == 3:
            raise KeyboardInterrupt
        return original(*arguments)  # type: ignore[arg-type]

    from wholetrack_training.fitting import distillation

    original = distillation._step
    with monkeypatch.context() as patch:
        patch.setattr(distillation, "_step", interrupted)
        with pytest.raises(KeyboardInterrupt):
            distil(recordings, PLAN, mn04=weights, folder=tmp_path / "parts")
    continued = distil(recordings, PLAN, mn04=weights, folder=tmp_path / "parts")
    for one, other in zip(whole.state_dict().values(), continued.state_dict().values(), strict=True):
        torch.testing.assert_close(one, other)


def test_the_statistics_of_mn04_are_kept(weights: Path, recordings: list[TaughtRecording], tmp_path: Path) -> None:
    student = distil(recordings, PLAN, mn04=weights, folder=tmp_path)
    with np.load(weights) as published:
        for name, value in student.mn04.state_dict().items():
            unchanged = np.array_equal(value.numpy(), published[name])
            assert unchanged == ("running" in name or "num_batches" in name), name


def test_another_plan_does_not_continue_a_run(weights: Path, recordings: list[TaughtRecording], tmp_path: Path) -> None:
    distil(recordings, DistillationPlan(steps=1, batch=2), mn04=weights, folder=tmp_path)
    with pytest.raises(DifferentRunError, match="another plan"):
        distil(recordings, DistillationPlan(steps=2, batch=2), mn04=weights, folder=tmp_path)


def test_a_batch_holds_what_each_tagger_said_of_its_windows(recordings: list[TaughtRecording]) -> None:
    taught = TaughtWindows(recordings)
    assert len(taught) == 6
    assert taught.lengths() == {"msd_musicnn": 25}
    windows, values = taught.batch(DistillationPlan(batch=64), np.random.default_rng(0))
    assert windows.shape == (64, 288, 112)
    assert len(values["mn04"][0]) == 64
    asked = len(values["msd_musicnn"][0])
    # Two of three windows were asked about, and they are drawn twice as often: four in five.
    assert 40 < asked < 60
    assert values["msd_musicnn"][1].shape == (asked, 25)


def test_mn04_must_have_been_asked_about_every_window(recordings: list[TaughtRecording]) -> None:
    partly = [TaughtRecording(r.name, r.start_s, {"msd_musicnn": r.targets["msd_musicnn"]}, r.pcm) for r in recordings]
    with pytest.raises(DataError, match="mn04 was not asked"):
        TaughtWindows(partly)
