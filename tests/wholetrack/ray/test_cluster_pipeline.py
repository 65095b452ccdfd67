"""The pipeline of an ingress replica, with other replicas that a test controls."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ray.exceptions import ActorDiedError, TaskCancelledError
from ray.serve.exceptions import BackPressureError

from tests.harness.recordings import wav_bytes
from wholetrack.cancellation import Cancellation
from wholetrack.contracts import ModelCard, Rows, TaxonomySpec, TrackPrediction
from wholetrack.errors import ErrorKind, ServiceError
from wholetrack.observer import Observer
from wholetrack.pipeline import Pipeline
from wholetrack.ray import cluster_pipeline
from wholetrack.ray.cluster_pipeline import ClusterPipeline
from wholetrack.ray.cluster_view import Snapshot
from wholetrack.ray.messages import AnalysisInfo, Classified, Cut, Elsewhere, NetworkInfo, Recording, Started
from wholetrack.settings import Settings

_LAYERS = frozenset({"landlock", "seccomp", "limits"})
_WORKING = NetworkInfo("cpu", "float32", 1, healthy=True, unavailable_reason=None, cpu_fallback=None)


class Responses:
    """What a replica responds to a call: items, and then perhaps an error."""

    def __init__(self, items: list[Any]) -> None:
        self._items = items
        self.cancelled = threading.Event()

    def __iter__(self) -> Iterator[Any]:
        for item in self._items:
            if item is threading.Event:
                self.cancelled.wait()
                raise TaskCancelledError
            if isinstance(item, Exception):
                raise item
            yield item

    def cancel(self) -> None:
        self.cancelled.set()


@dataclass
class Analysis:
    """The handle of the deployment that decodes.

    Attributes:
        responses: What the next calls respond.
        calls: The recordings of all calls.
    """

    responses: list[list[Any]]
    calls: list[Recording] = field(default_factory=list)

    def options(self, *, stream: bool) -> Analysis:
        assert stream
        return self

    @property
    def predict(self) -> Analysis:
        return self

    def remote(self, recording: Recording, options: object) -> Responses:
        del options
        self.calls.append(recording)
        return Responses(self.responses.pop(0))


@dataclass
class View:
    """What the other replicas can do."""

    snapshot: Snapshot

    def close(self) -> None: ...


class RecordingObserver(Observer):
    """Notes what it is told."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def started(self, card: ModelCard, hop_s: float, taxonomy: TaxonomySpec | None) -> None:
        self.told.append(f"started {card.name} {hop_s} {taxonomy and len(taxonomy.genres)}")

    def cut(self, start_s: Any, silent: Any) -> None:
        self.told.append(f"cut {start_s.tolist()} {silent.tolist()}")

    def classified(self, position: int, outputs: Rows) -> None:
        self.told.append(f"classified {position} {outputs.arrays[0].tolist()}")


@pytest.fixture(scope="module")
def prediction(pipeline: Pipeline, tmp_path_factory: pytest.TempPathFactory) -> TrackPrediction:
    song = tmp_path_factory.mktemp("songs") / "song.wav"
    song.write_bytes(wav_bytes(np.random.default_rng(1).standard_normal(5 * 22050).astype(np.float32), 22050))
    return pipeline.predict(song, max_duration_s=60)


@pytest.fixture
def snapshot(pipeline: Pipeline) -> Snapshot:
    networks = {(served.card.name, served.card.version): _WORKING for served in pipeline.models.values()}
    return Snapshot((AnalysisInfo(2, _LAYERS), AnalysisInfo(2, _LAYERS - {"landlock"})), (networks,))


@pytest.fixture
def cluster(pipeline: Pipeline, snapshot: Snapshot) -> Callable[..., tuple[ClusterPipeline, Analysis, View]]:
    def make(*responses: list[Any]) -> tuple[ClusterPipeline, Analysis, View]:
        analysis, view = Analysis(list(responses)), View(snapshot)
        made = ClusterPipeline(
            analysis,  # type: ignore[arg-type]
            view,  # type: ignore[arg-type]
            pipeline.models,
            default_model=pipeline.default_model,
            settings=Settings(),
            node_id="here",
        )
        return made, analysis, view

    return make


def predict(made: ClusterPipeline, path: Path = Path("song"), **options: Any) -> TrackPrediction:
    return made.predict(path, max_duration_s=60, **options)


