"""Networks with inputs of different frame rates: all inputs of a window cover the same audio."""

from __future__ import annotations

import copy
from fractions import Fraction
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from tests.harness.bundles import CARD
from wholetrack.contracts import ModelCard, Strip, WindowSpec
from wholetrack.features.grid import FrameGrid, InputGrid, WindowGrid
from wholetrack.features.inputs import InputFeatures
from wholetrack.features.logmel import LogMel
from wholetrack.features.windows import WindowBlock

RATE = 22050


def twin(**windows: Any) -> ModelCard:
    document = copy.deepcopy(CARD) | {"sha256": "0" * 64}
    document["golden"]["sha256"] = "0" * 64
    document["windows"] |= windows
    return ModelCard.model_validate(document)


def all_windows(features: InputFeatures, samples: NDArray[np.float32], cuts: list[int], hop_s: float) -> WindowBlock:
    stream = features.stream(features.grid(hop_s))
    blocks = [*(stream.push(piece) for piece in np.split(samples, cuts)), stream.finish()]
    return WindowBlock(
        start_s=np.concatenate([block.start_s for block in blocks]),
        inputs=tuple(Strip.joined(parts) for parts in zip(*(block.inputs for block in blocks), strict=True)),
        silent=np.concatenate([block.silent for block in blocks]),
    )


def test_windows_start_at_frames_of_the_slowest_input() -> None:
    """Although it is the second input: a frame of 13 per second is hit exactly, and the other within 10 ms."""
    grid = InputFeatures(twin()).grid(None)
    assert grid.frames.rate == 13
    fine = InputGrid.of(FrameGrid(RATE, 1024, Fraction(50), lead=512), grid, n_frames=150)
    # Frame 13 is 1 s, frame 1 is 77 ms (3.85 frames of 20 ms), frame 7 is 538 ms (26.9 frames).
    assert [fine.start(frame) for frame in (0, 1, 7, 13, 26)] == [0, 4, 27, 50, 100]


@pytest.mark.parametrize("hop_s", [0.077, 0.5, 1.0, 3.0])
@pytest.mark.parametrize("length", [700, 30_000, 66_150, 67_846, 150_000, 220_499])
def test_windows_are_slices_of_both_spectrograms_for_chunks_of_any_size(
    tune: NDArray[np.float32], rng: np.random.Generator, length: int, hop_s: float
) -> None:
    card, samples = twin(), tune[:length]
    features = InputFeatures(card)
    found = all_windows(features, samples, sorted(rng.integers(0, length + 1, 30).tolist()), hop_s)
    starts = list(features.grid(hop_s).starts(length))
    assert found.start_s.tolist() == [start / 13 for start in starts]
    for entry, windows in zip(card.inputs, found.inputs, strict=True):
        stream = LogMel(entry.features, RATE).stream()
        spectrogram = np.concatenate((stream.push(samples), stream.finish()))
        rate = 13 if entry.name == "coarse" else 50
        for start, window in zip(starts, windows.windows().arrays[0], strict=True):
            # The nearest frame, halves rounded up, in integers.
            first = (2 * start * rate + 13) // 26
            expected = spectrogram[first : first + entry.frames]
            if length < 3 * RATE:
                expected = np.resize(spectrogram, (entry.frames, spectrogram.shape[1]))
            assert np.array_equal(window, expected)


def test_one_chunk_and_single_samples_give_the_same_bits(tune: NDArray[np.float32]) -> None:
    features, samples = InputFeatures(twin()), tune[: 4 * RATE]
    whole = all_windows(features, samples, [], 1.0)
    pieces = all_windows(features, samples, list(range(1, len(samples), 37)), 1.0)
    for ours, theirs in zip(whole.inputs, pieces.inputs, strict=True):
        assert np.array_equal(ours.windows().arrays[0], theirs.windows().arrays[0])


def test_a_window_is_silent_only_if_every_input_is(tune: NDArray[np.float32]) -> None:
    silence = np.zeros(4 * RATE, dtype=np.float32)
    found = all_windows(InputFeatures(twin()), np.concatenate((tune[: 4 * RATE], silence)), [], 1.0)
    # The sound ends at 4 s; a centred frame there reaches back by half its length.
    assert found.silent.tolist() == [False] * 5 + [True]
    assert all_windows(InputFeatures(twin()), silence, [], 1.0).silent.all()


def test_normalised_inputs_keep_their_order(tune: NDArray[np.float32]) -> None:
    features = InputFeatures(twin())
    block = all_windows(features, tune[: 5 * RATE], [], 1.0)
    fine, coarse = features.normalised(block, np.array([False, True, True])).arrays
    assert (fine.shape, coarse.shape) == ((2, 150, 24), (2, 39, 32))
    np.testing.assert_allclose(fine, (block.inputs[0].windows().arrays[0][1:] + 4.5) / 5, rtol=1e-5)
    assert (coarse.min(), coarse.max()) == (0, 1)


@pytest.mark.parametrize(("frames", "fits"), [(150, True), (151, False)])
def test_frames_that_do_not_match_the_windows_are_refused(frames: int, fits: bool) -> None:  # noqa: FBT001
    document = twin().document()
    document["inputs"][0] |= {"frames": frames, "shape": ["N", frames, 24]}
    card = ModelCard.model_validate(document)
    if fits:
        InputFeatures(card)
    else:
        with pytest.raises(ValueError, match="input 'fine': 151 frames do not start within every window of 3.0 s: use"):
            InputFeatures(card)


@given(
    rates=st.tuples(st.integers(2, 30), st.integers(30, 120)),
    rate=st.sampled_from([8000, 16000, 22050, 44100]),
    window_s=st.sampled_from([1.0, 2.5, 3.0]),
    hop=st.floats(0.51, 1.0),
    n_samples=st.integers(1, 400_000),
)
@settings(max_examples=60, deadline=None)
def test_inputs_cover_the_same_audio_to_within_half_a_frame(
    rates: tuple[int, int], rate: int, window_s: float, hop: float, n_samples: int
) -> None:
    slow, fast = FrameGrid(rate, 1024, Fraction(rates[0])), FrameGrid(rate, 512, Fraction(rates[1]))
    spec = WindowSpec(window_s=window_s, hop_s=hop, frames=int(window_s * rates[0]), last_window="align_to_end")
    windows = WindowGrid.of(spec, slow, max(hop, 1.001 / rates[0]))
    inputs = InputGrid.of(fast, windows, n_frames=int(window_s * rates[1]))
    starts = list(windows.starts(n_samples))
    for start in starts:
        first = inputs.start(start)
        assert abs(Fraction(first, rates[1]) - Fraction(start, rates[0])) <= Fraction(1, 2 * rates[1])
        if n_samples >= windows.window_samples:
            # All frames are within the track.
            assert fast.start(first + inputs.n_frames - 1) < n_samples
    assert all(inputs.start(earlier) < inputs.start(later) for earlier, later in pairwise(starts))
