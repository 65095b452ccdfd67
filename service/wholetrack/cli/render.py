"""Printing results: as tables for people, as JSON Lines and CSV for programs."""

from __future__ import annotations

import csv
import io
import json
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Any

from rich.cells import cell_len
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from wholetrack.api.responses import SourceFile, prediction_response
from wholetrack.api.rows import cells, columns, rows
from wholetrack.api.schemas import PredictionResponse, WindowDetail
from wholetrack.cli.files import Content, FileResult, text_of, unreadable
from wholetrack.cli.standard_streams import use_utf8_for_output, write_output, writing_output
from wholetrack.contracts import Ranking, TrackPrediction
from wholetrack.errors import ServiceError
from wholetrack.logs import printable

_TABLE_HEADER = ("file", "seconds", "by summed score", "by majority vote", "remarks")
# Longer names move the rest of their row to the right.
_MAX_NAME_WIDTH = 60


class Format(StrEnum):
    """Output format of predictions."""

    TABLE = "table"
    JSON = "json"
    CSV = "csv"
    ROWS_JSONL = "rows-jsonl"
    ROWS_CSV = "rows-csv"
    PARQUET = "parquet"
    ROWS_PARQUET = "rows-parquet"

    @property
    def is_file(self) -> bool:
        """Whether the predictions are written to a file that is not text."""
        return self in (Format.PARQUET, Format.ROWS_PARQUET)


