"""Events of a track are collected until they are sent, in as few events as possible."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from wholetrack.api.live_events import Event, LiveEvents
from wholetrack.api.schemas import WindowDetail
from wholetrack.contracts import ModelCard, Rows
from wholetrack.pipeline import Pipeline

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def card(pipeline: Pipeline) -> ModelCard:
    return pipeline.model(None).card


@pytest.fixture
async def live(card: ModelCard) -> LiveEvents:
    live = LiveEvents(WindowDetail.FULL)
    live.started(card, 1.0, None)
    return live


def add_windows(live: LiveEvents, card: ModelCard, first: int, count: int, *, favour: int = 0) -> None:
    """Add windows with sound, one per second, in which one label has the highest score, with their outputs."""
    live.cut(np.arange(first, first + count, dtype=np.float64), np.zeros(count, dtype=np.bool_))
    scores: NDArray[np.float32] = np.zeros((count, *card.output_shape), dtype=np.float32)
    scores[..., favour] = 9.0
    live.classified(first, Rows((scores,)))


def names(events: list[Event]) -> list[str]:
    return [event.name for event in events]


async def test_what_happens_between_two_calls_becomes_one_event(live: LiveEvents, card: ModelCard) -> None:
    rate = card.audio.sample_rate
    add_windows(live, card, 0, 2)
    assert names(live.take()) == ["start", "windows"]
    for second in range(2, 7):
        live.decoded(rate, np.full(10, 0.5, dtype=np.float32))
        add_windows(live, card, second, 1)
    progress, windows = live.take()
    assert (progress.name, progress.data["decoded_s"], progress.data["windows"]) == ("progress", 5.0, 7)
    assert progress.data["peaks"] == [0.5] * 50
    assert (windows.name, windows.data["first"], windows.data["count"]) == ("windows", 2, 5)
    assert live.take() == []


async def test_peaks_are_rounded_and_do_not_exceed_full_scale(live: LiveEvents, card: ModelCard) -> None:
    live.decoded(card.audio.sample_rate, np.array([0.12345, 1.5], dtype=np.float32))
    (_, progress) = live.take()
    assert progress.data["peaks"] == [0.123, 1.0]


async def test_windows_wait_for_those_before_them(live: LiveEvents, card: ModelCard) -> None:
    scores = np.zeros((1, *card.output_shape), dtype=np.float32)
    live.cut(np.arange(3, dtype=np.float64), np.array([False, True, False]))
    live.classified(1, Rows((scores,)))
    assert names(live.take()) == ["start"]
    live.classified(0, Rows((scores,)))
    (windows,) = live.take()
    assert (windows.data["count"], windows.data["silent"]) == (3, [1])


async def test_a_further_attempt_restarts_the_events(live: LiveEvents, card: ModelCard) -> None:
    live.decoded(card.audio.sample_rate, np.full(10, 0.9, dtype=np.float32))
    add_windows(live, card, 0, 3)
    first = live.take()
    assert names(first) == ["start", "progress", "windows"]
    add_windows(live, card, 3, 2)  # of the first attempt, and not sent
    live.started(card, 1.0, None)
    live.decoded(card.audio.sample_rate, np.full(10, 0.1, dtype=np.float32))
    add_windows(live, card, 0, 2, favour=1)
    restart, progress, windows = live.take()
    assert (restart.name, restart.data) == ("restart", first[0].data)
    assert progress.data == {"decoded_s": 1.0, "windows": 2, "peaks": [0.1] * 10}
    assert (windows.data["first"], windows.data["genre"]) == (0, [card.labels[1]] * 2)
    live.started(card, 1.0, None)
    assert names(live.take()) == ["restart"]


async def test_an_attempt_of_which_nothing_was_sent_is_forgotten(live: LiveEvents, card: ModelCard) -> None:
    add_windows(live, card, 0, 3)
    live.started(card, 1.0, None)
    assert names(live.take()) == ["start"]


async def test_without_detail_about_windows_only_their_number_is_sent(card: ModelCard) -> None:
    live = LiveEvents(WindowDetail.NONE)
    live.started(card, 1.0, None)
    live.decoded(card.audio.sample_rate, np.zeros(10, dtype=np.float32))
    add_windows(live, card, 0, 4)
    start, progress = live.take()
    assert (start.name, progress.name, progress.data["windows"]) == ("start", "progress", 4)
