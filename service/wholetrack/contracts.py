"""The value types that travel through the service: what a bundle promises, what a track is, what is answered.

Types read from a bundle's ``model.json`` are frozen pydantic models, because somebody else wrote that file; types
that only ever travel inside the process are frozen dataclasses. Nothing here does I/O.
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
    """A frozen part of ``model.json``; an unknown field is an error, not a surprise."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class AudioSpec(Spec):
    """The PCM that the features expect: mono, float32, full scale at 1.0."""

    sample_rate: int = Field(gt=0, description="samples per second, in Hz")


class RelativeToMax(Spec):
    """Level relative to the window's own maximum: ``max(dB - max(dB), -range_db) / range_db + 1``, in [0, 1].

    The loudness of a recording cancels out, and everything more than ``range_db`` below the window's loudest
    point is the same floor.
    """

    kind: Literal["relative_to_max"] = "relative_to_max"
    scope: Literal["window"] = "window"
    range_db: float = Field(gt=0)


class MinMax(Spec):
    """The window's own range, at most ``range_db`` deep, spread over ``low`` to ``high``; a flat window is ``low``."""

    kind: Literal["min_max"] = "min_max"
    scope: Literal["window"] = "window"
    range_db: float = Field(gt=0)
    low: float
    high: float


class Unchanged(Spec):
    """The log-mel values as they are: the answer depends on the loudness of the recording."""

    kind: Literal["unchanged"] = "unchanged"
    scope: Literal["window"] = "window"


Normalisation = Annotated[RelativeToMax | MinMax | Unchanged, Field(discriminator="kind")]
"""What is done to each window before the network hears it, always to one window by itself."""


class FeatureSpec(Spec):
    """A log-mel spectrogram and the grid on which its frames lie.

    Frame ``i`` covers the ``n_fft`` samples from ``round(i * sample_rate / frames_per_second)`` on, or from
    ``i * hop_length`` on: exactly one of the two is given.
    """

    n_fft: int = Field(gt=0)
    window: Literal["hann"] = "hann"
    frames_per_second: int | None = Field(default=None, gt=0)
    hop_length: int | None = Field(default=None, gt=0)
    n_mels: int = Field(gt=0)
    fmin: float = Field(ge=0)
    fmax: float = Field(gt=0)
    mel_scale: Literal["slaney", "htk"] = "slaney"
    mel_norm: Literal["slaney"] | None = "slaney"
    power: Literal[1, 2] = 2
    log: Literal["db", "ln"] = "db"
    floor: float = Field(gt=0, description="mel values below this are raised to it before the logarithm")
    normalisation: Normalisation

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
    """How a track is cut into windows for the classifier."""

    window_s: float = Field(gt=0)
    hop_s: float = Field(gt=0, description="default distance between window starts")
    frames: int = Field(gt=0, description="spectrogram frames per window")
    last_window: Literal["align_to_end", "drop"] = Field(
        description="what becomes of the rest behind the last whole hop: one more window that ends with the "
        "recording, or nothing"
    )
    short_track: Literal["repeat"] = Field(
        default="repeat", description="a track shorter than one window is repeated until it fills one"
    )

    @model_validator(mode="after")
    def _hop_within_window(self) -> WindowSpec:
        if self.hop_s > self.window_s:
            raise ValueError(f"hop_s {self.hop_s} must not exceed window_s {self.window_s}")
        return self


class OnnxSpec(Spec):
    """What the exported network takes and gives."""

    input: str
    shape: tuple[str, int, int] = Field(description="name of the batch axis, frames, mel bands")
    output: str
    yields: Literal["logits", "probabilities"]
    opset: int
    steps: int | None = Field(
        default=None,
        gt=0,
        description="the network states a belief for each of so many equal parts of a window, output [N, steps, "
        "labels]; without it one for the whole window, output [N, labels]",
    )


class GoldenSpec(Spec):
    """A few windows and the probabilities that the network must give for them on any device."""

    file: str = "golden.npz"
    sha256: str
    tolerance: float = Field(gt=0, description="largest difference of a probability that passes")


class Int8Spec(Spec):
    """The same network with its convolutions and products in integers of 8 bits, for the CPU."""

    file: str = "model.int8.onnx"
    sha256: str
    tolerance: float = Field(gt=0, description="largest difference of a golden probability that passes")
    metrics: dict[str, Any] = Field(description="what it costs on tracks that the networks compared never saw")


