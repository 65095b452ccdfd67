"""The peaks of a waveform do not depend on how the samples arrive."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from wholetrack.extraction.waveform import Waveform


@given(st.lists(st.integers(0, 700), max_size=8))
def test_peaks_are_those_of_whole_intervals_however_the_samples_arrive(lengths: list[int]) -> None:
    samples = np.random.default_rng(0).uniform(-1, 1, sum(lengths)).astype(np.float32)
    waveform = Waveform(sample_rate=1000, peaks_per_s=10)
    parts = np.split(samples, np.cumsum(lengths)[:-1]) if lengths else []
    found = [peak for part in parts for peak in waveform.push(part).tolist()]
    assert found == [float(np.abs(samples[i : i + 100]).max()) for i in range(0, len(samples) - 99, 100)]


def test_without_intervals_there_are_no_peaks() -> None:
    assert len(Waveform(sample_rate=1000, peaks_per_s=0).push(np.ones(1000, dtype=np.float32))) == 0
