"""Messages between the service and a feature worker: what is sent arrives, and nothing else is accepted."""

from __future__ import annotations

import fcntl
import os
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from wholetrack.contracts import Rows, Strip
from wholetrack.extraction.messages import (
    MAX_MESSAGE_BYTES,
    Block,
    Part,
    TrackSpec,
    error_message,
    read_arrays,
    write_arrays,
)
from wholetrack.extraction.sealed_memory import MessageError
from wholetrack.extraction.windows import ExtractedWindows

_SHAPES = ((3, 4), (7, 2))


def block(windows: ExtractedWindows) -> Block:
    """Return the message that accompanies these arrays."""
    return Block(
        n_samples=5,
        n_windows=len(windows.start_s),
        n_rows=len(windows.rows),
        n_frames=len(windows.rows.frames) if isinstance(windows.rows, Strip) else 0,
        n_peaks=len(windows.peaks),
        peak=0.5,
        cancelled_s=1.5,
        features_s=0.25,
        has_replaced=True,
        stalled=False,
        ended=True,
    )


def arrays(dtype: str, *shape: int) -> st.SearchStrategy[NDArray[Any]]:
    return hnp.arrays(dtype, shape)


@st.composite
def extracted(draw: st.DrawFn) -> ExtractedWindows:
    """Windows with any values, NaN included, of which any number has rows."""
    n_windows, n_peaks = draw(st.integers(0, 5)), draw(st.integers(0, 9))
    n_rows = draw(st.integers(0, n_windows))
    return ExtractedWindows(
        start_s=draw(arrays("f8", n_windows)),
        silent=draw(arrays("?", n_windows)),
        rows=Rows(tuple(draw(arrays("f4", n_rows, *shape)) for shape in _SHAPES)),
        peaks=draw(arrays("f4", n_peaks)),
    )


@given(extracted())
def test_arrays_arrive_as_they_were_sent(sent: ExtractedWindows) -> None:
    memory = write_arrays(sent)
    received = read_arrays(memory, block(sent), _SHAPES)
    # The arrays do not need the descriptor any more.
    os.close(memory)
    for field in fields(ExtractedWindows):
        ours, theirs = getattr(sent, field.name), getattr(received, field.name)
        pairs = zip(ours.arrays, theirs.arrays, strict=True) if field.name == "rows" else [(ours, theirs)]
        for before, after in pairs:
            assert (before.shape, before.dtype) == (after.shape, after.dtype)
            assert before.tobytes() == after.tobytes()
    # The network reads arrays in place if they are aligned.
    assert all(array.ctypes.data % 64 == 0 for array in received.rows.arrays if array.size)
    # What is kept for the whole track does not keep the memory of the rows.
    assert all(array.base is None for array in (received.start_s, received.silent, received.peaks))


@given(
    frames=hnp.arrays("f4", st.tuples(st.integers(3, 20), st.just(4))),
    starts=st.lists(st.integers(0, 99), min_size=1, max_size=9),
)
def test_a_strip_arrives_as_it_was_sent(frames: NDArray[np.float32], starts: list[int]) -> None:
    strip = Strip(frames, np.sort(np.array(starts) % (len(frames) - 2)), window_frames=3)
    n_windows = len(starts)
    sent = ExtractedWindows(np.zeros(n_windows), np.zeros(n_windows, dtype=np.bool_), strip, np.zeros(2, "f4"))
    memory = write_arrays(sent)
    received = read_arrays(memory, block(sent), ((3, 4),)).rows
    os.close(memory)
    assert isinstance(received, Strip)
    assert received.window_frames == 3
    assert received.frames.tobytes() == frames.tobytes()
    assert received.starts.tolist() == strip.starts.tolist()


