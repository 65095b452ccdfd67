"""Files that are generated from records: writing them, or checking that they are up to date."""

from __future__ import annotations

import argparse
import difflib
import sys
from collections.abc import Mapping
from itertools import islice
from pathlib import Path

from tests.harness.paths import PROJECT
from tests.harness.records import plain_parser

_DIFF_LINES = 40


def generator_parser(description: str | None) -> argparse.ArgumentParser:
    """Return the parser of a generator, with the option ``--check`` to compare files instead of writing them."""
    parser = plain_parser(description)
    parser.add_argument(
        "--check", action="store_true", help="write nothing; exit with status 1 if a file does not match the records"
    )
    return parser


def write_files(files: Mapping[Path, str]) -> None:
    """Write every file with its new content."""
    for path, content in files.items():
        path.write_text(content)


def check_files(files: Mapping[Path, str], *, command: str) -> None:
    """Exit with status 1 if a file differs from its new content, and print the difference.

    Args:
        files: The new content of every file.
        command: The command that writes the files, for the error message.
    """
    outdated = [path for path, content in files.items() if not path.exists() or path.read_text() != content]
    for path in outdated:
        name = str(path.relative_to(PROJECT))
        current = path.read_text().splitlines() if path.exists() else []
        difference = difflib.unified_diff(current, files[path].splitlines(), name, "from the records", lineterm="")
        print(*islice(difference, _DIFF_LINES), sep="\n", file=sys.stderr)
        print(f"{name} does not match the records. Run `{command}`.", file=sys.stderr)
    if outdated:
        sys.exit(1)
