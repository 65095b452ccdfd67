"""Readiness follows the devices of the models, and admission."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest

from wholetrack.api.admission import Admission
from wholetrack.api.app import create_app
from wholetrack.inference.engine import Engine
from wholetrack.inference.unavailable import UnavailableEngine
from wholetrack.pipeline import Pipeline
from wholetrack.settings import Settings

OTHER = "hilsdorf-crnn"


def readyz(pipeline: Pipeline, admission: Admission | None = None) -> httpx.Response:
    app = create_app(pipeline, Settings(device="cpu"), admission or Admission(1))

    async def request() -> httpx.Response:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://service") as client:
            return await client.get("/readyz")

    return asyncio.run(request())


def break_engine(engine: Engine | UnavailableEngine, monkeypatch: pytest.MonkeyPatch, *, available: bool) -> None:
    """Make an engine report that none of its devices works."""
    healthy: Any = Engine.healthy
    monkeypatch.setattr(Engine, "healthy", property(lambda self: self is not engine and healthy.fget(self)))
    monkeypatch.setattr(engine, "unavailable_reason", None if available else "it is broken")


def test_a_service_with_working_devices_is_ready(pipeline: Pipeline) -> None:
    response = readyz(pipeline)
    assert response.status_code == 200
    assert response.json()["models"] == dict.fromkeys(pipeline.models, "cpu")


def test_a_service_with_a_failing_device_is_not_ready(pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    break_engine(pipeline.models[OTHER].engine, monkeypatch, available=True)
    response = readyz(pipeline)
    assert (response.status_code, response.json()["code"]) == (503, "device_failed")
    assert OTHER in response.json()["detail"]
    assert response.headers["Retry-After"] == "5"


def test_a_service_with_an_unavailable_model_is_ready(pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    break_engine(pipeline.models[OTHER].engine, monkeypatch, available=False)
    response = readyz(pipeline)
    assert response.status_code == 200
    assert response.json()["models"] == dict.fromkeys(pipeline.models, "cpu") | {OTHER: "unavailable"}
    assert response.json()["unavailable"] == {OTHER: "it is broken"}


def test_a_service_that_uses_the_cpu_although_there_is_a_gpu_is_ready_and_says_so(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert readyz(pipeline).json()["cpu_fallback"] == {}
    monkeypatch.setattr(pipeline.models[OTHER], "cpu_fallback", "the network fails on cuda:0")
    response = readyz(pipeline)
    assert response.status_code == 200
    assert response.json()["cpu_fallback"] == {OTHER: "the network fails on cuda:0"}


def test_a_service_without_its_default_model_is_not_ready(pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    break_engine(pipeline.model(None).engine, monkeypatch, available=False)
    response = readyz(pipeline)
    assert (response.status_code, response.json()["code"]) == (503, "device_failed")


def test_a_draining_service_is_not_ready(pipeline: Pipeline) -> None:
    admission = Admission(1)
    admission.draining = True
    response = readyz(pipeline, admission)
    assert (response.status_code, response.json()["code"]) == (503, "draining")
