"""The order in which tracks get slots, and what happens when they leave."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.harness.recordings import wav_bytes
from tests.harness.waiting import until
from wholetrack.cancellation import Cancellation
from wholetrack.decoding.limits import DecoderMemory
from wholetrack.errors import ErrorKind, ServiceError
from wholetrack.inference.outputs import TrackOutputs
from wholetrack.inference.queue import TrackQueue
from wholetrack.pipeline import Pipeline
from wholetrack.scheduling.fair_queue import Slot, StrideScheduler

pytestmark = pytest.mark.timing


def scheduler(
    n_slots: int = 1, *, max_open: int = 100, max_large: int = 1, first_blocks: int = 30, later_blocks: int = 10
) -> StrideScheduler:
    limits = {DecoderMemory.ORDINARY: max_open, DecoderMemory.LARGE: max_large}
    return StrideScheduler(n_slots, max_open=limits, first_blocks=first_blocks, later_blocks=later_blocks)


def order_of_work(under_test: StrideScheduler, weights: dict[str, int], *, blocks: int, stalls: int = 0) -> str:
    """Return which track works on each block, if all ask for the only slot, in this order, while another one has it.

    The track "a" stalls after each of its first ``stalls`` blocks.
    """
    worked = []

    def work(name: str, weight: int) -> None:
        with under_test.slot(Cancellation(), weight=weight) as slot:
            for block in range(blocks):
                worked.append(name)
                slot.yield_slot(stalled=name == "a" and block < stalls)

    with ThreadPoolExecutor(len(weights)) as threads:
        with under_test.slot(Cancellation()):
            working = []
            for n_waiting, (name, weight) in enumerate(weights.items(), start=1):
                working.append(threads.submit(work, name, weight))
                until(lambda n=n_waiting: len(under_test._waiting) == n)  # type: ignore[misc]
        for each in working:
            each.result(timeout=60)
    return "".join(worked)


@pytest.fixture
def unlimited_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """The length of a slot depends on blocks alone, however slow the machine is."""
    monkeypatch.setattr("wholetrack.scheduling.fair_queue._MAX_SLOT_S", 1e9)


@pytest.mark.usefixtures("unlimited_time")
class TestOrder:
    def test_slots_go_round_and_last_several_blocks(self) -> None:
        under_test = scheduler(first_blocks=2, later_blocks=1)
        assert order_of_work(under_test, {"a": 1, "b": 1, "c": 1}, blocks=4) == "aabbccabcabc"

    def test_songs_are_finished_one_after_another(self) -> None:
        assert order_of_work(scheduler(), {"a": 1, "b": 1, "c": 1}, blocks=20) == "a" * 20 + "b" * 20 + "c" * 20

    def test_weight_is_the_number_of_slots_for_one_of_weight_1(self) -> None:
        under_test = scheduler(first_blocks=1, later_blocks=1)
        assert order_of_work(under_test, {"a": 1, "b": 4, "c": 1}, blocks=8) == "bbbacbbbbacb" + "ac" * 6

    def test_a_stalled_track_yields_its_slot_and_gets_the_rest_of_it_later(self) -> None:
        assert order_of_work(scheduler(), {"a": 1, "b": 1}, blocks=3, stalls=3) == "abbbaa"
        under_test = scheduler(first_blocks=3, later_blocks=1)
        assert order_of_work(under_test, {"a": 1, "b": 1, "c": 1}, blocks=5, stalls=1) == "abbbcccaabcabca"

    def test_a_track_that_has_started_continues_while_others_may_not_start(self) -> None:
        """With at most two open tracks, "c" starts when "a" or "b" has finished."""
        under_test = scheduler(max_open=3, first_blocks=1, later_blocks=1)
        # The track that holds the slot at first is one of the three.
        with under_test.slot(Cancellation()):
            under_test._n_startable[DecoderMemory.ORDINARY] -= 1
        assert order_of_work(under_test, {"a": 1, "b": 1, "c": 1}, blocks=2) == "ababcc"


def test_a_slot_ends_when_it_has_lasted_too_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wholetrack.scheduling.fair_queue._MAX_SLOT_S", -1.0)
    assert order_of_work(scheduler(), {"a": 1, "b": 1}, blocks=3) == "ababab"


def test_a_track_keeps_its_slot_while_no_other_waits() -> None:
    under_test = scheduler(2)
    with under_test.slot(Cancellation()) as one, under_test.slot(Cancellation()) as other:
        for _ in range(100):
            one.yield_slot()
            other.yield_slot()
        assert one.granted.is_set()
        assert other.granted.is_set()
    with under_test.slot(Cancellation()), under_test.slot(Cancellation()):
        assert not under_test.contended


def test_open_tracks_are_limited_and_further_ones_wait() -> None:
    under_test = scheduler(3, max_open=2)
    entered = threading.Event()

    def work() -> None:
        with under_test.slot(Cancellation()):
            entered.set()

    with ThreadPoolExecutor(1) as threads, under_test.slot(Cancellation()):
        with under_test.slot(Cancellation()) as slot:
            third = threads.submit(work)
            until(lambda: len(under_test._waiting) == 1)
            # A slot is free, but the third track may not start, so the second one need not yield.
            assert not under_test.contended
            slot.yield_slot(stalled=True)
            assert not entered.is_set()
        third.result(timeout=60)
    assert entered.is_set()


def test_tracks_with_large_decoders_wait_for_each_other_and_delay_no_others() -> None:
    under_test = scheduler(3, max_large=1)
    entered = threading.Event()

    def work() -> None:
        with under_test.slot(Cancellation(), memory=DecoderMemory.LARGE):
            entered.set()

    with ThreadPoolExecutor(1) as threads:
        with under_test.slot(Cancellation(), memory=DecoderMemory.LARGE):
            second = threads.submit(work)
            until(lambda: len(under_test._waiting) == 1)
            with under_test.slot(Cancellation()) as ordinary, under_test.slot(Cancellation()):
                assert not under_test.contended
                ordinary.yield_slot(stalled=True)
            assert not entered.is_set()
        second.result(timeout=60)
    assert under_test._n_startable == {DecoderMemory.ORDINARY: 100, DecoderMemory.LARGE: 1}


def test_a_cancelled_track_leaves_the_queue() -> None:
    under_test, cancellation = scheduler(), Cancellation()

    def wait() -> None:
        with under_test.slot(cancellation):
            pytest.fail("the cancelled track got a slot")

    with ThreadPoolExecutor(2) as threads:
        with under_test.slot(Cancellation()) as holder:
            waiting = threads.submit(wait)
            until(lambda: under_test.contended)
            cancellation.cancel(ServiceError(ErrorKind.CLIENT_GONE, "gone"))
            with pytest.raises(ServiceError, match="gone"):
                waiting.result(timeout=60)
            assert not under_test.contended
            holder.yield_slot()
        with under_test.slot(Cancellation()):
            pass
    cancelled = Cancellation()
    cancelled.cancel(ServiceError(ErrorKind.CLIENT_GONE, "before"))
    with pytest.raises(ServiceError, match="before"), under_test.slot(cancelled):
        pass
    with under_test.slot(Cancellation()):
        pass


def test_a_song_does_not_wait_for_the_end_of_a_mix(
    pipeline: Pipeline, tmp_path: Path, tune: NDArray[np.float32], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a single slot, a song that arrives second is finished first."""
    monkeypatch.setattr(pipeline, "scheduler", scheduler())
    mix, song = tmp_path / "mix.wav", tmp_path / "song.wav"
    mix.write_bytes(wav_bytes(np.tile(tune, 120), 22050))
    song.write_bytes(wav_bytes(tune, 22050))
    with ThreadPoolExecutor(2) as threads:
        playing = threads.submit(pipeline.predict, mix, max_duration_s=3600)
        until(lambda: pipeline.scheduler._n_free == 0)
        found = threads.submit(pipeline.predict, song, max_duration_s=3600).result(timeout=120)
        assert not playing.done()
        assert len(found.windows.start_s) == 8
        assert len(playing.result(timeout=240).windows.start_s) == 1198


