"""The prediction cache returns known predictions until newer ones need their memory."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.harness.recordings import wav_bytes
from wholetrack.api.cache import CacheKey, PredictionCache
from wholetrack.contracts import TrackPrediction
from wholetrack.inference.outputs import Keep
from wholetrack.pipeline import Pipeline


@pytest.fixture(scope="module")
def prediction(
    pipeline: Pipeline, tune: NDArray[np.float32], tmp_path_factory: pytest.TempPathFactory
) -> TrackPrediction:
    song = tmp_path_factory.mktemp("song") / "song.wav"
    song.write_bytes(wav_bytes(tune, 22050))
    return pipeline.predict(song, max_duration_s=60)


def key(number: int) -> CacheKey:
    return CacheKey(f"{number:064}", ("wholetrack-crnn", "1"), Fraction(1), None, (Keep.ROWS,))


def test_a_cached_prediction_is_the_same_except_for_its_times(prediction: TrackPrediction) -> None:
    cache = PredictionCache(1 << 20)
    assert cache.get(key(1)) is None
    cache.put(key(1), prediction)
    cached = cache.get(key(1))
    assert cached is not None
    assert cached == replace(prediction, times=cached.times, windows=cached.windows)
    assert cached.windows is prediction.windows
    assert prediction.times.inference > 0
    assert cached.times.inference == cached.times.decode == 0
    assert cache.get(replace(key(1), hop=Fraction(1, 2))) is None
    assert cache.get(replace(key(1), model=("wholetrack-crnn", "2"))) is None
    assert cache.get(replace(key(1), taxonomy="gtzan")) is None
    assert cache.get(replace(key(1), keep=(Keep.ROWS, Keep.MEAN))) is None


def test_the_least_recently_used_prediction_is_evicted(prediction: TrackPrediction) -> None:
    cache = PredictionCache(3 * 6000)
    for number in (1, 2, 3):
        cache.put(key(number), prediction)
    assert cache.get(key(1)) is not None
    cache.put(key(4), prediction)
    assert [cache.get(key(n)) is not None for n in (1, 2, 3, 4)] == [True, False, True, True]


@pytest.mark.parametrize("max_bytes", [0, 4000])
def test_a_prediction_larger_than_the_cache_is_not_cached(prediction: TrackPrediction, max_bytes: int) -> None:
    cache = PredictionCache(max_bytes)
    cache.put(key(1), prediction)
    assert cache.get(key(1)) is None