@pytest.mark.parametrize("starts", [[-1, 2], [0, 8], [4, 3]])
def test_a_strip_with_windows_outside_of_its_frames_is_refused(starts: list[int]) -> None:
    strip = Strip(np.zeros((10, 4), "f4"), np.array(starts), window_frames=3)
    sent = ExtractedWindows(np.zeros(2), np.zeros(2, dtype=np.bool_), strip, np.zeros(0, "f4"))
    memory = write_arrays(sent)
    with pytest.raises(MessageError, match="out of order, or reach beyond"):
        read_arrays(memory, block(sent), ((3, 4),))
    os.close(memory)


def test_memory_is_released_with_the_last_array() -> None:
    sent = ExtractedWindows(np.zeros(1), np.zeros(1, dtype=np.bool_), Rows.zeros(1, ((500, 1000),)), np.zeros(0, "f4"))
    before = mappings()
    memory = write_arrays(sent)
    received = read_arrays(memory, block(sent), ((500, 1000),))
    os.close(memory)
    row = received.rows.arrays[0][0]
    del received
    assert mappings() == before + 1
    assert not row.any()
    del row
    assert mappings() == before


def mappings() -> int:
    return Path("/proc/self/maps").read_text().count("memfd:windows")


@given(rate=st.none() | st.integers(1, 1 << 20), is_last=st.booleans())
def test_a_part_arrives_as_it_was_sent(*, rate: int | None, is_last: bool) -> None:
    assert Part.decode(Part(rate, is_last).encode()) == Part(rate, is_last)


@given(hop_s=st.floats(0.01, 30), peaks_per_s=st.integers(0, 100), keep_silent=st.booleans())
def test_a_hop_arrives_exactly(*, hop_s: float, peaks_per_s: int, keep_silent: bool) -> None:
    spec = TrackSpec('{"audio": {}}', hop_s, peaks_per_s, keep_silent)
    assert TrackSpec.decode(spec.encode()) == spec


@given(extracted())
def test_a_block_arrives_as_it_was_sent(windows: ExtractedWindows) -> None:
    assert Block.decode(block(windows).encode()) == block(windows)


@given(st.binary(max_size=80))
def test_other_messages_are_refused(message: bytes) -> None:
    for kind in (Part, Block):
        with pytest.raises(MessageError):
            kind.decode(message)


def test_an_error_is_passed_on() -> None:
    with pytest.raises(MessageError, match="it is broken"):
        Block.decode(error_message("it is broken"))
    assert len(error_message("x" * 100_000)) <= MAX_MESSAGE_BYTES


@pytest.mark.parametrize("seals", [0, fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK])
def test_memory_that_its_sender_can_still_change_is_refused(seals: int) -> None:
    sent = ExtractedWindows(np.zeros(1), np.zeros(1, dtype=np.bool_), Rows.zeros(1, _SHAPES), np.zeros(0, "f4"))
    sealed = write_arrays(sent)
    memory = os.memfd_create("other", os.MFD_ALLOW_SEALING)
    os.ftruncate(memory, os.fstat(sealed).st_size)
    fcntl.fcntl(memory, fcntl.F_ADD_SEALS, seals)
    with pytest.raises(MessageError, match="not sealed"):
        read_arrays(memory, block(sent), _SHAPES)
    os.close(memory)
    os.close(sealed)


def test_memory_of_another_size_and_ordinary_files_are_refused(tmp_path: object) -> None:
    sent = ExtractedWindows(np.zeros(1), np.zeros(1, dtype=np.bool_), Rows.zeros(1, _SHAPES), np.zeros(0, "f4"))
    sealed = write_arrays(sent)
    with pytest.raises(MessageError, match="has another size"):
        read_arrays(sealed, block(sent)._replace(n_windows=9), _SHAPES)
    os.close(sealed)
    file = os.open(f"{tmp_path}/file", os.O_CREAT | os.O_RDWR)
    with pytest.raises(MessageError, match="cannot be sealed"):
        read_arrays(file, block(sent), _SHAPES)
    os.close(file)
