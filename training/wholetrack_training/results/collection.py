"""All records of the project by label, and the robustness measurements."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from wholetrack_training.results.record_files import read_records
from wholetrack_training.results.records import BASELINE, Record
from wholetrack_training.systems.names import NAMES

Results = Mapping[str, list[Record]]
"""Records by label."""


def read_results(folder: Path) -> Results:
    """Return all records below ``folder``, by label, sorted by system and then by window length.

    Raises:
        DataError: If a record cannot be read.
    """
    return {path.name: read_records(path) for path in sorted(folder.iterdir(), key=_natural_order) if path.is_dir()}


def read_robustness(folder: Path) -> Mapping[str, Mapping[str, Any]]:
    """Return the files that ``wholetrack-train robustness`` wrote, by label."""
    return {path.stem: json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))}


def is_published(label: str) -> bool:
    """Return whether a label belongs to an unchanged system or to the baseline, not to an experiment."""
    return any(re.fullmatch(rf"{name}-[0-9.]+s", label) for name in (*NAMES, BASELINE))


def has_epochs(records: list[Record]) -> bool:
    """Return whether the records have learning curves; those of the baseline do not."""
    return any(record.training.history for record in records)


def _natural_order(path: Path) -> list[tuple[float, str]]:
    """Return a sort key that compares numbers by value: 3s comes before 10s."""
    parts = re.split(r"([0-9]+(?:\.[0-9]+)?)", path.name)
    return [(float(part), "") if part[:1].isdigit() else (0.0, part) for part in parts]
