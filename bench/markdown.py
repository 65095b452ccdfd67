"""Markdown for generated pages."""

from __future__ import annotations

import textwrap
from typing import Any


def paragraph(text: str) -> list[str]:
    """Return an empty line, and the text in lines of at most 110 characters."""
    return ["", *textwrap.wrap(text, 110, break_long_words=False, break_on_hyphens=False)]


def median_and_range(figure: dict[str, Any], unit: str = "") -> str:
    """Return the median of repeated measurements with its unit, and their minimum, maximum and number."""
    if figure["repeats"] == 1:
        return f"{figure['median']:.2f}{unit} (1 run)"
    return f"{figure['median']:.2f}{unit} ({figure['min']:.2f} to {figure['max']:.2f}, {figure['repeats']} runs)"
