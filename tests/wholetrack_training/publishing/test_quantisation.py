"""An 8-bit network is added to a bundle unless it is less accurate, measured with bundles of the same recipe."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray

from wholetrack.inference.bundle import BUILT_IN_MODELS, load_bundle
from wholetrack.settings import Settings
from wholetrack.startup import build_pipeline

pytest.importorskip("torch", reason="PyTorch is not installed: pip install -e '.[train]'")

from wholetrack_training.data.tracks import TrackSet
from wholetrack_training.errors import PublishingError
from wholetrack_training.publishing.quantisation import add_int8, quantise

pytestmark = pytest.mark.torch


def test_an_8_bit_network_is_served_if_its_accuracy_is_not_lower(published: Path, toys: TrackSet) -> None:
    before = load_bundle(published)
    spec = add_int8(published, [published], toys)
    assert spec.metrics["int8"]["track_accuracy_summed"] == spec.metrics["float32"]["track_accuracy_summed"] == 1.0
    assert spec.metrics["between"]["tracks"] == len(before.card.trained_on["never_seen"])
    assert 0 < spec.metrics["between"]["largest_difference"] < 0.2
    bundle = load_bundle(published)
    assert bundle.card.model_copy(update={"int8": None}) == before.card
    assert bundle.onnx == before.onnx
    assert bundle.int8
    operators = {node.op_type for node in onnx.load_from_string(bundle.int8).graph.node}
    assert {"QuantizeLinear", "DequantizeLinear", "GRU"} <= operators
    settings = Settings(models_dir=published.parent.parent, default_model="toy", device="cpu", cpu_precision="int8")
    pipeline = build_pipeline(settings)
    assert pipeline.model("toy").engine.precision == "int8"
    pipeline.close()
    text = (published / "CARD.md").read_text()
    assert "| tracks: accuracy by summed score | 1.000 | 1.000 |" in text
    assert add_int8(published, [published], toys) == spec
    assert (published / "CARD.md").read_text() == text


def test_an_8_bit_network_of_lower_accuracy_is_refused(
    published: Path, toys: TrackSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {file.name: file.read_bytes() for file in published.iterdir()}

    def quantise_badly(network: bytes, windows: NDArray[np.float32], *, input_name: str) -> bytes:
        """Calibrate on a tenth of the range of the activations, so that all larger values saturate."""
        return quantise(network, windows / np.float32(10), input_name=input_name)

    monkeypatch.setattr("wholetrack_training.publishing.quantisation.quantise", quantise_badly)
    with pytest.raises(PublishingError, match=r"int8 loses \d+\.\d points of window_accuracy"):
        add_int8(published, [published], toys)
    assert {file.name: file.read_bytes() for file in published.iterdir()} == before


def test_int8_is_evaluated_on_unseen_tracks_and_the_same_recipe(published: Path, toys: TrackSet) -> None:
    bundled = BUILT_IN_MODELS / "wholetrack-crnn-gtzan" / "1"
    with pytest.raises(PublishingError, match="do not have the recipe"):
        add_int8(published, [bundled], toys)
    card = json.loads((published / "model.json").read_text())
    card["trained_on"]["never_seen"] = []
    (published / "model.json").write_text(json.dumps(card))
    with pytest.raises(PublishingError, match="have no tracks that they were not trained on"):
        add_int8(published, [published], toys)
