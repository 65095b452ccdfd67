"""Folders of short recordings, the command that predicts them, and what it has written."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from fsspec import AbstractFileSystem

from tests.harness.recordings import TUNE_RATE_HZ, generate_tune, wav_bytes

_TUNE = generate_tune(10)


def recording(number: int, *, seconds: float = 3.5) -> bytes:
    """Return a WAV file of a few seconds, which is another one for each number."""
    samples = np.roll(_TUNE, 1000 * number)[: int(seconds * TUNE_RATE_HZ)]
    return wav_bytes(samples * np.float32(0.3 + 0.01 * (number % 70)), TUNE_RATE_HZ)


def command(models: Path, *arguments: str | Path) -> list[str]:
    """Return the command line of ``wholetrack`` with a folder of bundles in place of the built-in ones."""
    program = (
        "from pathlib import Path; from wholetrack import startup; from wholetrack.cli.app import main; "
        f"startup.BUILT_IN_MODELS = Path({str(models)!r}); main()"
    )
    return [sys.executable, "-c", program, *map(str, arguments)]


def rows(store: AbstractFileSystem, folder: str) -> list[dict[str, Any]]:
    """Return the rows of all Parquet files in a folder of a store."""
    found = []
    for path in sorted(store.glob(f"{folder}/*.parquet")):
        with store.open(path, "rb") as file:
            found += pq.read_table(file).to_pylist()
    return found


def names(store: AbstractFileSystem, target: str) -> Counter[str]:
    """Return how often each file is in the predictions and failures of a run."""
    return Counter(row["file"] for folder in ("predictions", "failures") for row in rows(store, f"{target}/{folder}"))


def flat(value: Any, name: str = "") -> dict[str, Any]:
    """Return the values in a row, and in its lists and structures, by their names."""
    return dict(_values(value, name))


def _values(value: Any, name: str) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for key, each in value.items():
            yield from _values(each, f"{name}.{key}")
    elif isinstance(value, list):
        for i, each in enumerate(value):
            yield from _values(each, f"{name}[{i}]")
    else:
        yield name, value.isoformat() if isinstance(value, datetime) else value
