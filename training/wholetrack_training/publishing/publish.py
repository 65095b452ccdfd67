"""From finished runs to a bundle that the service serves: network, contract, golden and card."""

from __future__ import annotations

import hashlib
import io
import json
import shutil
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from wholetrack.contracts import CalibrationSpec, DomainSpec, GoldenSpec, ModelCard, OnnxSpec
from wholetrack.features.grid import WindowGrid
from wholetrack.features.logmel import LogMel
from wholetrack.features.normalise import normalise
from wholetrack.features.windows import WindowCutter
from wholetrack.inference.bundle import CARD_FILE, MODEL_FILE, load_bundle
from wholetrack_training.data.splits import Protocol
from wholetrack_training.data.tracks import TrackSet
from wholetrack_training.export.onnx_export import INPUT, OPSET, OUTPUT, export_onnx, mflop_per_window
from wholetrack_training.export.recurrent import ExportError
from wholetrack_training.fitting.evaluation import Classify, cut_windows
from wholetrack_training.fitting.fitting import classifier
from wholetrack_training.fitting.runs import Run, write_json
from wholetrack_training.publishing.model_card import card_text
from wholetrack_training.results.calibration import calibrate, find_domain
from wholetrack_training.results.records import METRICS, Record, summarise
from wholetrack_training.systems import SYSTEMS
from wholetrack_training.systems.recipe import Recipe

# Rounding differs between PyTorch and onnxruntime; more than this would be another network.
_EXPORT_TOLERANCE = 1e-4
_GOLDEN_TOLERANCE = 1e-3
_GOLDEN_SECONDS = 10.0
_UNFINISHED = ".unfinished"
# Where every track was learned from, some of them are enough to compare two ways of computing the same.
_EVERY = 10


def publish(
    served: Run, records: Sequence[Record], tracks: TrackSet, *, name: str, version: str, licence: str, models: Path
) -> Path:
    """Export a run's network and publish it with the figures of all runs of its recipe.

    Args:
        served: whose network is published.
        records: of the runs of its recipe by whose figures it is to be judged.
        tracks: the data set, for the check of the export on real windows.
        name: of the model.
        version: of the bundle.
        licence: of the network, as an SPDX expression.
        models: folder of the bundles.

    Returns:
        The bundle's folder, which the service has accepted.

    Raises:
        ExportError: if ONNX and PyTorch disagree, or the runs are not of one recipe.
    """
    recipe, spec = served.recipe(), served.spec()
    if any((record.system, record.recipe) != (recipe.system, recipe.as_dict()) for record in records):
        raise ExportError("the figures of a card must come from runs of the recipe that is published")
    network = served.network()
    onnx = export_onnx(network, frames=recipe.windows.frames, n_mels=recipe.features.n_mels)
    classify = classifier(network)
    checked = spec.split.test or spec.split.train[::_EVERY]
    worst = _largest_difference(onnx, classify, tracks.named(checked), recipe)
    golden_windows = golden_sound_windows(recipe)
    golden_probabilities = classify(golden_windows)
    steps = golden_probabilities.shape[1] if golden_probabilities.ndim == 3 else None
    golden = _npz(windows=golden_windows, probabilities=golden_probabilities)
    training = served.figures()
    card = ModelCard(
        name=name,
        version=version,
        summary=f"{recipe.summary}, {recipe.windows.window_s:g} s windows, {len(spec.labels)} genres",
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
            **{key: training[key] for key in ("epochs", "best_epoch", "minutes")},
        },
        metrics={
            "parameters": sum(parameter.numel() for parameter in network.parameters()),
            "mflop_per_window": round(mflop_per_window(onnx), 1),
            "export_max_difference": worst,
        },
        sha256=hashlib.sha256(onnx).hexdigest(),
        audio=recipe.audio,
        features=recipe.features,
        windows=recipe.windows,
        onnx=OnnxSpec(
            input=INPUT,
            shape=("N", recipe.windows.frames, recipe.features.n_mels),
            output=OUTPUT,
            yields="logits",
            opset=OPSET,
            steps=steps,
        ),
        golden=GoldenSpec(sha256=hashlib.sha256(golden).hexdigest(), tolerance=_GOLDEN_TOLERANCE),
    )
    card = _judged(card, records, knows_outliers=recipe.knows_outliers)
    folder, unfinished = models / name / version, models / _UNFINISHED / name / version
    # Put in its place whole: who is killed here leaves the old bundle, or none.
    shutil.rmtree(models / _UNFINISHED, ignore_errors=True)
    unfinished.mkdir(parents=True)
    (unfinished / MODEL_FILE).write_bytes(onnx)
    (unfinished / card.golden.file).write_bytes(golden)
    write_json(unfinished / CARD_FILE, card.model_dump(mode="json", exclude_none=True))
    (unfinished / "CARD.md").write_text(card_text(card, records))
    load_bundle(unfinished)
    shutil.rmtree(folder, ignore_errors=True)
    folder.parent.mkdir(exist_ok=True)
    unfinished.replace(folder)
    shutil.rmtree(models / _UNFINISHED)
    return folder


