"""The result of a prediction, as it passes from the pipeline to those who render it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from wholetrack.contracts.model_card import ModelCard
from wholetrack.contracts.outputs import TagSpec


@dataclass(frozen=True, slots=True)
class StreamInfo:
    """Properties of the decoded audio stream, as container and decoder report them.

    Attributes:
        codec: ffmpeg's name for the codec, such as ``mp3`` or ``pcm_s16le``.
        container: ffmpeg's name for the container, such as ``mp3``, ``ogg`` or ``mov,mp4,m4a,3gp,3g2,mj2``.
        sample_rate_hz: Sample rate of the file, before resampling.
        channels: Number of channels of the file, before mixing to mono.
    """

    codec: str
    container: str
    sample_rate_hz: int
    channels: int


class WarningCode(StrEnum):
    """Something that may affect a prediction, although it succeeded."""

    TRUNCATED = "truncated"
    DAMAGED = "damaged"
    CANCELLED_CHANNELS = "cancelled_channels"
    PADDED = "padded"
    SILENT_WINDOWS = "silent_windows"
    SILENT_TRACK = "silent_track"
    OUT_OF_DOMAIN = "out_of_domain"


@dataclass(frozen=True, slots=True)
class TrackWarning:
    """A warning about a prediction: a stable code and a sentence."""

    code: WarningCode
    detail: str


@dataclass(frozen=True, slots=True)
class WindowScores:
    """Scores of every window of a track in chronological order; of every step if the model has several per window.

    Attributes:
        start_s: Start of each window, in seconds, ``[n_windows]``.
        probabilities: Probability of each label, ``[n_windows, n_labels]``; uniform for a silent window.
        silent: Whether each window is digital silence and has no vote, ``[n_windows]``.
    """

    start_s: NDArray[np.float64]
    probabilities: NDArray[np.float32]
    silent: NDArray[np.bool_]


class Detail(StrEnum):
    """How much of an optional output of the network a prediction contains."""

    NONE = "none"
    TRACK = "track"
    WINDOWS = "windows"


@dataclass(frozen=True, slots=True)
class WindowTimes:
    """All windows of a track.

    Attributes:
        start_s: Start of each window, in seconds, ``[n_windows]``.
        silent: Whether each window is silent, ``[n_windows]``.
    """

    start_s: NDArray[np.float64]
    silent: NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class TagScores:
    """Calibrated probabilities of the tags.

    Attributes:
        tags: The tags.
        unverified: Names of the tags that could not be judged.
        parents: Parent genre of some tags.
        track: Probability of each tag for the track, ``[n_tags]``; None for a silent track.
        windows: Probabilities of each window with sound, ``[n, n_tags]``; None if they were not requested.
        times: All windows of the track, silent ones included.
    """

    tags: tuple[TagSpec, ...]
    unverified: tuple[str, ...]
    parents: Mapping[str, str]
    track: NDArray[np.float64] | None
    windows: NDArray[np.float32] | None
    times: WindowTimes


@dataclass(frozen=True, slots=True)
class Embeddings:
    """Vectors of unit length that are similar for similar music.

    Attributes:
        length: Number of components.
        track: The vector of the track, ``[length]``; None for a silent track.
        windows: The vector of each window with sound, ``[n, length]``; None if they were not requested.
        times: All windows of the track, silent ones included.
    """

    length: int
    track: NDArray[np.float32] | None
    windows: NDArray[np.float32] | None
    times: WindowTimes


@dataclass(frozen=True, slots=True)
class RankedGenre:
    """A genre, its share of the total in [0, 1] and, for votes, its number of windows."""

    genre: str
    share: float
    windows: int | None = None


@dataclass(frozen=True, slots=True)
class Ranking:
    """All genres from the most to the least likely; empty for a silent track."""

    ranked: tuple[RankedGenre, ...]

    @property
    def genre(self) -> str | None:
        """The first genre; None for a silent track."""
        return self.ranked[0].genre if self.ranked else None

    @property
    def share(self) -> float:
        """Share of the first genre; 0.0 for a silent track."""
        return self.ranked[0].share if self.ranked else 0.0


@dataclass(frozen=True, slots=True)
class Section:
    """A part of the track in which one genre leads, with the mean probability of that genre."""

    start_s: float
    end_s: float
    genre: str
    share: float


@dataclass(frozen=True, slots=True)
class StageTimes:
    """Milliseconds that the thread of a track spent in each stage, one after the other.

    The stages of a track overlap: while the thread waits for one of them, the others continue. Its time therefore shows
    what a track waited for, and adds up to no more than the total.

    Attributes:
        decode: Waiting for the decoder.
        features: Computing the spectrogram and its windows.
        queue: Waiting for a slot.
        inference: Waiting for the network.
    """

    decode: float
    features: float
    queue: float
    inference: float


@dataclass(frozen=True, slots=True)
class TrackPrediction:
    """The complete result for one recording.

    Attributes:
        taxonomy: Name of the taxonomy in which the genres are read; None for the labels of the model.
        labels: Genre of each column of ``windows.probabilities``.
        tags: None if the model has no tags, or they were not requested.
        embedding: None if it was not requested.
    """

    stream: StreamInfo
    duration_s: float
    card: ModelCard
    device: str
    precision: str
    hop_s: float
    taxonomy: str | None
    labels: tuple[str, ...]
    summed_score: Ranking
    majority_vote: Ranking
    confidence: float
    in_domain: bool | None
    sections: tuple[Section, ...]
    windows: WindowScores
    tags: TagScores | None
    embedding: Embeddings | None
    warnings: tuple[TrackWarning, ...]
    times: StageTimes
