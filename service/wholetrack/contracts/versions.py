"""Reading ``model.json`` in any version of the contract. Version 1 is converted, so that the service knows only one."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator
from pydantic_core import from_json

from wholetrack.contracts.features import FeatureSpec, Spec
from wholetrack.contracts.model_card import BundleSpec, ModelCard, WindowingSpec, WindowSpec
from wholetrack.contracts.outputs import InputSpec, OutputsSpec, ScoresSpec

_OWN_FIELDS = {"schema_version", "features", "windows", "onnx"}


class OnnxSpec(Spec):
    """Input and output of the exported network, in version 1."""

    input: str = Field(description="Name of the input.")
    shape: tuple[str, int, int] = Field(description="Shape of the input: name of the batch axis, frames, mel bands.")
    output: str = Field(description="Name of the output.")
    yields: Literal["logits", "probabilities"] = Field(description="Meaning of the output.")
    opset: int = Field(description="Version of the ONNX operator set.")
    steps: int | None = Field(default=None, gt=0, description="Number of steps per window.")


class ModelCardV1(BundleSpec):
    """Contents of ``model.json`` in version 1, for networks with one input and one output."""

    schema_version: Literal[1] = Field(default=1, description="Version of this contract.")
    features: FeatureSpec = Field(description="Log-mel spectrogram.")
    windows: WindowSpec = Field(description="Windows of the spectrogram.")
    onnx: OnnxSpec = Field(description="Input and output of the network.")

    @model_validator(mode="after")
    def _parts_agree(self) -> ModelCardV1:
        expected = (self.windows.frames, self.features.n_mels)
        if self.onnx.shape[1:] != expected:
            raise ValueError(f"onnx.shape {self.onnx.shape[1:]} is not (windows.frames, features.n_mels) {expected}")
        if self.features.fmax > self.audio.sample_rate / 2:
            raise ValueError(f"fmax {self.features.fmax} Hz exceeds half the sample rate")
        return self

    def upgraded(self) -> ModelCard:
        """Return the same contract in version 2."""
        onnx, kept = self.onnx, {name: getattr(self, name) for name in set(type(self).model_fields) - _OWN_FIELDS}
        return ModelCard(
            schema_version=2,
            **kept,
            windows=WindowingSpec(**self.windows.model_dump(exclude={"frames"})),
            inputs=(InputSpec(name=onnx.input, shape=onnx.shape, frames=self.windows.frames, features=self.features),),
            outputs=OutputsSpec(scores=ScoresSpec(name=onnx.output, yields=onnx.yields, steps=onnx.steps)),
            opset=onnx.opset,
        )


def read_model_card(content: bytes) -> tuple[ModelCard, dict[str, Any]]:
    """Read ``model.json``.

    Args:
        content: The file.

    Returns:
        The contract in version 2, and the contents of the file with all default values, in its own version.

    Raises:
        ValidationError: If a field is invalid.
        ValueError: If the file is not JSON, or its version is unknown.
    """
    document = from_json(content)
    version = document.get("schema_version", 1) if isinstance(document, dict) else 1
    if version == 1:
        first = ModelCardV1.model_validate(document)
        return first.upgraded(), first.model_dump(mode="json")
    if version != 2:
        raise ValueError(
            f"schema_version is {version!r}, and this service reads 1 and 2: update the service, or write the bundle "
            "for one of them"
        )
    card = ModelCard.model_validate(document)
    return card, card.model_dump(mode="json")
