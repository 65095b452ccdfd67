"""Takes a track through all stages, from its audio to its prediction. No other module runs all stages.

HTTP, the command line and the tests call :meth:`TrackPipeline.predict`. A call runs in the caller's thread; the
engine's workers classify the first windows while the rest of the file is still being decoded.
"""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Generator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from wholetrack.aggregation.genres import track_genres
from wholetrack.aggregation.tags import calibrated, track_embedding, track_tags
from wholetrack.aggregation.window_scores import track_scores
from wholetrack.cancellation import Cancellation
from wholetrack.contracts import (
    Detail,
    ModelCard,
    StageTimes,
    TrackPrediction,
)
from wholetrack.decoding.decoder import DecodedAudio, Decoding
from wholetrack.decoding.limits import DecoderMemory
from wholetrack.decoding.live_pcm import LiveDecoding, LivePcm
from wholetrack.decoding.outcome import decoder_stopped
from wholetrack.decoding.plan import QUICK, DecodeAgainError
from wholetrack.errors import ErrorKind, ServiceError
from wholetrack.extraction.client import RemoteWindows, WorkerLostError
from wholetrack.extraction.sealed_memory import MessageError
from wholetrack.extraction.windows import ExtractedWindows
from wholetrack.extraction.workers import WorkerCounts
from wholetrack.inference.outputs import Keep, TrackOutputs
from wholetrack.inference.queue import TrackQueue
from wholetrack.observer import Observer
from wholetrack.scheduling.fair_queue import Slot, StrideScheduler
from wholetrack.served_model import ServedModel, model_key
from wholetrack.track import StageTimer, Track
from wholetrack.track_warnings import track_warnings

_log = logging.getLogger(__name__)

# Enough for the windows that are waiting when a track has been decoded, a few hundred at most.
_SETTLE_TIMEOUT_S = 2.0


@dataclass(frozen=True, slots=True)
class _Request:
    """Which parts of the prediction were requested.

    Attributes:
        taxonomy: Name of the taxonomy in which the genres are read; None for the labels of the model.
        keep: What the prediction contains of each output of the network.
    """

    taxonomy: str | None
    keep: tuple[Keep, ...]

    def kept_by_engine(self, served: ServedModel) -> tuple[Keep, ...]:
        """Return what the engine must keep: also the tags that decide whether the track is in domain."""
        if not served.domain_needs_tags:
            return self.keep
        return tuple(
            Keep.MEAN if kind == "tags" and keep is Keep.NOTHING else keep
            for kind, keep in zip(served.card.outputs.kinds, self.keep, strict=True)
        )


