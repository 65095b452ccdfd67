"""Several versions of a model: which of them are served, and how requests name them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.harness.app_client import AppClient, app_client
from tests.harness.bundles import write_two_inputs
from tests.harness.recordings import wav_bytes
from wholetrack import startup
from wholetrack.api.admission import Admission
from wholetrack.api.app import create_app
from wholetrack.errors import StartupError
from wholetrack.inference.bundle import load_bundles
from wholetrack.settings import ModelVersions, Settings
from wholetrack.startup import build_pipeline


@pytest.fixture
def models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Versions 1, 2 and 10 of a model, which are served in place of the built-in ones."""
    folder = tmp_path / "models"
    for version in ("1", "2", "10"):
        write_two_inputs(folder, version=version, change=lambda card: card.update(summary=f"v{card['version']}"))
    monkeypatch.setattr(startup, "BUILT_IN_MODELS", folder)
    return folder


@contextmanager
def served(versions: str, default_model: str = "twin") -> Iterator[AppClient]:
    settings = Settings(device="cpu", default_model=default_model, model_versions=versions)
    with app_client(create_app(build_pipeline(settings), settings, Admission(4))) as client:
        yield client


def test_the_newest_version_has_the_name_of_the_model(models: Path) -> None:
    assert {key: bundle.card.version for key, bundle in load_bundles(models).items()} == {"twin": "10"}
    loaded = load_bundles(models, versions=ModelVersions.ALL)
    assert {key: bundle.card.version for key, bundle in loaded.items()} == {"twin": "10", "twin@2": "2", "twin@1": "1"}


def test_a_later_folder_replaces_a_version_of_an_earlier_one(models: Path, tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    write_two_inputs(mine, version="2", change=lambda card: card.update(summary="mine"))
    loaded = load_bundles(models, mine, versions=ModelVersions.ALL)
    assert {key: bundle.card.summary for key, bundle in loaded.items()} == {
        "twin": "v10",
        "twin@2": "mine",
        "twin@1": "v1",
    }


@pytest.mark.usefixtures("models")
def test_requests_pin_a_version(tune: NDArray[np.float32]) -> None:
    song = wav_bytes(tune[:80_000], 22050)
    with served("all") as client:
        for name, version in (("twin", "10"), ("twin@10", "10"), ("twin@2", "2"), ("twin@1", "1")):
            response = client.post("/v1/predict", content=song, model=name)
            assert (response.status_code, response.json()["model"]["version"]) == (200, version)
            assert response.json()["model"]["name"] == "twin"
            assert client.get(f"/v1/models/{name}").json()["version"] == version
        listed = client.get("/v1/models").json()["models"]
        assert [(model["name"], model["version"], model["default"]) for model in listed] == [
            ("twin", "10", True),
            ("twin", "1", False),
            ("twin", "2", False),
        ]
        assert client.get("/readyz").json()["models"] == dict.fromkeys(("twin", "twin@1", "twin@2"), "cpu")
        metrics = client.get("/metrics").text
        assert 'wholetrack_windows_total{model="twin@1"}' in metrics
        unknown = client.post("/v1/predict", content=song, model="twin@3")
        assert (unknown.status_code, unknown.json()["code"]) == (404, "unknown_model")
        assert unknown.json()["detail"] == (
            "Choose one of the models served: twin, twin@1, twin@2. The newest version of twin is 10."
        )


@pytest.mark.usefixtures("models")
def test_without_the_setting_only_the_newest_version_can_be_named(tune: NDArray[np.float32]) -> None:
    song = wav_bytes(tune[:80_000], 22050)
    with served("newest") as client:
        assert client.post("/v1/predict", content=song, model="twin@10").status_code == 200
        assert client.post("/v1/predict", content=song, model="twin@2").status_code == 404


@pytest.mark.usefixtures("models")
def test_the_default_may_be_an_older_version(tune: NDArray[np.float32]) -> None:
    with served("all", "twin@2") as client:
        body = client.post("/v1/predict", content=wav_bytes(tune[:80_000], 22050)).json()
        assert body["model"]["version"] == "2"
        assert [model["version"] for model in client.get("/v1/models").json()["models"] if model["default"]] == ["2"]
    with pytest.raises(StartupError, match="the default model 'twin@2' is not among the models found: twin$"):
        build_pipeline(Settings(device="cpu", default_model="twin@2"))


def test_an_old_version_that_breaks_the_contract_prevents_startup_only_if_it_is_served(models: Path) -> None:
    card = json.loads((models / "twin/1/model.json").read_text())
    (models / "twin/1/model.json").write_text(json.dumps(card | {"labels": ["one"]}))
    assert load_bundles(models).keys() == {"twin"}
    with pytest.raises(StartupError, match="labels"):
        load_bundles(models, versions=ModelVersions.ALL)
    shutil.rmtree(models / "twin/1")
    assert load_bundles(models, versions=ModelVersions.ALL).keys() == {"twin", "twin@2"}
