"""Writing a file that appears only when it is complete."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from wholetrack.cli.files import text_of


class UnwritableError(Exception):
    """A file cannot be written. The message says why, in a sentence."""


@contextmanager
def whole_file(path: Path) -> Iterator[IO[bytes]]:
    """Open a file for writing. It appears when the block ends; if the block raises, an older one stays.

    Raises:
        UnwritableError: If the file cannot be written.
    """
    try:
        handle = tempfile.NamedTemporaryFile(  # noqa: SIM115 - closed below
            dir=path.parent, prefix=f"{path.name}.", suffix=".unfinished", delete=False
        )
    except OSError as error:
        raise _unwritable(path, error) from error
    unfinished = Path(handle.name)
    try:
        with handle:
            yield handle
        unfinished.chmod(0o644)
        unfinished.replace(path)
    except OSError as error:
        raise _unwritable(path, error) from error
    finally:
        unfinished.unlink(missing_ok=True)


def _unwritable(path: Path, error: OSError) -> UnwritableError:
    return UnwritableError(f"cannot write {text_of(path)}: {error.strerror}")
