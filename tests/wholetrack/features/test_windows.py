"""Windows of a stream of frames: independent of chunk sizes, repeated when short, silent ones marked."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.wholetrack.features.test_logmel import RATE, spec
from wholetrack.contracts import MinMax, RelativeToMax, Strip, Unchanged, WindowSpec
from wholetrack.features.grid import InputGrid, WindowGrid
from wholetrack.features.logmel import LogMel
from wholetrack.features.normalise import normalise
from wholetrack.features.windows import FrameBuffer, WindowBlock, WindowCutter

FEATURES = LogMel(spec(), RATE)
FINE = LogMel(spec(frames_per_second=None, hop_length=512), RATE)
SPEC = WindowSpec(window_s=3.0, hop_s=1.0, frames=39, last_window="align_to_end")


def all_windows(
    samples: NDArray[np.float32],
    cuts: list[int],
    hop_s: float | None = None,
    features: LogMel = FEATURES,
    windows: WindowSpec = SPEC,
) -> WindowBlock:
    stream = features.stream()
    grid = WindowGrid.of(windows, features.grid, hop_s)
    inputs = InputGrid.of(features.grid, grid, n_frames=windows.frames)
    cutter = WindowCutter(grid, [FrameBuffer(inputs, n_mels=128, silence=features.silence)])
    blocks = [cutter.push([stream.push(piece)], n_samples=stream.n_samples) for piece in np.split(samples, cuts)] + [
        cutter.finish([stream.finish()], n_samples=stream.n_samples)
    ]
    return WindowBlock(
        start_s=np.concatenate([block.start_s for block in blocks]),
        inputs=(Strip.joined([block.inputs[0] for block in blocks]),),
        silent=np.concatenate([block.silent for block in blocks]),
    )


def windows_of(block: WindowBlock) -> NDArray[np.float32]:
    return block.inputs[0].windows().arrays[0]


@pytest.mark.parametrize("hop_s", [None, 0.077, 0.5, 3.0])
@pytest.mark.parametrize("length", [500, 66_150, 67_846, 150_000, 220_500])
def test_every_window_is_a_slice_of_the_whole_spectrogram(
    tune: NDArray[np.float32], rng: np.random.Generator, length: int, hop_s: float | None
) -> None:
    samples = tune[:length]
    stream = FEATURES.stream()
    spectrogram = np.concatenate((stream.push(samples), stream.finish()))
    grid = WindowGrid.of(SPEC, FEATURES.grid, hop_s)
    starts = list(grid.starts(length))
    cuts = sorted(rng.integers(0, length + 1, 30).tolist())
    found = all_windows(samples, cuts, hop_s)
    assert found.start_s.tolist() == [start / 13 for start in starts]
    for start, window in zip(starts, windows_of(found), strict=True):
        expected = spectrogram[start : start + 39]
        assert np.array_equal(window[: len(expected)], expected)


def test_frames_between_windows_are_kept_for_the_last_window(tune: NDArray[np.float32]) -> None:
    """With windows shorter than the hop, there are frames between windows that only the last window may need."""
    windows = SPEC.model_copy(update={"frames": 100, "hop_s": 3.0})
    for length in range(3 * RATE, 10 * RATE, 997):
        stream = FINE.stream()
        spectrogram = np.concatenate((stream.push(tune[:length]), stream.finish()))
        cuts = list(range(5000, length, 5000))
        starts = list(WindowGrid.of(windows, FINE.grid).starts(length))
        found = all_windows(tune[:length], cuts, features=FINE, windows=windows)
        for start, window in zip(starts, windows_of(found), strict=True):
            assert np.array_equal(window, spectrogram[start : start + 100]), length


def test_a_track_shorter_than_a_window_is_repeated(tune: NDArray[np.float32]) -> None:
    found = all_windows(tune[:RATE], [])
    (window,) = windows_of(found)
    assert window.shape == (39, 128)
    assert np.array_equal(window[13:26], window[:13])
    assert np.array_equal(window[26:], window[:13])


def test_silent_windows_are_marked(tune: NDArray[np.float32]) -> None:
    found = all_windows(np.concatenate((tune[: 4 * RATE], np.zeros(5 * RATE, dtype=np.float32))), [])
    # There is sound until second 4. Windows from 4 s on are silent.
    assert found.silent.tolist() == [False] * 4 + [True] * 3


def test_features_do_not_depend_on_loudness(tune: NDArray[np.float32]) -> None:
    loud = normalise(windows_of(all_windows(tune, [])), RelativeToMax(range_db=60))
    quiet = normalise(windows_of(all_windows(tune * np.float32(1 / 64), [])), RelativeToMax(range_db=60))
    assert loud.min() == 0.0
    assert loud.max() == 1.0
    np.testing.assert_allclose(quiet, loud, atol=1e-6)


def test_min_max_scales_the_range_of_each_window() -> None:
    windows = np.array([[[0.0, -20.0], [-40.0, -200.0]], [[-7.0, -7.0], [-7.0, -7.0]]], dtype=np.float32)
    found = normalise(windows, MinMax(range_db=80, low=0.001, high=1.001))
    # The first window has a range of more than 80 dB, the second is constant.
    np.testing.assert_allclose(found[0], [[1.001, 0.751], [0.501, 0.001]], atol=1e-6)
    np.testing.assert_allclose(found[1], 0.001)


def test_unchanged_windows_are_copied(rng: np.random.Generator) -> None:
    windows = rng.normal(-20, 15, (2, 3, 4)).astype(np.float32)
    found = normalise(windows, Unchanged())
    assert np.array_equal(found, windows)
    assert not np.shares_memory(found, windows)


def test_a_window_is_normalised_independently_of_the_others(rng: np.random.Generator) -> None:
    windows = rng.normal(-20, 15, (5, 39, 128)).astype(np.float32)
    together = normalise(windows, RelativeToMax(range_db=60))
    for window, alone in zip(windows, together, strict=True):
        assert np.array_equal(normalise(window[None], RelativeToMax(range_db=60))[0], alone)
        expected = np.maximum(window.astype(np.float64) - window.max(), -60) / 60 + 1
        np.testing.assert_allclose(alone, expected, atol=1e-6)
