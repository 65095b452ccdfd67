"""The manifest: what a run predicts, in which partitions, and how. It is written before anything is predicted.

It is a Parquet file with a row group for each partition, so that a partition can be read without the others.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import IO

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict, ValidationError

from wholetrack.catalogue.errors import CatalogueError
from wholetrack.catalogue.listed_file import ListedFile
from wholetrack.catalogue.store import Store

MANIFEST = "manifest.parquet"
_KEY = b"wholetrack"
_SCHEMA = pa.schema(
    [
        # Not text, because the path of a local file may have bytes that are not UTF-8.
        ("path", pa.binary()),
        ("size_bytes", pa.int64()),
        ("etag", pa.string()),
        ("modified", pa.timestamp("us", tz="UTC")),
    ]
)


class RunSpec(BaseModel):
    """Everything that decides what a run predicts. A run is only continued with the same."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: int = 1
    source: str
    model: str
    version: str
    model_sha256: str
    precision: str
    hop_s: float | None
    taxonomy: str | None
    top_k: int
    max_upload_bytes: int
    max_duration_s: float
    max_windows: int

    def differences(self, other: RunSpec) -> str:
        """Return the fields in which another one differs, such as ``top_k is 3 there and 5 here``."""
        there, here = self.model_dump(), other.model_dump()
        return ", ".join(
            f"{name} is {there[name]} there and {here[name]} here" for name in there if there[name] != here[name]
        )


@dataclass(frozen=True, slots=True)
class Partition:
    """The files whose predictions are committed together."""

    index: int
    files: list[ListedFile]


class Manifest:
    """The manifest of a run that has begun.

    Args:
        store: Where it is.
        file: The manifest.

    Attributes:
        spec: How the files are predicted.
        n_files: Number of files.
        n_partitions: Number of partitions.

    Raises:
        CatalogueError: If it is not a manifest that this version can read.
        StoreError: If the store fails.
    """

    def __init__(self, store: Store, file: IO[bytes]) -> None:
        self._store = store
        not_readable = f"{store.url}/{MANIFEST} is not a manifest that this version of wholetrack can continue"
        try:
            with store.failing(f"cannot read {store.url}/{MANIFEST}", passing=(pa.ArrowInvalid,)):
                self._parquet = pq.ParquetFile(file)
            self.spec = RunSpec.model_validate_json(self._parquet.schema_arrow.metadata[_KEY])
        except (pa.ArrowInvalid, KeyError, TypeError, ValidationError) as error:
            raise CatalogueError(not_readable) from error
        self.n_files: int = self._parquet.metadata.num_rows
        self.n_partitions: int = self._parquet.metadata.num_row_groups

    @classmethod
    def read(cls, store: Store) -> Manifest | None:
        """Return the manifest of the run in a store; None if there is none.

        Raises:
            CatalogueError: If it is not a manifest that this version can read.
            StoreError: If the store fails.
        """
        file = store.open(MANIFEST)
        return None if file is None else cls(store, file)

    def size(self, index: int) -> int:
        """Return the number of files in a partition."""
        return int(self._parquet.metadata.row_group(index).num_rows)

    def partition(self, index: int) -> Partition:
        """Return a partition.

        Raises:
            StoreError: If the store fails.
        """
        with self._store.failing(f"cannot read {self._store.url}/{MANIFEST}"):
            rows = self._parquet.read_row_group(index).to_pylist()
        files = [ListedFile(os.fsdecode(row["path"]), row["size_bytes"], row["etag"], row["modified"]) for row in rows]
        return Partition(index, files)


def write_manifest(
    store: Store, spec: RunSpec, files: Iterable[ListedFile], *, partition_files: int, folder: Path
) -> Manifest:
    """Write the manifest of a new run, and return it.

    Args:
        store: Where to write it.
        spec: How the files are predicted.
        files: The files, which need not fit into memory.
        partition_files: Number of files in each partition; the last one may have fewer.
        folder: A private folder for the manifest until it is complete.

    Raises:
        CatalogueError: If there are no files.
        StoreError: If the store fails.
    """
    schema = _SCHEMA.with_metadata({_KEY: spec.model_dump_json().encode()})
    path = folder / MANIFEST
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        for rows in _batches(files, partition_files):
            writer.write_table(pa.Table.from_pylist(rows, schema=schema), row_group_size=partition_files)
    if not pq.read_metadata(path).num_rows:
        raise CatalogueError(f"{spec.source} contains no recordings")
    store.put(MANIFEST, path)
    path.unlink()
    manifest = Manifest.read(store)
    assert manifest is not None
    return manifest


def _batches(files: Iterable[ListedFile], size: int) -> Iterator[list[dict[str, object]]]:
    remaining = iter(files)
    while batch := list(islice(remaining, size)):
        yield [
            {
                "path": os.fsencode(file.path),
                "size_bytes": file.size_bytes,
                "etag": file.etag,
                "modified": file.modified,
            }
            for file in batch
        ]
