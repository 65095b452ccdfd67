"""Publishing of wholetrack-crnn 2 from a checkpoint: network, contract, golden outputs and model card."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import torch
from numpy.typing import NDArray

from wholetrack.contracts import (
    CalibrationSpec,
    DomainSpec,
    GoldenSpec,
    ModelCard,
    Rows,
    TagCalibrationSpec,
    unit_length,
)
from wholetrack.inference.bundle import CARD_FILE, MODEL_FILE, golden_names, load_bundle
from wholetrack_training.errors import PublishingError
from wholetrack_training.export.operations import mflop_per_window
from wholetrack_training.export.two_towers import KnownGenre, PublishedTwoTowers, export_two_towers, interface_of
from wholetrack_training.files import npz_bytes
from wholetrack_training.publishing.bundles import write_bundle
from wholetrack_training.publishing.golden import golden_inputs
from wholetrack_training.publishing.model_card import CARD_TEXT_FILE
from wholetrack_training.publishing.two_tower_card import two_tower_card_text
from wholetrack_training.systems.checkpoints import load_network
from wholetrack_training.systems.taxonomy import GENRES
from wholetrack_training.systems.two_towers import TwoTowerCrnn

# PyTorch and onnxruntime round differently. A larger difference means that the network was changed by the export.
_EXPORT_TOLERANCE = 1e-3
_GOLDEN_TOLERANCE = 1e-3
_CHECKPOINT = "checkpoint_sha256"


@dataclass(frozen=True, slots=True)
class TwoTowerFacts:
    """What a bundle states besides its network.

    Attributes:
        name: Name of the model.
        version: Version of the bundle.
        trained_on: Training data, as in ``model.json``.
        metrics: Figures, as in ``model.json``.
        bias: Added to the logits of some genres, by name.
        known: The logit of the tag that the music belongs to one of the genres.
        flattest: Factor of the logits of genres where that tag does not apply.
        calibration: Calibration of the confidence.
        domain: Threshold for ``in_domain``.
        tag_calibration: Calibration of some tags, by name.
        unverified: Tags that could not be judged.
        licence: Licence of the network, as an SPDX expression.
    """

    name: str
    version: str
    trained_on: Mapping[str, Any]
    metrics: Mapping[str, Any] = field(default_factory=dict)
    bias: Mapping[str, float] = field(default_factory=dict)
    known: KnownGenre = field(default_factory=KnownGenre)
    flattest: float = 1.0
    calibration: CalibrationSpec | None = None
    domain: DomainSpec | None = None
    tag_calibration: Mapping[str, TagCalibrationSpec] = field(default_factory=dict)
    unverified: tuple[str, ...] = ()
    licence: str = "Apache-2.0"


def publish_two_towers(checkpoint: Path, facts: TwoTowerFacts, models: Path) -> Path:
    """Export the network of a checkpoint, check it, and write a bundle.

    Args:
        checkpoint: File with the weights.
        facts: What the bundle states besides its network.
        models: Folder of all bundles.

    Returns:
        Folder of the bundle, after the service's loader has accepted it.

    Raises:
        DataError: If the checkpoint cannot be read.
        ExportError: If the network cannot be exported.
        PublishingError: If ONNX and PyTorch disagree.
    """
    network = load_network(checkpoint)
    published = PublishedTwoTowers(network, facts.bias, facts.known, flattest=facts.flattest)
    onnx = export_two_towers(published)
    card = _contract(published, onnx, facts, trained_on={**facts.trained_on, _CHECKPOINT: _sha256_of(checkpoint)})
    windows = golden_inputs(card)
    outputs = _outputs(published, windows)
    difference = _max_difference(onnx, windows, outputs)
    input_names, output_names = golden_names(card)
    arrays = zip((*input_names, *output_names), (*windows.arrays, *outputs), strict=True)
    golden = npz_bytes(dict(arrays))
    card = card.model_copy(
        update={
            "golden": card.golden.model_copy(update={"sha256": hashlib.sha256(golden).hexdigest()}),
            "metrics": {
                **facts.metrics,
                "parameters": _n_parameters(network),
                "mflop_per_window": round(mflop_per_window(onnx), 1),
                "export_max_difference": difference,
            },
        }
    )
    files = {MODEL_FILE: onnx, card.golden.file: golden, CARD_TEXT_FILE: two_tower_card_text(card).encode()}
    return write_bundle(card, files, models)


def is_published_from(folder: Path, checkpoint: Path) -> bool:
    """Return whether a bundle has the network of a checkpoint, so that it need not be exported again.

    Raises:
        DataError: If the checkpoint cannot be read.
        StartupError: If the folder holds something else.
    """
    if not (folder / CARD_FILE).is_file():
        return False
    card = load_bundle(folder).card
    network = PublishedTwoTowers(load_network(checkpoint), {}, KnownGenre())
    # The tags differ if the bundle was published by an earlier version of this module.
    same_outputs = card.outputs == interface_of(network)["outputs"]
    return same_outputs and card.trained_on.get(_CHECKPOINT) == _sha256_of(checkpoint)


def _contract(
    network: PublishedTwoTowers, onnx: bytes, facts: TwoTowerFacts, *, trained_on: Mapping[str, Any]
) -> ModelCard:
    """Return the contract, in which the figures and the hash of the golden file are yet to be filled in."""
    interface = interface_of(network)
    outputs = interface["outputs"]
    labels = tuple(
        tag.model_copy(update={"calibration": facts.tag_calibration.get(tag.name)}) for tag in outputs.tags.labels
    )
    interface["outputs"] = outputs.model_copy(update={"tags": outputs.tags.model_copy(update={"labels": labels})})
    return ModelCard(
        schema_version=2,
        name=facts.name,
        version=facts.version,
        summary=f"CRNN with two convolutional towers, 3 s windows, {len(GENRES)} genres, tags and an embedding",
        licence=facts.licence,
        trained_on=dict(trained_on),
        metrics={},
        sha256=hashlib.sha256(onnx).hexdigest(),
        calibration=facts.calibration,
        domain=facts.domain,
        unverified=facts.unverified,
        golden=GoldenSpec(sha256="", tolerance=_GOLDEN_TOLERANCE),
        **interface,
    )


def _outputs(network: PublishedTwoTowers, windows: Rows) -> list[NDArray[np.float32]]:
    """Return what the service must make of the outputs: probabilities, and vectors of unit length."""
    with torch.inference_mode():
        scores, tags, embedding = network(*(torch.from_numpy(array) for array in windows.arrays))
    return [torch.softmax(scores, dim=1).numpy(), torch.sigmoid(tags).numpy(), unit_length(embedding.numpy())]


def _max_difference(onnx: bytes, windows: Rows, expected: list[NDArray[np.float32]]) -> float:
    """Return the largest difference of a probability or of a component of the embedding between ONNX and PyTorch."""
    session = ort.InferenceSession(onnx, providers=["CPUExecutionProvider"])
    names = [entry.name for entry in session.get_inputs()]
    found = [np.asarray(output) for output in session.run(None, dict(zip(names, windows.arrays, strict=True)))]
    powers = np.exp(found[0] - found[0].max(axis=1, keepdims=True))
    found = [powers / powers.sum(axis=1, keepdims=True), 1 / (1 + np.exp(-found[1])), unit_length(found[2])]
    worst = max(float(np.abs(one - other).max()) for one, other in zip(found, expected, strict=True))
    if not worst <= _EXPORT_TOLERANCE:
        raise PublishingError(
            f"an output differs by {worst:.2g} between ONNX and PyTorch; the limit is {_EXPORT_TOLERANCE:g}"
        )
    return worst


def _n_parameters(network: TwoTowerCrnn) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def _sha256_of(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
