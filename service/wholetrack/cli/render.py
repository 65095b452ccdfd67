"""Printing results: as tables for people, as JSON Lines and CSV for programs."""

from __future__ import annotations

import csv
import hashlib
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from enum import StrEnum

from rich.console import Console
from rich.progress import track
from rich.table import Table

from wholetrack.api.responses import SourceFile, prediction_response
from wholetrack.api.schemas import WindowDetail
from wholetrack.cli.files import FileResult
from wholetrack.contracts import Ranking, TrackPrediction
from wholetrack.errors import ServiceError

_Predictions = Iterator[tuple[FileResult, TrackPrediction]]


class Format(StrEnum):
    """Output format of predictions."""

    TABLE = "table"
    JSON = "json"
    CSV = "csv"


def print_rows(header: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print a table to standard output. Lines are not wrapped unless standard output is a terminal."""
    table = Table(*header, box=None, pad_edge=False)
    for row in rows:
        table.add_row(*row)
    if sys.stdout.isatty():
        Console().print(table)
    else:
        Console(width=10_000).print(table, crop=False, soft_wrap=True)


def print_predictions(results: Iterable[FileResult], output_format: Format, *, n_files: int, top_k: int) -> bool:
    """Print predictions as they become available; errors and a progress bar go to standard error.

    Args:
        results: One result per file; consumed lazily.
        output_format: A table, JSON Lines or CSV.
        n_files: Number of results, for the progress bar.
        top_k: Number of genres in each ranking.

    Returns:
        Whether all predictions succeeded.
    """
    print_format: Callable[[_Predictions, int], None] = {
        Format.TABLE: _print_table,
        Format.JSON: _print_json,
        Format.CSV: _print_csv,
    }[output_format]
    n_failed = 0

    def succeeded() -> _Predictions:
        nonlocal n_failed
        stderr = Console(stderr=True)
        for result in track(
            results, "predicting", total=n_files, console=stderr, transient=True, disable=not stderr.is_terminal
        ):
            if isinstance(result.outcome, ServiceError):
                n_failed += 1
                print(f"{result.path}: {result.outcome.kind.code}: {result.outcome.detail}", file=sys.stderr)
            else:
                yield result, result.outcome

    print_format(succeeded(), top_k)
    return n_failed == 0


def _print_table(predictions: _Predictions, top_k: int) -> None:
    rows = [
        (
            str(result.path),
            f"{prediction.duration_s:.1f}",
            _leading_genres(prediction.summed_score, top_k),
            _leading_genres(prediction.majority_vote, top_k),
            "; ".join(warning.code for warning in prediction.warnings),
        )
        for result, prediction in predictions
    ]
    print_rows(("file", "seconds", "by summed score", "by majority vote", "remarks"), rows)


def _leading_genres(ranking: Ranking, top_k: int) -> str:
    return ", ".join(f"{r.genre} {r.share:.0%}" for r in ranking.ranked[:top_k] if r.share > 0) or "silent"


def _print_json(predictions: _Predictions, top_k: int) -> None:
    for result, prediction in predictions:
        with result.path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        source = SourceFile(str(result.path), digest, result.path.stat().st_size, began=result.began)
        response = prediction_response(prediction, source, top_k=top_k, detail=WindowDetail.FULL)
        print(response.model_dump_json(exclude_unset=True), flush=True)


def _print_csv(predictions: _Predictions, top_k: int) -> None:
    rankings = [
        f"{kind}_{what}_{i}" for kind in ("summed", "voted") for i in range(1, top_k + 1) for what in ("genre", "share")
    ]
    writer = csv.writer(sys.stdout)
    writer.writerow(["file", "seconds", *rankings, "agreement", "windows", "remarks"])
    for result, prediction in predictions:
        summed, voted = prediction.summed_score, prediction.majority_vote
        cells = [cell for ranking in (summed, voted) for cell in _ranking_cells(ranking, top_k)]
        remarks = " ".join(warning.code for warning in prediction.warnings)
        agreement = str(summed.genre == voted.genre).lower()
        n_windows = len(prediction.windows.start_s)
        writer.writerow([result.path, f"{prediction.duration_s:.3f}", *cells, agreement, n_windows, remarks])
        sys.stdout.flush()


def _ranking_cells(ranking: Ranking, top_k: int) -> list[str]:
    cells = [cell for entry in ranking.ranked[:top_k] for cell in (entry.genre, f"{entry.share:.6f}")]
    return cells + [""] * (2 * top_k - len(cells))
