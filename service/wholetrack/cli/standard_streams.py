"""The standard streams: making them usable, however the command was started, and writing to standard output."""

from __future__ import annotations

import errno
import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_STREAMS = (("stdin", "r"), ("stdout", "w"), ("stderr", "w"))


class OutputError(Exception):
    """Standard output, or the file of an option, cannot be written, for example because a disk is full."""


def prepare_standard_streams() -> None:
    """Open standard streams that are closed, and let the others print any text.

    The next file that is opened gets the lowest free descriptor. If standard error were closed, log records could end
    up in a connection. Call this before anything else opens a file.
    """
    for descriptor, (name, mode) in enumerate(_STREAMS):
        _open_if_closed(descriptor)
        if getattr(sys, name) is None:
            setattr(sys, name, open(descriptor, mode, encoding="utf-8", closefd=False))  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def use_utf8_for_output() -> None:
    """Write standard output in UTF-8 in any locale."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(encoding="utf-8", errors="backslashreplace")


def write_output(text: str) -> None:
    """Write text to standard output at once, so that it is there if the command is interrupted.

    Raises:
        OutputError: As for :func:`writing_output`.
    """
    with writing_output():
        sys.stdout.write(text)


@contextmanager
def writing_output() -> Iterator[None]:
    """Flush standard output at the end of the block, and raise errors of the block as errors of the output.

    Raises:
        OutputError: If standard output cannot be written.
    """
    try:
        yield
        sys.stdout.flush()
    except OSError as error:
        # What is still in the buffer would cause the same error when the interpreter ends.
        with Path(os.devnull).open("wb") as nowhere:
            os.dup2(nowhere.fileno(), sys.stdout.fileno())
        if error.errno == errno.EPIPE:
            raise  # typer ends the command: a reader such as `head` has what it needs.
        raise OutputError(f"cannot write the output: {error.strerror}") from error


def _open_if_closed(descriptor: int) -> None:
    try:
        os.fstat(descriptor)
    except OSError:
        # The lower descriptors are open, so this one is the lowest that is free.
        os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # noqa: FBT003
