"""What a process needs to predict partitions: the stores, and a pipeline with one model."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from wholetrack.catalogue.local import PredictedPartition
from wholetrack.catalogue.manifest import RunSpec
from wholetrack.catalogue.opening import ModelDevices, check_options, model_sha256, open_pipeline
from wholetrack.catalogue.predictor import FilePredictor, Limits
from wholetrack.catalogue.store import Store
from wholetrack.catalogue.tables import failure_table, prediction_table
from wholetrack.catalogue.target import Target
from wholetrack.contracts import ModelCard
from wholetrack.pipeline import Pipeline
from wholetrack.settings import Settings
from wholetrack.spool_folder import spool_folder


@dataclass(frozen=True, slots=True)
class CatalogueOptions:
    """What to predict, and where to write the results.

    Attributes:
        source: Path or URL of the folder with recordings.
        target: Path or URL of the folder for the results.
        storage_options: Arguments of the file systems, except for local ones.
        model: Name of the model, or ``NAME@VERSION``; None for the default model.
        hop_s: Time between window starts in seconds; None for the model's default.
        taxonomy: Name of the taxonomy in which the genres are read; None for the labels of the model.
        top_k: Number of genres in each ranking.
        partition_files: Number of files whose results are committed together.
    """

    source: str
    target: str
    storage_options: dict[str, Any] = field(default_factory=dict)
    model: str | None = None
    hop_s: float | None = None
    taxonomy: str | None = None
    top_k: int = 3
    partition_files: int = 256


@dataclass(frozen=True, slots=True)
class Workplace:
    """What predicting partitions needs: the stores, and a pipeline with one model.

    Attributes:
        options: What to predict.
        settings: How.
        pipeline: Predicts the tracks.
        predictor: Predicts the files.
        source: Where the files are.
        target: Where the results are written.
        folder: A private folder for temporary files.
    """

    options: CatalogueOptions
    settings: Settings
    pipeline: Pipeline
    predictor: FilePredictor
    source: Store
    target: Target
    folder: Path

    @property
    def card(self) -> ModelCard:
        """Contents of the ``model.json`` of the model."""
        return self.pipeline.model(None).card

    def spec(self) -> RunSpec:
        """Return everything that decides what the run predicts."""
        served, settings, options = self.pipeline.model(None), self.settings, self.options
        return RunSpec(
            source=self.source.url,
            model=served.card.name,
            version=served.card.version,
            model_sha256=model_sha256(served),
            precision=served.engine.precision,
            hop_s=options.hop_s,
            taxonomy=options.taxonomy,
            top_k=options.top_k,
            max_upload_bytes=settings.max_upload_bytes,
            max_duration_s=settings.max_duration_s,
            max_windows=settings.max_windows,
        )

    def commit(self, result: PredictedPartition) -> None:
        """Commit the results of a partition.

        Raises:
            StoreError: If the store fails.
        """
        predictions = prediction_table(result.predicted, self.card, top_k=self.options.top_k)
        self.target.commit(result.index, predictions, failure_table(result.failed))


@contextmanager
def open_workplace(
    options: CatalogueOptions, settings: Settings, *, devices: ModelDevices | None = None
) -> Iterator[Workplace]:
    """Open the stores and the pipeline for the duration of the block.

    Args:
        options: What to predict.
        settings: How.
        devices: Where the network runs; None for the devices that the settings name.

    Raises:
        CatalogueError: If the options are impossible, or something is missing or does not work.
        OSError: If the folder for temporary files cannot be used.
    """
    source = Store(options.source, options.storage_options)
    target = Target(Store(options.target, options.storage_options))
    limits = Limits(settings.max_upload_bytes, settings.max_duration_s, settings.request_timeout_s)
    with (
        open_pipeline(settings, options.model, devices=devices) as pipeline,
        spool_folder(settings.temp_dir) as folder,
    ):
        check_options(pipeline.model(None), hop_s=options.hop_s, taxonomy=options.taxonomy)
        predictor = FilePredictor(
            pipeline, source, folder, hop_s=options.hop_s, taxonomy=options.taxonomy, limits=limits
        )
        yield Workplace(options, settings, pipeline, predictor, source, target, folder)
