"""Markdown of the pages that are written from records."""

from __future__ import annotations

import textwrap


def paragraph(text: str) -> list[str]:
    """An empty line, and the text in lines of at most 110 characters."""
    return ["", *textwrap.wrap(text, 110, break_long_words=False, break_on_hyphens=False)]
