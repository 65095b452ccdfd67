"""Receiving the recording in a request body, multipart or raw, into a private file.

The body is streamed: it is counted, hashed and checked against the limits as it arrives. About a mebibyte is held in
memory, and nothing is written to disk on the event loop.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from anyio import to_thread
from starlette.requests import ClientDisconnect, Request

from wholetrack.api.multipart import OneFileForm, header_options
from wholetrack.api.spool import Spool, upload_too_large
from wholetrack.errors import ErrorKind, ServiceError

# Allowance for what surrounds the file in a multipart body.
_ENVELOPE_BYTES = 1 << 20

REQUEST_BODY: dict[str, Any] = {
    "required": True,
    "description": "The recording, either as the only part of a multipart form, called `file`, or as the raw body. "
    "Accepted formats are wav, flac, mp3, ogg (vorbis, opus, flac), m4a and mp4 (aac, alac), aac, aiff, wma and webm. "
    "The format is detected from the content; the file name does not matter.",
    "content": {
        "multipart/form-data": {
            "schema": {
                "type": "object",
                "required": ["file"],
                "properties": {"file": {"type": "string", "format": "binary"}},
            }
        },
        "application/octet-stream": {"schema": {"type": "string", "format": "binary"}},
        "audio/*": {"schema": {"type": "string", "format": "binary"}},
    },
}
"""The request body as OpenAPI describes it; FastAPI cannot derive it, because the route reads the body itself."""


@dataclass(frozen=True, slots=True)
class Upload:
    """A received recording.

    Attributes:
        path: The private file that contains the recording.
        filename: Name of the file on the client, if one was sent; never used as a path.
        sha256: SHA-256 of the recording, in hexadecimal.
        n_bytes: Size of the recording in bytes.
        receive_s: Time taken to receive the recording, in seconds.
    """

    path: Path
    filename: str | None
    sha256: str
    n_bytes: int
    receive_s: float


@dataclass(frozen=True, slots=True)
class UploadLimits:
    """Limits on the size and the rate of an upload.

    Attributes:
        max_bytes: Maximum size of what is uploaded: the recording, or a whole body that is not a form.
        min_bytes_per_s: Minimum average rate of the body.
        grace_s: Time before the minimum rate is enforced, in seconds.
    """

    max_bytes: int
    min_bytes_per_s: int
    grace_s: float


@asynccontextmanager
async def receive_upload(request: Request, folder: Path, limits: UploadLimits) -> AsyncIterator[Upload]:
    """Receive the recording in a request body; its file is removed when the block ends.

    Args:
        request: A request whose body is a multipart form with the file ``file`` as its only part, or the recording.
        folder: A private folder for the file.
        limits: Limits on size and rate.

    Raises:
        ServiceError: ``malformed_request``, ``unsupported_media``, ``upload_too_large``, ``request_too_slow`` or
            ``client_gone``.
    """
    began = time.monotonic()
    chunks = body_chunks(request, limits, envelope_bytes=_ENVELOPE_BYTES)
    spool = Spool(folder, limits.max_bytes)
    try:
        filename = await _receive(chunks, request.headers.get("content-type", ""), spool)
        await to_thread.run_sync(spool.flush)
        yield Upload(spool.path, filename, spool.sha256.hexdigest(), spool.n_bytes, time.monotonic() - began)
    finally:
        # In a thread, because removing half a gigabyte takes a while. An executor finishes the removal even if this
        # task is cancelled again.
        await asyncio.get_running_loop().run_in_executor(None, spool.discard)


def _check_coding(coding: str) -> None:
    if coding.strip().lower() not in ("", "identity"):
        raise ServiceError(
            ErrorKind.UNSUPPORTED_MEDIA,
            "The body is compressed, as its header Content-Encoding says. Send it uncompressed.",
        )


async def _receive(chunks: AsyncIterator[bytes], content_type: str, spool: Spool) -> str | None:
    """Stream the body into the spool and return the name of the file, if the client sent one."""
    kind, options = header_options(content_type.encode("latin-1"))
    if kind == b"multipart/form-data":
        form = OneFileForm(options.get(b"boundary", b""), spool.add)
        await _stream(chunks, form.feed, spool)
        return form.finish()
    await _stream(chunks, spool.add, spool)
    if spool.n_bytes == 0:
        raise ServiceError(
            ErrorKind.MALFORMED_REQUEST,
            "The request contains no file. Send one as the form field 'file' or as the raw body.",
        )
    return None


async def _stream(chunks: AsyncIterator[bytes], feed: Callable[[bytes], None], spool: Spool) -> None:
    async for chunk in chunks:
        feed(chunk)
        if spool.needs_flush:
            await to_thread.run_sync(spool.flush)


def body_chunks(request: Request, limits: UploadLimits, *, envelope_bytes: int) -> AsyncIterator[bytes]:
    """Return the chunks of the body, as long as they arrive at the minimum rate and do not exceed the maximum size.

    Args:
        request: A request whose body has not been read.
        limits: Limits on size and rate.
        envelope_bytes: How much larger than ``limits.max_bytes`` the body may be, because of what surrounds the upload.

    Raises:
        ServiceError: At once, if the headers announce a compressed body (``unsupported_media``) or one that is too
            large. While the chunks are read: ``upload_too_large``, ``request_too_slow`` or ``client_gone``.
    """
    _check_coding(request.headers.get("content-encoding", ""))
    max_body_bytes = limits.max_bytes + envelope_bytes
    stated_length = request.headers.get("content-length", "")
    if stated_length.isdigit() and int(stated_length) > max_body_bytes:
        raise upload_too_large(limits.max_bytes)
    return _chunks(request, limits, max_body_bytes)


async def _chunks(request: Request, limits: UploadLimits, max_body_bytes: int) -> AsyncIterator[bytes]:
    loop = asyncio.get_running_loop()
    n_bytes, grace_end = 0, loop.time() + limits.grace_s
    stream = aiter(request.stream())
    while True:
        try:
            async with asyncio.timeout_at(grace_end + n_bytes / limits.min_bytes_per_s):
                chunk = await anext(stream)
        except StopAsyncIteration:
            return
        except TimeoutError as error:
            raise ServiceError(
                ErrorKind.REQUEST_TOO_SLOW,
                f"The upload was too slow: it must average at least {limits.min_bytes_per_s} bytes per second.",
            ) from error
        except ClientDisconnect as error:
            raise ServiceError(ErrorKind.CLIENT_GONE, "The client disconnected during the upload.") from error
        n_bytes += len(chunk)
        if n_bytes > max_body_bytes:
            raise upload_too_large(limits.max_bytes)
        yield chunk
