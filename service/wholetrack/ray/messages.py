"""What replicas send to each other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wholetrack.contracts import Detail, Rows
from wholetrack.observer import Observer
from wholetrack.served_model import ServedModel

NetworkKey = tuple[str, str]
"""Name and version of a model."""


@dataclass(frozen=True, slots=True)
class NetworkInfo:
    """A network that a replica runs.

    Attributes:
        device: Its device, ``cpu`` or ``cuda:`` and a number.
        precision: Number format in which it computes.
        min_share: Number of consecutive windows of a track that cost less together than apart.
        healthy: Whether it has a device that works.
        unavailable_reason: Why the model cannot run until the replica is restarted, as a clause; None if it can.
        cpu_fallback: Why it runs on the CPU although there is a GPU; None otherwise.
    """

    device: str
    precision: str
    min_share: int
    healthy: bool
    unavailable_reason: str | None
    cpu_fallback: str | None


@dataclass(frozen=True, slots=True)
class NotClassified:
    """The outcome of windows that a network has not classified.

    Attributes:
        reason: Why, for the log.
        again: Whether the same windows may succeed later, or in another replica.
    """

    reason: str
    again: bool


@dataclass(frozen=True, slots=True)
class AnalysisInfo:
    """A replica that decodes recordings.

    Attributes:
        tracks_at_once: Number of tracks that it decodes at the same time.
        sandbox_layers: Active layers of the sandbox for its decoders.
    """

    tracks_at_once: int
    sandbox_layers: frozenset[str]


@dataclass(frozen=True, slots=True)
class Recording:
    """A recording that another replica has received.

    Attributes:
        node_id: Node on which ``path`` is.
        path: The file.
        chunks: References to its content in the object store, in order; None if only replicas on its node can read it.
    """

    node_id: str
    path: str
    chunks: tuple[Any, ...] | None = None


class Elsewhere:
    """The outcome of a recording that is on another node."""


@dataclass(frozen=True, slots=True)
class TrackOptions:
    """How to predict a recording. The first six are those of :meth:`~wholetrack.track_pipeline.TrackPipeline.predict`.

    Attributes:
        model: Key of the model.
        hop_s: Time between window starts in seconds.
        taxonomy: Name of a taxonomy.
        tags: Detail of the tags.
        embedding: Detail of the embedding.
        max_duration_s: Limit on the length of the recording, in seconds.
        weight: Share of the replica relative to a track of weight 1.
        peaks_per_s: Peaks of the waveform per second of audio that events contain; None for no events at all.
        request_id: Id of the request, for log records.
    """

    model: str
    hop_s: float | None
    taxonomy: str | None
    tags: Detail | None
    embedding: Detail
    max_duration_s: float
    weight: int
    peaks_per_s: int | None
    request_id: str | None


@dataclass(frozen=True, slots=True)
class Started:
    """The track is about to be decoded from its beginning."""

    hop_s: float
    taxonomy: str | None

    def replay(self, observer: Observer, served: ServedModel) -> None:
        """Tell an observer in this process."""
        observer.started(served.card, self.hop_s, served.taxonomy(self.taxonomy))


@dataclass(frozen=True, slots=True)
class Decoded:
    """More of the track was decoded."""

    n_samples: int
    peaks: NDArray[np.float32]

    def replay(self, observer: Observer, served: ServedModel) -> None:  # noqa: ARG002 - as for the other events
        """Tell an observer in this process."""
        observer.decoded(self.n_samples, self.peaks)


@dataclass(frozen=True, slots=True)
class Cut:
    """The next windows."""

    start_s: NDArray[np.float64]
    silent: NDArray[np.bool_]

    def replay(self, observer: Observer, served: ServedModel) -> None:  # noqa: ARG002 - as for the other events
        """Tell an observer in this process."""
        observer.cut(self.start_s, self.silent)


@dataclass(frozen=True, slots=True)
class Classified:
    """The scores of some windows."""

    position: int
    scores: NDArray[np.float32]

    def replay(self, observer: Observer, served: ServedModel) -> None:  # noqa: ARG002 - as for the other events
        """Tell an observer in this process."""
        observer.classified(self.position, Rows.of(self.scores))


Event = Started | Decoded | Cut | Classified
