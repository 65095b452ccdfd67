"""The response to a prediction: as small as possible without losing what it says."""

from __future__ import annotations

import json
import re
import time
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.harness.recordings import wav_bytes
from wholetrack.api.responses import SourceFile, prediction_response
from wholetrack.api.schemas import WindowDetail
from wholetrack.contracts import TrackPrediction
from wholetrack.pipeline import Pipeline


@pytest.fixture(scope="module")
def predicted(
    pipeline: Pipeline, tune: NDArray[np.float32], tmp_path_factory: pytest.TempPathFactory
) -> TrackPrediction:
    path = tmp_path_factory.mktemp("song") / "song.wav"
    path.write_bytes(wav_bytes(tune, 22050))
    return pipeline.predict(path, max_duration_s=60)


@pytest.fixture(scope="module")
def text(predicted: TrackPrediction) -> str:
    source = SourceFile("song.wav", "0" * 64, 1, began=time.monotonic())
    return prediction_response(
        predicted, source, top_k=len(predicted.labels), detail=WindowDetail.FULL
    ).model_dump_json()


def test_numbers_have_no_more_decimals_than_they_mean(text: str) -> None:
    decimals = {len(found) for found in re.findall(r"\.(\d+)", re.sub(r'"[^"]*"', "", text))}
    assert max(decimals) <= 6
    rows = json.dumps(json.loads(text)["windows"]["probabilities"])
    assert max(len(found) for found in re.findall(r"\.(\d+)", rows)) == 4


def test_rounding_loses_nothing_else(text: str, predicted: TrackPrediction) -> None:
    body: dict[str, Any] = json.loads(text)
    np.testing.assert_allclose(body["windows"]["probabilities"], predicted.windows.probabilities, atol=5.1e-5)
    shares = [entry["share"] for entry in body["prediction"]["summed_score"]["top_k"]]
    np.testing.assert_allclose(shares, [entry.share for entry in predicted.summed_score.ranked], atol=5.1e-7)
    assert shares == sorted(shares, reverse=True)
    assert body["prediction"]["confidence"] == pytest.approx(predicted.confidence, abs=5.1e-7)
