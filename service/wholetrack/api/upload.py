"""Receiving one recording, multipart or raw, into a private file: counted, hashed and bounded while it streams.

Nothing is held but a mebibyte, and nothing is written on the event loop.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from anyio import to_thread
from python_multipart import MultipartParser
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import parse_options_header
from starlette.requests import ClientDisconnect, Request

from wholetrack.errors import ErrorKind, ServiceError

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks

_BUFFER_BYTES = 1 << 20
# What a multipart body may hold around its one file.
_ENVELOPE_BYTES = 1 << 20
_FIELD = b"file"
_LONGEST_NAME = 255


@dataclass(frozen=True, slots=True)
class Upload:
    """A received recording.

    Attributes:
        path: where it lies.
        filename: as the client called it, if it did; never used as a path.
        sha256: of its bytes, in hexadecimal.
        n_bytes: its size.
        receive_s: how long receiving took.
    """

    path: Path
    filename: str | None
    sha256: str
    n_bytes: int
    receive_s: float


@dataclass(frozen=True, slots=True)
class UploadLimits:
    """How large and how slow a recording may come.

    Attributes:
        max_bytes: of the recording.
        least_bytes_per_s: of the body on average.
        patience_s: so many seconds may pass before that counts.
    """

    max_bytes: int
    least_bytes_per_s: int
    patience_s: float


@asynccontextmanager
async def received(request: Request, folder: Path, limits: UploadLimits) -> AsyncIterator[Upload]:
    """The recording in a request's body, in a file of its own that is gone when the block is left.

    Args:
        request: multipart with exactly one part, the file ``file``, or with the recording as its whole body.
        folder: a private folder to put it in.
        limits: of size and patience.

    Raises:
        ServiceError: ``malformed_request``, ``upload_too_large``, ``request_too_slow`` or ``client_gone``.
    """
    began = time.monotonic()
    stated = request.headers.get("content-length", "")
    if stated.isdigit() and int(stated) > limits.max_bytes + _ENVELOPE_BYTES:
        raise _too_large(limits.max_bytes)
    spool = _Spool(folder, limits.max_bytes)
    try:
        filename = await _receive(_pieces(request, limits), request.headers.get("content-type"), spool)
        await to_thread.run_sync(spool.flush)
        yield Upload(spool.path, filename, spool.sha256.hexdigest(), spool.n_bytes, time.monotonic() - began)
    finally:
        # In a thread, because removing half a gigabyte takes a while; it goes on even if this task is cancelled again.
        await asyncio.get_running_loop().run_in_executor(None, spool.discard)


async def _receive(pieces: AsyncIterator[bytes], content_type: str | None, spool: _Spool) -> str | None:
    """Stream the body into the spool; the file's name, if the client gave one."""
    kind, options = parse_options_header(content_type)
    try:
        if kind == b"multipart/form-data":
            form = _OneFileForm(options.get(b"boundary", b""), spool.add)
            await _stream(pieces, form.write, spool)
            return form.finished()
        await _stream(pieces, spool.add, spool)
    except ClientDisconnect as error:
        raise ServiceError(ErrorKind.CLIENT_GONE, "The client left during the upload.") from error
    except FormParserError as error:
        raise ServiceError(ErrorKind.MALFORMED_REQUEST, "The multipart body does not keep its format.") from error
    if spool.n_bytes == 0:
        raise ServiceError(
            ErrorKind.MALFORMED_REQUEST,
            "The request has no file: send one as the multipart field 'file' or as the raw body.",
        )
    return None


async def _pieces(request: Request, limits: UploadLimits) -> AsyncIterator[bytes]:
    """The body as it comes, if it comes at the slowest rate allowed or faster."""
    loop = asyncio.get_running_loop()
    n_bytes, latest = 0, loop.time() + limits.patience_s
    stream = aiter(request.stream())
    while True:
        try:
            async with asyncio.timeout_at(latest + n_bytes / limits.least_bytes_per_s):
                piece = await anext(stream)
        except StopAsyncIteration:
            return
        except TimeoutError as error:
            raise ServiceError(
                ErrorKind.REQUEST_TOO_SLOW,
                f"The upload came too slowly: less than {limits.least_bytes_per_s} bytes a second.",
            ) from error
        n_bytes += len(piece)
        if n_bytes > limits.max_bytes + _ENVELOPE_BYTES:
            raise _too_large(limits.max_bytes)
        yield piece


async def _stream(pieces: AsyncIterator[bytes], take: Callable[[bytes], None], spool: _Spool) -> None:
    async for piece in pieces:
        take(piece)
        if spool.waiting >= _BUFFER_BYTES:
            await to_thread.run_sync(spool.flush)


