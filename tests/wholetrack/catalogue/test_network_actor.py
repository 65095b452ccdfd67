"""Networks in actors of their own, without a cluster: the calls between actors are made here."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import ray
from ray.exceptions import GetTimeoutError, RayActorError, RayTaskError

from tests.harness.catalogues import recording
from wholetrack.catalogue import network_actor
from wholetrack.catalogue.network_actor import ActorNetworks, NetworkActor
from wholetrack.catalogue.opening import open_pipeline
from wholetrack.contracts import Detail, Rows
from wholetrack.inference.worker import UnreachableError
from wholetrack.pipeline import Pipeline
from wholetrack.settings import Settings


@pytest.fixture(autouse=True)
def calls_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a reference be a function, which :func:`ray.get` calls."""

    def get(reference: Any, *, timeout: float | None = None) -> Any:
        assert timeout is None or timeout > 0
        return [each() for each in reference] if isinstance(reference, list) else reference()

    monkeypatch.setattr(ray, "get", get)


def handle(network: Any) -> Any:
    """Return what a handle of an actor looks like."""

    def method(function: Callable[..., Any]) -> Any:
        return SimpleNamespace(remote=lambda *arguments: partial(function, *arguments))

    return SimpleNamespace(describe=method(network.describe), run=method(network.run))


def test_a_pipeline_predicts_the_same_with_a_network_elsewhere(
    settings: Settings, small_pipeline: Pipeline, tmp_path: Path
) -> None:
    song = tmp_path / "song.wav"
    song.write_bytes(recording(1, seconds=9))
    network = NetworkActor(None, settings.model_dump(exclude_unset=True), 1)
    with open_pipeline(settings, None, devices=partial(ActorNetworks, [handle(network), handle(network)])) as pipeline:
        found = pipeline.predict(song, embedding=Detail.TRACK, max_duration_s=60)
    expected = small_pipeline.predict(song, embedding=Detail.TRACK, max_duration_s=60)
    assert found.device == "cpu"
    assert found.summed_score.genre == expected.summed_score.genre
    assert found.windows.probabilities == pytest.approx(expected.windows.probabilities, abs=1e-5)
    assert found.embedding is not None
    assert expected.embedding is not None
    assert found.embedding.track == pytest.approx(expected.embedding.track, abs=1e-5)


@pytest.mark.parametrize(
    ("outcome", "error"),
    [
        (None, UnreachableError),
        (RayActorError(), UnreachableError),
        (GetTimeoutError("too late"), UnreachableError),
        (RayTaskError("run", "traceback", ValueError("these windows")), RayTaskError),
    ],
    ids=repr,
)
def test_a_network_that_is_lost_is_told_from_windows_that_it_cannot_classify(
    outcome: Exception | None, error: type[Exception]
) -> None:
    def run(_windows: Rows) -> None:
        if outcome is not None:
            raise outcome

    lost = handle(SimpleNamespace(describe=None, run=run))
    with pytest.raises(error):
        network_actor._send(lost, Rows.zeros(1, [(2, 3)]), timeout_s=1.0)
