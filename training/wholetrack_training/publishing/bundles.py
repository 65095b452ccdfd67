"""Publishing of a finished run as a bundle for the service: network, contract, golden outputs and model card."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import onnxruntime as ort

from wholetrack.contracts import (
    GoldenSpec,
    InputSpec,
    ModelCard,
    OutputsSpec,
    PublishedSpec,
    ScoresSpec,
    WindowingSpec,
)
from wholetrack.inference.bundle import CARD_FILE, MODEL_FILE, Bundle, load_bundle
from wholetrack_training.data.tracks import TrackSet
from wholetrack_training.data.windows import cut_windows
from wholetrack_training.errors import PublishingError
from wholetrack_training.export.operations import mflop_per_window
from wholetrack_training.export.to_onnx import INPUT, OPSET, OUTPUT, export_onnx
from wholetrack_training.files import npz_bytes, write_json
from wholetrack_training.fitting.classifier import classifier
from wholetrack_training.fitting.evaluation import Classify
from wholetrack_training.fitting.runs import Run
from wholetrack_training.publishing.figures import summary_of, with_figures
from wholetrack_training.publishing.golden import golden_windows
from wholetrack_training.publishing.model_card import CARD_TEXT_FILE, card_text
from wholetrack_training.publishing.strips import publish_strips
from wholetrack_training.results.records import Record
from wholetrack_training.systems.recipe import Recipe

# PyTorch and onnxruntime round differently. A larger difference means that the network was changed by the export.
_EXPORT_TOLERANCE = 1e-4
_GOLDEN_TOLERANCE = 1e-3
_UNFINISHED = ".unfinished"
# A network without test tracks is compared on every tenth training track, which is enough to compare two runtimes.
_CHECK_EVERY = 10


def publish(
    run: Run, records: Sequence[Record], tracks: TrackSet, *, name: str, version: str, licence: str, models: Path
) -> Path:
    """Export the network of a run and write a bundle with the figures of all runs of its recipe.

    Args:
        run: The run whose network is published.
        records: Runs of the same recipe, for the figures.
        tracks: The data set, for comparing ONNX with PyTorch on real windows.
        name: Name of the model.
        version: Version of the bundle.
        licence: Licence of the network, as an SPDX expression.
        models: Folder of all bundles.

    Returns:
        Folder of the bundle, after the service's loader has accepted it.

    Raises:
        ExportError: If the network cannot be exported.
        PublishingError: If ONNX and PyTorch disagree, or a record belongs to another recipe.
    """
    recipe, spec = run.recipe(), run.spec()
    # Records of earlier versions lack fields that have a default.
    recipes = [type(recipe).from_dict(record.recipe) for record in records if record.system == recipe.system]
    if len(recipes) < len(records) or any(other != recipe for other in recipes):
        raise PublishingError("the figures of a card must come from runs of the published recipe")
    network = run.network()
    onnx = export_onnx(network, frames=recipe.windows.frames, n_mels=recipe.features.n_mels)
    classify = classifier(network)
    checked = spec.split.test or spec.split.train[::_CHECK_EVERY]
    difference = _max_difference(onnx, classify, tracks.named(checked), recipe)
    windows = golden_windows(recipe)
    probabilities = classify(windows)
    golden = npz_bytes({"windows": windows, "probabilities": probabilities})
    strips = publish_strips(network, onnx, tracks.named(checked), recipe)
    training = run.figures()
    card = ModelCard(
        schema_version=2,
        name=name,
        version=version,
        summary=summary_of(recipe, len(spec.labels)),
        labels=spec.labels,
        licence=licence,
        trained_on={
            "data": spec.data,
            "protocol": spec.protocol,
            "part": spec.part,
            "seed": spec.seed,
            "tracks": len(spec.split.train),
            "validation_tracks": len(spec.split.validation),
            "never_seen": list(spec.split.test),
            **({"teachers": recipe.schedule.teachers} if recipe.schedule.teachers else {}),
            **({"taught_by": list(spec.taught_by)} if spec.taught_by else {}),
            **{name: training[name] for name in ("epochs", "best_epoch", "minutes")},
        },
        metrics={
            "parameters": sum(parameter.numel() for parameter in network.parameters()),
            "mflop_per_window": round(mflop_per_window(onnx), 1),
            "export_max_difference": difference,
            **({"strips_max_difference": strips.difference} if strips else {}),
        },
        sha256=hashlib.sha256(onnx).hexdigest(),
        audio=recipe.audio,
        windows=WindowingSpec(**recipe.windows.model_dump(exclude={"frames"})),
        inputs=(
            InputSpec(
                name=INPUT,
                shape=("N", recipe.windows.frames, recipe.features.n_mels),
                frames=recipe.windows.frames,
                features=recipe.features,
            ),
        ),
        outputs=OutputsSpec(
            scores=ScoresSpec(
                name=OUTPUT, yields="logits", steps=probabilities.shape[1] if probabilities.ndim == 3 else None
            )
        ),
        opset=OPSET,
        golden=GoldenSpec(sha256=hashlib.sha256(golden).hexdigest(), tolerance=_GOLDEN_TOLERANCE),
        strips=strips.spec if strips else None,
    )
    card = with_figures(card, records, recipe)
    files = {MODEL_FILE: onnx, card.golden.file: golden, CARD_TEXT_FILE: card_text(card, records).encode()}
    if strips:
        files[strips.spec.file] = strips.content
    return write_bundle(card, files, models)


def write_bundle(
    card: PublishedSpec, files: dict[str, bytes], models: Path, *, load: Callable[[Path], Bundle] = load_bundle
) -> Path:
    """Write a bundle, check that it loads, and only then replace an older bundle of the same version.

    Args:
        card: The contract.
        files: All other files by name.
        models: Folder of all bundles.
        load: Loads the bundle in a folder as the service does.

    Returns:
        Folder of the bundle.

    Raises:
        StartupError: If the service's loader refuses the bundle.
    """
    folder, unfinished = models / card.name / card.version, models / _UNFINISHED / card.name / card.version
    shutil.rmtree(models / _UNFINISHED, ignore_errors=True)
    unfinished.mkdir(parents=True)
    for name, content in files.items():
        (unfinished / name).write_bytes(content)
    write_json(unfinished / CARD_FILE, card.document())
    load(unfinished)
    shutil.rmtree(folder, ignore_errors=True)
    folder.parent.mkdir(parents=True, exist_ok=True)
    unfinished.replace(folder)
    shutil.rmtree(models / _UNFINISHED)
    return folder


def _max_difference(onnx: bytes, classify: Classify, tracks: TrackSet, recipe: Recipe) -> float:
    """Return the largest difference between the probabilities of ONNX and PyTorch on the windows of some tracks."""
    session = ort.InferenceSession(onnx, providers=["CPUExecutionProvider"])
    worst = 0.0
    for track in tracks.tracks:
        windows = cut_windows(track, recipe.features, recipe.windows, recipe.audio)
        logits = np.asarray(session.run([OUTPUT], {INPUT: windows})[0])
        powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
        difference = np.abs(powers / powers.sum(axis=-1, keepdims=True) - classify(windows))
        worst = max(worst, float(difference.max()))
    if worst > _EXPORT_TOLERANCE:
        raise PublishingError(
            f"a probability differs by {worst:.2g} between ONNX and PyTorch; the limit is {_EXPORT_TOLERANCE:g}"
        )
    return worst