def restate(folder: Path, records: Sequence[Record]) -> ModelCard:
    """State how good a published network is anew, by more or other runs of its recipe; the network stays as it is.

    Args:
        folder: of the bundle.
        records: of the runs of its recipe by whose figures it is to be judged.

    Returns:
        The bundle's contract as it is now.

    Raises:
        ExportError: if there are no records, or they are of another recipe, as far as the bundle tells.
    """
    card = load_bundle(folder).card
    recipes = [SYSTEMS[record.system].from_dict(record.recipe) for record in records if record.system in SYSTEMS]
    theirs = {(recipe.audio, recipe.features, recipe.windows) for recipe in recipes}
    sizes = {(record.parameters, record.labels) for record in records}
    if theirs != {(card.audio, card.features, card.windows)} or sizes != {(card.metrics["parameters"], card.labels)}:
        raise ExportError(f"the records are not of the recipe of {folder}")
    if len({json.dumps(recipe.as_dict(), sort_keys=True) for recipe in recipes}) > 1:
        raise ExportError("the figures of a card must come from runs of one recipe")
    card = _judged(card, records, knows_outliers=recipes[0].knows_outliers)
    (folder / "CARD.md").write_text(card_text(card, records))
    write_json(folder / CARD_FILE, card.model_dump(mode="json", exclude_none=True))
    return load_bundle(folder).card


def _judged(card: ModelCard, records: Sequence[Record], *, knows_outliers: bool) -> ModelCard:
    """The contract with the figures of these runs, and with what is chosen by them on the artist-filtered folds."""
    folds = [record for record in records if record.protocol == Protocol.ARTIST_FILTERED]
    calibration = calibrate(folds) if len(folds) > 1 else None
    domain = find_domain(folds) if len(folds) > 1 and knows_outliers else None
    figures = {
        "calibration": calibration and asdict(calibration),
        "domain": domain and asdict(domain),
    }
    kept = {name: value for name, value in card.metrics.items() if name not in METRICS.values()}
    return card.model_copy(
        update={
            "metrics": {**summarise(records), **kept, **figures},
            # A temperature only where it helps tracks by which it was not chosen.
            "calibration": CalibrationSpec(temperature=calibration.temperature)
            if calibration and calibration.ece_after < calibration.ece_before
            else None,
            "domain": domain and DomainSpec(least_peak=domain.least_peak),
        }
    )


def golden_sound_windows(recipe: Recipe) -> NDArray[np.float32]:
    """The normalised windows of a sound made of nothing but arithmetic: arpeggio, beat, sweep and noise.

    It belongs to nobody, so it may travel with the bundle.
    """
    rate = recipe.audio.sample_rate
    time = np.arange(int(_GOLDEN_SECONDS * rate)) / rate
    notes = 220.0 * 2.0 ** (np.array([0, 4, 7, 12, 7, 4]) / 12.0)
    pitch = notes[(time * 4).astype(int) % len(notes)]
    arpeggio = sum(np.sin(2 * np.pi * np.cumsum(pitch) / rate * k) / k for k in range(1, 8))
    beat = np.exp(-((time * 2) % 1.0) * 30) * np.random.default_rng(0).standard_normal(len(time))
    sweep = np.sin(2 * np.pi * (100 * time + 250 * time**2))
    sound = (0.1 * arpeggio + 0.2 * beat + 0.05 * sweep * (time > 5)).astype(np.float32)
    features = LogMel(recipe.features, rate)
    stream = features.stream()
    cutter = WindowCutter(
        WindowGrid.of(recipe.windows, features.grid), n_mels=recipe.features.n_mels, silence=features.silence
    )
    frames = np.concatenate((stream.push(sound), stream.finish()))
    block = cutter.finish(frames, n_samples=len(sound))
    # Half precision is enough for a golden, and halves its file.
    return normalise(block.frames, recipe.features.normalisation).astype(np.float16).astype(np.float32)


def _largest_difference(onnx: bytes, classify: Classify, tracks: TrackSet, recipe: Recipe) -> float:
    session = ort.InferenceSession(onnx, providers=["CPUExecutionProvider"])
    worst = 0.0
    for track in tracks.tracks:
        windows = cut_windows(track, recipe.features, recipe.windows, recipe.audio)
        logits = np.asarray(session.run([OUTPUT], {INPUT: windows})[0])
        powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
        difference = np.abs(powers / powers.sum(axis=-1, keepdims=True) - classify(windows))
        worst = max(worst, float(difference.max()))
    if worst > _EXPORT_TOLERANCE:
        raise ExportError(f"ONNX and PyTorch differ by {worst:.2g} in a probability, more than {_EXPORT_TOLERANCE:g}")
    return worst


def _npz(**arrays: NDArray[np.float32]) -> bytes:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)  # type: ignore[arg-type]
    return buffer.getvalue()
