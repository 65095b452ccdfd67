"""The entry point of the command ``wholetrack``."""

from __future__ import annotations

import sys

from wholetrack.cli.packages import missing_packages


def main() -> None:
    """Run the command line.

    Without onnxruntime, every command exits with status 1 and one sentence. This is checked before any module that
    needs it is imported.
    """
    if missing_packages("onnxruntime"):
        sys.exit(
            "wholetrack: onnxruntime is not installed; install it with one of the extras, "
            "pip install 'wholetrack[cpu]' or 'wholetrack[gpu]'"
        )
    from wholetrack.cli.commands import app

    app()
