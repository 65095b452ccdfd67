"""Reading from the pipe of a slow or verbose process."""

from __future__ import annotations

import os
import threading

import pytest

from wholetrack.decoding.pipes import BoundedReader, read_into

pytestmark = pytest.mark.timing


def test_a_slow_writer_does_not_block_the_reader_until_a_block_is_full(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wholetrack.decoding.pipes._BLOCK_TIMEOUT_S", 0.2)
    read_end, write_end = os.pipe()
    stop, buffer = threading.Event(), bytearray(1 << 20)

    def write_slowly() -> None:
        with os.fdopen(write_end, "wb", buffering=0) as pipe:
            while not stop.wait(0.01):
                pipe.write(b"x")

    writer = threading.Thread(target=write_slowly)
    writer.start()
    with os.fdopen(read_end, "rb", buffering=0) as pipe:
        filled, ended = read_into(pipe, memoryview(buffer))
        assert 0 < filled < len(buffer)
        assert not ended
        stop.set()
        writer.join()
        while not ended:
            received, ended = read_into(pipe, memoryview(buffer)[filled:])
            filled += received
        assert set(buffer[:filled]) == set(b"x")


def test_a_bounded_reader_keeps_the_beginning_and_the_end() -> None:
    read_end, write_end = os.pipe()
    reader = BoundedReader(os.fdopen(read_end, "rb", buffering=0), max_bytes=20)
    with os.fdopen(write_end, "wb") as pipe:
        pipe.write(b"beginning." + b"x" * 1_000_000 + b"...the end")
    assert reader.close() == "beginning....the end"
