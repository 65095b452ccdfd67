"""What a run has written: the manifest, and the predictions and failures of each partition that is committed.

The predictions of a partition are written last. A partition is committed once they are there; otherwise it is predicted
again, and both files are replaced. Whenever a run is killed, each file of the manifest is therefore in at most one of
the committed tables, and in exactly one when the run has finished.
"""

from __future__ import annotations

import io
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from wholetrack.catalogue.errors import CatalogueError, StoreError
from wholetrack.catalogue.manifest import MANIFEST, Manifest, RunSpec
from wholetrack.catalogue.store import Store

PREDICTIONS = "predictions"
FAILURES = "failures"
# Requests that read the sizes of tables wait for the store most of the time.
_READERS = 16


class Target:
    """The results of a run.

    Args:
        store: Where they are.
    """

    def __init__(self, store: Store) -> None:
        self.store = store

    def manifest(self, spec: RunSpec) -> Manifest | None:
        """Return the manifest of a run that has begun; None if none has.

        Args:
            spec: What this run predicts.

        Raises:
            CatalogueError: If the run that has begun predicts something else, or there are results without a manifest.
            StoreError: If the store fails.
        """
        manifest = Manifest.read(self.store)
        again = "Give another --out, or --restart to remove these results"
        if manifest is None and self.committed():
            raise CatalogueError(f"{self.store.url} has predictions, but no manifest. {again}")
        if manifest is not None and manifest.spec != spec:
            raise CatalogueError(
                f"{self.store.url} has results of another run: {manifest.spec.differences(spec)}. {again}"
            )
        return manifest

    def finish(self) -> None:
        """Remove what processes that were killed have left unfinished, if that is possible."""
        with suppress(StoreError):
            self.store.remove_unfinished()

    def clear(self) -> None:
        """Remove all results. The manifest is last, so that what is left is never taken for a new run's.

        Raises:
            StoreError: If the store fails.
        """
        self.store.remove(PREDICTIONS, FAILURES, MANIFEST)
        self.store.remove_unfinished()

    def committed(self) -> set[int]:
        """Return the indices of the partitions that are committed.

        Raises:
            StoreError: If the store fails.
        """
        names = self.store.names(PREDICTIONS)
        return {int(Path(name).stem.removeprefix("part-")) for name in names if name.startswith("part-")}

    def commit(self, index: int, predictions: pa.Table, failures: pa.Table) -> None:
        """Commit a partition.

        Raises:
            StoreError: If the store fails.
        """
        for folder, table in ((FAILURES, failures), (PREDICTIONS, predictions)):
            content = io.BytesIO()
            pq.write_table(table, content, compression="zstd")
            self.store.write(_part(folder, index), content.getvalue())

    def n_failed(self, partitions: Iterable[int]) -> int:
        """Return how many files of these partitions could not be predicted.

        Raises:
            StoreError: If the store fails.
        """
        with ThreadPoolExecutor(_READERS) as threads:
            return sum(threads.map(self._n_failed, partitions))

    def _n_failed(self, index: int) -> int:
        name = _part(FAILURES, index)
        with self.store.failing(f"cannot read {self.store.url}/{name}"):
            file = self.store.open(name)
            if file is None:
                raise FileNotFoundError(f"{name} is missing")
            with file:
                return int(pq.read_metadata(file).num_rows)


def _part(folder: str, index: int) -> str:
    return f"{folder}/part-{index:06d}.parquet"
