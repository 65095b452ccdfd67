"""Quantisation of a bundle's network to 8-bit integers for CPUs, and its cost in accuracy.

Convolutions and matrix products are quantised (Jacob et al. 2018, arXiv:1712.05877): weights per output channel to 7
bits, so that 16-bit sums do not overflow on any processor, and activations to 8 bits over their range on windows of the
training tracks. The GRU and everything else stays in float32.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process

from wholetrack.contracts import Int8Spec, Rows
from wholetrack.inference.bundle import CARD_FILE, Bundle, load_bundle
from wholetrack.inference.session import open_session
from wholetrack.settings import DeviceChoice, Precision, Settings
from wholetrack_training.data.tracks import Track, TrackSet
from wholetrack_training.data.windows import cut_windows
from wholetrack_training.errors import PublishingError
from wholetrack_training.files import write_json
from wholetrack_training.fitting.evaluation import Classify, evaluate_scores
from wholetrack_training.publishing.model_card import CARD_TEXT_FILE, with_int8

# Largest loss of accuracy, of windows or of tracks, at which int8 counts as equally accurate.
_MAX_LOSS = 0.005
# Added to the measured deviation from the golden outputs. Other processors sum in a different order, so a value halfway
# between two integers may be rounded the other way.
_GOLDEN_MARGIN = 0.02
_QUANTISED_OPERATORS = ("Conv", "MaxPool", "MatMul", "Gemm")
_FIGURES = ("window_accuracy", "track_accuracy_summed", "track_accuracy_voted", "track_macro_f1_summed", "ece")


def add_int8(folder: Path, evaluated: Sequence[Path], tracks: TrackSet) -> Int8Spec:
    """Add a quantised network to a published bundle, unless it is less accurate.

    Args:
        folder: Folder of the bundle.
        evaluated: Folders of bundles of the same recipe. Each is quantised in the same way and evaluated on the tracks
            that it was not trained on. May be the bundle itself if it has such tracks.
        tracks: The data set of all these bundles.

    Returns:
        The new part of the bundle's contract, with the figures.

    Raises:
        PublishingError: If an evaluated bundle has a different recipe or no unseen tracks, or int8 is less accurate.
        StartupError: If a folder does not hold a bundle.
    """
    published, others = load_bundle(folder), [load_bundle(path) for path in evaluated]
    if any(_contract(bundle) != _contract(published) for bundle in others):
        raise PublishingError(f"the networks for evaluating int8 do not have the recipe of {folder}")
    compared = _compare(others, tracks)
    for name in ("window_accuracy", "track_accuracy_summed"):
        loss = compared["float32"][name] - compared["int8"][name]
        if loss > _MAX_LOSS:
            raise PublishingError(f"int8 loses {100 * loss:.1f} points of {name}; the bundle was not changed")
    bundle = _quantised(published, tracks)
    golden = bundle.golden
    found, expected = _classifier(bundle, Precision.INT8)(golden.windows.arrays[0]), golden.outputs.arrays[0]
    deviation = float(np.abs(found - expected).max())
    assert bundle.int8
    spec = Int8Spec(
        sha256=hashlib.sha256(bundle.int8).hexdigest(), tolerance=round(deviation + _GOLDEN_MARGIN, 4), metrics=compared
    )
    card = published.card.model_copy(update={"int8": spec})
    (folder / spec.file).write_bytes(bundle.int8)
    text = folder / CARD_TEXT_FILE
    text.write_text(with_int8(text.read_text(), spec))
    # Written last: until then the bundle is one without int8.
    write_json(folder / CARD_FILE, card.document())
    load_bundle(folder)
    return spec


def quantise(network: bytes, windows: NDArray[np.float32], *, input_name: str) -> bytes:
    """Return a quantised copy of an ONNX network.

    Args:
        network: The ONNX file.
        windows: Normalised windows for measuring the range of the activations, ``[n, frames, n_mels]``.
        input_name: Name of the network's input.
    """
    with tempfile.TemporaryDirectory() as directory, contextlib.redirect_stdout(io.StringIO()):
        source, prepared, target = (Path(directory, name) for name in ("source.onnx", "prepared.onnx", "int8.onnx"))
        source.write_bytes(network)
        quant_pre_process(str(source), str(prepared), skip_symbolic_shape=True)
        quantize_static(
            str(prepared),
            str(target),
            _Windows(windows, input_name),
            quant_format=QuantFormat.QDQ,
            calibrate_method=CalibrationMethod.MinMax,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            per_channel=True,
            reduce_range=True,
            op_types_to_quantize=list(_QUANTISED_OPERATORS),
        )
        model = onnx.load(target)
    model.producer_name, model.producer_version = "wholetrack", ""
    content: bytes = model.SerializeToString(deterministic=True)
    return content


class _Windows(CalibrationDataReader):  # type: ignore[misc] # onnxruntime is not typed
    def __init__(self, windows: NDArray[np.float32], input_name: str) -> None:
        self._inputs = ({input_name: windows[i : i + 1]} for i in range(len(windows)))

    def get_next(self) -> dict[str, NDArray[np.float32]] | None:
        """Return the next window, in a batch of one; None after the last."""
        return next(self._inputs, None)


@dataclass(frozen=True, slots=True)
class _Comparison:
    """The probabilities of both networks for the windows of one track, ``[n_windows, n_labels]``."""

    genre: int
    float32: NDArray[np.float32]
    int8: NDArray[np.float32]

    @property
    def same_genre(self) -> bool:
        return bool(self.float32.sum(0).argmax() == self.int8.sum(0).argmax())


def _compare(bundles: Sequence[Bundle], tracks: TrackSet) -> dict[str, dict[str, float]]:
    """Return the figures of both precisions over all unseen tracks, and how much the probabilities differ."""
    found = [comparison for bundle in bundles for comparison in _compare_tracks(bundle, tracks)]
    if not found:
        raise PublishingError("the networks for evaluating int8 have no tracks that they were not trained on")
    truth = [one.genre for one in found]
    float32 = evaluate_scores([one.float32 for one in found], truth, tracks.labels).as_dict()
    int8 = evaluate_scores([one.int8 for one in found], truth, tracks.labels).as_dict()
    differences = np.concatenate([np.abs(one.float32 - one.int8) for one in found])
    return {
        "float32": {name: round(float32[name], 4) for name in _FIGURES},
        "int8": {name: round(int8[name], 4) for name in _FIGURES},
        "between": {
            "tracks": len(found),
            "same_answer": round(float(np.mean([one.same_genre for one in found])), 4),
            "mean_difference": round(float(differences.mean()), 4),
            "largest_difference": round(float(differences.max()), 4),
        },
    }


def _compare_tracks(bundle: Bundle, tracks: TrackSet) -> Iterator[_Comparison]:
    """Classify the tracks that the bundle's network was not trained on, in both precisions."""
    both = _quantised(bundle, tracks)
    float32, int8 = _classifier(both, Precision.FLOAT32), _classifier(both, Precision.INT8)
    for track in tracks.named(bundle.card.trained_on["never_seen"]).tracks:
        windows = _windows(bundle, track)
        yield _Comparison(track.genre, _rows(float32, windows), _rows(int8, windows))