class TrackPipeline(ABC):
    """Predicts tracks with any of the served models. Subclasses decide where recordings are decoded.

    Args:
        models: The served models: the newest version of each by its name, others by ``NAME@VERSION``.
        default_model: Key in ``models`` of the model for requests that do not name one.
        tracks_at_once: Number of tracks that are decoded at the same time.
        tracks_open: Number of tracks that may have started and not finished, for each size of decoder; each track
            holds a decoder.
        max_windows: Limit per recording; for models that yield several steps per window, each step counts.
    """

    def __init__(
        self,
        models: dict[str, ServedModel],
        *,
        default_model: str,
        tracks_at_once: int,
        tracks_open: Mapping[DecoderMemory, int],
        max_windows: int,
    ) -> None:
        self._max_steps = max_windows
        self.models = models
        self.default_model = default_model
        self.scheduler = StrideScheduler(tracks_at_once, max_open=tracks_open)

    def model(self, name: str | None) -> ServedModel:
        """Return the model called ``name``, or ``NAME@VERSION``; None for the default model.

        Raises:
            ServiceError: ``unknown_model``.
        """
        return self.models[self.key(name)]

    def key(self, name: str | None) -> str:
        """Return the key in ``models`` of the model called ``name``, or ``NAME@VERSION``; None for the default model.

        Raises:
            ServiceError: ``unknown_model``.
        """
        if name is None:
            return self.default_model
        versions = {key: served.card.version for key, served in self.models.items()}
        found = model_key(name, versions)
        if found is None:
            served = f"Choose one of the models served: {', '.join(sorted(self.models))}."
            base = name.partition("@")[0]
            newest = f" The newest version of {base} is {versions[base]}." if base in versions else ""
            raise ServiceError(ErrorKind.UNKNOWN_MODEL, served + newest)
        return found

    def failing_models(self) -> list[str]:
        """Return the keys of the models that have no working device at present.

        A model other than the default that cannot run until the service is restarted is not among them.
        """
        return sorted(
            key
            for key, served in self.models.items()
            if (served.engine.available or key == self.default_model) and not served.engine.healthy
        )

    def expected_wait_s(self, n_tracks: int) -> float:
        """Return how long a track would wait for a processor, in seconds.

        Args:
            n_tracks: Number of tracks in progress, without this one.
        """
        return self.scheduler.expected_wait_s(n_tracks)

    @property
    @abstractmethod
    def sandbox_layers(self) -> frozenset[str]:
        """Active layers of the sandbox for decoders."""

    @abstractmethod
    def worker_counts(self) -> WorkerCounts:
        """Return how the feature workers of this process are."""

    def close(self) -> None:
        """Finish the tracks in progress, then stop the engines."""
        for served in self.models.values():
            served.engine.close()

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
        """Predict the genre of a whole recording.

        Args:
            source: A file in any accepted format, or audio that arrives while it is predicted.
            model: Name of a served model, or NAME@VERSION; None for the default model.
            hop_s: Distance between window starts in seconds, from one frame to a window; None for the model's default.
            taxonomy: Name of the taxonomy in which the genres are read; None for the labels of the model.
            tags: Detail of the tags; None for those of the track if the model has tags.
            embedding: Detail of the embedding.
            max_duration_s: Limit on the length of the recording, in seconds.
            weight: Share of decoding and inference relative to a track of weight 1.
            cancellation: Stops the work from another thread.
            observer: Follows the track; its methods are called in this thread and in those of the engine.

        Raises:
            ServiceError: Any error that concerns a recording, its parameters or the device.
        """
        served = self.model(model)
        grid = served.grid(hop_s)
        request = _Request(taxonomy, served.keep(tags=tags, embedding=embedding))
        served.taxonomy(taxonomy)
        cancellation = cancellation or Cancellation()
        cancellation.check()
        plan, lost_worker = QUICK, False
        while True:
            try:
                track = Track(source, served, grid, max_duration_s, cancellation, plan, observer or Observer())
                return self._predict(track, request, weight=weight)
            except DecodeAgainError as again:
                _log.info("decoding a recording again: %s", again)
                plan = again.plan
            except WorkerLostError as error:
                # Not more than once: the recording may be the cause.
                if lost_worker:
                    raise decoder_stopped() from error
                _log.warning("decoding a recording again: %s", error)
                lost_worker = True
            except MessageError as error:
                _log.error("a feature worker failed to compute windows: %s", error)
                raise decoder_stopped() from error

    def _predict(self, track: Track, request: _Request, *, weight: int) -> TrackPrediction:
        served, cancellation = track.served, track.cancellation
        keep = request.kept_by_engine(served)
        with served.open_track(weight=weight, keep=keep) as queue, cancellation.calling(queue.abandon):
            queue.on_output = track.observer.classified
            with self.scheduler.slot(cancellation, weight=weight, memory=track.decoder_memory) as slot:
                track.observer.started(served.card, float(track.grid.hop), served.taxonomy(request.taxonomy))
                audio = self._decode_into(queue, track, slot)
                # Keep the slot until the track is classified, so that decoding others does not delay it. The timeout
                # keeps a hung device from blocking the tracks of other models.
                with track.timer.measure("inference"):
                    queue.wait_settled(_SETTLE_TIMEOUT_S)
            with track.timer.measure("inference"):
                outputs = queue.finish()
        return _prediction(track, audio, outputs, request=request, times=_times(track.timer, slot))

    @contextmanager
    def _open(self, track: Track) -> Generator[tuple[Decoding[ExtractedWindows] | LiveDecoding, RemoteWindows | None]]:
        """Start decoding a track, and stop at the end of the ``with`` block. Live audio needs no feature worker."""
        if isinstance(track.source, LivePcm):
            rate = track.served.card.audio.sample_rate
            with LiveDecoding(track.source, sample_rate=rate, max_duration_s=track.max_duration_s) as live:
                yield live, None
            return
        with self._open_recording(track) as (decoding, windows):
            yield decoding, windows

    @abstractmethod
    def _open_recording(self, track: Track) -> AbstractContextManager[tuple[Decoding[ExtractedWindows], RemoteWindows]]:
        """Start decoding a file, and stop at the end of the ``with`` block."""

    def _decode_into(self, queue: TrackQueue, track: Track, slot: Slot) -> DecodedAudio:
        """Decode a track, and put its windows with sound into the queue."""
        with self._open(track) as (decoding, windows), track.cancellation.calling(lambda _: decoding.kill()):
            for block in track.blocks(decoding, windows):
                track.cancellation.check()
                track.windows.add(block.start_s, block.silent)
                track.observer.cut(block.start_s, block.silent)
                self._check_length(track)
                with track.timer.measure("inference"):
                    queue.put(block.rows)
                if decoding.ended:
                    continue
                if isinstance(decoding, LiveDecoding) and decoding.starved:
                    slot.idle(decoding.wait)
                else:
                    slot.yield_slot(stalled=decoding.stalled)
            track.cancellation.check()
            return decoding.summary()

    def _check_length(self, track: Track) -> None:
        max_windows = self._max_steps // (track.served.card.outputs.scores.steps or 1)
        if track.windows.n_windows > max_windows:
            raise ServiceError(
                ErrorKind.AUDIO_TOO_LONG,
                f"The recording has more than {max_windows} windows at this hop. Use a larger hop_s.",
            )


