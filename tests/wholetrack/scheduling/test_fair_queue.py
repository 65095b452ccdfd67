"""Turns go round in the order in which they are due, and whoever leaves the line holds nobody up."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.harness.recordings import wav_bytes
from tests.harness.waiting import until
from wholetrack.cancellation import Cancellation
from wholetrack.errors import ErrorKind, ServiceError
from wholetrack.inference.queue import TrackQueue
from wholetrack.pipeline import Pipeline
from wholetrack.scheduling.fair_queue import Turns


def speaking(turns: Turns, weights: dict[str, int], *, blocks: int, stalls: int = 0) -> str:
    """Who works on a block after whom, if all ask while somebody else has the only turn, in this order.

    The one called "a" stalls after each of its first blocks, as many as ``stalls``.
    """
    spoken = []

    def speak(name: str, weight: int) -> None:
        with turns.take(Cancellation(), weight=weight) as turn:
            for block in range(blocks):
                spoken.append(name)
                turn.pass_on(stalled=name == "a" and block < stalls)

    with ThreadPoolExecutor(len(weights)) as threads:
        with turns.take(Cancellation()):
            working = []
            for n_waiting, (name, weight) in enumerate(weights.items(), start=1):
                working.append(threads.submit(speak, name, weight))
                until(lambda n=n_waiting: len(turns._line) == n)  # type: ignore[misc]
        for each in working:
            each.result(timeout=10)
    return "".join(spoken)


def test_turns_go_round_and_last_some_blocks() -> None:
    assert speaking(Turns(1, first=2, later=1), {"a": 1, "b": 1, "c": 1}, blocks=4) == "aabbccabcabc"


def test_songs_are_done_one_after_the_other() -> None:
    assert speaking(Turns(1), {"a": 1, "b": 1, "c": 1}, blocks=20) == "a" * 20 + "b" * 20 + "c" * 20


def test_a_weight_is_so_many_turns_for_one() -> None:
    assert speaking(Turns(1, first=1, later=1), {"a": 1, "b": 4, "c": 1}, blocks=8) == "bbbacbbbbacb" + "ac" * 6


def test_who_has_nothing_to_work_on_gives_the_turn_up_and_has_the_rest_of_it_later() -> None:
    assert speaking(Turns(1), {"a": 1, "b": 1}, blocks=3, stalls=3) == "abbbaa"
    assert speaking(Turns(1, first=3, later=1), {"a": 1, "b": 1, "c": 1}, blocks=5, stalls=1) == "abbbcccaabcabca"


def test_a_turn_ends_when_it_has_lasted_too_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wholetrack.scheduling.fair_queue._LONGEST_S", 0.0)
    assert speaking(Turns(1), {"a": 1, "b": 1}, blocks=3) == "ababab"


def test_whoever_is_alone_keeps_the_turn() -> None:
    turns = Turns(2)
    with turns.take(Cancellation()) as one, turns.take(Cancellation()) as other:
        for _ in range(3):
            one.pass_on()
            other.pass_on()
        assert one.waited_s < 1
    with turns.take(Cancellation()), turns.take(Cancellation()):
        assert not turns.asked_for


def test_one_who_is_stopped_leaves_the_line() -> None:
    turns, cancellation = Turns(1), Cancellation()

    def wait() -> None:
        with turns.take(cancellation):
            pytest.fail("it never had a turn")

    with ThreadPoolExecutor(2) as threads:
        with turns.take(Cancellation()) as holder:
            waiting = threads.submit(wait)
            until(lambda: turns.asked_for)
            cancellation.cancel(ServiceError(ErrorKind.CLIENT_GONE, "gone"))
            with pytest.raises(ServiceError, match="gone"):
                waiting.result(timeout=10)
            assert not turns.asked_for
            holder.pass_on()
        with turns.take(Cancellation()):
            pass
    stopped = Cancellation()
    stopped.cancel(ServiceError(ErrorKind.CLIENT_GONE, "never came"))
    with pytest.raises(ServiceError, match="never came"), turns.take(stopped):
        pass
    with turns.take(Cancellation()):
        pass


def test_a_song_does_not_wait_for_the_end_of_a_mix(
    pipeline: Pipeline, tmp_path: Path, tune: NDArray[np.float32], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With one turn for all, a song that arrives second is answered first."""
    monkeypatch.setattr(pipeline, "turns", Turns(1))
    mix, song = tmp_path / "mix.wav", tmp_path / "song.wav"
    mix.write_bytes(wav_bytes(np.tile(tune, 120), 22050))
    song.write_bytes(wav_bytes(tune, 22050))
    with ThreadPoolExecutor(2) as threads:
        playing = threads.submit(pipeline.predict, mix, max_duration_s=3600)
        until(lambda: pipeline.turns._free == 0)
        found = threads.submit(pipeline.predict, song, max_duration_s=3600).result(timeout=60)
        assert not playing.done()
        assert len(found.windows.start_s) == 8
        assert len(playing.result(timeout=120).windows.start_s) == 1198


def test_the_last_block_gives_no_turn_away_and_answers_hold_none_for_long(
    pipeline: Pipeline, tmp_path: Path, tune: NDArray[np.float32], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With turns of a block and somebody who always waits, a song of one block never waits for another turn."""
    turns = Turns(1, first=1)
    monkeypatch.setattr(pipeline, "turns", turns)
    monkeypatch.setattr(Turns, "asked_for", True)
    monkeypatch.setattr(Turns, "renew", lambda *_: pytest.fail("it gave its turn away"))
    monkeypatch.setattr("wholetrack.pipeline._LAST_ANSWERS_S", 0.0)
    free, finish = [], TrackQueue.finish

    def noting(queue: TrackQueue) -> NDArray[np.float32]:
        free.append(turns._free)
        return finish(queue)

    monkeypatch.setattr(TrackQueue, "finish", noting)
    song = tmp_path / "song.wav"
    song.write_bytes(wav_bytes(tune, 22050))
    assert len(pipeline.predict(song, max_duration_s=60).windows.start_s) == 8
    # Whoever still waits for the device has no turn any more.
    assert free == [1]
