"""Opens the pipeline for the single model of a run."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager

from wholetrack.catalogue.errors import CatalogueError
from wholetrack.errors import ServiceError, StartupError
from wholetrack.pipeline import Pipeline
from wholetrack.served_model import ServedModel, model_key
from wholetrack.settings import Settings
from wholetrack.startup import build_pipeline, configured_bundles


@contextmanager
def open_pipeline(settings: Settings, model: str | None) -> Iterator[Pipeline]:
    """Build a pipeline with one model for the duration of the block.

    Args:
        settings: The settings.
        model: Name of the model, or ``NAME@VERSION``; None for the default model.

    Raises:
        CatalogueError: If there is no such model, or something is missing or does not work.
    """
    try:
        bundles = configured_bundles(settings)
        key = model_key(model or settings.default_model, {key: each.card.version for key, each in bundles.items()})
        if key is None:
            raise CatalogueError(f"there is no model {model or settings.default_model}; found: {', '.join(bundles)}")
        # A head uses the network of another model.
        needed = {name: bundle for name, bundle in bundles.items() if name in {key, bundles[key].base}}
        pipeline = build_pipeline(settings.model_copy(update={"default_model": key}), needed)
    except StartupError as error:
        raise CatalogueError(str(error)) from error
    try:
        yield pipeline
    finally:
        pipeline.close()


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
