"""Value types shared by all stages: the contents of ``model.json``, and the result of a prediction.

Types read from ``model.json`` are frozen pydantic models, which validate it. Types that stay inside the process are
frozen dataclasses. Nothing here does I/O.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from fractions import Fraction
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator


class Spec(BaseModel):
    """A part of ``model.json``. Unknown fields are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class AudioSpec(Spec):
    """The PCM that the features are computed from: mono, float32, full scale at 1.0."""

    sample_rate: int = Field(gt=0, description="Sample rate in Hz.")


class RelativeToMax(Spec):
    """Level relative to the maximum of the window: ``max(dB - max(dB), -range_db) / range_db + 1``, in [0, 1].

    The loudness of the recording cancels out. Everything more than ``range_db`` below the maximum is clipped.
    """

    kind: Literal["relative_to_max"] = "relative_to_max"
    scope: Literal["window"] = "window"
    range_db: float = Field(gt=0, description="Dynamic range that is kept, in dB.")


class MinMax(Spec):
    """Level clipped ``range_db`` below the maximum of the window, with the remaining range scaled to [low, high].

    A constant window becomes ``low``.
    """

    kind: Literal["min_max"] = "min_max"
    scope: Literal["window"] = "window"
    range_db: float = Field(gt=0, description="Dynamic range that is kept, in dB.")
    low: float = Field(description="Value of the minimum.")
    high: float = Field(description="Value of the maximum.")


class Unchanged(Spec):
    """The log-mel values as they are, so that the prediction depends on the loudness of the recording."""

    kind: Literal["unchanged"] = "unchanged"
    scope: Literal["window"] = "window"


Normalisation = Annotated[RelativeToMax | MinMax | Unchanged, Field(discriminator="kind")]
"""Normalisation of the network's input. It is computed per window, so that a window never depends on another one."""


class FeatureSpec(Spec):
    """A log-mel spectrogram and the grid of its frames.

    Frame ``i`` covers ``n_fft`` samples, starting at ``round(i * sample_rate / frames_per_second)`` or at
    ``i * hop_length``. Exactly one of ``frames_per_second`` and ``hop_length`` is given.
    """

    n_fft: int = Field(gt=0, description="Length of a frame in samples.")
    window: Literal["hann"] = Field(default="hann", description="Window function of the transform, periodic.")
    frames_per_second: int | None = Field(default=None, gt=0, description="Frame rate, for a grid by time.")
    hop_length: int | None = Field(default=None, gt=0, description="Samples between frames, for a grid by samples.")
    n_mels: int = Field(gt=0, description="Number of mel bands.")
    fmin: float = Field(ge=0, description="Lower edge of the lowest band in Hz.")
    fmax: float = Field(gt=0, description="Upper edge of the highest band in Hz.")
    mel_scale: Literal["slaney", "htk"] = Field(default="slaney", description="Formula of the mel scale.")
    mel_norm: Literal["slaney"] | None = Field(
        default="slaney", description="slaney for filters of unit area, null for filters of unit height."
    )
    power: Literal[1, 2] = Field(default=2, description="1 for magnitude, 2 for power.")
    log: Literal["db", "ln"] = Field(default="db", description="10 log10, or the natural logarithm.")
    floor: float = Field(gt=0, description="Lower bound of the mel values, applied before the logarithm.")
    normalisation: Normalisation = Field(description="Applied to each window separately.")

    @model_validator(mode="after")
    def _one_grid(self) -> FeatureSpec:
        if (self.frames_per_second is None) == (self.hop_length is None):
            raise ValueError("give exactly one of frames_per_second and hop_length")
        if self.log != "db" and not isinstance(self.normalisation, Unchanged):
            raise ValueError(f"normalisation {self.normalisation.kind} needs features in dB, not {self.log}")
        if self.fmin >= self.fmax:
            raise ValueError(f"fmin {self.fmin} must be below fmax {self.fmax}")
        return self

    def frame_rate(self, sample_rate: int) -> Fraction:
        """Frames per second, exactly."""
        if self.frames_per_second is not None:
            return Fraction(self.frames_per_second)
        assert self.hop_length is not None
        return Fraction(sample_rate, self.hop_length)


class WindowSpec(Spec):
    """How a track is divided into windows."""

    window_s: float = Field(gt=0, description="Length of a window in seconds.")
    hop_s: float = Field(gt=0, description="Default distance between window starts, in seconds.")
    frames: int = Field(gt=0, description="Number of spectrogram frames per window.")
    last_window: Literal["align_to_end", "drop"] = Field(
        description="How the part after the last whole hop is covered: by one more window that ends with the "
        "recording, or not at all."
    )
    short_track: Literal["repeat"] = Field(
        default="repeat", description="A track shorter than one window is repeated until it fills one."
    )

    @model_validator(mode="after")
    def _hop_within_window(self) -> WindowSpec:
        if self.hop_s > self.window_s:
            raise ValueError(f"hop_s {self.hop_s} must not exceed window_s {self.window_s}")
        return self


