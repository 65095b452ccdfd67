"""A published network teaches another one that has other windows or another normalisation."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.harness.paths import PROJECT
from wholetrack.contracts import Rows
from wholetrack.features.normalise import normalise
from wholetrack.inference.bundle import Bundle, load_bundle
from wholetrack.inference.session import open_session
from wholetrack.settings import Settings

pytest.importorskip("torch", reason="PyTorch is not installed: pip install -e '.[train]'")

import torch

from wholetrack_training.data.splits import Protocol, all_tracks
from wholetrack_training.data.tracks import Track, TrackSet
from wholetrack_training.errors import DifferentRunError, RecipeError
from wholetrack_training.fitting.bundle_teacher import BundleTeacher
from wholetrack_training.fitting.runs import Run, RunSpec
from wholetrack_training.systems.recipe import Source
from wholetrack_training.systems.registry import SYSTEMS

pytestmark = pytest.mark.torch

RECIPE = SYSTEMS["shared-trunk-crnn"].of(Source.PRECOMPUTED)


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return load_bundle(PROJECT / "tests" / "folds" / "fold-1" / "1")


def test_a_teacher_classifies_every_window_of_a_stretch(bundle: Bundle) -> None:
    teacher = BundleTeacher(bundle, RECIPE, labels=bundle.card.labels, test=bundle.card.trained_on["never_seen"])
    stretches = np.random.default_rng(0).normal(-40, 15, (3, 78, 128)).astype(np.float32)
    windows = np.concatenate([[stretch[start : start + 39] for start in (0, 13, 26, 39)] for stretch in stretches])
    normalised = normalise(windows, bundle.card.single_input.features.normalisation)
    expected = open_session(bundle, Settings(device="cpu")).run(Rows.of(normalised)).arrays[0]
    taught = torch.softmax(teacher(torch.from_numpy(stretches)), dim=-1).numpy()
    np.testing.assert_allclose(taught, expected, atol=1e-5)


def test_a_teacher_that_has_seen_a_test_track_is_refused(bundle: Bundle) -> None:
    test = [*bundle.card.trained_on["never_seen"][:3], "another"]
    with pytest.raises(RecipeError, match="it may have seen 1 test tracks"):
        BundleTeacher(bundle, RECIPE, labels=bundle.card.labels, test=test)


def test_a_teacher_of_something_else_is_refused(bundle: Bundle) -> None:
    labels = bundle.card.labels
    for recipe, genres, what in (
        (RECIPE, labels[:-1], "genres"),
        (SYSTEMS["campana-crnn"].of(Source.AUDIO), labels, "features"),
        (SYSTEMS["wholetrack-crnn"].of(Source.PRECOMPUTED), labels, "normalisation"),
        (SYSTEMS["shared-trunk-crnn"].of(Source.PRECOMPUTED, window_s=4.0), labels, "length of windows"),
    ):
        with pytest.raises(RecipeError, match=f"different {what}"):
            BundleTeacher(bundle, recipe, labels=genres, test=())


def test_a_run_with_a_teacher_is_another_run(bundle: Bundle, tmp_path: Path) -> None:
    labels = bundle.card.labels
    recipe = RECIPE.changed(
        {
            "shape.channels": (4, 4, 4, 4, 4),
            "shape.hidden": 4,
            "schedule.epochs": 1,
            "schedule.distillation": 0.5,
            "speech": False,
        }
    )
    rng = np.random.default_rng(0)
    tracks = TrackSet(
        labels,
        tuple(Track(name=f"{i}", genre=i % 10, frames=rng.normal(-40, 9, (90, 128)).astype("f4")) for i in range(10)),
    )
    teacher = BundleTeacher(bundle, recipe, labels=labels, test=())
    spec = RunSpec("noise", Protocol.ALL, 1, 0, labels, all_tracks(tracks), (teacher.sha256,))
    run = Run(tmp_path / "run")
    run.fit(tracks, spec, recipe, published=[teacher])
    assert run.spec().taught_by == (bundle.card.sha256,)
    # Continued with the same teacher, and refused without.
    run.fit(tracks, spec, recipe, published=[teacher])
    with pytest.raises(DifferentRunError):
        run.fit(tracks, spec, recipe)
