"""The contents of ``model.json``: everything about a bundle that affects a prediction."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import Field, model_validator

from wholetrack.contracts.features import Affine, AudioSpec, Spec, Unchanged
from wholetrack.contracts.outputs import InputSpec, OutputsSpec
from wholetrack.contracts.taxonomy import (
    TaxonomySpec,
    check_domain_tag,
    check_parents,
    check_taxonomies,
    check_unverified,
)


class WindowingSpec(Spec):
    """How a track is divided into windows."""

    window_s: float = Field(gt=0, description="Length of a window in seconds.")
    hop_s: float = Field(gt=0, description="Default distance between window starts, in seconds.")
    last_window: Literal["align_to_end", "drop"] = Field(
        description="How the part after the last whole hop is covered: by one more window that ends with the "
        "recording, or not at all."
    )
    short_track: Literal["repeat"] = Field(
        default="repeat", description="A track shorter than one window is repeated until it fills one."
    )

    @model_validator(mode="after")
    def _hop_within_window(self) -> WindowingSpec:
        if self.hop_s > self.window_s:
            raise ValueError(f"hop_s {self.hop_s} must not exceed window_s {self.window_s}")
        return self


class WindowSpec(WindowingSpec):
    """How a track is divided into windows of frames, for a single input."""

    frames: int = Field(gt=0, description="Number of spectrogram frames per window.")


class GoldenSpec(Spec):
    """Inputs and the outputs that the network must give for them on every device."""

    file: str = Field(default="golden.npz", description="File name within the bundle.")
    sha256: str = Field(description="SHA-256 of the file, in hexadecimal.")
    tolerance: float = Field(
        gt=0, description="Largest accepted difference of a probability, or of a component of the embedding."
    )


class Int8Spec(Spec):
    """The same network with its convolutions and matrix products quantised to 8-bit integers, for the CPU."""

    file: str = Field(default="model.int8.onnx", description="File name within the bundle.")
    sha256: str = Field(description="SHA-256 of the file, in hexadecimal.")
    tolerance: float = Field(gt=0, description="Largest accepted difference from the golden outputs.")
    metrics: dict[str, Any] = Field(
        description="Accuracy in float32 and in int8 on tracks that were not used for training; not interpreted."
    )


class StripsSpec(Spec):
    """The same network as a graph that classifies all windows of consecutive frames at once, for the CPU.

    It computes only once what overlapping windows have in common. Its results are the same: what it computes from a
    window depends on the frames of that window only, wherever the window starts. Its outputs are those of model.onnx.
    """

    file: str = Field(default="model.strips.onnx", description="File name within the bundle.")
    sha256: str = Field(description="SHA-256 of the file, in hexadecimal.")
    frames: str = Field(description="Name of the input with the frames in float32: [frames, mel bands].")
    starts: str = Field(description="Name of the input with the first frame of each window in int64: [N].")


class CalibrationSpec(Spec):
    """Temperature scaling: the confidence is the largest of the shares raised to ``1 / temperature`` and normalised."""

    temperature: float = Field(gt=0, description="Values below 1 sharpen the shares; values above 1 flatten them.")


class DomainSpec(Spec):
    """Whether a recording resembles the music that the model knows.

    It is in domain if the mean of its windows' largest probabilities is at least ``least_peak``, or if the probability
    of ``tag`` is at least ``least_probability``; a bundle states either the first, or the second and the third.
    """

    least_peak: float | None = Field(
        default=None, gt=0, lt=1, description="Threshold for the mean of the largest probabilities."
    )
    tag: str | None = Field(
        default=None, description="Name of a tag of the model: that the recording belongs to one of its genres."
    )
    least_probability: float | None = Field(
        default=None, gt=0, lt=1, description="Threshold for the calibrated probability of the tag for the track."
    )

    @model_validator(mode="after")
    def _one_criterion(self) -> DomainSpec:
        of_tag = (self.tag is not None, self.least_probability is not None)
        if of_tag not in {(True, True), (False, False)} or any(of_tag) == (self.least_peak is not None):
            raise ValueError("domain: state either least_peak, or both tag and least_probability")
        return self


class PublishedSpec(Spec):
    """What every bundle states about its model, whether it has a network of its own or not."""

    schema_version: int = Field(description="Version of this contract.")
    name: str = Field(
        pattern=r"^[a-z0-9][a-z0-9.-]*$", description="Name of the model; also the name of the bundle's parent folder."
    )
    version: str = Field(
        pattern=r"^[0-9][0-9A-Za-z.-]*$", description="Version of the model; also the name of the bundle's folder."
    )
    summary: str = Field(description="One sentence about the model.")
    labels: tuple[str, ...] = Field(min_length=2, description="Genres, in the order of the scores.")
    licence: str = Field(description="SPDX expression.")
    trained_on: dict[str, Any] = Field(description="Training data and recipe; not interpreted.")
    metrics: dict[str, Any] = Field(description="Evaluation results; not interpreted.")
    calibration: CalibrationSpec | None = Field(
        default=None, description="Calibration of the confidence. Without it, the confidence is the share of the genre."
    )
    domain: DomainSpec | None = Field(
        default=None, description="Threshold for in_domain. Without it, in_domain is null."
    )

    @model_validator(mode="after")
    def _labels_are_distinct(self) -> Self:
        if len(set(self.labels)) != len(self.labels):
            raise ValueError("labels must be distinct")
        return self


class BundleSpec(PublishedSpec):
    """What both versions of the contract state about a bundle with a network."""

    sha256: str = Field(description="SHA-256 of model.onnx, in hexadecimal.")
    audio: AudioSpec = Field(description="Audio that the features are computed from.")
    golden: GoldenSpec = Field(description="Self-test.")
    int8: Int8Spec | None = Field(default=None, description="The quantised network, if there is one.")


class FeatureContract(Spec):
    """The part of ``model.json`` that says how the windows of a track are computed from its samples.

    Attributes:
        audio: Audio that the features are computed from.
        windows: Windows of a track.
        inputs: Inputs of the network.
        in_strips: Whether windows are wanted as the frames that they share; there is a single input then.
    """

    audio: AudioSpec
    windows: WindowingSpec
    inputs: tuple[InputSpec, ...]
    in_strips: bool = False

    def windows_of(self, entry: InputSpec) -> WindowSpec:
        """Return how a track is divided into windows of the frames of one input."""
        return WindowSpec(**self.windows.model_dump(), frames=entry.frames)


class ModelCard(BundleSpec):
    """Contents of ``model.json``: everything about a bundle that affects a prediction."""

    schema_version: Literal[2] = Field(description="Version of this contract.")
    parents: dict[str, str] = Field(
        default={},
        description="Parent genre of some labels or tags, such as electronic for house, so that a prediction can be "
        "read coarsely. A parent is one of the labels and has no parent itself.",
    )
    taxonomies: dict[str, TaxonomySpec] = Field(
        default={}, description="Other sets of genres in which a prediction can be read, by name, such as gtzan."
    )
    unverified: tuple[str, ...] = Field(
        default=(), description="Tags that could not be judged, because there were too few recordings."
    )
    windows: WindowingSpec = Field(description="Windows of a track.")
    inputs: tuple[InputSpec, ...] = Field(min_length=1, description="Inputs of the network.")
    outputs: OutputsSpec = Field(description="Outputs of the network.")
    opset: int = Field(description="Version of the ONNX operator set.")
    strips: StripsSpec | None = Field(
        default=None,
        description="The graph for strips of windows, if there is one. The network must have a single input, whose "
        "normalisation does not depend on the window: unchanged or affine.",
    )

    @model_validator(mode="after")
    def _parts_agree(self) -> ModelCard:
        names = [*(entry.name for entry in self.inputs), *self.outputs.names]
        if repeated := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"the inputs and outputs {repeated} have the same name: each needs a name of its own")
        for entry in self.inputs:
            features = entry.features
            if features.fmax > self.audio.sample_rate / 2 and features.empty_bands == "refuse":
                raise ValueError(
                    f"fmax {features.fmax} Hz of the input {entry.name!r} exceeds half the sample rate: lower it, or "
                    "set empty_bands to allow"
                )
        if self.strips and not (
            len(self.inputs) == 1 and isinstance(self.inputs[0].features.normalisation, Unchanged | Affine)
        ):
            raise ValueError("strips need a single input with the normalisation unchanged or affine")
        tags = self.outputs.tags.names if self.outputs.tags else ()
        check_parents(self.parents, self.labels, tags)
        check_taxonomies(self.taxonomies, self.labels)
        check_unverified(self.unverified, self.labels, tags)
        if self.domain:
            check_domain_tag(self.domain.tag, tags)
        return self

    @property
    def output_shape(self) -> tuple[int, ...]:
        """Shape of the scores of one window: ``(labels,)``, or ``(steps, labels)`` if there are several steps."""
        steps = self.outputs.scores.steps
        return (len(self.labels),) if steps is None else (steps, len(self.labels))

    @property
    def output_shapes(self) -> tuple[tuple[int, ...], ...]:
        """Shapes of all outputs for one window, in the order of ``outputs.names``."""
        tags, embedding = self.outputs.tags, self.outputs.embedding
        optional = (tags and (len(tags.labels),), embedding and (embedding.length,))
        return (self.output_shape, *(shape for shape in optional if shape))

    @property
    def step_s(self) -> float:
        """Length in seconds of what one row of scores covers: a window, or a step if there are several per window."""
        return self.windows.window_s / (self.outputs.scores.steps or 1)

    @property
    def single_input(self) -> InputSpec:
        """The only input.

        Raises:
            ValueError: If there are several.
        """
        if len(self.inputs) > 1:
            raise ValueError(f"{self.name} has several inputs: {', '.join(entry.name for entry in self.inputs)}")
        return self.inputs[0]

    @property
    def feature_contract(self) -> FeatureContract:
        """What the windows depend on."""
        return FeatureContract(
            audio=self.audio, windows=self.windows, inputs=self.inputs, in_strips=self.strips is not None
        )

    def windows_of(self, entry: InputSpec) -> WindowSpec:
        """Return how a track is divided into windows of the frames of one input."""
        return self.feature_contract.windows_of(entry)
