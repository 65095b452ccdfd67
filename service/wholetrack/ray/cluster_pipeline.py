"""The pipeline of an ingress replica: recordings are decoded by other replicas, live audio is processed here."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import Any, NoReturn, cast

import ray
from asgi_correlation_id import correlation_id
from ray.exceptions import RayTaskError, TaskCancelledError
from ray.serve.exceptions import BackPressureError
from ray.serve.handle import DeploymentHandle, DeploymentResponseGenerator

from wholetrack.api.threads import client_gone
from wholetrack.cancellation import Cancellation
from wholetrack.contracts import Detail, TrackPrediction
from wholetrack.decoding.limits import DecoderMemory
from wholetrack.decoding.live_pcm import LivePcm
from wholetrack.errors import ErrorKind, ServiceError
from wholetrack.extraction.workers import WorkerCounts
from wholetrack.observer import Observer
from wholetrack.ray.cluster_view import ClusterView
from wholetrack.ray.messages import Elsewhere, Event, Recording, TrackOptions
from wholetrack.ray.remote_networks import REPLICA_ERRORS
from wholetrack.served_model import ServedModel
from wholetrack.settings import Settings
from wholetrack.track import Track
from wholetrack.track_pipeline import TrackPipeline

_log = logging.getLogger(__name__)

# A recording may be the reason why its replica was lost, so it is not tried again and again.
_ATTEMPTS = 3
_CHUNK_BYTES = 8 << 20
_RECENT_TRACKS = 32
_RETRY_AFTER_S = 5


class ClusterPipeline(TrackPipeline):
    """Predicts tracks with the replicas of an application on Ray.

    Args:
        analysis: Handle of the deployment that decodes.
        view: What the other replicas can do.
        models: The served models, whose engines run networks of other replicas.
        default_model: Key of the default model.
        settings: The settings.
        node_id: Node of this process.
    """

    def __init__(
        self,
        analysis: DeploymentHandle[Any],
        view: ClusterView,
        models: dict[str, ServedModel],
        *,
        default_model: str,
        settings: Settings,
        node_id: str,
    ) -> None:
        super().__init__(
            models,
            default_model=default_model,
            tracks_at_once=settings.tracks_at_once,
            tracks_open=dict.fromkeys(DecoderMemory, settings.tracks_open),
            max_windows=settings.max_windows,
        )
        self._analysis = analysis.options(stream=True)
        self._view = view
        self._node_id = node_id
        self._recent_s: deque[float] = deque(maxlen=_RECENT_TRACKS)
        self._n_live = 0
        self._lock = threading.Lock()

    @property
    def sandbox_layers(self) -> frozenset[str]:
        """The layers of the sandbox that all replicas apply."""
        return self._view.snapshot.sandbox_layers

    def worker_counts(self) -> WorkerCounts:
        """Return that this process has no feature workers."""
        return WorkerCounts(running=0, replaced=0)

    def failing_models(self) -> list[str]:
        """Return the keys of the models that no replica can run, or of all of them if no replica can decode."""
        snapshot = self._view.snapshot
        if not snapshot.analysis:
            return sorted(self.models)
        lost = {
            key
            for key, served in self.models.items()
            if served.head is None
            and served.engine.available
            and not snapshot.runs((served.card.name, served.card.version))
        }
        return sorted({*super().failing_models(), *lost})

    def expected_wait_s(self, n_tracks: int) -> float:
        """Return how long a track would wait for a processor, from how long recent tracks took.

        Args:
            n_tracks: Number of tracks in progress, without this one.
        """
        slots = self._view.snapshot.tracks_at_once
        with self._lock:
            recent_s = list(self._recent_s)
            n_tracks -= self._n_live
        if n_tracks < slots or not recent_s or not slots:
            return 0.0
        return (n_tracks - slots + 1) * fmean(recent_s) / slots

    def close(self) -> None:
        """Stop the engines."""
        super().close()
        self._view.close()

    def predict(
        self,
        source: Path | LivePcm,
        *,
        model: str | None = None,
        hop_s: float | None = None,
        taxonomy: str | None = None,
        tags: Detail | None = None,
        embedding: Detail = Detail.NONE,
        max_duration_s: float,
        weight: int = 1,
        cancellation: Cancellation | None = None,
        observer: Observer | None = None,
    ) -> TrackPrediction:
        """Predict the genre of a whole recording; see :meth:`TrackPipeline.predict`.

        If a replica is lost, another one starts again.

        Raises:
            ServiceError: Any error that concerns a recording, its parameters, the device or the replicas.
        """
        if isinstance(source, LivePcm):
            with self._live():
                return super().predict(
                    source,
                    model=model,
                    hop_s=hop_s,
                    taxonomy=taxonomy,
                    tags=tags,
                    embedding=embedding,
                    max_duration_s=max_duration_s,
                    weight=weight,
                    cancellation=cancellation,
                    observer=observer,
                )
        options = TrackOptions(
            model=self.key(model),
            hop_s=hop_s,
            taxonomy=taxonomy,
            tags=tags,
            embedding=embedding,
            max_duration_s=max_duration_s,
            weight=weight,
            peaks_per_s=None if observer is None else observer.peaks_per_s,
            request_id=correlation_id.get(),
        )
        cancellation = cancellation or Cancellation()
        for _ in range(_ATTEMPTS):
            cancellation.check()
            try:
                prediction = self._attempt(source, options, cancellation, observer or Observer())
            except BackPressureError as error:
                raise _overloaded() from error
            except RayTaskError:
                raise
            except (TaskCancelledError, *REPLICA_ERRORS) as error:
                cancellation.check()
                if isinstance(error, TaskCancelledError):
                    # Serve cancels what a request has called as soon as its client leaves.
                    raise client_gone() from error
                _log.warning("a replica was lost while it predicted a recording: %s", str(error).partition("\n")[0])
            else:
                self._note_duration(prediction)
                return replace(prediction, card=self.models[options.model].card)
        raise _lost()

    def _attempt(
        self, path: Path, options: TrackOptions, cancellation: Cancellation, observer: Observer
    ) -> TrackPrediction:
        recording = Recording(self._node_id, str(path))
        outcome = self._call(recording, options, cancellation, observer)
        if isinstance(outcome, Elsewhere):
            outcome = self._call(replace(recording, chunks=tuple(_chunks(path))), options, cancellation, observer)
        if isinstance(outcome, ServiceError):
            raise outcome
        assert isinstance(outcome, TrackPrediction)
        return outcome

    def _call(
        self, recording: Recording, options: TrackOptions, cancellation: Cancellation, observer: Observer
    ) -> TrackPrediction | ServiceError | Elsewhere:
        """Have one replica predict a recording, and tell the observer about it."""
        served = self.models[options.model]
        # It is a generator, because the handle has the option "stream".
        responses = cast("DeploymentResponseGenerator[Any]", self._analysis.predict.remote(recording, options))
        with cancellation.calling(lambda _: responses.cancel()):
            for response in responses:
                if not isinstance(response, list):
                    outcome: TrackPrediction | ServiceError | Elsewhere = response
                    return outcome
                events: list[Event] = response
                for event in events:
                    event.replay(observer, served)
        cancellation.check()
        raise client_gone()

    @contextmanager
    def _live(self) -> Iterator[None]:
        """Count live audio, which no other replica decodes, for the duration of the block."""
        with self._lock:
            self._n_live += 1
        try:
            yield
        finally:
            with self._lock:
                self._n_live -= 1

    def _note_duration(self, prediction: TrackPrediction) -> None:
        times = prediction.times
        with self._lock:
            self._recent_s.append((times.decode + times.features + times.inference) / 1e3)

    def _open_recording(self, track: Track) -> AbstractContextManager[NoReturn]:
        raise AssertionError(f"{track.source} is decoded by another replica")


def _chunks(path: Path) -> Iterator[Any]:
    """Yield references to the content of a file in the object store."""
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            yield ray.put(chunk)


def _overloaded() -> ServiceError:
    return ServiceError(
        ErrorKind.OVERLOADED,
        f"Too many recordings wait for a replica. Try again in {_RETRY_AFTER_S} s.",
        retry_after_s=_RETRY_AFTER_S,
    )


def _lost() -> ServiceError:
    return ServiceError(
        ErrorKind.DEVICE_FAILED,
        "The machines that processed the recording were lost. Try again in a moment.",
        retry_after_s=_RETRY_AFTER_S,
    )
