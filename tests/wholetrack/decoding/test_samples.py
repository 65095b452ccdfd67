"""Samples do not depend on how the bytes of ffmpeg arrive."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from wholetrack.decoding import samples as module
from wholetrack.decoding.samples import SampleStream


def streamed(pcm: bytes, reads: list[int], *, rate: int | None) -> tuple[SampleStream, NDArray[np.float32]]:
    """Send bytes through a stream in reads of these sizes, and the rest in reads as large as possible."""
    stream, taken, position = SampleStream(rate=rate, sample_rate=8000), [], 0
    while position < len(pcm):
        size = min(reads.pop(0) if reads else len(pcm), len(stream.free), len(pcm) - position)
        stream.free[:size] = pcm[position : position + size]
        stream.received(size)
        position += size
        if stream.is_full or size % 3 == 0:
            taken.append(stream.take(ended=False))
    taken.append(stream.take(ended=True))
    return stream, np.concatenate(taken)


@given(st.lists(st.integers(1, 5000), max_size=12), st.integers(0, 7))
def test_mono_samples_arrive_complete_and_in_order(reads: list[int], n_extra: int) -> None:
    sent = np.random.default_rng(0).normal(size=3000).astype("<f4")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_BUFFER_BYTES", 4000)
        stream, found = streamed(sent.tobytes() + b"x" * (n_extra % 4), reads, rate=None)
    np.testing.assert_array_equal(found, sent)
    assert stream.peak == np.abs(sent).max()
    assert not stream.has_replaced


@given(st.lists(st.integers(1, 60_000), max_size=12))
def test_mixing_and_resampling_do_not_depend_on_the_reads(reads: list[int]) -> None:
    first = np.random.default_rng(0).normal(size=33_333).astype("<f4")
    pcm = np.stack((np.where(np.arange(33_333) < 12_000, 0, first), first), axis=1).astype("<f4").tobytes()
    whole_stream, whole = streamed(pcm, [], rate=11_025)
    stream, found = streamed(pcm, reads, rate=11_025)
    np.testing.assert_array_equal(found, whole)
    assert stream.cancelled_s == whole_stream.cancelled_s > 0


def test_what_is_not_audio_is_replaced() -> None:
    sent = np.array([0.5, np.nan, np.inf], dtype="<f4")
    stream, found = streamed(sent.tobytes(), [], rate=None)
    assert found.tolist() == [0.5, 0.0, 1e6]
    assert stream.has_replaced