def test_events_reach_the_observer_and_the_prediction_has_the_card_of_this_process(
    cluster: Any, prediction: TrackPrediction
) -> None:
    made_elsewhere = prediction.card.model_copy()
    made, analysis, _ = cluster(
        [
            [Started(0.5, "gtzan"), Cut(np.array([0.0]), np.array([False]))],
            [Classified(0, np.array([[0.25]], dtype=np.float32))],
            replace(prediction, card=made_elsewhere),
        ]
    )
    observer = RecordingObserver()
    found = predict(made, observer=observer, taxonomy="gtzan", hop_s=0.5)
    assert found.card is made.model(None).card
    assert observer.told == ["started wholetrack-crnn 0.5 10", "cut [0.0] [False]", "classified 0 [[0.25]]"]
    assert analysis.calls == [Recording("here", "song")]


def test_another_replica_starts_again_when_one_is_lost(cluster: Any, prediction: TrackPrediction) -> None:
    made, analysis, _ = cluster([[Started(1.0, None)], ActorDiedError()], [[Started(1.0, None)], prediction])
    observer = RecordingObserver()
    assert predict(made, observer=observer).summed_score == prediction.summed_score
    assert len(observer.told) == len(analysis.calls) == 2


def test_a_recording_that_loses_replica_after_replica_is_given_up(cluster: Any) -> None:
    made, analysis, _ = cluster(*[[ActorDiedError()]] * 3)
    with pytest.raises(ServiceError) as caught:
        predict(made)
    assert caught.value.kind is ErrorKind.DEVICE_FAILED
    assert caught.value.retry_after_s
    assert not analysis.responses


def test_a_replica_on_another_node_gets_the_content(
    cluster: Any, prediction: TrackPrediction, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    song = tmp_path / "song"
    song.write_bytes(b"abcdefgh")
    monkeypatch.setattr(cluster_pipeline, "_CHUNK_BYTES", 3)
    monkeypatch.setattr("ray.put", lambda chunk: chunk)
    made, analysis, _ = cluster([Elsewhere()], [prediction])
    predict(made, song)
    assert [call.chunks for call in analysis.calls] == [None, (b"abc", b"def", b"gh")]


def test_errors_of_the_recording_are_raised(cluster: Any) -> None:
    made, *_ = cluster([ServiceError(ErrorKind.EMPTY_AUDIO, "The file is empty.")])
    with pytest.raises(ServiceError) as caught:
        predict(made)
    assert caught.value.kind is ErrorKind.EMPTY_AUDIO


def test_a_queue_that_is_full_is_an_overload(cluster: Any) -> None:
    made, *_ = cluster([BackPressureError(num_queued_requests=9, max_queued_requests=9)])
    with pytest.raises(ServiceError) as caught:
        predict(made)
    assert caught.value.kind is ErrorKind.OVERLOADED
    assert caught.value.retry_after_s


def test_cancelling_a_track_cancels_the_call(cluster: Any) -> None:
    made, *_ = cluster([threading.Event])
    cancellation = Cancellation()
    timer = threading.Timer(0.05, cancellation.cancel, [ServiceError(ErrorKind.DEADLINE_EXCEEDED, "Too long.")])
    timer.start()
    with pytest.raises(ServiceError) as caught:
        predict(made, cancellation=cancellation)
    assert caught.value.kind is ErrorKind.DEADLINE_EXCEEDED


def test_the_service_is_ready_if_replicas_can_decode_and_run_every_network(cluster: Any, snapshot: Snapshot) -> None:
    made, _, view = cluster()
    assert made.failing_models() == []
    assert made.sandbox_layers == {"seccomp", "limits"}
    card = made.model(None).card
    (networks,) = snapshot.networks
    broken = networks | {(card.name, card.version): replace(_WORKING, healthy=False)}
    view.snapshot = replace(snapshot, networks=(broken,))
    assert made.failing_models() == [card.name]
    view.snapshot = replace(snapshot, networks=(broken, networks))
    assert made.failing_models() == []
    view.snapshot = replace(snapshot, analysis=())
    assert made.failing_models() == sorted(made.models)


def test_the_expected_wait_is_that_for_the_slots_of_all_replicas(cluster: Any, prediction: TrackPrediction) -> None:
    slow = replace(prediction, times=replace(prediction.times, decode=3000.0, features=500.0, inference=500.0))
    made, *_ = cluster([slow])
    assert made.expected_wait_s(100) == 0.0
    predict(made)
    assert made.expected_wait_s(3) == 0.0
    assert made.expected_wait_s(4) == pytest.approx(1.0)
    assert made.expected_wait_s(11) == pytest.approx(8.0)
