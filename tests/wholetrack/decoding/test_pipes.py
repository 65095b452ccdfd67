"""Receiving the output of a slow or verbose process."""

from __future__ import annotations

import os
import subprocess
import sys
import threading

import numpy as np
import pytest

from wholetrack.decoding.pipes import LogReader
from wholetrack.decoding.receiving import SampleReceiver

pytestmark = pytest.mark.timing


def test_a_slow_writer_does_not_block_the_receiver_until_a_block_is_full(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wholetrack.decoding.receiving.BLOCK_TIMEOUT_S", 0.2)
    read_end, write_end = os.pipe()
    stop = threading.Event()

    def write_slowly() -> None:
        with os.fdopen(write_end, "wb", buffering=0) as pipe:
            while not stop.wait(0.01):
                pipe.write(np.ones(1, dtype="<f4").tobytes())

    log_end, unused = os.pipe()
    writer = threading.Thread(target=write_slowly)
    writer.start()
    with (
        os.fdopen(read_end, "rb", buffering=0) as pipe,
        os.fdopen(log_end, "rb", buffering=0) as log,
        os.fdopen(unused, "wb"),
    ):
        receiver, reader = SampleReceiver(sample_rate=8000), LogReader(log, lambda _: None)
        receiver.begin(pipe, rate=None, is_last=True)
        blocks = [receiver.receive(reader)]
        assert blocks[0].stalled
        assert not blocks[0].ended
        assert 0 < blocks[0].n_samples < 100
        stop.set()
        writer.join()
        while not blocks[-1].ended:
            blocks.append(receiver.receive(reader))
        assert set(np.concatenate([block.content for block in blocks]).tolist()) == {1.0}


def test_a_log_longer_than_its_pipe_does_not_block_the_output() -> None:
    program = "import os; os.write(2, b'l' * 1_000_000); os.write(1, b'oooo' * 250); os.write(2, b'end')"
    received = bytearray()
    with subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=0
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        receiver, reader = SampleReceiver(sample_rate=8000), LogReader(process.stderr, received.extend)
        receiver.begin(process.stdout, rate=None, is_last=True)
        blocks = [receiver.receive(reader)]
        while not blocks[-1].ended:
            blocks.append(receiver.receive(reader))
        assert len(received) >= 1_000_000
        reader.read(60)
    assert sum(block.n_samples for block in blocks) == 250
    assert received == b"l" * 1_000_000 + b"end"