def print_rows(header: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print a table to standard output. Lines are not wrapped unless standard output is a terminal."""
    table = Table(box=None, pad_edge=False)
    for i, name in enumerate(header):
        # Other columns are wrapped first, so that the names in the first one stay whole.
        table.add_column(name, no_wrap=i == 0, overflow="fold")
    for row in rows:
        table.add_row(*row)
    # The cells are text, in which [name] and :name: are not markup.
    with writing_output():
        if sys.stdout.isatty():
            Console(markup=False, emoji=False).print(table)
        else:
            Console(markup=False, emoji=False, width=10_000).print(table, crop=False, soft_wrap=True)


def print_predictions(
    results: Iterable[FileResult],
    output_format: Format,
    *,
    files: Sequence[Path],
    labels: Sequence[str],
    top_k: int,
    detail: WindowDetail = WindowDetail.FULL,
) -> bool:
    """Print predictions as they become available; errors and a progress bar go to standard error.

    Args:
        results: One result per file; consumed lazily.
        output_format: The format; Parquet is not text.
        files: The files, for the progress bar and the width of the table.
        labels: The genres of the model, for the width of the table.
        top_k: Number of genres in each ranking.
        detail: Detail of the windows in JSON.

    Returns:
        Whether all predictions succeeded.

    Raises:
        OutputError: If standard output cannot be written.
    """
    lines = _lines(output_format, files=files, labels=labels, top_k=top_k, detail=detail)
    if output_format is not Format.TABLE:
        use_utf8_for_output()
    write_output(lines.header)

    def print_row(result: FileResult, prediction: TrackPrediction) -> None:
        write_output(lines.row(result, prediction))

    return deliver(results, print_row, n_files=len(files))


def deliver(
    results: Iterable[FileResult],
    write: Callable[[FileResult, TrackPrediction], None],
    *,
    n_files: int,
    repeat: Callable[[FileResult], None] = lambda _: None,
) -> bool:
    """Write predictions as they become available; errors and a progress bar go to standard error.

    Args:
        results: One result per file; consumed lazily.
        write: Writes one prediction.
        n_files: Number of files, for the progress bar.
        repeat: Called for each file whose content is known.

    Returns:
        Whether all predictions succeeded.
    """
    n_failed = 0
    console = Console(stderr=True)
    # On the terminal that shows the rows, the rows are progress enough.
    progress = Progress(
        BarColumn(),
        TextColumn("{task.completed:,} of {task.total:,} files, {task.fields[failed]:,} failed,"),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        redirect_stdout=False,
        disable=not console.is_terminal or sys.stdout.isatty(),
    )
    task = progress.add_task("", total=n_files, failed=0)
    with progress:
        for result in results:
            try:
                if isinstance(result.outcome, ServiceError):
                    raise result.outcome
                if result.outcome is None:
                    repeat(result)
                else:
                    write(result, result.outcome)
            except ServiceError as error:
                n_failed += 1
                print(printable(f"{text_of(result.path)}: {error.kind.code}: {error.detail}"), file=sys.stderr)
            progress.update(task, advance=1, failed=n_failed)
    if n_files > 1 and n_failed:
        print(f"{n_failed:,} of {n_files:,} files failed", file=sys.stderr)
    return n_failed == 0


@dataclass(frozen=True, slots=True)
class _Lines:
    """The lines of one output format, each with its line break: the header, and the lines of a prediction."""

    header: str
    row: Callable[[FileResult, TrackPrediction], str]


def _lines(
    output_format: Format, *, files: Sequence[Path], labels: Sequence[str], top_k: int, detail: WindowDetail
) -> _Lines:
    match output_format:
        case Format.TABLE:
            widths = _column_widths(files, labels, top_k)
            return _Lines(_table_line(_TABLE_HEADER, widths), partial(_table_row, widths=widths, top_k=top_k))
        case Format.JSON:
            return _Lines("", partial(json_row, top_k=top_k, detail=detail))
        case Format.CSV:
            return _Lines(_csv_line(_csv_header(top_k)), partial(_csv_row, top_k=top_k))
        case Format.ROWS_JSONL:
            return _Lines("", _rows_as_json)
        case Format.ROWS_CSV:
            return _Lines(_csv_line(["file", *columns(labels)]), _rows_as_csv)
        case Format.PARQUET | Format.ROWS_PARQUET:
            raise ValueError("a Parquet file has no lines")


def _column_widths(files: Sequence[Path], labels: Sequence[str], top_k: int) -> list[int]:
    """Return widths that are known before the first prediction, so that rows can be printed as they come."""
    longest_name = max(cell_len(printable(text_of(path))) for path in files)
    longest_ranking = cell_len(", ".join(f"{label} 100%" for label in sorted(labels, key=cell_len)[-top_k:]))
    widths = (min(longest_name, _MAX_NAME_WIDTH), 0, longest_ranking, longest_ranking, 0)
    return [max(width, cell_len(title)) for width, title in zip(widths, _TABLE_HEADER, strict=True)]


def _table_line(cells: Sequence[str], widths: Sequence[int]) -> str:
    padded = [cell + " " * (width - cell_len(cell)) for cell, width in zip(cells, widths, strict=True)]
    return "  ".join(padded).rstrip() + "\n"


def _table_row(result: FileResult, prediction: TrackPrediction, *, widths: Sequence[int], top_k: int) -> str:
    cells = (
        printable(text_of(result.path)),
        f"{prediction.duration_s:.1f}",
        _leading_genres(prediction.summed_score, top_k),
        _leading_genres(prediction.majority_vote, top_k),
        "; ".join(_remarks(prediction)),
    )
    return _table_line(cells, widths)


def _leading_genres(ranking: Ranking, top_k: int) -> str:
    return ", ".join(f"{r.genre} {r.share:.0%}" for r in ranking.ranked[:top_k] if r.share > 0) or "silent"


def _remarks(prediction: TrackPrediction) -> list[str]:
    """Return the codes of the warnings, with ``out_of_domain`` for recordings that the model does not know."""
    codes = [str(warning.code) for warning in prediction.warnings]
    if prediction.in_domain is False and "out_of_domain" not in codes:
        codes.append("out_of_domain")
    return codes


def json_row(result: FileResult, prediction: TrackPrediction, *, top_k: int, detail: WindowDetail) -> str:
    """Return the line of a prediction.

    Raises:
        ServiceError: If the file can no longer be read.
    """
    try:
        content = result.content or Content.of(result.path)
    except OSError as error:
        raise unreadable(error) from error
    source = SourceFile(text_of(result.path), content.sha256, content.n_bytes, began=result.began)
    response = prediction_response(prediction, source, top_k=top_k, detail=detail)
    return response.model_dump_json(exclude_unset=True) + "\n"


def rows_of(result: FileResult, prediction: TrackPrediction) -> Iterator[dict[str, Any]]:
    """Yield the verdicts, sections and windows of a prediction, each with the name of the file."""
    file = {"file": text_of(result.path)}
    yield from (file | row for row in rows(full_response(result, prediction)))


def _rows_as_json(result: FileResult, prediction: TrackPrediction) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows_of(result, prediction))


def _rows_as_csv(result: FileResult, prediction: TrackPrediction) -> str:
    file = text_of(result.path)
    return "".join(_csv_line([file, *cells]) for cells in cells(full_response(result, prediction)))


def full_response(result: FileResult, prediction: TrackPrediction) -> PredictionResponse:
    """Return the response for a prediction, with all genres and windows, without reading the file again."""
    source = SourceFile(Path(text_of(result.path)).name, sha256="", n_bytes=0, began=result.began)
    return prediction_response(prediction, source, top_k=len(prediction.labels), detail=WindowDetail.FULL)


def _csv_header(top_k: int) -> list[str]:
    rankings = [
        f"{kind}_{what}_{i}" for kind in ("summed", "voted") for i in range(1, top_k + 1) for what in ("genre", "share")
    ]
    return ["file", "seconds", *rankings, "agreement", "windows", "remarks"]


def _csv_row(result: FileResult, prediction: TrackPrediction, *, top_k: int) -> str:
    summed, voted = prediction.summed_score, prediction.majority_vote
    rankings = [cell for ranking in (summed, voted) for cell in _ranking_cells(ranking, top_k)]
    agreement = str(summed.genre == voted.genre).lower()
    n_windows = str(len(prediction.windows.start_s))
    remarks = " ".join(_remarks(prediction))
    duration_s = f"{prediction.duration_s:.3f}"
    return _csv_line([text_of(result.path), duration_s, *rankings, agreement, n_windows, remarks])


def _ranking_cells(ranking: Ranking, top_k: int) -> list[str]:
    cells = [cell for entry in ranking.ranked[:top_k] for cell in (entry.genre, f"{entry.share:.6f}")]
    return cells + [""] * (2 * top_k - len(cells))


def _csv_line(cells: Sequence[object]) -> str:
    line = io.StringIO(newline="")
    csv.writer(line).writerow(cells)
    return line.getvalue()
