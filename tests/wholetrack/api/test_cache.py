"""What was heard before is known until newer predictions need its room."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.harness.recordings import wav_bytes
from wholetrack.api.cache import Question, Repeats
from wholetrack.contracts import TrackPrediction
from wholetrack.pipeline import Pipeline


@pytest.fixture(scope="module")
def found(pipeline: Pipeline, tune: NDArray[np.float32], tmp_path_factory: pytest.TempPathFactory) -> TrackPrediction:
    song = tmp_path_factory.mktemp("song") / "song.wav"
    song.write_bytes(wav_bytes(tune, 22050))
    return pipeline.predict(song, max_duration_s=60)


def question(number: int) -> Question:
    return Question(f"{number:064}", ("wholetrack-crnn", "1"), None)


def test_a_repeat_is_the_same_answer_without_the_time_it_took(found: TrackPrediction) -> None:
    repeats = Repeats(1 << 20)
    assert repeats.get(question(1)) is None
    repeats.put(question(1), found)
    known = repeats.get(question(1))
    assert known is not None
    assert known == replace(found, times=known.times, windows=known.windows)
    assert known.windows is found.windows
    assert found.times.inference > 0
    assert known.times.inference == known.times.decode == 0
    assert repeats.get(replace(question(1), hop_s=0.5)) is None
    assert repeats.get(replace(question(1), model=("wholetrack-crnn", "2"))) is None


def test_the_oldest_makes_room_for_the_newest(found: TrackPrediction) -> None:
    repeats = Repeats(3 * 5000)
    for number in (1, 2, 3):
        repeats.put(question(number), found)
    assert repeats.get(question(1)) is not None
    repeats.put(question(4), found)
    assert [repeats.get(question(n)) is not None for n in (1, 2, 3, 4)] == [True, False, True, True]


def test_no_room_remembers_nothing(found: TrackPrediction) -> None:
    for room in (0, 4000):
        repeats = Repeats(room)
        repeats.put(question(1), found)
        assert repeats.get(question(1)) is None
