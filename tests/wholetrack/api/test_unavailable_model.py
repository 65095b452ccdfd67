"""A model that always fails becomes unavailable, and the others keep serving."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from numpy.typing import NDArray

from tests.harness.devices import FakeDevice
from tests.harness.recordings import wav_bytes
from tests.harness.waiting import until
from wholetrack.api.admission import Admission
from wholetrack.api.app import create_app
from wholetrack.inference.engine import Engine
from wholetrack.pipeline import Pipeline
from wholetrack.settings import Settings

pytestmark = pytest.mark.timing

BROKEN = "hilsdorf-crnn"


def test_a_model_that_always_fails_is_refused_and_the_others_are_served(
    pipeline: Pipeline, tune: NDArray[np.float32], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    device = FakeDevice(permits=1000)
    device.fails = True
    engine = Engine(device)
    monkeypatch.setattr(pipeline.models[BROKEN], "engine", engine)
    # The pipeline outlives this application.
    monkeypatch.setattr(pipeline, "close", lambda: None)
    settings = Settings(device="cpu", temp_dir=tmp_path)
    song = wav_bytes(tune, 22050)
    responses: dict[str, httpx.Response] = {}

    async def use() -> None:
        app = create_app(pipeline, settings, Admission(4))
        client = httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://service", timeout=60)
        async with app.router.lifespan_context(app), client:

            async def predict(**query: Any) -> httpx.Response:
                return await client.post("/v1/predict", params=query, content=song)

            responses["first"] = await predict(model=BROKEN)
            await asyncio.to_thread(until, lambda: not engine.available)
            responses["later"] = await predict(model=BROKEN)
            responses["other"] = await predict()
            responses["ready"] = await client.get("/readyz")
            responses["models"] = await client.get("/v1/models")

    asyncio.run(use())
    engine.close()
    assert (responses["first"].status_code, responses["first"].json()["code"]) == (503, "device_failed")
    assert (responses["later"].status_code, responses["later"].json()["code"]) == (503, "model_unavailable")
    assert responses["other"].status_code == 200
    assert responses["ready"].status_code == 200
    available = {model["name"]: model["available"] for model in responses["models"].json()["models"]}
    assert available == {name: name != BROKEN for name in pipeline.models}
