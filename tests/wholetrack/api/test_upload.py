"""Receiving uploads: multipart and raw bodies in chunks of any size, malformed bodies, and the limits."""

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

from wholetrack.api.upload import Upload, UploadLimits, receive_upload
from wholetrack.errors import ErrorKind, ServiceError

pytestmark = pytest.mark.timing

CONTENT = b"RIFF\r\n--boundary-like\r\n\x00\xff" * 50
MULTIPART = "multipart/form-data; boundary=XX"
END = b"--XX--\r\n"


def part(name: str = "file", filename: str = "song.mp3", content: bytes = CONTENT) -> bytes:
    headers = f'--XX\r\nContent-Disposition: form-data; name="{name}"; filename="{filename}"\r\n\r\n'
    return headers.encode() + content + b"\r\n"


def limits(max_bytes: int, *, grace_s: float = 60.0, min_bytes_per_s: int = 1) -> UploadLimits:
    return UploadLimits(max_bytes, min_bytes_per_s, grace_s)


def receive(
    folder: Path,
    body: bytes,
    content_type: str | None = None,
    *,
    content_encoding: str | None = None,
    chunk_bytes: int = 65536,
    max_bytes: int = 10**6,
    disconnects: bool = False,
) -> tuple[Upload, bytes]:
    """Send a body in chunks; return the upload and the content of its file."""
    headers = [(b"content-type", content_type.encode())] if content_type else []
    if content_encoding:
        headers.append((b"content-encoding", content_encoding.encode()))
    chunks = [body[i : i + chunk_bytes] for i in range(0, len(body), chunk_bytes)]
    messages: list[Message] = [{"type": "http.request", "body": chunk, "more_body": True} for chunk in chunks]
    messages.append({"type": "http.disconnect"} if disconnects else {"type": "http.request", "body": b""})
    remaining = iter(messages)

    async def next_message() -> Message:
        return next(remaining)

    async def run() -> tuple[Upload, bytes]:
        request = Request({"type": "http", "method": "POST", "headers": headers}, next_message)
        async with receive_upload(request, folder, limits(max_bytes)) as upload:
            return upload, upload.path.read_bytes()

    try:
        return asyncio.run(run())
    finally:
        assert list(folder.iterdir()) == []


@pytest.mark.parametrize("chunk_bytes", [1, 2, 3, 7, 61, 65536])
def test_a_multipart_body_may_be_cut_into_chunks_anywhere(tmp_path: Path, chunk_bytes: int) -> None:
    upload, content = receive(tmp_path, part() + END, MULTIPART, chunk_bytes=chunk_bytes)
    assert content == CONTENT
    assert upload.filename == "song.mp3"
    assert upload.n_bytes == len(CONTENT)
    assert upload.sha256 == hashlib.sha256(CONTENT).hexdigest()


@pytest.mark.parametrize("encoding", ["base64", "Base64 ", "quoted-printable", "x-uuencode"])
def test_an_encoded_file_is_refused_with_the_reason(tmp_path: Path, encoding: str) -> None:
    headers = f'--XX\r\nContent-Disposition: form-data; name="file"\r\nContent-Transfer-Encoding: {encoding}\r\n\r\n'
    with pytest.raises(ServiceError, match="Content-Transfer-Encoding") as caught:
        receive(tmp_path, headers.encode() + b"UklGRg==\r\n" + END, MULTIPART)
    assert caught.value.kind is ErrorKind.MALFORMED_REQUEST


@pytest.mark.parametrize("encoding", ["binary", "8bit", "7BIT"])
def test_a_file_whose_headers_say_that_it_is_not_encoded_is_accepted(tmp_path: Path, encoding: str) -> None:
    headers = f'--XX\r\nContent-Transfer-Encoding: {encoding}\r\nContent-Disposition: form-data; name="file"\r\n\r\n'
    assert receive(tmp_path, headers.encode() + CONTENT + b"\r\n" + END, MULTIPART)[1] == CONTENT


@pytest.mark.parametrize("coding", ["gzip", "br", "deflate, gzip", " GZIP"])
@pytest.mark.parametrize("content_type", [MULTIPART, "audio/wav"])
def test_a_compressed_body_is_refused_with_the_reason(tmp_path: Path, coding: str, content_type: str) -> None:
    with pytest.raises(ServiceError, match="Content-Encoding") as caught:
        receive(tmp_path, b"\x1f\x8b", content_type, content_encoding=coding)
    assert caught.value.kind is ErrorKind.UNSUPPORTED_MEDIA


