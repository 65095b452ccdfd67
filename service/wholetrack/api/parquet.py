"""Predictions as Parquet: the rows of the other tables, with types and units.

Needs the extra ``parquet``. Its package pyarrow takes 0.3 s to import, so it is imported with the first file.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from functools import cache
from importlib.util import find_spec
from typing import IO, TYPE_CHECKING, Any, Self

from wholetrack.api.rows import PROBABILITY_PREFIX, rows
from wholetrack.api.schemas import PredictionResponse
from wholetrack.errors import ErrorKind, ServiceError

if TYPE_CHECKING:
    import pyarrow as pa

# Windows in memory before they are written: those of a long recording, or of some songs.
_ROWS_PER_GROUP = 20_000


@cache
def is_available() -> bool:
    """Return whether the package that writes Parquet is installed, without importing it."""
    return find_spec("pyarrow") is not None


class RowsWriter:
    """Writes rows of predictions of one model to a Parquet file.

    Args:
        target: A binary file.
        labels: Labels of the probabilities.
        with_file: Whether the first column is the name of the recording.
        metadata: Further facts for the file.
    """

    def __init__(
        self, target: IO[bytes], labels: Sequence[str], *, with_file: bool, metadata: dict[str, str] | None = None
    ) -> None:
        import pyarrow.parquet as pq

        self._schema = _schema(labels, with_file=with_file, metadata=metadata or {})
        self._writer = pq.ParquetWriter(target, self._schema, compression="zstd")
        self._rows: list[dict[str, Any]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._flush()
        self._writer.close()

    def add(self, new: Iterable[dict[str, Any]]) -> None:
        """Add rows; those of the file may be written later."""
        self._rows += new
        if len(self._rows) >= _ROWS_PER_GROUP:
            self._flush()

    def _flush(self) -> None:
        import pyarrow as pa

        if self._rows:
            self._writer.write_table(pa.Table.from_pylist(self._rows, schema=self._schema))
            self._rows = []


def parquet_bytes(content: PredictionResponse) -> bytes:
    """Return the verdicts, sections and windows of a prediction as a Parquet file; see :func:`is_available`."""
    model = content.model
    facts = {"model": model.name, "version": model.version, "window_s": str(model.window_s), "hop_s": str(model.hop_s)}
    file = io.BytesIO()
    with RowsWriter(file, model.labels, with_file=False, metadata=facts) as writer:
        writer.add(rows(content))
    return file.getvalue()


def not_available() -> ServiceError:
    """Return the error for a request for Parquet that the service cannot satisfy."""
    return ServiceError(
        ErrorKind.NOT_ACCEPTABLE, "This service cannot write Parquet. Its operator can install the extra 'parquet'."
    )


def _schema(labels: Sequence[str], *, with_file: bool, metadata: dict[str, str]) -> pa.Schema:
    import pyarrow as pa

    seconds = {"unit": "s"}
    fields = [
        pa.field("kind", pa.string(), nullable=False),
        pa.field("start_s", pa.float64(), nullable=False, metadata=seconds),
        pa.field("end_s", pa.float64(), nullable=False, metadata=seconds),
        pa.field("genre", pa.string()),
        pa.field("share", pa.float64(), nullable=False),
        pa.field("silent", pa.bool_()),
        *(pa.field(PROBABILITY_PREFIX + label, pa.float32()) for label in labels),
    ]
    if with_file:
        fields.insert(0, pa.field("file", pa.string(), nullable=False))
    return pa.schema(fields, metadata=metadata)
