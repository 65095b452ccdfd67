"""Files that are either complete or absent, and whose bytes depend on their content alone."""

from __future__ import annotations

import io
import json
import threading
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

# The earliest date that a zip archive can store.
_TIMESTAMP = (1980, 1, 1, 0, 0, 0)

# numpy parses the header of an array with ast.literal_eval, which now and then raises SystemError in CPython 3.11 if
# several threads call it at the same time (https://github.com/python/cpython/issues/106905).
_parsing = threading.Lock()


def write_json(path: Path, document: Mapping[str, Any]) -> None:
    """Write a JSON file atomically."""
    _replace(path, json_bytes(document))


def json_bytes(document: Mapping[str, Any]) -> bytes:
    """Return a document as indented JSON."""
    return (json.dumps(document, indent=2) + "\n").encode()


def write_npz(path: Path, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Write an ``.npz`` file atomically."""
    _replace(path, npz_bytes(arrays))


def npz_bytes(arrays: Mapping[str, NDArray[Any]]) -> bytes:
    """Return a compressed ``.npz`` archive of ``arrays``; the same arrays always give the same bytes."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, array in arrays.items():
            entry = zipfile.ZipInfo(f"{name}.npy", _TIMESTAMP)
            entry.compress_type = zipfile.ZIP_DEFLATED
            with archive.open(entry, "w", force_zip64=True) as file:
                np.lib.format.write_array(file, array, allow_pickle=False)
    return buffer.getvalue()


@contextmanager
def opened_npz(path: Path) -> Iterator[Mapping[str, NDArray[Any]]]:
    """Open an ``.npz`` file that several threads may want to read; they read one after the other.

    Raises:
        OSError: If the file cannot be read.
        ValueError: If it is not such a file.
    """
    with path.open("rb") as file, _parsing, np.load(file, allow_pickle=False) as arrays:
        yield arrays


def _replace(path: Path, content: bytes) -> None:
    unfinished = path.with_name(path.name + ".unfinished")
    unfinished.write_bytes(content)
    unfinished.replace(path)