def _prediction(
    track: Track,
    audio: DecodedAudio,
    outputs: TrackOutputs | None,
    *,
    request: _Request,
    times: StageTimes,
) -> TrackPrediction:
    served, card = track.served, track.served.card
    windows = track.windows.times()
    scores = track_scores(windows, outputs.rows[0] if outputs else None, card)
    taxonomy = served.taxonomy(request.taxonomy)
    genres = track_genres(scores, card, taxonomy, duration_s=audio.duration_s, tags=_domain_tags(served, outputs))
    found = {
        kind: (outputs.mean(i), outputs.rows[i]) if outputs else (None, _no_rows(card, i, keep))
        for i, (kind, keep) in enumerate(zip(card.outputs.kinds, request.keep, strict=True))
        if keep is not Keep.NOTHING
    }
    return TrackPrediction(
        stream=audio.stream,
        duration_s=audio.duration_s,
        card=card,
        device=served.engine.device,
        precision=served.engine.precision,
        hop_s=float(track.grid.hop),
        taxonomy=request.taxonomy,
        labels=genres.labels,
        summed_score=genres.summed_score,
        majority_vote=genres.majority_vote,
        confidence=genres.confidence,
        in_domain=genres.in_domain,
        sections=genres.sections,
        windows=genres.windows,
        tags=track_tags(windows, *found["tags"], card) if "tags" in found else None,
        embedding=track_embedding(windows, *found["embedding"], card) if "embedding" in found else None,
        warnings=(*audio.warnings, *track_warnings(card, scores, audio.duration_s, in_domain=genres.in_domain)),
        times=times,
    )


def _domain_tags(served: ServedModel, outputs: TrackOutputs | None) -> dict[str, float] | None:
    """Return the calibrated probabilities of the tags if they decide whether the track is in domain."""
    spec = served.card.outputs.tags
    if outputs is None or spec is None or not served.domain_needs_tags:
        return None
    mean = outputs.mean(served.card.outputs.kinds.index("tags"))
    return None if mean is None else dict(zip(spec.names, calibrated(mean, spec).tolist(), strict=True))


def _no_rows(card: ModelCard, output: int, keep: Keep) -> NDArray[np.float32] | None:
    """Return the rows of an output for a silent track, if they were requested."""
    return np.zeros((0, *card.output_shapes[output]), dtype=np.float32) if keep is Keep.ROWS else None


def _times(timer: StageTimer, slot: Slot) -> StageTimes:
    return StageTimes(
        decode=timer.decode * 1e3,
        features=timer.features * 1e3,
        queue=slot.waited_s * 1e3,
        inference=timer.inference * 1e3,
    )
