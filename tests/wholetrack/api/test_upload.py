"""The multipart and raw bodies that clients really send, and those that they should not, cut at every byte."""

from __future__ import annotations

import asyncio
import hashlib
import os
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from starlette.requests import Request
from starlette.types import Message

from wholetrack.api.upload import Upload, UploadLimits, received
from wholetrack.errors import ErrorKind, ServiceError

CONTENT = b"RIFF\r\n--boundary-like\r\n\x00\xff" * 50
MULTIPART = "multipart/form-data; boundary=XX"


def part(name: str = "file", filename: str = "song.mp3", content: bytes = CONTENT) -> bytes:
    head = f'--XX\r\nContent-Disposition: form-data; name="{name}"; filename="{filename}"\r\n\r\n'
    return head.encode() + content + b"\r\n"


def limits(max_bytes: int, *, patience_s: float = 60.0, least_bytes_per_s: int = 1) -> UploadLimits:
    return UploadLimits(max_bytes, least_bytes_per_s, patience_s)


def receive(
    folder: Path,
    body: bytes,
    content_type: str | None = None,
    *,
    piece: int = 65536,
    limit: int = 10**6,
    ends: bool = True,
) -> tuple[Upload, bytes]:
    """Send a body in pieces; give what is known of the upload, and its bytes as they lay on disk."""
    headers = [(b"content-type", content_type.encode())] if content_type else []
    messages: list[Message] = [
        {"type": "http.request", "body": body[i : i + piece], "more_body": True} for i in range(0, len(body), piece)
    ]
    messages.append({"type": "http.request", "body": b""} if ends else {"type": "http.disconnect"})
    waiting = iter(messages)

    async def next_message() -> Message:
        return next(waiting)

    async def go() -> tuple[Upload, bytes]:
        request = Request({"type": "http", "method": "POST", "headers": headers}, next_message)
        async with received(request, folder, limits(limit)) as received_:
            return received_, received_.path.read_bytes()

    try:
        return asyncio.run(go())
    finally:
        assert list(folder.iterdir()) == []


@pytest.mark.parametrize("piece", [1, 2, 3, 7, 61, 65536])
def test_multipart_however_it_is_cut(tmp_path: Path, piece: int) -> None:
    upload, content = receive(tmp_path, part() + b"--XX--\r\n", MULTIPART, piece=piece)
    assert content == CONTENT
    assert upload.filename == "song.mp3"
    assert upload.n_bytes == len(CONTENT)
    assert upload.sha256 == hashlib.sha256(CONTENT).hexdigest()


@pytest.mark.parametrize("content_type", [None, "audio/mpeg", "application/octet-stream", "not/a;type"])
def test_a_raw_body_of_any_type(tmp_path: Path, content_type: str | None) -> None:
    upload, content = receive(tmp_path, CONTENT, content_type)
    assert content == CONTENT
    assert upload.filename is None


def test_an_empty_file_is_received_and_left_to_the_decoder(tmp_path: Path) -> None:
    upload, content = receive(tmp_path, part(content=b"") + b"--XX--\r\n", MULTIPART)
    assert content == b""
    assert upload.n_bytes == 0


def test_a_name_is_only_a_name(tmp_path: Path) -> None:
    upload, _ = receive(tmp_path, part(filename="../../etc/passwd" + "x" * 1000) + b"--XX--\r\n", MULTIPART)
    assert upload.filename is not None
    assert len(upload.filename) == 255


@pytest.mark.parametrize(
    ("body", "content_type", "complaint"),
    [
        (b"", None, "The request has no file"),
        (b"--XX--\r\n", MULTIPART, "has no file"),
        (part() + part() + b"--XX--\r\n", MULTIPART, "more than one file"),
        (part(name="top_k") + b"--XX--\r\n", MULTIPART, "The only multipart field is 'file'"),
        (part(name="audio") + b"--XX--\r\n", MULTIPART, "The only multipart field is 'file'"),
        (part(), MULTIPART, "cut short"),
        (b"not multipart at all", MULTIPART, "does not keep its format"),
        (CONTENT, "multipart/form-data", "lacks its boundary"),
        (CONTENT, "multipart/form-data; boundary=" + "x" * 500, "does not keep its format"),
    ],
)
def test_a_malformed_request_says_why(tmp_path: Path, body: bytes, content_type: str | None, complaint: str) -> None:
    with pytest.raises(ServiceError, match=complaint) as caught:
        receive(tmp_path, body, content_type)
    assert caught.value.kind is ErrorKind.MALFORMED_REQUEST


