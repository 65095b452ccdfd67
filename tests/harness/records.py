"""Results of benchmarks and campaigns as JSON, with the machine and the versions they were measured on."""

from __future__ import annotations

import argparse
import json
import os
import platform
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import onnxruntime

from tests.harness.paths import PROJECT
from wholetrack.decoding.ffmpeg import find_ffmpeg

RELIABILITY_RECORDS = PROJECT / "docs" / "reliability"
"""Results of the fuzz, chaos and soak campaigns."""


def plain_parser(description: str | None) -> argparse.ArgumentParser:
    """Return a parser that prints a module docstring as its description, with its line breaks and without markup."""
    text = (description or "").replace("``", "`")
    return argparse.ArgumentParser(description=text, formatter_class=argparse.RawDescriptionHelpFormatter)


def record_parser(description: str | None, *, folder: Path) -> argparse.ArgumentParser:
    """Return a parser with the option ``--record``, whose value is ``folder`` if it is given and None otherwise."""
    parser = plain_parser(description)
    parser.add_argument(
        "--record",
        action="store_const",
        const=folder,
        help=f"write the results to {folder.relative_to(PROJECT)} as well",
    )
    return parser


def print_record(name: str, figures: Mapping[str, Any], *, folder: Path | None) -> None:
    """Print the results as one JSON object, and write it to ``NAME.json`` in the folder if there is one."""
    machine = {
        "cpus": os.cpu_count(),
        "processor": _processor(),
        "python": platform.python_version(),
        "onnxruntime": onnxruntime.__version__,
        "ffmpeg": find_ffmpeg().version,
    }
    date = datetime.now(UTC).strftime("%Y-%m-%d")
    record = json.dumps({"benchmark": name, "date": date, "machine": machine, **figures}, indent=2)
    print(record)
    if folder:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{name}.json").write_text(record + "\n")


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor()
