"""A private file that receives an upload through a bounded buffer."""

from __future__ import annotations

import hashlib
import os
import tempfile
import threading
from pathlib import Path

from wholetrack.errors import ErrorKind, ServiceError

_BUFFER_BYTES = 1 << 20
_BUFFER_CHUNKS = 1024


class Spool:
    """Counts, hashes and buffers the bytes of one recording, and writes them to a file.

    :meth:`add` only buffers, so it can be called on the event loop. :meth:`flush` and :meth:`discard` do I/O and belong
    in a thread. A thread that is flushing continues if its request is cancelled. Without a lock, :meth:`discard` could
    close the file descriptor in the meantime, and the rest of the data would go to another file that reuses it.

    Args:
        folder: A private folder in which the file is created.
        max_bytes: Maximum size of the recording.

    Attributes:
        path: Path of the file.
        sha256: Hash of the bytes flushed so far.
        n_bytes: Number of bytes added so far.
    """

    def __init__(self, folder: Path, max_bytes: int) -> None:
        self._descriptor, name = tempfile.mkstemp(dir=folder, prefix="")
        self.path = Path(name)
        self.sha256 = hashlib.sha256()
        self.n_bytes = 0
        self._max_bytes = max_bytes
        self._chunks: list[bytes] = []
        self._n_buffered = 0
        self._lock = threading.Lock()
        self._discarded = False

    @property
    def needs_flush(self) -> bool:
        """Whether a mebibyte or more is buffered, or many small chunks, each of which takes memory of its own."""
        return self._n_buffered >= _BUFFER_BYTES or len(self._chunks) >= _BUFFER_CHUNKS

    def add(self, chunk: bytes) -> None:
        """Buffer some bytes until the next :meth:`flush`.

        Raises:
            ServiceError: ``upload_too_large``.
        """
        self.n_bytes += len(chunk)
        if self.n_bytes > self._max_bytes:
            raise upload_too_large(self._max_bytes)
        self._chunks.append(chunk)
        self._n_buffered += len(chunk)

    def flush(self) -> None:
        """Hash the buffered bytes and write them to the file."""
        with self._lock:
            if self._discarded:
                return
            content = b"".join(self._chunks)
            self._chunks, self._n_buffered = [], 0
            self.sha256.update(content)
            view = memoryview(content)
            while view:
                view = view[os.write(self._descriptor, view) :]

    def discard(self) -> None:
        """Close and remove the file."""
        with self._lock:
            self._discarded = True
            os.close(self._descriptor)
            self.path.unlink(missing_ok=True)


def upload_too_large(max_bytes: int) -> ServiceError:
    """Return the error for an upload above the limit."""
    return ServiceError(ErrorKind.UPLOAD_TOO_LARGE, f"The upload exceeds the limit of {max_bytes} bytes.")
