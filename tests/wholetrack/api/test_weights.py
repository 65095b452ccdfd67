"""The weight of a key applies to its tracks in the pipeline."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from numpy.typing import NDArray

from tests.harness.recordings import wav_bytes
from wholetrack.api.admission import Admission
from wholetrack.api.app import create_app
from wholetrack.api.keys import new_key
from wholetrack.contracts import TrackPrediction
from wholetrack.pipeline import Pipeline
from wholetrack.settings import Settings
from wholetrack.startup import build_pipeline


def test_tracks_have_the_weight_of_their_key(
    tune: NDArray[np.float32], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (heavy, heavy_digest), (light, light_digest) = new_key(), new_key()
    file = tmp_path / "keys.toml"
    file.write_text(f'[heavy]\nsha256 = "{heavy_digest}"\nweight = 4\n[light]\nsha256 = "{light_digest}"\n')
    settings = Settings(device="cpu", api_keys_file=file, temp_dir=tmp_path)
    song = wav_bytes(tune, 22050)
    weights, predict = [], Pipeline.predict

    def recording_predict(self: Pipeline, path: Path, *, weight: int = 1, **others: Any) -> TrackPrediction:
        weights.append(weight)
        return predict(self, path, weight=weight, **others)

    monkeypatch.setattr(Pipeline, "predict", recording_predict)

    async def request() -> list[int]:
        app = create_app(build_pipeline(settings), settings, Admission(2))
        transport = httpx.ASGITransport(app)
        async with app.router.lifespan_context(app), httpx.AsyncClient(transport=transport) as client:
            responses = [
                await client.post("http://service/v1/predict", content=song, headers={"Authorization": f"Bearer {key}"})
                for key in (heavy, light)
            ]
        return [response.status_code for response in responses]

    assert asyncio.run(request()) == [200, 200]
    assert weights == [4, 1]
