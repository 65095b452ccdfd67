"""A run of ``wholetrack catalogue``, from the list of files to the last partition."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack, closing
from dataclasses import dataclass
from typing import Any

from wholetrack.catalogue.cluster import Cluster
from wholetrack.catalogue.listing import list_recordings
from wholetrack.catalogue.local import predict_partitions
from wholetrack.catalogue.manifest import Manifest, write_manifest
from wholetrack.catalogue.progress import RunProgress
from wholetrack.catalogue.target import Target
from wholetrack.catalogue.workplace import CatalogueOptions, Workplace, open_workplace
from wholetrack.settings import Settings


@dataclass(frozen=True, slots=True)
class Run:
    """A run that has begun, or was begun earlier and goes on.

    Attributes:
        target: Where the results are.
        manifest: What is predicted.
        remaining: Partitions that are not committed.
        progress: How far the run is.
    """

    target: Target
    manifest: Manifest
    remaining: list[int]
    progress: RunProgress

    def summary(self) -> dict[str, Any]:
        """Return what has been done, for programs."""
        spec, progress = self.manifest.spec, self.progress
        return {
            "source": spec.source,
            "target": self.target.store.url,
            "model": spec.model,
            "version": spec.version,
            "finished": progress.committed == progress.total,
            "files": progress.total,
            "predicted": progress.committed - progress.committed_failed,
            "failed": progress.committed_failed,
            "remaining": progress.total - progress.committed,
            "done_by_earlier_runs": progress.done_before,
            "seconds": round(progress.seconds, 3),
            "files_per_second": round(progress.files_per_second, 3),
        }


def run_catalogue(
    options: CatalogueOptions,
    settings: Settings,
    *,
    restart: bool,
    cluster: Cluster | None,
    on_end: Callable[[Run], None],
) -> Run:
    """Predict all recordings of a store, except for those that an earlier run has done, and return the finished run.

    Args:
        options: What to predict, and where to write the results.
        settings: How to predict it.
        restart: Whether to remove the results of an earlier run first.
        cluster: The Ray cluster to use; None for this machine without Ray.
        on_end: Called when a run that has begun ends, whether or not it has finished.

    Raises:
        CatalogueError: If the run cannot begin like this.
        ResumableError: If a store, a device or the cluster has failed.
        OSError: If the folder for temporary files cannot be used.
    """
    with ExitStack() as opened:
        workplace = opened.enter_context(open_workplace(options, settings))
        run = _begin(workplace, restart=restart)
        if cluster:
            # The model is opened again on the nodes.
            opened.close()
        opened.callback(on_end, run)
        opened.enter_context(run.progress)
        if cluster:
            from wholetrack.catalogue.on_ray import run_on_ray

            run_on_ray(options, settings, cluster, run.remaining, run.progress)
        else:
            _run_here(workplace, run)
        run.target.finish()
        return run


def _begin(workplace: Workplace, *, restart: bool) -> Run:
    """Find the run in the target and what remains of it, or list the files and begin one.

    Raises:
        CatalogueError: If an earlier run differs, or there are no files.
        StoreError: If a store fails.
    """
    spec, target = workplace.spec(), workplace.target
    if restart:
        target.clear()
    manifest = target.manifest(spec) or write_manifest(
        target.store,
        spec,
        list_recordings(workplace.source),
        partition_files=workplace.options.partition_files,
        folder=workplace.folder,
    )
    committed = target.committed()
    remaining = [index for index in range(manifest.n_partitions) if index not in committed]
    done = manifest.n_files - sum(manifest.size(index) for index in remaining)
    progress = RunProgress(manifest.n_files, done=done, failed=target.n_failed(committed))
    return Run(target, manifest, remaining, progress)


def _run_here(workplace: Workplace, run: Run) -> None:
    """Predict and commit what remains in this process.

    Raises:
        ResumableError: If a store or a device has failed.
    """
    results = predict_partitions(
        (run.manifest.partition(index) for index in run.remaining),
        workplace.predictor,
        tracks_at_once=workplace.settings.tracks_at_once,
        on_file=lambda predicted: run.progress.add(predicted, not predicted),
    )
    with closing(results):
        for result in results:
            workplace.commit(result)
            run.progress.commit(len(result.predicted), len(result.failed))
