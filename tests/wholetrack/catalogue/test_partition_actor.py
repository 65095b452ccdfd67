"""What an actor of a cluster does, without a cluster."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fsspec.implementations.local import LocalFileSystem

from tests.harness.catalogues import names, recording
from wholetrack.catalogue import partition_actor
from wholetrack.catalogue.errors import CatalogueError
from wholetrack.catalogue.partition_actor import PartitionActor
from wholetrack.catalogue.run import run_catalogue
from wholetrack.catalogue.workplace import CatalogueOptions, Workplace, open_workplace
from wholetrack.settings import Settings


@pytest.fixture
def options(tmp_path: Path) -> CatalogueOptions:
    source = tmp_path / "music"
    source.mkdir()
    for i in range(4):
        (source / f"{i}.wav").write_bytes(recording(i) if i else b"")
    return CatalogueOptions(str(source), str(tmp_path / "results"), partition_files=2)


def begin(options: CatalogueOptions, settings: Settings) -> None:
    """Begin a run, whose results are removed afterwards."""
    run_catalogue(options, settings, restart=False, cluster=None, on_end=lambda _: None)
    for part in Path(options.target).glob("*/part-*"):
        part.unlink()


def call(actor: PartitionActor, index: int) -> dict[str, Any]:
    return {key: value for key, (value,) in actor({"index": np.array([index])}).items()}


def test_an_actor_commits_the_partitions_that_it_is_given(options: CatalogueOptions, settings: Settings) -> None:
    begin(options, settings)
    actor = PartitionActor(options, settings.model_dump(exclude_unset=True), 1, None)
    assert call(actor, 1) == {"predicted": 2, "failed": 0, "error": ""}
    assert call(actor, 0) == {"predicted": 1, "failed": 1, "error": ""}
    assert names(LocalFileSystem(), options.target) == {f"{options.source}/{i}.wav": 1 for i in range(4)}


def test_an_actor_predicts_nothing_if_its_node_has_other_models_or_limits(
    options: CatalogueOptions, settings: Settings
) -> None:
    begin(options, settings)
    actor = PartitionActor(options, settings.model_dump(exclude_unset=True) | {"max_duration_s": 2.0}, 1, None)
    outcome = call(actor, 0)
    assert outcome["predicted"] == 0
    assert "max_duration_s is 10800.0 there and 2.0 here" in outcome["error"]
    Path(options.target, "manifest.parquet").unlink()
    actor = PartitionActor(options, settings.model_dump(exclude_unset=True), 1, None)
    assert call(actor, 0)["error"].endswith("the manifest is no longer there")
    assert names(LocalFileSystem(), options.target) == {}


@pytest.mark.parametrize(("n_failures", "succeeds"), [(2, True), (3, False)])
def test_an_actor_on_a_busy_node_tries_again_to_start(
    n_failures: int,
    succeeds: bool,  # noqa: FBT001 - a parameter of the test
    options: CatalogueOptions,
    settings: Settings,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    begin(options, settings)
    failures = iter(range(n_failures))

    @contextmanager
    def opened(*arguments: Any, **keywords: Any) -> Iterator[Workplace]:
        if next(failures, None) is not None:
            raise CatalogueError("the launcher was not ready within 20 seconds")
        with open_workplace(*arguments, **keywords) as workplace:
            yield workplace

    monkeypatch.setattr(partition_actor, "open_workplace", opened)
    outcome = call(PartitionActor(options, settings.model_dump(exclude_unset=True), 1, None), 1)
    assert (outcome["predicted"] == 2) is succeeds
    assert outcome["error"].endswith("the launcher was not ready within 20 seconds") is not succeeds