def _quantised(bundle: Bundle, tracks: TrackSet) -> Bundle:
    """Return the bundle with a quantised network, calibrated on a window from the middle of every training track."""
    unseen = set(bundle.card.trained_on["never_seen"])
    training = [_windows(bundle, track) for track in tracks.tracks if track.name not in unseen]
    middles = np.stack([windows[len(windows) // 2] for windows in training])
    int8 = quantise(bundle.onnx, middles, input_name=bundle.card.single_input.name)
    # The deviation from the golden outputs is yet to be measured, so any deviation passes the session's self-test.
    spec = Int8Spec(sha256=hashlib.sha256(int8).hexdigest(), tolerance=1.0, metrics={})
    return replace(bundle, int8=int8, card=bundle.card.model_copy(update={"int8": spec}))


def _classifier(bundle: Bundle, precision: Precision) -> Classify:
    session = open_session(bundle, Settings(device=DeviceChoice.CPU, cpu_precision=precision))

    def classify(windows: NDArray[np.float32]) -> NDArray[np.float32]:
        size = session.max_batch
        parts = [session.run(Rows.of(windows[i : i + size])) for i in range(0, len(windows), size)]
        return Rows.joined(parts).arrays[0]

    return classify


def _windows(bundle: Bundle, track: Track) -> NDArray[np.float32]:
    card = bundle.card
    return cut_windows(track, card.single_input.features, card.windows_of(card.single_input), card.audio)


def _rows(classify: Classify, windows: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return probabilities ``[n, n_labels]``; each step of a network that classifies every step is a row."""
    probabilities = classify(windows)
    return probabilities.reshape(-1, probabilities.shape[-1])


def _contract(bundle: Bundle) -> tuple[object, ...]:
    card = bundle.card
    return card.labels, card.audio, card.inputs, card.windows, card.outputs, card.opset, card.metrics["parameters"]
