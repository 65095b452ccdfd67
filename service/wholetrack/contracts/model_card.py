"""The contents of ``model.json``: everything about a bundle that affects a prediction."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from wholetrack.contracts.features import AudioSpec, FeatureSpec, Spec


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
