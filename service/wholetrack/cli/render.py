"""What the command line prints: tables for people, JSON Lines and CSV for programs."""

from __future__ import annotations

import csv
import hashlib
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from rich.console import Console
from rich.progress import track
from rich.table import Table

from wholetrack.api.schemas import Received, WindowDetail, answer
from wholetrack.contracts import Ranking, TrackPrediction
from wholetrack.errors import ServiceError


class Format(StrEnum):
    """How predictions are printed."""

    TABLE = "table"
    JSON = "json"
    CSV = "csv"


@dataclass(frozen=True, slots=True)
class Heard:
    """One recording and its prediction, or why there is none.

    Attributes:
        path: of the recording.
        began: ``time.monotonic()`` when its turn came.
        found: what was heard.
    """

    path: Path
    began: float
    found: TrackPrediction | ServiceError


def print_rows(header: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print a table to standard output, whole lines if that is not a terminal."""
    table = Table(*header, box=None, pad_edge=False)
    for row in rows:
        table.add_row(*row)
    if sys.stdout.isatty():
        Console().print(table)
    else:
        Console(width=10_000).print(table, crop=False, soft_wrap=True)


def print_predictions(results: Iterable[Heard], form: Format, *, n_files: int, top_k: int) -> bool:
    """Print predictions as they come, a progress bar to a terminal, and errors to standard error.

    Returns:
        Whether every recording could be heard.
    """
    show: Callable[[Iterator[tuple[Heard, TrackPrediction]], int], None] = {
        Format.TABLE: _print_table,
        Format.JSON: _print_json,
        Format.CSV: _print_csv,
    }[form]
    failures = 0

    def successes() -> Iterator[tuple[Heard, TrackPrediction]]:
        nonlocal failures
        stderr = Console(stderr=True)
        for heard in track(
            results, "hearing", total=n_files, console=stderr, transient=True, disable=not stderr.is_terminal
        ):
            if isinstance(heard.found, ServiceError):
                failures += 1
                print(f"{heard.path}: {heard.found.kind.code}: {heard.found.detail}", file=sys.stderr)
            else:
                yield heard, heard.found

    show(successes(), top_k)
    return failures == 0


def _print_table(predictions: Iterator[tuple[Heard, TrackPrediction]], top_k: int) -> None:
    rows = [
        (
            str(heard.path),
            f"{found.duration_s:.1f}",
            _leaders(found.summed_score, top_k),
            _leaders(found.majority_vote, top_k),
            "; ".join(warning.code for warning in found.warnings),
        )
        for heard, found in predictions
    ]
    print_rows(("file", "seconds", "by summed score", "by majority vote", "remarks"), rows)


def _leaders(ranking: Ranking, top_k: int) -> str:
    return ", ".join(f"{r.genre} {r.share:.0%}" for r in ranking.ranked[:top_k] if r.share > 0) or "silent"


def _print_json(predictions: Iterator[tuple[Heard, TrackPrediction]], top_k: int) -> None:
    for heard, found in predictions:
        with heard.path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        received = Received(str(heard.path), digest, heard.path.stat().st_size, began=heard.began)
        answered = answer(found, received, top_k=top_k, detail=WindowDetail.FULL)
        print(answered.model_dump_json(exclude_unset=True), flush=True)


def _print_csv(predictions: Iterator[tuple[Heard, TrackPrediction]], top_k: int) -> None:
    rankings = [
        f"{kind}_{what}_{i}" for kind in ("summed", "voted") for i in range(1, top_k + 1) for what in ("genre", "share")
    ]
    writer = csv.writer(sys.stdout)
    writer.writerow(["file", "seconds", *rankings, "agreement", "windows", "remarks"])
    for heard, found in predictions:
        summed, voted = found.summed_score, found.majority_vote
        cells = [cell for ranking in (summed, voted) for cell in _cells(ranking, top_k)]
        remarks = " ".join(warning.code for warning in found.warnings)
        agreement = str(summed.genre == voted.genre).lower()
        writer.writerow([heard.path, f"{found.duration_s:.3f}", *cells, agreement, len(found.windows.start_s), remarks])
        sys.stdout.flush()


def _cells(ranking: Ranking, top_k: int) -> list[str]:
    cells = [cell for entry in ranking.ranked[:top_k] for cell in (entry.genre, f"{entry.share:.6f}")]
    return cells + [""] * (2 * top_k - len(cells))
