"""The part of ``model.json`` that describes the inputs and outputs of the network."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from wholetrack.contracts.features import FeatureSpec, Spec


class InputSpec(Spec):
    """An input of the network: the log-mel frames of a window.

    All inputs are computed from the same PCM. If their frame rates differ, windows start at frames of the input with
    the lowest rate (the first of them), and every other input starts at its frame nearest to that time, so that it
    covers the same audio to within half of one of its frames.
    """

    name: str = Field(min_length=1, description="Name of the input.")
    shape: tuple[str, int, int] = Field(description="Shape of the input: name of the batch axis, frames, mel bands.")
    frames: int = Field(gt=0, description="Number of spectrogram frames per window.")
    features: FeatureSpec = Field(description="Log-mel spectrogram.")

    @model_validator(mode="after")
    def _shape_is_that_of_the_features(self) -> InputSpec:
        expected = (self.frames, self.features.n_mels)
        if self.shape[1:] != expected:
            raise ValueError(f"shape {self.shape[1:]} of {self.name!r} is not (frames, features.n_mels) {expected}")
        return self


class ScoresSpec(Spec):
    """The output with the score of each genre, of which exactly one applies."""

    name: str = Field(description="Name of the output.")
    yields: Literal["logits", "probabilities"] = Field(
        description="Meaning of the output; the service applies a softmax to logits."
    )
    steps: int | None = Field(
        default=None,
        gt=0,
        description="Number of steps per window, if the network has an output for each of several equal parts of a "
        "window: the output is then [N, steps, labels] instead of [N, labels].",
    )


class TagCalibrationSpec(Spec):
    """Platt scaling: the probability becomes ``sigmoid(slope * logit(probability) + intercept)``.

    It is applied to the probability of a window, and to the mean over the windows of a track.
    """

    slope: float = Field(gt=0, allow_inf_nan=False, description="Factor of the logit.")
    intercept: float = Field(allow_inf_nan=False, description="Added to the scaled logit.")


class TagSpec(Spec):
    """A property that a recording may have besides its genre."""

    name: str = Field(min_length=1, description="Name of the tag.")
    kind: Literal["genre", "mood", "instrument", "voice", "not_music", "other"] = Field(
        description="What it describes."
    )
    calibration: TagCalibrationSpec | None = Field(default=None, description="Calibration of the probability.")


class TagsSpec(Spec):
    """The output with the probability of each tag, of which any number may apply: [N, tags]."""

    name: str = Field(description="Name of the output.")
    yields: Literal["logits", "probabilities"] = Field(
        description="Meaning of the output; the service applies the sigmoid function to logits."
    )
    labels: tuple[TagSpec, ...] = Field(min_length=1, description="Tags, in the order of the output.")

    @model_validator(mode="after")
    def _names_are_distinct(self) -> TagsSpec:
        if repeated := sorted({tag for tag in self.names if self.names.count(tag) > 1}):
            raise ValueError(f"the tags {repeated} occur more than once: give each tag one entry")
        return self

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the tags, in the order of the output."""
        return tuple(tag.name for tag in self.labels)


class EmbeddingSpec(Spec):
    """The output with a vector that is similar for similar music: [N, length].

    The service scales the vector of each window to unit length. That of a track is the mean over its windows with
    sound, scaled to unit length again.
    """

    name: str = Field(description="Name of the output.")
    length: int = Field(gt=0, description="Number of components.")


class OutputsSpec(Spec):
    """The outputs of the network. It must have these and no others, in any order."""

    scores: ScoresSpec = Field(description="Genres.")
    tags: TagsSpec | None = Field(default=None, description="Tags, if the network yields them.")
    embedding: EmbeddingSpec | None = Field(default=None, description="Embedding, if the network yields one.")

    @property
    def kinds(self) -> tuple[str, ...]:
        """Which outputs the network has, out of scores, tags and embedding, in this order."""
        return tuple(kind for kind in type(self).model_fields if getattr(self, kind))

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the outputs that the network has, in the order of :attr:`kinds`."""
        return tuple(getattr(self, kind).name for kind in self.kinds)