@pytest.mark.parametrize("content_type", [None, MULTIPART])
def test_the_limit_is_exact_and_found_while_streaming(tmp_path: Path, content_type: str | None) -> None:
    body = part() + b"--XX--\r\n" if content_type else CONTENT
    receive(tmp_path, body, content_type, limit=len(CONTENT))
    with pytest.raises(ServiceError) as caught:
        receive(tmp_path, body, content_type, limit=len(CONTENT) - 1, piece=100)
    assert caught.value.kind is ErrorKind.UPLOAD_TOO_LARGE


def test_a_stated_length_beyond_the_limit_is_refused_unread(tmp_path: Path) -> None:
    async def never() -> Message:
        raise AssertionError("the body was read")

    async def go() -> AsyncIterator[None]:
        request = Request({"type": "http", "method": "POST", "headers": [(b"content-length", b"99999999")]}, never)
        async with received(request, tmp_path, limits(1000)):
            yield

    with pytest.raises(ServiceError) as caught:
        asyncio.run(anext(go()))  # type: ignore[arg-type]
    assert caught.value.kind is ErrorKind.UPLOAD_TOO_LARGE


def test_a_client_that_leaves_during_the_upload_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(ServiceError) as caught:
        receive(tmp_path, part()[:500], MULTIPART, ends=False)
    assert caught.value.kind is ErrorKind.CLIENT_GONE


def test_what_surrounds_the_file_is_bounded_too(tmp_path: Path) -> None:
    body = part() + b"--XX--\r\n" + b"epilogue " * 500_000
    with pytest.raises(ServiceError) as caught:
        receive(tmp_path, body, MULTIPART, limit=len(CONTENT))
    assert caught.value.kind is ErrorKind.UPLOAD_TOO_LARGE


def test_a_request_cancelled_while_its_bytes_are_written_harms_no_other_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A thread that is writing goes on when its request is cancelled; the descriptor must not be given away."""
    writing, may_write = threading.Event(), threading.Event()
    write = os.write

    def slow_write(descriptor: int, content: memoryview) -> int:
        writing.set()
        may_write.wait(10)
        return write(descriptor, content)

    monkeypatch.setattr("wholetrack.api.upload.os.write", slow_write)
    folder = tmp_path / "uploads"
    folder.mkdir()

    async def body() -> Message:
        return {"type": "http.request", "body": b"A" * (1 << 20), "more_body": True}

    async def go() -> None:
        async def upload() -> None:
            request = Request({"type": "http", "method": "POST", "headers": []}, body)
            async with received(request, folder, limits(1 << 30)):
                pass

        task = asyncio.create_task(upload())
        await asyncio.to_thread(writing.wait, 10)
        task.cancel()
        await asyncio.sleep(0.05)
        # Had the descriptor been closed, this file would get its number, and the bytes of the upload.
        with (tmp_path / "other").open("wb"):
            may_write.set()
            with pytest.raises(asyncio.CancelledError):
                await task

    asyncio.run(go())
    assert list(folder.iterdir()) == []
    assert (tmp_path / "other").read_bytes() == b""


def test_an_upload_must_come_as_fast_as_the_slowest_allowed(tmp_path: Path) -> None:
    """Counted on average: 100 bytes at once are credit for a second at 100 bytes a second."""

    def pieces(pauses: list[float]) -> Request:
        waiting = iter(pauses)

        async def next_message() -> Message:
            try:
                await asyncio.sleep(next(waiting))
            except StopIteration:
                return {"type": "http.request", "body": b""}
            return {"type": "http.request", "body": b"x" * 100, "more_body": True}

        return Request({"type": "http", "method": "POST", "headers": []}, next_message)

    async def go(pauses: list[float]) -> int:
        slow = limits(10**6, patience_s=0.3, least_bytes_per_s=100)
        async with received(pieces(pauses), tmp_path, slow) as upload:
            return upload.n_bytes

    assert asyncio.run(go([0, 0, 0, 1.0])) == 400
    for pauses in ([60.0], [0, 60.0], [0, 0.1, 60.0]):
        with pytest.raises(ServiceError, match="less than 100 bytes a second") as caught:
            asyncio.run(go(pauses))
        assert caught.value.kind is ErrorKind.REQUEST_TOO_SLOW
        assert list(tmp_path.iterdir()) == []


def test_the_header_of_a_part_does_not_grow_without_end(tmp_path: Path) -> None:
    head = b'--XX\r\nContent-Disposition: form-data; name="file"; filename="' + b"x" * 200_000 + b'"\r\n\r\n'
    with pytest.raises(ServiceError, match="does not keep its format") as caught:
        receive(tmp_path, head + CONTENT + b"\r\n--XX--\r\n", MULTIPART)
    assert caught.value.kind is ErrorKind.MALFORMED_REQUEST
    many = b"--XX\r\n" + b"X-Nothing: here\r\n" * 1000 + part()[4:]
    with pytest.raises(ServiceError, match="does not keep its format"):
        receive(tmp_path, many + b"--XX--\r\n", MULTIPART)
