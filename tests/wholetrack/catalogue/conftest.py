from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.harness.bundles import write_two_inputs
from tests.harness.object_store import ObjectStore, running_object_store
from wholetrack import startup
from wholetrack.catalogue import opening, workplace
from wholetrack.pipeline import Pipeline
from wholetrack.settings import Settings


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a small network, which has tags and an embedding."""
    folder = tmp_path_factory.mktemp("models")
    write_two_inputs(folder)
    return folder


@pytest.fixture(scope="session")
def small_pipeline(models: Path) -> Iterator[Pipeline]:
    """A pipeline with only the small network."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(startup, "BUILT_IN_MODELS", models)
        pipeline = startup.build_pipeline(Settings(device="cpu", default_model="twin"))
    yield pipeline
    pipeline.close()


@pytest.fixture
def settings(models: Path, small_pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Settings:
    """Settings with only the small network, whose pipeline is opened once for all tests."""
    monkeypatch.setattr(startup, "BUILT_IN_MODELS", models)
    opened = opening.open_pipeline

    @contextmanager
    def open_pipeline(settings: Settings, model: str | None, *, devices: Any) -> Iterator[Pipeline]:
        if model is not None:
            with opened(settings, model, devices=devices) as pipeline:
                yield pipeline
        else:
            yield small_pipeline

    monkeypatch.setattr(workplace, "open_pipeline", open_pipeline)
    temp_dir = tmp_path / "temporary"
    temp_dir.mkdir()
    return Settings(device="cpu", default_model="twin", temp_dir=temp_dir, tracks_at_once=2, cpu_threads=2)


@pytest.fixture(scope="session")
def running_store() -> Iterator[ObjectStore]:
    with running_object_store() as store:
        yield store


@pytest.fixture
def object_store(running_store: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> Iterator[ObjectStore]:
    """An object store, which this process finds by its variables."""
    for name, value in running_store.environment.items():
        monkeypatch.setenv(name, value)
    yield running_store
    running_store.refusal = lambda _method, _path: None


@pytest.fixture
def bucket(object_store: ObjectStore) -> str:
    """The name of a new bucket."""
    name = f"music-{uuid.uuid4().hex}"
    object_store.client().mkdir(name)
    return name
