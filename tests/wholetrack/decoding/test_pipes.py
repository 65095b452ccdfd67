"""Reading from a program that is slow on purpose."""

from __future__ import annotations

import os
import threading

import pytest

from wholetrack.decoding.pipes import read_into


def test_who_drips_holds_nobody_for_a_whole_block(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wholetrack.decoding.pipes._BLOCK_S", 0.2)
    ours, theirs = os.pipe()
    stopping, buffer = threading.Event(), bytearray(1 << 20)

    def drip() -> None:
        with os.fdopen(theirs, "wb", buffering=0) as pipe:
            while not stopping.wait(0.01):
                pipe.write(b"x")

    dripping = threading.Thread(target=drip)
    dripping.start()
    with os.fdopen(ours, "rb", buffering=0) as pipe:
        filled, ended = read_into(pipe, memoryview(buffer))
        assert 0 < filled < len(buffer)
        assert not ended
        stopping.set()
        dripping.join()
        while not ended:
            received, ended = read_into(pipe, memoryview(buffer)[filled:])
            filled += received
        assert set(buffer[:filled]) == set(b"x")
