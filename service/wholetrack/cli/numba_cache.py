"""A folder in which numba can store compiled code. Without one, librosa cannot be imported."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_VARIABLE = "NUMBA_CACHE_DIR"


@contextmanager
def numba_cache(temp_dir: Path) -> Iterator[None]:
    """Let numba use a temporary folder for the duration of the block if its usual one cannot be written.

    Then every run compiles the code again. Enter the block before importing librosa.

    Args:
        temp_dir: Where to create the folder.

    Raises:
        OSError: If the folder cannot be created.
    """
    if _is_writable(os.environ.get(_VARIABLE) or os.environ.get("XDG_CACHE_HOME") or "~/.cache"):
        yield
        return
    with tempfile.TemporaryDirectory(dir=temp_dir) as folder:
        os.environ[_VARIABLE] = folder
        yield


def _is_writable(folder: str) -> bool:
    try:
        path = Path(folder).expanduser()
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            return True
    except (OSError, RuntimeError):  # the latter if the user has no home folder
        return False