class CalibrationSpec(Spec):
    """How a track's summed shares become a confidence: each to the power of ``1 / temperature``, the leading one."""

    temperature: float = Field(gt=0)


class DomainSpec(Spec):
    """When a recording is of a kind that a model knows: its windows' highest probabilities reach this on average."""

    least_peak: float = Field(gt=0, lt=1)


class ModelCard(Spec):
    """``model.json``: everything about a bundle that decides an answer."""

    schema_version: Literal[1] = 1
    name: str = Field(pattern=r"^[a-z0-9][a-z0-9.-]*$")
    version: str = Field(pattern=r"^[0-9][0-9A-Za-z.-]*$")
    summary: str
    labels: tuple[str, ...] = Field(min_length=2)
    licence: str
    trained_on: dict[str, Any]
    metrics: dict[str, Any]
    sha256: str = Field(description="of model.onnx")
    audio: AudioSpec
    features: FeatureSpec
    windows: WindowSpec
    onnx: OnnxSpec
    golden: GoldenSpec
    calibration: CalibrationSpec | None = Field(default=None, description="none: the confidence is the bare share")
    domain: DomainSpec | None = Field(default=None, description="none: the model cannot tell what it does not know")
    int8: Int8Spec | None = Field(default=None, description="none: the network is there in float32 only")

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
        """What the network says of one window: ``(labels,)``, or ``(steps, labels)`` of one that hears on."""
        return (len(self.labels),) if self.onnx.steps is None else (self.onnx.steps, len(self.labels))

    @property
    def step_s(self) -> float:
        """How many seconds one answer is about: a window, or a step of one."""
        return self.windows.window_s / (self.onnx.steps or 1)


@dataclass(frozen=True, slots=True)
class StreamInfo:
    """What the container and the decoder say of the audio stream that was heard.

    Attributes:
        codec: ffmpeg's name of the codec, such as ``mp3`` or ``pcm_s16le``.
        container: ffmpeg's name of the container, such as ``mp3``, ``ogg`` or ``mov,mp4,m4a,3gp,3g2,mj2``.
        sample_rate_hz: of the file, before resampling.
        channels: of the file, before the mix to mono.
    """

    codec: str
    container: str
    sample_rate_hz: int
    channels: int


class WarningCode(StrEnum):
    """What a caller should know about an answer that is still an answer."""

    TRUNCATED = "truncated"
    DAMAGED = "damaged"
    PADDED = "padded"
    SILENT_WINDOWS = "silent_windows"
    SILENT_TRACK = "silent_track"


@dataclass(frozen=True, slots=True)
class TrackWarning:
    """One remark about an answer: a stable code and a sentence."""

    code: WarningCode
    detail: str


@dataclass(frozen=True, slots=True)
class WindowScores:
    """What the classifier gave for every window of a track, in order of time.

    Attributes:
        start_s: where each window starts, in seconds, ``[n_windows]``.
        probabilities: each window's probabilities over the labels, ``[n_windows, n_labels]``; uniform for a
            silent window.
        silent: windows of digital silence, which carry no vote, ``[n_windows]``.
    """

    start_s: NDArray[np.float64]
    probabilities: NDArray[np.float32]
    silent: NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class RankedGenre:
    """A genre, its share of the total in [0, 1] and, for votes, the number of windows that chose it."""

    genre: str
    share: float
    windows: int | None = None


@dataclass(frozen=True, slots=True)
class Ranking:
    """All genres from the most to the least likely; ``genre`` is None where nothing was heard."""

    ranked: tuple[RankedGenre, ...]

    @property
    def genre(self) -> str | None:
        """The first genre, or None where there is none."""
        return self.ranked[0].genre if self.ranked else None

    @property
    def share(self) -> float:
        """The first genre's share, or 0.0 where there is none."""
        return self.ranked[0].share if self.ranked else 0.0


@dataclass(frozen=True, slots=True)
class Section:
    """A stretch of the track in which one genre leads, with that genre's mean probability there."""

    start_s: float
    end_s: float
    genre: str
    share: float


@dataclass(frozen=True, slots=True)
class StageTimes:
    """Milliseconds that a track spent in each stage; stages overlap, so the parts may exceed the whole."""

    decode: float
    features: float
    queue: float
    inference: float


@dataclass(frozen=True, slots=True)
class TrackPrediction:
    """Everything the service has to say about one recording."""

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
