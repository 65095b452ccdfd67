"""A model whose tag decides whether a recording is in domain, even if a request asks for no tags."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.harness.bundles import write_two_inputs
from tests.harness.recordings import wav_bytes
from wholetrack import startup
from wholetrack.contracts import Detail
from wholetrack.pipeline import Pipeline
from wholetrack.settings import Settings
from wholetrack.startup import build_pipeline

RATE = 22050


@pytest.fixture
def song(tmp_path: Path, tune: NDArray[np.float32]) -> Path:
    path = tmp_path / "song.wav"
    path.write_bytes(wav_bytes(tune[: 5 * RATE], RATE))
    return path


def threshold(value: float) -> Any:
    return lambda card: card.update(domain={"tag": "voice", "least_probability": value})


@pytest.fixture
def pipeline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Pipeline]:
    models = tmp_path / "models"
    write_two_inputs(models, version="1", change=threshold(1e-6))
    write_two_inputs(models, version="2", change=threshold(1 - 1e-6))
    monkeypatch.setattr(startup, "BUILT_IN_MODELS", models)
    found = build_pipeline(Settings(device="cpu", default_model="twin", model_versions="all"))
    yield found
    found.close()


def test_the_probability_of_the_tag_is_compared(pipeline: Pipeline, song: Path, tmp_path: Path) -> None:
    for tags in (None, Detail.NONE, Detail.WINDOWS):
        low, high = (pipeline.predict(song, model=model, tags=tags, max_duration_s=60) for model in ("twin@1", "twin"))
        assert low.in_domain is True
        assert high.in_domain is False
        assert (low.tags is None) == (tags is Detail.NONE)
    silence = tmp_path / "silence.wav"
    silence.write_bytes(wav_bytes(np.zeros(4 * RATE, dtype=np.float32), RATE))
    assert pipeline.predict(silence, model="twin@1", max_duration_s=60).in_domain is False
