"""The entry point of the command ``wholetrack``."""

from __future__ import annotations

import os
import signal
import sys
from types import FrameType
from typing import NoReturn

from wholetrack.cli.packages import missing_packages
from wholetrack.cli.standard_streams import OutputError, prepare_standard_streams

# What a shell reports for a program that SIGINT ended.
_INTERRUPTED = 128 + signal.SIGINT


class _Interrupted(BaseException):
    """Raised by Ctrl-C. Unlike KeyboardInterrupt, it is not handled by typer, whose versions differ."""

    raised = False


def main() -> None:
    """Run the command line.

    Ctrl-C ends every command except ``serve`` with one sentence and status 130; a second Ctrl-C ends it at once.
    Without onnxruntime, every command exits with status 1 and one sentence. This is checked before any module that
    needs it is imported.
    """
    prepare_standard_streams()
    # Programs that a shell runs in the background ignore the signal.
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _interrupt)
    try:
        _run()
    except BaseException as error:
        # Not only _Interrupted: a module written in C that is interrupted while it is imported raises ImportError.
        if _Interrupted.raised:
            sys.stderr.write("wholetrack: interrupted\n")
            sys.exit(_INTERRUPTED)
        if isinstance(error, OutputError):
            sys.exit(f"wholetrack: {error}")
        raise


def _run() -> None:
    if missing_packages("onnxruntime"):
        sys.exit(
            "wholetrack: onnxruntime is not installed; install it with one of the extras, "
            "pip install 'wholetrack[cpu]' or 'wholetrack[gpu]'"
        )
    from wholetrack.cli.commands import app

    app()


def _interrupt(_signal: int, _frame: FrameType | None) -> NoReturn:
    signal.signal(signal.SIGINT, lambda *_: os._exit(_INTERRUPTED))
    _Interrupted.raised = True
    raise _Interrupted
