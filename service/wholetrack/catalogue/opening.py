"""Opens the pipeline for the single model of a run."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from wholetrack.catalogue.errors import CatalogueError
from wholetrack.errors import ServiceError, StartupError
from wholetrack.inference.bundle import Bundle
from wholetrack.inference.devices import ModelOpener
from wholetrack.pipeline import Pipeline
from wholetrack.served_model import ServedModel, model_key
from wholetrack.settings import Settings
from wholetrack.startup import build_pipeline, configured_bundles

ModelDevices = Callable[[Settings, int], ModelOpener]
"""Returns what opens models, given the settings and the number of models."""


@contextmanager
def open_pipeline(settings: Settings, model: str | None, *, devices: ModelDevices | None) -> Iterator[Pipeline]:
    """Build a pipeline with one model for the duration of the block.

    Args:
        settings: The settings.
        model: Name of the model, or ``NAME@VERSION``; None for the default model.
        devices: Where the network runs; None for the devices that the settings name.

    Raises:
        CatalogueError: If there is no such model, or something is missing or does not work.
    """
    with _startup_errors():
        key, bundles = needed_bundles(settings, model)
        pipeline = build_pipeline(settings.model_copy(update={"default_model": key}), bundles, devices=devices)
    try:
        yield pipeline
    finally:
        pipeline.close()


def needed_bundles(settings: Settings, model: str | None) -> tuple[str, dict[str, Bundle]]:
    """Return the key of a model, and its bundle by that key. A head also needs the bundle whose network it uses.

    Raises:
        CatalogueError: If there is no such model.
        StartupError: If a bundle is invalid.
    """
    bundles = configured_bundles(settings)
    name = model or settings.default_model
    key = model_key(name, {key: bundle.card.version for key, bundle in bundles.items()})
    if key is None:
        raise CatalogueError(f"there is no model {name}; found: {', '.join(sorted(bundles))}")
    return key, {each: bundle for each, bundle in bundles.items() if each in {key, bundles[key].base}}


def check_options(served: ServedModel, *, hop_s: float | None, taxonomy: str | None) -> None:
    """Check that a model supports the options of a run.

    Raises:
        CatalogueError: If it does not.
    """
    try:
        served.grid(hop_s)
        served.taxonomy(taxonomy)
    except ServiceError as error:
        raise CatalogueError(error.detail) from error


def model_sha256(served: ServedModel) -> str:
    """Return a hash of everything that a bundle states, with the hashes of its networks."""
    return hashlib.sha256(json.dumps(served.document, sort_keys=True).encode()).hexdigest()


@contextmanager
def _startup_errors() -> Iterator[None]:
    try:
        yield
    except StartupError as error:
        raise CatalogueError(str(error)) from error
