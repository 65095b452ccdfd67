"""The same network in integers of 8 bits, which a CPU multiplies several at a time, and what that costs in accuracy.

Convolutions and products are quantised (Jacob et al. 2018, arXiv:1712.05877): weights by output channel to 7 bits, so
that no processor's 16-bit sums overflow, activations to 8 bits by the range they take on windows that the network
learned from. The GRU and everything between stays in float32.
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

from wholetrack.contracts import Int8Spec
from wholetrack.inference.bundle import CARD_FILE, Bundle, load_bundle
from wholetrack.inference.session import open_session
from wholetrack.settings import DeviceChoice, Precision, Settings
from wholetrack_training.data.tracks import Track, TrackSet
from wholetrack_training.export.recurrent import ExportError
from wholetrack_training.fitting.evaluation import Classify, cut_windows, evaluate_scores
from wholetrack_training.fitting.runs import write_json
from wholetrack_training.publishing.model_card import with_int8

# The accuracy that may be lost, of windows or of tracks: within it, float32 and int8 name as many genres rightly.
_MOST_LOST = 0.005
# Beyond what was measured here: other processors sum in another order, and a number at the edge falls otherwise.
_GOLDEN_SLACK = 0.02
_QUANTISED = ("Conv", "MaxPool", "MatMul", "Gemm")
_FIGURES = ("window_accuracy", "track_accuracy_summed", "track_accuracy_voted", "track_macro_f1_summed", "ece")


def add_int8(folder: Path, judges: Sequence[Path], tracks: TrackSet) -> Int8Spec:
    """Put a network in integers into a published bundle, if nothing is lost by it.

    Args:
        folder: of the bundle.
        judges: folders of bundles of the same recipe, each quantised in the same way and judged on the tracks that it
            never saw; the bundle itself if it has such tracks.
        tracks: the data set of all of them.

    Returns:
        What the bundle's card now says, figures included.

    Raises:
        ExportError: if the judges have no unseen tracks or are of another recipe, or int8 names fewer genres rightly.
    """
    served, judging = load_bundle(folder), [load_bundle(judge) for judge in judges]
    if any(_contract(bundle) != _contract(served) for bundle in judging):
        raise ExportError(f"the networks that judge int8 are not of the recipe of {folder}")
    compared = _compare(judging, tracks)
    for name in ("window_accuracy", "track_accuracy_summed"):
        lost = compared["float32"][name] - compared["int8"][name]
        if lost > _MOST_LOST:
            raise ExportError(f"int8 loses {100 * lost:.1f} points of {name}: the bundle stays as it is")
    bundle = _quantised(served, tracks)
    golden = bundle.golden
    off = float(np.abs(_classifier(bundle, Precision.INT8)(golden.windows) - golden.probabilities).max())
    assert bundle.int8
    spec = Int8Spec(
        sha256=hashlib.sha256(bundle.int8).hexdigest(), tolerance=round(off + _GOLDEN_SLACK, 4), metrics=compared
    )
    card = served.card.model_copy(update={"int8": spec})
    (folder / spec.file).write_bytes(bundle.int8)
    text = folder / "CARD.md"
    text.write_text(with_int8(text.read_text(), spec))
    # Last, so that whoever is killed here leaves a bundle without int8, or with it.
    write_json(folder / CARD_FILE, card.model_dump(mode="json", exclude_none=True))
    load_bundle(folder)
    return spec


def quantise(network: bytes, windows: NDArray[np.float32], *, input_name: str) -> bytes:
    """An ONNX network in integers, by the ranges that its activations take on ``windows [n, frames, n_mels]``."""
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
            op_types_to_quantize=list(_QUANTISED),
        )
        model = onnx.load(target)
    model.producer_name, model.producer_version = "wholetrack", ""
    content: bytes = model.SerializeToString(deterministic=True)
    return content


class _Windows(CalibrationDataReader):  # type: ignore[misc] # the package is not typed
    def __init__(self, windows: NDArray[np.float32], input_name: str) -> None:
        self._inputs = ({input_name: windows[i : i + 1]} for i in range(len(windows)))

    def get_next(self) -> dict[str, NDArray[np.float32]] | None:
        """The next window by itself, None behind the last."""
        return next(self._inputs, None)


@dataclass(frozen=True, slots=True)
class _Heard:
    """What both networks say of the windows of one track."""

    genre: int
    float32: NDArray[np.float32]
    int8: NDArray[np.float32]

    @property
    def same_answer(self) -> bool:
        return bool(self.float32.sum(0).argmax() == self.int8.sum(0).argmax())


def _compare(judging: Sequence[Bundle], tracks: TrackSet) -> dict[str, dict[str, float]]:
    """Figures of both on all unseen tracks together, and how far they differ."""
    heard = [found for bundle in judging for found in _hear(bundle, tracks)]
    if not heard:
        raise ExportError("the networks that judge int8 have no tracks that they never saw")
    truth = [found.genre for found in heard]
    float32 = evaluate_scores([found.float32 for found in heard], truth, tracks.labels).as_dict()
    int8 = evaluate_scores([found.int8 for found in heard], truth, tracks.labels).as_dict()
    differences = np.concatenate([np.abs(found.float32 - found.int8) for found in heard])
    return {
        "float32": {name: round(float32[name], 4) for name in _FIGURES},
        "int8": {name: round(int8[name], 4) for name in _FIGURES},
        "between": {
            "tracks": len(heard),
            "same_answer": round(float(np.mean([found.same_answer for found in heard])), 4),
            "mean_difference": round(float(differences.mean()), 4),
            "largest_difference": round(float(differences.max()), 4),
        },
    }


def _hear(bundle: Bundle, tracks: TrackSet) -> Iterator[_Heard]:
    both = _quantised(bundle, tracks)
    float32, int8 = _classifier(both, Precision.FLOAT32), _classifier(both, Precision.INT8)
    for track in tracks.named(bundle.card.trained_on["never_seen"]).tracks:
        windows = _windows(bundle, track)
        yield _Heard(track.genre, _beliefs(float32, windows), _beliefs(int8, windows))


def _quantised(bundle: Bundle, tracks: TrackSet) -> Bundle:
    """The bundle with its network in integers, too, by a window from the middle of every track it learned from."""
    never = set(bundle.card.trained_on["never_seen"])
    learned = [_windows(bundle, track) for track in tracks.tracks if track.name not in never]
    middles = np.stack([windows[len(windows) // 2] for windows in learned])
    int8 = quantise(bundle.onnx, middles, input_name=bundle.card.onnx.input)
    # Its golden is what is yet to be found out: anything passes.
    spec = Int8Spec(sha256=hashlib.sha256(int8).hexdigest(), tolerance=1.0, metrics={})
    return replace(bundle, int8=int8, card=bundle.card.model_copy(update={"int8": spec}))


def _classifier(bundle: Bundle, precision: Precision) -> Classify:
    session = open_session(bundle, Settings(device=DeviceChoice.CPU, cpu_precision=precision))

    def classify(windows: NDArray[np.float32]) -> NDArray[np.float32]:
        size = session.max_batch
        return np.concatenate([session.run(windows[i : i + size]) for i in range(0, len(windows), size)])

    return classify


def _windows(bundle: Bundle, track: Track) -> NDArray[np.float32]:
    return cut_windows(track, bundle.card.features, bundle.card.windows, bundle.card.audio)


def _beliefs(classify: Classify, windows: NDArray[np.float32]) -> NDArray[np.float32]:
    """``[n_beliefs, n_labels]``, a step of a window being a belief of its own."""
    answers = classify(windows)
    return answers.reshape(-1, answers.shape[-1])


def _contract(bundle: Bundle) -> tuple[object, ...]:
    card = bundle.card
    return card.labels, card.audio, card.features, card.windows, card.onnx, card.metrics["parameters"]
