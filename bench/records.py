"""Records of the benchmarks in ``docs/bench``."""

from __future__ import annotations

import argparse
import json
from typing import Any

from tests.harness.paths import PROJECT
from tests.harness.records import record_parser

DOCS = PROJECT / "docs"
RECORDS = DOCS / "bench"
Record = dict[str, Any]


def benchmark_parser(description: str | None) -> argparse.ArgumentParser:
    """Return the parser of a benchmark; its option ``--record`` keeps the results in ``docs/bench``."""
    return record_parser(description, folder=RECORDS)


def read_record(name: str) -> Record:
    """Return the last record of a benchmark."""
    record: Record = json.loads((RECORDS / f"{name}.json").read_text())
    return record


def has_record(name: str) -> bool:
    """Return whether there is a record of a benchmark."""
    return (RECORDS / f"{name}.json").exists()
