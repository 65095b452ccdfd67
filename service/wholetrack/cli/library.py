"""Libraries: Parquet files with one row per recording, which may be searched by their embeddings.

Needs the extra ``parquet``. Its package pyarrow takes 170 MB and 0.3 s to import, so only these commands import it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from wholetrack.aggregation.similarity import most_similar
from wholetrack.catalogue.tables import verdict_row, verdict_schema
from wholetrack.cli.files import text_of
from wholetrack.contracts import ModelCard, TrackPrediction

# Rows in memory before they are written.
_ROWS_PER_GROUP = 1000
_WRITE = "wholetrack predict --format parquet"
_NEEDED = ("file", "model", "version", "genre", "embedding")


class LibraryError(Exception):
    """A library cannot be read. The message says why, in a sentence."""


class LibraryWriter:
    """Writes a library.

    Args:
        target: A binary file.
        card: Contents of the ``model.json`` of the model.
    """

    def __init__(self, target: IO[bytes], card: ModelCard) -> None:
        self._schema = pa.schema(verdict_schema(card))
        self._rows: list[dict[str, Any]] = []
        self._writer = pq.ParquetWriter(target, self._schema, compression="zstd")

    def __enter__(self) -> Self:
        return self

    def add(self, path: Path, prediction: TrackPrediction) -> None:
        """Add the prediction of a file."""
        self._rows.append(verdict_row(text_of(path), prediction))
        if len(self._rows) == _ROWS_PER_GROUP:
            self._flush()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self._flush()
        self._writer.close()

    def _flush(self) -> None:
        if self._rows:
            self._writer.write_table(pa.Table.from_pylist(self._rows, schema=self._schema))
            self._rows = []


@dataclass(frozen=True, slots=True)
class Library:
    """The recordings of a library that have an embedding.

    Attributes:
        files: Path of each recording, as it was given to ``predict``.
        genres: Leading genre of each recording.
        embeddings: ``[n, length]``.
        model: The model of all embeddings, as ``NAME@VERSION``.
    """

    files: list[str]
    genres: list[str]
    embeddings: NDArray[np.float32]
    model: str

    @classmethod
    def read(cls, path: Path) -> Library:
        """Read a library: a file, or all files in a folder.

        Raises:
            LibraryError: If it cannot be read, or has no embeddings of a single model.
        """
        name = text_of(path)
        table = _read_columns(path)
        column = table.column("embedding")
        table = table.filter(column.is_valid())
        models = {f"{model}@{version}" for model, version in _pairs(table, "model", "version")}
        if not models:
            raise LibraryError(f"{name} has no embeddings: write it with a model that yields an embedding")
        if len(models) > 1:
            raise LibraryError(f"{name} has embeddings of several models: {', '.join(sorted(models))}")
        vectors = table.column("embedding").combine_chunks()
        embeddings = vectors.flatten().to_numpy(zero_copy_only=False).astype(np.float32, copy=False)
        return cls(
            files=table.column("file").to_pylist(),
            genres=table.column("genre").to_pylist(),
            embeddings=embeddings.reshape(len(vectors), -1),
            model=models.pop(),
        )

    def nearest(self, query: NDArray[np.float32], *, limit: int) -> list[tuple[str, str, float]]:
        """Return file, genre and similarity of the most similar recordings, in descending order.

        Raises:
            LibraryError: If the query has another length.
        """
        if len(query) != self.embeddings.shape[1]:
            raise LibraryError(
                f"the embeddings of the library have {self.embeddings.shape[1]} numbers, and the model returns "
                f"{len(query)}: write the library again with {self.model}"
            )
        ranked = most_similar(query, self.embeddings, limit=limit)
        return [(self.files[i], self.genres[i], cosine) for i, cosine in ranked]


def _read_columns(path: Path) -> pa.Table:
    name = text_of(path)
    try:
        found = pq.ParquetDataset(path).schema.names
        if missing := [column for column in _NEEDED if column not in found]:
            raise LibraryError(f"{name} has no column {' and no '.join(missing)}: write it with {_WRITE}")
        return pq.read_table(path, columns=list(_NEEDED))
    except pa.ArrowException as error:
        raise LibraryError(f"{name} is not a Parquet file: write it with {_WRITE}") from error
    except OSError as error:
        raise LibraryError(f"cannot read {name}: {error.strerror or error}") from error


def _pairs(table: pa.Table, *names: str) -> Iterable[tuple[str, ...]]:
    return zip(*(table.column(name).to_pylist() for name in names), strict=True)