class OnnxSpec(Spec):
    """Inputs and outputs of the exported network."""

    input: str = Field(description="Name of the input.")
    shape: tuple[str, int, int] = Field(description="Shape of the input: name of the batch axis, frames, mel bands.")
    output: str = Field(description="Name of the output.")
    yields: Literal["logits", "probabilities"] = Field(
        description="Meaning of the output; the service applies a softmax to logits."
    )
    opset: int = Field(description="Version of the ONNX operator set.")
    steps: int | None = Field(
        default=None,
        gt=0,
        description="Number of steps per window, if the network has an output for each of several equal parts of a "
        "window: the output is then [N, steps, labels] instead of [N, labels].",
    )


class GoldenSpec(Spec):
    """Input windows and the probabilities that the network must return for them on every device."""

    file: str = Field(default="golden.npz", description="File name within the bundle.")
    sha256: str = Field(description="SHA-256 of the file, in hexadecimal.")
    tolerance: float = Field(gt=0, description="Largest accepted difference in a probability.")


class Int8Spec(Spec):
    """The same network with its convolutions and matrix products quantised to 8-bit integers, for the CPU."""

    file: str = Field(default="model.int8.onnx", description="File name within the bundle.")
    sha256: str = Field(description="SHA-256 of the file, in hexadecimal.")
    tolerance: float = Field(gt=0, description="Largest accepted difference from a golden probability.")
    metrics: dict[str, Any] = Field(
        description="Accuracy in float32 and in int8 on tracks that were not used for training; not interpreted."
    )


class CalibrationSpec(Spec):
    """Temperature scaling: the confidence is the largest of the shares raised to ``1 / temperature`` and normalised."""

    temperature: float = Field(gt=0, description="Values below 1 sharpen the shares; values above 1 flatten them.")


class DomainSpec(Spec):
    """A recording is in domain if the mean of its windows' largest probabilities is at least ``least_peak``."""

    least_peak: float = Field(gt=0, lt=1, description="Threshold for the mean of the largest probabilities.")


class ModelCard(Spec):
    """Contents of ``model.json``: everything about a bundle that affects a prediction."""

    schema_version: Literal[1] = Field(default=1, description="Version of this contract.")
    name: str = Field(
        pattern=r"^[a-z0-9][a-z0-9.-]*$", description="Name of the model; also the name of the bundle's parent folder."
    )
    version: str = Field(
        pattern=r"^[0-9][0-9A-Za-z.-]*$", description="Version of the model; also the name of the bundle's folder."
    )
    summary: str = Field(description="One sentence about the model.")
    labels: tuple[str, ...] = Field(min_length=2, description="Genres, in the order of the outputs.")
    licence: str = Field(description="SPDX expression.")
    trained_on: dict[str, Any] = Field(description="Training data and recipe; not interpreted.")
    metrics: dict[str, Any] = Field(description="Evaluation results; not interpreted.")
    sha256: str = Field(description="SHA-256 of model.onnx, in hexadecimal.")
    audio: AudioSpec = Field(description="Audio that the features are computed from.")
    features: FeatureSpec = Field(description="Log-mel spectrogram.")
    windows: WindowSpec = Field(description="Windows of the spectrogram.")
    onnx: OnnxSpec = Field(description="Inputs and outputs of the network.")
    golden: GoldenSpec = Field(description="Self-test.")
    calibration: CalibrationSpec | None = Field(
        default=None, description="Calibration of the confidence. Without it, the confidence is the share of the genre."
    )
    domain: DomainSpec | None = Field(
        default=None, description="Threshold for in_domain. Without it, in_domain is null."
    )
    int8: Int8Spec | None = Field(default=None, description="The quantised network, if there is one.")

    @model_validator(mode="after")
    def _parts_agree(self) -> ModelCard:
        if len(set(self.labels)) != len(self.labels):
            raise ValueError("labels must be distinct")
        expected = (self.windows.frames, self.features.n_mels)
        if self.onnx.shape[1:] != expected:
            raise ValueError(f"onnx.shape {self.onnx.shape[1:]} is not (windows.frames, features.n_mels) {expected}")
        if self.features.fmax > self.audio.sample_rate / 2:
            raise ValueError(f"fmax {self.features.fmax} Hz exceeds half the sample rate")
        return self

    @property
    def output_shape(self) -> tuple[int, ...]:
        """Shape of the output for one window: ``(labels,)``, or ``(steps, labels)`` if there are several steps."""
        return (len(self.labels),) if self.onnx.steps is None else (self.onnx.steps, len(self.labels))

    @property
    def step_s(self) -> float:
        """Length in seconds of what one row of scores covers: a window, or a step if there are several per window."""
        return self.windows.window_s / (self.onnx.steps or 1)


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
    """The complete result for one recording."""

    stream: StreamInfo
    duration_s: float
    card: ModelCard
    device: str
    precision: str
    hop_s: float
    summed_score: Ranking
    majority_vote: Ranking
    confidence: float
    in_domain: bool | None
    sections: tuple[Section, ...]
    windows: WindowScores
    warnings: tuple[TrackWarning, ...]
    times: StageTimes