def test_the_last_block_yields_no_slot_and_waiting_for_the_device_holds_none(
    pipeline: Pipeline, tmp_path: Path, tune: NDArray[np.float32], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even if a slot lasts one block and others always wait, a song of one block never waits for a second slot."""
    under_test = scheduler(first_blocks=1)
    monkeypatch.setattr(pipeline, "scheduler", under_test)
    monkeypatch.setattr(StrideScheduler, "contended", True)
    monkeypatch.setattr(StrideScheduler, "requeue", lambda *_: pytest.fail("the track yielded its slot"))
    monkeypatch.setattr("wholetrack.track_pipeline._SETTLE_TIMEOUT_S", 0.0)
    # On a busy machine the decoder may stall and return less than a block, which would end the slot for another reason.
    yield_slot = Slot.yield_slot

    def yield_after_whole_block(slot: Slot, *, stalled: bool) -> None:
        if not stalled:
            yield_slot(slot)

    monkeypatch.setattr(Slot, "yield_slot", yield_after_whole_block)
    free, finish = [], TrackQueue.finish

    def recording_finish(queue: TrackQueue) -> TrackOutputs | None:
        free.append(under_test._n_free)
        return finish(queue)

    monkeypatch.setattr(TrackQueue, "finish", recording_finish)
    song = tmp_path / "song.wav"
    song.write_bytes(wav_bytes(tune, 22050))
    assert len(pipeline.predict(song, max_duration_s=60).windows.start_s) == 8
    assert free == [1]


def test_a_slot_is_returned_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether its track finishes, fails while it waits, or is cancelled while it works."""
    under_test = scheduler(2, max_open=2)
    with pytest.raises(RuntimeError), under_test.slot(Cancellation()):
        raise RuntimeError
    monkeypatch.setattr(Slot, "_wait", lambda _: Cancellation())
    with under_test.slot(Cancellation()), under_test.slot(Cancellation()):
        assert under_test._n_free == 0
    assert (under_test._n_free, under_test._n_startable[DecoderMemory.ORDINARY]) == (2, 2)


def test_a_track_that_has_nothing_to_do_gives_its_slot_back() -> None:
    under_test = scheduler(max_open=0)
    other_worked = threading.Event()

    def other() -> None:
        with under_test.slot(Cancellation(), memory=None):
            other_worked.set()

    with ThreadPoolExecutor(1) as threads, under_test.slot(Cancellation(), memory=None) as slot:
        working = threads.submit(other)
        until(lambda: len(under_test._waiting) == 1)
        slot.idle(lambda: working.result(timeout=30))
        assert other_worked.is_set()
        assert under_test._n_free == 0
    assert under_test._n_free == 1


def test_a_track_that_fails_while_it_has_no_slot_returns_none() -> None:
    under_test = scheduler()

    def fail() -> None:
        raise ServiceError(ErrorKind.CLIENT_GONE, "The client left.")

    with pytest.raises(ServiceError), under_test.slot(Cancellation()) as slot:
        slot.idle(fail)
    assert under_test._n_free == 1


def test_idle_tracks_and_their_short_slots_do_not_count_for_the_expected_wait(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = 100.0
    monkeypatch.setattr("wholetrack.scheduling.fair_queue.time.monotonic", lambda: now)
    under_test = scheduler(1)
    with under_test.slot(Cancellation()):
        now += 4.0
    expected = []
    with under_test.slot(Cancellation(), memory=None) as slot:
        expected.append(under_test.expected_wait_s(1))
        for _ in range(100):
            slot.idle(lambda: expected.append(under_test.expected_wait_s(1)))
    assert expected == [4.0] + [0.0] * 100
    assert under_test.expected_wait_s(1) == 4.0


def test_the_expected_wait_follows_from_how_long_slots_lasted(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr("wholetrack.scheduling.fair_queue.time.monotonic", lambda: now)
    under_test = scheduler(2)
    assert under_test.expected_wait_s(50) == 0.0
    for seconds in (2.0, 4.0):
        with under_test.slot(Cancellation()):
            now += seconds
    # A slot lasts three seconds, and one of the two becomes free every one and a half.
    assert [under_test.expected_wait_s(n) for n in (0, 1, 2, 3, 5)] == [0.0, 0.0, 1.5, 3.0, 6.0]


def test_a_track_that_waits_has_not_used_a_slot(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr("wholetrack.scheduling.fair_queue.time.monotonic", lambda: now)
    under_test = scheduler(1)
    cancellation = Cancellation()
    cancellation.cancel(ServiceError(ErrorKind.CLIENT_GONE, "gone"))
    with under_test.slot(Cancellation()):
        with pytest.raises(ServiceError), under_test.slot(cancellation):
            pass
        now += 5.0
    assert under_test.expected_wait_s(1) == 5.0
