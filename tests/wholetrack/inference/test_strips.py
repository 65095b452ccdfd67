"""Strips of windows: cutting and joining them, and a session that classifies them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from tests.harness.strip_bundle import N_MELS, WINDOW, write_strip_bundle
from wholetrack.contracts import Rows, Strip, joined_windows, separate_windows
from wholetrack.errors import StartupError, UnavailableModelError
from wholetrack.inference.bundle import load_bundle
from wholetrack.inference.engine import Engine
from wholetrack.inference.session import Session, open_session
from wholetrack.settings import Settings

TRACK = np.random.default_rng(4).normal(0, 1, (300, N_MELS)).astype(np.float32)
CPU = Settings(device="cpu")


@st.composite
def strips(draw: st.DrawFn) -> Strip:
    """A part of the track with windows at any of its frames."""
    first = draw(st.integers(0, len(TRACK) - WINDOW))
    end = draw(st.integers(first + WINDOW, len(TRACK)))
    starts = draw(st.lists(st.integers(0, end - first - WINDOW), min_size=1, max_size=40))
    return Strip(TRACK[first:end], np.sort(np.array(starts, dtype=np.int64)), WINDOW)


def windows_of(strip: Strip) -> NDArray[np.float32]:
    return np.stack([strip.frames[start : start + WINDOW] for start in strip.starts])


@given(strip=strips(), data=st.data())
def test_a_strip_is_cut_and_joined_by_windows(strip: Strip, data: st.DataObject) -> None:
    expected = windows_of(strip)
    at = data.draw(st.integers(0, len(strip)))
    before, after = strip[:at], strip[at:]
    assert (len(before), len(after)) == (at, len(strip) - at)
    for part, windows in ((before, expected[:at]), (after, expected[at:]), (Strip.joined([before, after]), expected)):
        np.testing.assert_array_equal(separate_windows(part).arrays[0], windows)
    chosen = np.array(data.draw(st.lists(st.booleans(), min_size=len(strip), max_size=len(strip))), dtype=np.bool_)
    np.testing.assert_array_equal(strip.selected(chosen).windows().arrays[0], expected[chosen])
    mixed = joined_windows([after, Rows.of(expected)])
    np.testing.assert_array_equal(separate_windows(mixed).arrays[0], np.concatenate((expected[at:], expected)))


@given(strip=strips(), max_frames=st.integers(1, 200))
def test_pieces_of_a_strip_are_short_and_complete(strip: Strip, max_frames: int) -> None:
    pieces = list(strip.pieces(max_frames))
    assert all(len(piece.frames) <= max(max_frames, WINDOW) for piece in pieces)
    np.testing.assert_array_equal(Strip.joined(pieces).windows().arrays[0], windows_of(strip))


def test_frames_that_no_window_needs_are_dropped() -> None:
    strip = Strip(TRACK, np.array([10, 20, 100]), WINDOW)
    assert len(strip[:2].frames) == 10 + WINDOW
    assert np.shares_memory(strip[:2].frames, TRACK)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_strip_bundle(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module")
def session(folder: Path) -> Session:
    return open_session(load_bundle(folder), CPU)


@pytest.fixture(scope="module")
def for_single_windows(folder: Path) -> Session:
    return open_session(replace(load_bundle(folder), strips=None), CPU)


@settings(deadline=None)
@given(strip=strips())
def test_both_graphs_agree_on_any_strip(strip: Strip, session: Session, for_single_windows: Session) -> None:
    size = for_single_windows.max_batch
    runs = [for_single_windows.run(strip.windows()[first : first + size]) for first in range(0, len(strip), size)]
    expected = Rows.joined(runs).arrays[0]
    np.testing.assert_allclose(session.run(strip).arrays[0], expected, atol=1e-5)
    np.testing.assert_allclose(session.run(strip.windows()).arrays[0], expected, atol=1e-5)


def test_a_session_for_single_windows_accepts_strips(session: Session, for_single_windows: Session) -> None:
    strip = Strip(TRACK, np.array([0, 3, 50]), WINDOW)
    found, expected = for_single_windows.run(strip), for_single_windows.run(strip.windows())
    np.testing.assert_array_equal(found.arrays[0], expected.arrays[0])
    assert (session.min_share, for_single_windows.min_share) == (CPU.cpu_batch, 1)


@pytest.mark.parametrize("cpu_batch", [1, 16])
def test_batches_hold_windows_of_several_tracks(folder: Path, cpu_batch: int, for_single_windows: Session) -> None:
    session = open_session(load_bundle(folder), Settings(device="cpu", cpu_batch=cpu_batch))
    engine = Engine(session, session, min_share=session.min_share)
    tracks = [np.roll(TRACK, 7 * i, axis=0) for i in range(5)]
    starts = np.arange(0, len(TRACK) - WINDOW, 13, dtype=np.int64)
    try:
        queues = [engine.open_track() for _ in tracks]
        for first in range(0, len(starts), 6):
            for queue, frames in zip(queues, tracks, strict=True):
                queue.put(Strip(frames, starts, WINDOW)[first : first + 6])
        found = [queue.finish() for queue in queues]
    finally:
        engine.close()
    for outputs, frames in zip(found, tracks, strict=True):
        assert outputs is not None
        strip = Strip(frames, starts, WINDOW)
        expected = Rows.joined([for_single_windows.run(strip[i : i + 5]) for i in range(0, len(strip), 5)])
        assert outputs.rows[0] is not None
        np.testing.assert_allclose(outputs.rows[0], expected.arrays[0], atol=1e-5)


def test_a_graph_whose_windows_depend_on_other_frames_is_refused(tmp_path: Path) -> None:
    def tolerate_anything(card: dict[str, Any]) -> None:
        card["golden"]["tolerance"] = 1.0

    bundle = load_bundle(write_strip_bundle(tmp_path, leaky=True, change=tolerate_anything))
    with pytest.raises(UnavailableModelError, match="for strips: a probability of a window depends on frames outside"):
        open_session(bundle, CPU)
    open_session(replace(bundle, strips=None), CPU)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda card: card["strips"].update(starts="begin"), "model.strips.onnx has the input 'starts' that"),
        (lambda card: card["strips"].update(sha256="0" * 64), "the SHA-256 of model.strips.onnx is"),
        (
            lambda card: card["inputs"][0]["features"].update(
                normalisation={"kind": "relative_to_max", "range_db": 60.0}
            ),
            "strips need a single input with the normalisation unchanged or affine",
        ),
    ],
)
def test_a_contract_that_does_not_fit_is_refused(
    tmp_path: Path, change: Callable[[dict[str, Any]], None], problem: str
) -> None:
    with pytest.raises(StartupError, match=problem):
        open_session(load_bundle(write_strip_bundle(tmp_path, change=change)), CPU)