def test_a_body_that_is_explicitly_not_compressed_is_accepted(tmp_path: Path) -> None:
    assert receive(tmp_path, CONTENT, content_encoding="identity")[1] == CONTENT


@pytest.mark.parametrize("filler", [";", ";a=b", '";', '\\";'])
def test_headers_with_many_parameters_are_refused(tmp_path: Path, filler: str) -> None:
    many = filler * 1000
    with pytest.raises(ServiceError, match="too many parameters"):
        receive(tmp_path, part() + END, MULTIPART + many)
    with pytest.raises(ServiceError, match="too many parameters"):
        receive(tmp_path, f"--XX\r\nContent-Disposition: form-data{many}\r\n\r\n".encode() + END, MULTIPART)


@pytest.mark.parametrize("chunk_bytes", [50_000, 1 << 20])
@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"\r\n--XXA" * 70_000, "too many parts"),
        (b"\r\n--XX-A" * 70_000, "too many parts"),
        (b"\r\n--XX" + b" " * 500_000, "spaces"),
    ],
    ids=["lines", "lines with a hyphen", "spaces"],
)
def test_a_file_that_would_take_long_to_parse_is_refused(
    tmp_path: Path, content: bytes, complaint: str, chunk_bytes: int
) -> None:
    """No line of a file may begin with the boundary of its form (RFC 2046, 5.1.1)."""
    body = part(content=content) + END
    with pytest.raises(ServiceError, match=complaint) as caught:
        receive(tmp_path, body, MULTIPART, chunk_bytes=chunk_bytes)
    assert caught.value.kind is ErrorKind.MALFORMED_REQUEST


@pytest.mark.parametrize("content_type", [None, "audio/mpeg", "application/octet-stream", "not/a;type"])
def test_a_raw_body_may_have_any_content_type(tmp_path: Path, content_type: str | None) -> None:
    upload, content = receive(tmp_path, CONTENT, content_type)
    assert content == CONTENT
    assert upload.filename is None


def test_an_empty_file_is_accepted_and_left_to_the_decoder(tmp_path: Path) -> None:
    upload, content = receive(tmp_path, part(content=b"") + END, MULTIPART)
    assert content == b""
    assert upload.n_bytes == 0


def test_a_file_name_is_shortened_and_never_used_as_a_path(tmp_path: Path) -> None:
    upload, _ = receive(tmp_path, part(filename="../../etc/passwd" + "x" * 1000) + END, MULTIPART)
    assert upload.filename is not None
    assert len(upload.filename) == 255
    assert upload.path.parent == tmp_path


@pytest.mark.parametrize(
    ("body", "content_type", "complaint"),
    [
        (b"", None, "The request contains no file"),
        (END, MULTIPART, "contains no file"),
        (part() + part() + END, MULTIPART, "more than one file"),
        (part(name="top_k") + END, MULTIPART, "The only accepted form field is 'file'"),
        (part(name="audio") + END, MULTIPART, "The only accepted form field is 'file'"),
        (part(), MULTIPART, "is incomplete"),
        (b"not multipart at all", MULTIPART, "multipart body is malformed"),
        (CONTENT, "multipart/form-data", "has no boundary"),
        (CONTENT, "multipart/form-data; boundary=" + "x" * 500, "multipart body is malformed"),
    ],
)
def test_a_malformed_request_is_refused_with_a_reason(
    tmp_path: Path, body: bytes, content_type: str | None, complaint: str
) -> None:
    with pytest.raises(ServiceError, match=complaint) as caught:
        receive(tmp_path, body, content_type)
    assert caught.value.kind is ErrorKind.MALFORMED_REQUEST


@pytest.mark.parametrize("content_type", [None, MULTIPART])
def test_the_size_limit_is_exact_and_enforced_while_streaming(tmp_path: Path, content_type: str | None) -> None:
    body = part() + END if content_type else CONTENT
    receive(tmp_path, body, content_type, max_bytes=len(CONTENT))
    with pytest.raises(ServiceError) as caught:
        receive(tmp_path, body, content_type, max_bytes=len(CONTENT) - 1, chunk_bytes=100)
    assert caught.value.kind is ErrorKind.UPLOAD_TOO_LARGE


