"""Toy tracks with two genres, low and high, that a network learns in seconds; one finished run and its bundle."""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.wholetrack_training.toys import toy_set
from wholetrack_training.data.tracks import TrackSet

if TYPE_CHECKING:
    from wholetrack_training.fitting.runs import Run


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> Iterator[None]:
    """Run PyTorch on one thread: toy layers are too small to be split, and threads would only wait for each other."""
    if importlib.util.find_spec("torch"):
        import torch

        before = torch.get_num_threads()
        torch.set_num_threads(1)
        yield
        torch.set_num_threads(before)
    else:
        yield


@pytest.fixture(scope="session")
def toys() -> TrackSet:
    return toy_set()


@pytest.fixture(scope="session")
def finished(toys: TrackSet, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A finished run of a small network; tests must not change it."""
    from tests.wholetrack_training.small_network import SMALL, toy_spec
    from wholetrack_training.fitting.runs import Run

    run = Run(tmp_path_factory.mktemp("run"))
    run.fit(toys, toy_spec(toys), SMALL)
    return run


@pytest.fixture(scope="session")
def _bundle(finished: Run, toys: TrackSet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tests.wholetrack_training.small_network import record_of
    from wholetrack_training.publishing.bundles import publish

    models = tmp_path_factory.mktemp("models")
    return publish(finished, [record_of(finished)], toys, name="toy", version="1", licence="Apache-2.0", models=models)


@pytest.fixture
def published(_bundle: Path, tmp_path: Path) -> Path:
    """The folder of a bundle of the finished run, a copy for each test."""
    folder = tmp_path / "models" / "toy" / "1"
    shutil.copytree(_bundle, folder)
    return folder
