"""A model that satisfies the contract but does not run is unavailable, and the others are served."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import numpy as np
import pytest
from numpy.typing import NDArray

from tests.harness.paths import PROJECT
from tests.harness.recordings import wav_bytes
from wholetrack import startup
from wholetrack.api.admission import Admission
from wholetrack.api.app import create_app
from wholetrack.errors import StartupError
from wholetrack.inference.bundle import BUILT_IN_MODELS
from wholetrack.pipeline import Pipeline
from wholetrack.settings import Precision, Settings
from wholetrack.startup import build_pipeline

DEFAULT, OTHER, BROKEN = "wholetrack-crnn-gtzan", "guimaraes-cnn", "hilsdorf-crnn"
REASON = "the network gives wrong outputs on cpu in float32: a golden probability is off by"


@pytest.fixture
def models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with three models, which are served in place of the built-in ones."""
    folder = tmp_path / "models"
    for name in (DEFAULT, OTHER, BROKEN):
        shutil.copytree(BUILT_IN_MODELS / name, folder / name)
    monkeypatch.setattr(startup, "BUILT_IN_MODELS", folder)
    return folder


def change_golden(bundle: Path) -> None:
    """Make a bundle expect other outputs than its network gives, without breaking the contract."""
    with np.load(bundle / "golden.npz") as arrays:
        np.savez(
            bundle / "golden.npz",
            windows=arrays["windows"],
            probabilities=np.roll(arrays["probabilities"], 1, axis=-1),
        )
    card = json.loads((bundle / "model.json").read_text())
    card["golden"]["sha256"] = hashlib.sha256((bundle / "golden.npz").read_bytes()).hexdigest()
    (bundle / "model.json").write_text(json.dumps(card))


@contextmanager
def opened(settings: Settings) -> Iterator[Pipeline]:
    pipeline = build_pipeline(settings)
    try:
        yield pipeline
    finally:
        pipeline.close()


def test_the_others_are_served_without_a_model_that_does_not_run(
    models: Path, tune: NDArray[np.float32], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    change_golden(models / BROKEN / "1")
    settings = Settings(default_model=DEFAULT, device="cpu", temp_dir=tmp_path)
    song = wav_bytes(tune, 22050)
    responses: dict[str, httpx.Response] = {}
    n_received = 0

    async def upload() -> AsyncIterator[bytes]:
        nonlocal n_received
        for begin in range(0, len(song), 1000):
            n_received += 1
            yield song[begin : begin + 1000]

    async def use(pipeline: Pipeline) -> None:
        app = create_app(pipeline, settings, Admission(4))
        client = httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://service", timeout=60)
        async with app.router.lifespan_context(app), client:
            responses["ready"] = await client.get("/readyz")
            responses["models"] = await client.get("/v1/models")
            responses["refused"] = await client.post("/v1/predict", params={"model": BROKEN}, content=upload())
            for name in (DEFAULT, OTHER):
                responses[name] = await client.post("/v1/predict", params={"model": name}, content=song)
            responses["metrics"] = await client.get("/metrics")

    pipeline = build_pipeline(settings)
    # The end of the application closes it.
    asyncio.run(use(pipeline))
    (message,) = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
    assert message.startswith(f"model {BROKEN} is unavailable until the service is restarted: {BROKEN} gives wrong")
    ready = responses["ready"].json()
    assert responses["ready"].status_code == 200
    assert ready["models"] == {DEFAULT: "cpu", OTHER: "cpu", BROKEN: "unavailable"}
    assert ready["unavailable"].keys() == {BROKEN}
    assert ready["unavailable"][BROKEN].startswith(REASON)
    listed = {model["name"]: model for model in responses["models"].json()["models"]}
    assert {name: model["available"] for name, model in listed.items()} == {DEFAULT: True, OTHER: True, BROKEN: False}
    assert listed[BROKEN]["unavailable_reason"] == ready["unavailable"][BROKEN]
    assert listed[OTHER]["unavailable_reason"] is None
    problem = responses["refused"].json()
    assert (responses["refused"].status_code, problem["code"]) == (503, "model_unavailable")
    assert problem["detail"].startswith(f"The model cannot run on this server: {REASON}")
    assert n_received <= 1, "the model is known to be unavailable before the upload is received"
    assert [responses[name].status_code for name in (DEFAULT, OTHER)] == [200, 200]
    assert f'wholetrack_device_healthy{{device="cpu",model="{BROKEN}"}} 0.0' in responses["metrics"].text
    assert f'wholetrack_device_healthy{{device="cpu",model="{OTHER}"}} 1.0' in responses["metrics"].text


def test_the_service_does_not_start_without_its_default_model(models: Path) -> None:
    change_golden(models / DEFAULT / "1")
    with pytest.raises(StartupError, match=f"^{DEFAULT} gives wrong outputs on cpu"):
        build_pipeline(Settings(device="cpu", default_model=DEFAULT))


@pytest.mark.usefixtures("models")
def test_the_default_model_is_opened_first() -> None:
    with opened(Settings(device="cpu", default_model=DEFAULT)) as pipeline:
        assert list(pipeline.models) == [DEFAULT, *sorted((OTHER, BROKEN))]


def test_a_bundle_that_breaks_the_contract_prevents_startup_even_if_it_is_not_the_default(models: Path) -> None:
    junk = b"not a network"
    bundle = models / BROKEN / "1"
    (bundle / "model.onnx").write_bytes(junk)
    card = json.loads((bundle / "model.json").read_text())
    card["sha256"] = hashlib.sha256(junk).hexdigest()
    (bundle / "model.json").write_text(json.dumps(card))
    with pytest.raises(StartupError, match=f"^{BROKEN}: model.onnx is not a valid network"):
        build_pipeline(Settings(device="cpu", default_model=DEFAULT))


@pytest.mark.usefixtures("models")
@pytest.mark.parametrize(
    ("default", "expected"),
    [(DEFAULT, []), (OTHER, [f"the default model has no int8 network, so that it runs in float32: {OTHER}"])],
)
def test_a_default_model_without_the_configured_precision_is_reported(
    default: str, expected: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    with opened(Settings(device="cpu", cpu_precision=Precision.INT8, default_model=default)) as pipeline:
        assert pipeline.models[OTHER].engine.precision == "float32"
        assert pipeline.models[DEFAULT].engine.precision == "int8"
    assert [message for message in caplog.messages if "int8 network" in message] == expected


def test_the_command_line_reports_an_unavailable_model_in_one_sentence(models: Path) -> None:
    change_golden(models / BROKEN / "1")
    environment = os.environ | {"WHOLETRACK_DEVICE": "cpu", "WHOLETRACK_MODELS_DIR": str(models)}

    def wholetrack(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "wholetrack", *arguments]
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, cwd=PROJECT)

    listed = wholetrack("models")
    assert listed.returncode == 1
    rows = {line.split()[0]: line.split()[2] for line in listed.stdout.splitlines() if BROKEN in line or OTHER in line}
    assert rows == {BROKEN: "unavailable", OTHER: "cpu"}
    predicted = wholetrack("predict", __file__, "--model", BROKEN)
    assert predicted.returncode == 1
    assert predicted.stdout == ""
    (sentence,) = [line for line in predicted.stderr.splitlines() if line.startswith("wholetrack: ")]
    assert sentence.startswith(f"wholetrack: The model cannot run on this server: {REASON}")
