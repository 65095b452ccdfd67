"""From finished runs to a bundle that the service serves: network, contract, golden and card."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from service.contracts import GoldenSpec, ModelCard, OnnxSpec
from service.features.grid import WindowGrid
from service.features.logmel import LogMel
from service.features.normalise import normalise
from service.features.windows import WindowCutter
from service.inference.bundle import CARD_FILE, MODEL_FILE, load_bundle
from training.cards import card_text
from training.evaluation import Classify, cut_windows
from training.export import INPUT, OPSET, OUTPUT, export_onnx, mflop_per_window
from training.fitting import classifier
from training.recipe import Recipe
from training.recurrent import ExportError
from training.runs import Run, write_json
from training.tracks import TrackSet

# Rounding differs between PyTorch and onnxruntime; more than this would be another network.
_EXPORT_TOLERANCE = 1e-4
_GOLDEN_TOLERANCE = 1e-3
_GOLDEN_SECONDS = 10.0
_METRICS = {"random": "random_split", "artist-filtered": "artist_filtered", "held-out": "held_out"}
_AVERAGED = (
    "window_accuracy",
    "window_macro_f1",
    "track_accuracy_summed",
    "track_accuracy_voted",
    "track_macro_f1_summed",
    "track_macro_f1_voted",
    "top2",
    "top3",
    "ece",
)


def publish(
    served: Run, judged: Sequence[Run], tracks: TrackSet, *, name: str, version: str, licence: str, models: Path
) -> Path:
    """Export a run's network and publish it with the figures of all runs of its recipe.

    Args:
        served: whose network is published.
        judged: the runs of both protocols, ``served`` among them.
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
    recipe, question = served.recipe(), served.question()
    if any(run.recipe().as_dict() != recipe.as_dict() for run in judged):
        raise ExportError("the figures of a card must come from runs of the recipe that is published")
    network = served.network()
    onnx = export_onnx(network, frames=recipe.windows.frames, n_mels=recipe.features.n_mels)
    classify = classifier(network)
    worst = _largest_difference(onnx, classify, tracks.named(question.split.test), recipe)
    golden_windows = golden_sound_windows(recipe)
    golden_probabilities = classify(golden_windows)
    steps = golden_probabilities.shape[1] if golden_probabilities.ndim == 3 else None
    golden = _npz(windows=golden_windows, probabilities=golden_probabilities)
    card = ModelCard(
        name=name,
        version=version,
        summary=f"{recipe.summary}, {recipe.windows.window_s:g} s windows, {len(question.labels)} genres",
        labels=question.labels,
        licence=licence,
        trained_on={
            "data": question.data,
            "protocol": question.protocol,
            "part": question.part,
            "seed": question.seed,
            "tracks": len(question.split.train),
            "validation_tracks": len(question.split.validation),
            "never_seen": list(question.split.test),
        },
        metrics={
            **summarise(judged),
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
    folder = models / name / version
    folder.mkdir(parents=True, exist_ok=True)
    (folder / MODEL_FILE).write_bytes(onnx)
    (folder / card.golden.file).write_bytes(golden)
    write_json(folder / CARD_FILE, card.model_dump(mode="json", exclude_none=True))
    (folder / "CARD.md").write_text(card_text(card, served.figures()))
    load_bundle(folder)
    return folder


def summarise(runs: Sequence[Run]) -> dict[str, dict[str, Any]]:
    """Mean and standard deviation of the runs' figures: ``random_split``, ``artist_filtered`` and ``held_out``."""
    by_protocol: dict[str, list[dict[str, Any]]] = {}
    for run in runs:
        by_protocol.setdefault(_METRICS[run.question().protocol], []).append(run.figures())
    summary: dict[str, dict[str, Any]] = {}
    for protocol, figures in sorted(by_protocol.items()):
        entry: dict[str, Any] = {"runs": len(figures), "tracks": sum(f["n_tracks"] for f in figures)}
        for name in _AVERAGED:
            values = np.array([f[name] for f in figures])
            entry[name] = round(float(values.mean()), 4)
            entry[f"{name}_sd"] = round(float(values.std(ddof=1)), 4) if len(values) > 1 else None
        summary[protocol] = {key: value for key, value in entry.items() if value is not None}
    return summary


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
