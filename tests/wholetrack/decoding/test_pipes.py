"""Reading from the pipe of a slow or verbose process."""

from __future__ import annotations

import os
import subprocess
import sys
import threading

import pytest

from wholetrack.decoding.pipes import OutputReader

pytestmark = pytest.mark.timing


def test_a_slow_writer_does_not_block_the_reader_until_a_block_is_full(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wholetrack.decoding.pipes._BLOCK_TIMEOUT_S", 0.2)
    read_end, write_end = os.pipe()
    stop, buffer = threading.Event(), bytearray(1 << 20)

    def write_slowly() -> None:
        with os.fdopen(write_end, "wb", buffering=0) as pipe:
            while not stop.wait(0.01):
                pipe.write(b"x")

    log_end, unused = os.pipe()
    writer = threading.Thread(target=write_slowly)
    writer.start()
    with (
        os.fdopen(read_end, "rb", buffering=0) as pipe,
        os.fdopen(log_end, "rb", buffering=0) as log,
        os.fdopen(unused, "wb"),
    ):
        output = OutputReader(pipe, log, lambda _: None)
        filled, ended = output.read_into(memoryview(buffer))
        assert 0 < filled < len(buffer)
        assert not ended
        stop.set()
        writer.join()
        while not ended:
            received, ended = output.read_into(memoryview(buffer)[filled:])
            filled += received
        assert set(buffer[:filled]) == set(b"x")


def test_a_log_longer_than_its_pipe_does_not_block_the_output() -> None:
    program = "import os; os.write(2, b'l' * 1_000_000); os.write(1, b'o' * 1000); os.write(2, b'end')"
    received = bytearray()
    with subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=0
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        output, buffer = OutputReader(process.stdout, process.stderr, received.extend), bytearray(2000)
        filled, ended = 0, False
        while not ended:
            n_bytes, ended = output.read_into(memoryview(buffer)[filled:])
            filled += n_bytes
        assert len(received) >= 1_000_000
        output.read_log(60)
    assert buffer[:filled] == b"o" * 1000
    assert received == b"l" * 1_000_000 + b"end"
