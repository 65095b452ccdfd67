"""Tables in Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Return the lines of a table in Markdown."""
    return [f"| {' | '.join(header)} |", "|---" * len(header) + "|", *(f"| {' | '.join(row)} |" for row in rows)]


def mean_cell(summary: Mapping[str, Any] | None, figure: str) -> str:
    """Return a figure as ``mean (standard deviation)``, to three decimals.

    Args:
        summary: Summary of one protocol, see :func:`.summary.summarise`; None for an empty cell.
        figure: Name of the figure.
    """
    if summary is None:
        return ""
    deviation = summary.get(f"{figure}_sd")
    return f"{summary[figure]:.3f}" + ("" if deviation is None else f" ({deviation:.3f})")
