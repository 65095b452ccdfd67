"""A prediction in formats for other programs: rows for tables, and a picture of the timeline."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable

from wholetrack.api.formats import ResponseFormat
from wholetrack.api.parquet import parquet_bytes
from wholetrack.api.rows import cells, columns, rows
from wholetrack.api.schemas import PredictionResponse
from wholetrack.api.timeline import timeline_svg
from wholetrack.api.timeline_png import timeline_png


def json_text(content: PredictionResponse) -> str:
    """Return a prediction as JSON."""
    return content.model_dump_json(exclude_unset=True)


def csv_text(content: PredictionResponse) -> str:
    """Return the verdicts, sections and windows of a prediction as CSV (RFC 4180), one per line.

    Columns that do not apply to a line are empty.
    """
    text = io.StringIO(newline="")
    csv.writer(text).writerows([columns(content.model.labels), *cells(content)])
    return text.getvalue()


def json_lines_text(content: PredictionResponse) -> str:
    """Return the verdicts, sections and windows of a prediction as JSON objects, one per line."""
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows(content))


RENDERERS: dict[ResponseFormat, Callable[[PredictionResponse], str | bytes]] = {
    ResponseFormat.JSON: json_text,
    ResponseFormat.JSONL: json_lines_text,
    ResponseFormat.CSV: csv_text,
    ResponseFormat.PARQUET: parquet_bytes,
    ResponseFormat.SVG: timeline_svg,
    ResponseFormat.PNG: timeline_png,
}
"""How to write each format that is not a stream of events."""