class _Spool:
    """A private file that takes bytes through a bounded buffer, counting and hashing them.

    :meth:`flush` runs in a thread, which goes on if the request is cancelled meanwhile: the lock keeps
    :meth:`discard` from giving away a descriptor that is being written to.
    """

    def __init__(self, folder: Path, max_bytes: int) -> None:
        self._descriptor, name = tempfile.mkstemp(dir=folder, prefix="")
        self.path = Path(name)
        self.sha256 = hashlib.sha256()
        self.n_bytes = 0
        self.max_bytes = max_bytes
        self._buffer = bytearray()
        self._lock = threading.Lock()
        self._discarded = False

    @property
    def waiting(self) -> int:
        """Bytes in the buffer."""
        return len(self._buffer)

    def add(self, piece: bytes) -> None:
        """Take some bytes; the file has them after :meth:`flush`."""
        self.n_bytes += len(piece)
        if self.n_bytes > self.max_bytes:
            raise _too_large(self.max_bytes)
        self._buffer += piece

    def flush(self) -> None:
        """Hash and write what is buffered."""
        with self._lock:
            if self._discarded:
                return
            pieces, self._buffer = self._buffer, bytearray()
            self.sha256.update(pieces)
            view = memoryview(pieces)
            while view:
                view = view[os.write(self._descriptor, view) :]

    def discard(self) -> None:
        """Close and remove the file."""
        with self._lock:
            self._discarded = True
            os.close(self._descriptor)
            self.path.unlink(missing_ok=True)


class _OneFileForm:
    """A multipart body with exactly one part, the file ``file``; its content goes to ``take`` as it comes."""

    def __init__(self, boundary: bytes, take: Callable[[bytes], None]) -> None:
        if not boundary:
            raise ServiceError(ErrorKind.MALFORMED_REQUEST, "The multipart content type lacks its boundary.")
        self._take = take
        self._filename: str | None = None
        self._n_files = 0
        self._ended = False
        self._header_name = b""
        self._header_value = b""
        self._disposition = b""
        callbacks: MultipartCallbacks = {
            "on_part_begin": self._on_part_begin,
            "on_header_field": self._on_header_field,
            "on_header_value": self._on_header_value,
            "on_header_end": self._on_header_end,
            "on_headers_finished": self._on_headers_finished,
            "on_part_data": self._on_part_data,
            "on_end": self._on_end,
        }
        self._parser = MultipartParser(boundary, callbacks)

    def write(self, piece: bytes) -> None:
        """Parse the next bytes of the body.

        Raises:
            ServiceError: ``malformed_request`` for a part that is not the one file.
            FormParserError: if the body is not multipart.
        """
        self._parser.write(piece)

    def finished(self) -> str | None:
        """The file's name, once the whole body was written.

        Raises:
            ServiceError: ``malformed_request`` if the body was cut short or had no file.
        """
        if not self._ended:
            raise ServiceError(ErrorKind.MALFORMED_REQUEST, "The multipart body was cut short.")
        if self._n_files == 0:
            raise ServiceError(ErrorKind.MALFORMED_REQUEST, "The request has no file: send one as the field 'file'.")
        return self._filename

    def _on_part_begin(self) -> None:
        self._disposition = b""

    def _on_header_field(self, data: bytes, start: int, end: int) -> None:
        self._header_name += data[start:end]

    def _on_header_value(self, data: bytes, start: int, end: int) -> None:
        self._header_value += data[start:end]

    def _on_header_end(self) -> None:
        if self._header_name.lower() == b"content-disposition":
            self._disposition = self._header_value
        self._header_name = self._header_value = b""

    def _on_headers_finished(self) -> None:
        _, options = parse_options_header(self._disposition)
        if options.get(b"name") != _FIELD:
            raise ServiceError(
                ErrorKind.MALFORMED_REQUEST,
                "The only multipart field is 'file'; parameters such as top_k go into the query of the address.",
            )
        self._n_files += 1
        if self._n_files > 1:
            raise ServiceError(ErrorKind.MALFORMED_REQUEST, "The request has more than one file: send them one by one.")
        name = options.get(b"filename", b"").decode("utf-8", errors="replace")
        self._filename = name[:_LONGEST_NAME] or None

    def _on_part_data(self, data: bytes, start: int, end: int) -> None:
        self._take(data[start:end])

    def _on_end(self) -> None:
        self._ended = True


def _too_large(max_bytes: int) -> ServiceError:
    return ServiceError(ErrorKind.UPLOAD_TOO_LARGE, f"The upload exceeds the limit of {max_bytes} bytes.")
