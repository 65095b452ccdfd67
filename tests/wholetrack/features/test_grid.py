"""Positions of frames and windows, computed by hand around every boundary."""

from __future__ import annotations

from fractions import Fraction

import pytest

from wholetrack.contracts import WindowSpec
from wholetrack.features.grid import FrameGrid, WindowGrid

RATE = 22050
WINDOW = 3 * RATE
FRAMES = FrameGrid(sample_rate=RATE, n_fft=2048, rate=Fraction(13))
SPEC = WindowSpec(window_s=3.0, hop_s=1.0, frames=39, last_window="align_to_end")


def starts(n_samples: int, hop_s: float | None = None, spec: WindowSpec = SPEC) -> list[int]:
    return list(WindowGrid.of(spec, FRAMES, hop_s).starts(n_samples))


def test_frames_start_at_rounded_multiples_of_the_frame_period() -> None:
    assert [FRAMES.start(i) for i in (0, 1, 2, 13, 39)] == [0, 1696, 3392, 22050, 66150]


def test_half_a_sample_is_rounded_up_and_not_to_even() -> None:
    grid = FrameGrid(sample_rate=3, n_fft=4, rate=Fraction(2))
    assert [grid.start(i) for i in range(5)] == [0, 2, 3, 5, 6]


@pytest.mark.parametrize("rate", [Fraction(13), Fraction(RATE, 512), Fraction(50)])
def test_the_number_of_frames_agrees_with_their_starts(rate: Fraction) -> None:
    grid = FrameGrid(sample_rate=RATE, n_fft=2048, rate=rate)
    assert grid.starts(7, 500).tolist() == [grid.start(frame) for frame in range(7, 507)]
    assert grid.starts(10**8, 3).tolist() == [grid.start(10**8 + i) for i in range(3)]
    for n_samples in [*range(4000), 66149, 66150, 66151, 10**9]:
        started = grid.frames_started_by(n_samples)
        assert started == 0 or grid.start(started - 1) < n_samples
        assert grid.start(started) >= n_samples
        complete = grid.frames_complete_by(n_samples)
        assert complete == 0 or grid.start(complete - 1) + 2048 <= n_samples
        assert grid.start(complete) + 2048 > n_samples


@pytest.mark.parametrize(
    ("n_samples", "expected"),
    [
        (1, [0]),
        (WINDOW - 1, [0]),
        (WINDOW, [0]),
        # The next frame starts at sample 1696, from where one more window fits.
        (WINDOW + 1695, [0]),
        (WINDOW + 1696, [0, 1]),
        (WINDOW + RATE - 1, [0, 12]),
        (WINDOW + RATE, [0, 13]),
        (WINDOW + RATE + 1, [0, 13]),
        (WINDOW + 2 * RATE, [0, 13, 26]),
    ],
)
def test_windows_around_every_boundary(n_samples: int, expected: list[int]) -> None:
    assert starts(n_samples) == expected


def test_132_989_seconds_have_130_windows_and_one_that_ends_with_the_recording() -> None:
    n_samples = round(132.989 * RATE)
    found = starts(n_samples)
    assert len(found) == 131
    assert found[:130] == [13 * k for k in range(130)]
    # 129.989 s are 1689.857 frames: the latest window that fits starts at frame 1689.
    assert found[130] == 1689
    assert starts(n_samples, spec=SPEC.model_copy(update={"last_window": "drop"})) == found[:130]


def test_a_hop_that_is_not_a_whole_number_of_frames_starts_at_the_nearest_frame() -> None:
    # Half a second is 6.5 frames, and halves are rounded up.
    assert starts(WINDOW + 2 * RATE, hop_s=0.5) == [0, 7, 13, 20, 26]


def test_the_shortest_hop_is_one_frame_and_the_longest_one_window() -> None:
    assert starts(WINDOW + RATE, hop_s=0.076924) == list(range(14))
    assert starts(3 * WINDOW, hop_s=3.0) == [0, 39, 78]
    for hop_s in (0.0, 0.0769, 3.01, -1.0):
        with pytest.raises(ValueError, match="hop_s must be between one frame"):
            WindowGrid.of(SPEC, FRAMES, hop_s)


def test_positions_stay_exact_after_ten_hours() -> None:
    grid = WindowGrid.of(SPEC, FRAMES)
    assert FRAMES.start(grid.start(36_000)) == 36_000 * RATE


def test_frames_that_extend_beyond_their_window_are_refused() -> None:
    with pytest.raises(ValueError, match="do not start within a window"):
        WindowGrid.of(SPEC.model_copy(update={"frames": 40}), FRAMES)


def test_a_grid_by_hop_length_starts_windows_at_the_nearest_frame() -> None:
    frames = FrameGrid(sample_rate=RATE, n_fft=2048, rate=Fraction(RATE, 512))
    grid = WindowGrid.of(SPEC.model_copy(update={"frames": 129}), frames)
    # One second is 43.066 frames.
    assert [grid.start(k) for k in range(4)] == [0, 43, 86, 129]