def test_a_content_length_above_the_limit_is_refused_without_reading_the_body(tmp_path: Path) -> None:
    async def never() -> Message:
        raise AssertionError("the body was read")

    async def run() -> AsyncIterator[None]:
        request = Request({"type": "http", "method": "POST", "headers": [(b"content-length", b"99999999")]}, never)
        async with receive_upload(request, tmp_path, limits(1000)):
            yield

    with pytest.raises(ServiceError) as caught:
        asyncio.run(anext(run()))  # type: ignore[arg-type]
    assert caught.value.kind is ErrorKind.UPLOAD_TOO_LARGE


def test_a_client_that_disconnects_during_the_upload_leaves_no_file(tmp_path: Path) -> None:
    with pytest.raises(ServiceError) as caught:
        receive(tmp_path, part()[:500], MULTIPART, disconnects=True)
    assert caught.value.kind is ErrorKind.CLIENT_GONE


def test_the_size_of_a_multipart_body_around_its_file_is_limited(tmp_path: Path) -> None:
    body = part() + END + b"epilogue " * 500_000
    with pytest.raises(ServiceError) as caught:
        receive(tmp_path, body, MULTIPART, max_bytes=len(CONTENT))
    assert caught.value.kind is ErrorKind.UPLOAD_TOO_LARGE


def test_cancelling_a_request_during_a_write_does_not_damage_another_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A thread that is writing continues when its request is cancelled, so its descriptor must stay open."""
    writing, may_write = threading.Event(), threading.Event()
    write = os.write

    def slow_write(descriptor: int, content: memoryview) -> int:
        writing.set()
        may_write.wait(10)
        return write(descriptor, content)

    monkeypatch.setattr("wholetrack.api.spool.os.write", slow_write)
    folder = tmp_path / "uploads"
    folder.mkdir()

    async def body() -> Message:
        return {"type": "http.request", "body": b"A" * (1 << 20), "more_body": True}

    async def run() -> None:
        async def upload() -> None:
            request = Request({"type": "http", "method": "POST", "headers": []}, body)
            async with receive_upload(request, folder, limits(1 << 30)):
                pass

        task = asyncio.create_task(upload())
        await asyncio.to_thread(writing.wait, 10)
        task.cancel()
        await asyncio.sleep(0.05)
        # If the descriptor had been closed, this file would get its number, and the bytes of the upload.
        with (tmp_path / "other").open("wb"):
            may_write.set()
            with pytest.raises(asyncio.CancelledError):
                await task

    asyncio.run(run())
    assert list(folder.iterdir()) == []
    assert (tmp_path / "other").read_bytes() == b""


def test_an_upload_must_average_the_minimum_rate(tmp_path: Path) -> None:
    """100 bytes that arrive at once are credit for one second at 100 bytes per second."""

    def slow_request(pauses_s: list[float]) -> Request:
        remaining = iter(pauses_s)

        async def next_message() -> Message:
            try:
                await asyncio.sleep(next(remaining))
            except StopIteration:
                return {"type": "http.request", "body": b""}
            return {"type": "http.request", "body": b"x" * 100, "more_body": True}

        return Request({"type": "http", "method": "POST", "headers": []}, next_message)

    async def run(pauses_s: list[float]) -> int:
        slow = limits(10**6, grace_s=0.3, min_bytes_per_s=100)
        async with receive_upload(slow_request(pauses_s), tmp_path, slow) as upload:
            return upload.n_bytes

    assert asyncio.run(run([0, 0, 0, 1.0])) == 400
    for pauses_s in ([60.0], [0, 60.0], [0, 0.1, 60.0]):
        with pytest.raises(ServiceError, match="at least 100 bytes per second") as caught:
            asyncio.run(run(pauses_s))
        assert caught.value.kind is ErrorKind.REQUEST_TOO_SLOW
        assert list(tmp_path.iterdir()) == []


def test_the_headers_of_a_part_are_limited(tmp_path: Path) -> None:
    long = b'--XX\r\nContent-Disposition: form-data; name="file"; filename="' + b"x" * 200_000 + b'"\r\n\r\n'
    with pytest.raises(ServiceError, match="multipart body is malformed") as caught:
        receive(tmp_path, long + CONTENT + b"\r\n" + END, MULTIPART)
    assert caught.value.kind is ErrorKind.MALFORMED_REQUEST
    many = b"--XX\r\n" + b"X-Nothing: here\r\n" * 1000 + part()[4:]
    with pytest.raises(ServiceError, match="multipart body is malformed"):
        receive(tmp_path, many + END, MULTIPART)
