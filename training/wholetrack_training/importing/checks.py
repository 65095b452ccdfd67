"""Runs an imported network on windows of sound, and checks that its outputs are what the card says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray

from wholetrack_training.errors import NetworkImportError
from wholetrack_training.importing.draft import Draft
from wholetrack_training.importing.graph import produced_by
from wholetrack_training.importing.layouts import Layout
from wholetrack_training.importing.network_files import Network

Outputs = Mapping[str, NDArray[np.float32]]

_SUM_TOLERANCE = 1e-3
# Severity of onnxruntime's own log.
_FATAL = 4
# Kernels add in another order for another size of the batch, and frameworks differ in the same way.
_TOLERANCE = 1e-4


def open_network(model: onnx.ModelProto, draft: Draft) -> ort.InferenceSession:
    """Open a network on the CPU.

    Raises:
        NetworkImportError: If onnxruntime does not accept it.
    """
    options = ort.SessionOptions()
    # Errors are raised as exceptions as well, and shapes are checked below.
    options.log_severity_level = _FATAL
    try:
        return ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime raises several classes without a common base
        raise _does_not_run(draft, error) from error


def run_network(session: ort.InferenceSession, draft: Draft, windows: Sequence[NDArray[np.float32]]) -> Outputs:
    """Run a network, and check the shapes of its outputs.

    Args:
        session: The network.
        draft: The card.
        windows: Windows of each input, ``[n, frames, n_mels]``.

    Returns:
        The outputs by name, in the order of the card.

    Raises:
        NetworkImportError: If onnxruntime cannot run the network, or an output has another shape or is not finite.
    """
    card, n_windows = draft.card, len(windows[0])
    feed = {entry.name: array for entry, array in zip(card.inputs, windows, strict=True)}
    try:
        found = session.run(list(card.outputs.names), feed)
    except Exception as error:
        raise _does_not_run(draft, error) from error
    outputs = dict(zip(card.outputs.names, map(np.asarray, found), strict=True))
    for (name, output), shape in zip(outputs.items(), card.output_shapes, strict=True):
        if output.shape != (n_windows, *shape):
            raise NetworkImportError(
                f"the output {name!r} of the network has the shape {_shown(output.shape)}, and the card describes "
                f"{_shown((n_windows, *shape))}: correct the number of labels, tags or components, or the network"
            )
        if output.dtype != np.float32:
            raise NetworkImportError(f"the output {name!r} of the network is {output.dtype}, not float32: convert it")
        if not np.isfinite(output).all():
            raise NetworkImportError(f"the output {name!r} of the network contains values that are not numbers")
    return outputs


def check_outputs(
    session: ort.InferenceSession, model: onnx.ModelProto, draft: Draft, windows: Sequence[NDArray[np.float32]]
) -> None:
    """Check that outputs are logits or probabilities as the card says, and do not depend on the rest of the batch.

    Args:
        session: The network.
        model: Its graph.
        draft: The card.
        windows: At least two windows of each input.

    Raises:
        NetworkImportError: If that is not the case.
    """
    together = run_network(session, draft, windows)
    for i in range(len(windows[0])):
        alone = run_network(session, draft, [array[i : i + 1] for array in windows])
        for name, output in together.items():
            if not np.allclose(output[i], alone[name][0], rtol=_TOLERANCE, atol=_TOLERANCE):
                raise NetworkImportError(
                    f"the output {name!r} for a window changes with the other windows of its batch, or at random: "
                    "export the network in inference mode, such as network.eval()"
                )
    outputs = draft.card.outputs
    if draft.genre_tags is None:
        _check_scores(outputs.scores.name, outputs.scores.yields, together[outputs.scores.name])
    if outputs.tags:
        _check_tags(model, outputs.tags.name, outputs.tags.yields, together[outputs.tags.name])


def max_difference(
    network: Network, outputs: Outputs, draft: Draft, layouts: Sequence[Layout], windows: Sequence[NDArray[np.float32]]
) -> float | None:
    """Return the largest difference between the outputs of ONNX and of the original network; None if it was ONNX.

    Args:
        network: The network.
        outputs: Outputs of ONNX for the windows.
        draft: The card.
        layouts: Layout of each input of the original network.
        windows: Windows of each input, ``[n, frames, n_mels]``.

    Raises:
        NetworkImportError: If the difference means that the conversion changed the network.
    """
    if network.reference is None:
        return None
    arranged = [layout.arranged(array) for layout, array in zip(layouts, windows, strict=True)]
    original = dict(zip(draft.network_outputs, network.reference(arranged), strict=True))
    worst = 0.0
    for name, expected in original.items():
        # Logits and embeddings may be large.
        scale = max(1.0, float(np.abs(expected).max()))
        worst = max(worst, float(np.abs(outputs[name] - expected).max()) / scale)
    # Not "worst > tolerance": a NaN must fail as well.
    if not worst <= _TOLERANCE:
        raise NetworkImportError(
            f"an output differs by {worst:.2g} between ONNX and {network.format}; the limit is {_TOLERANCE:g}: the "
            "conversion changed the network"
        )
    return worst


def _check_scores(name: str, yields: str, scores: NDArray[np.float32]) -> None:
    within = bool((scores >= -_SUM_TOLERANCE).all() and (scores <= 1 + _SUM_TOLERANCE).all())
    sums = scores.sum(axis=-1, dtype=np.float64)
    are_probabilities = within and bool(np.abs(sums - 1).max() <= _SUM_TOLERANCE)
    if yields == "logits" and are_probabilities:
        raise NetworkImportError(
            f"the output {name!r} sums to 1, so that it has probabilities and not logits: set yields to probabilities"
        )
    if yields == "probabilities" and not are_probabilities:
        advice = (
            "its values are between 0 and 1, as from a sigmoid; describe it as tags, from which the import makes "
            "scores, if several labels may apply at once"
            if within
            else "set yields to logits, if a softmax is missing"
        )
        raise NetworkImportError(
            f"the output {name!r} does not have probabilities that sum to 1, but sums from {sums.min():.3g} to "
            f"{sums.max():.3g}: {advice}"
        )


def _check_tags(model: onnx.ModelProto, name: str, yields: str, tags: NDArray[np.float32]) -> None:
    if yields == "probabilities" and not ((tags >= 0) & (tags <= 1)).all():
        raise NetworkImportError(
            f"the output {name!r} has values from {tags.min():.3g} to {tags.max():.3g}, which are not probabilities: "
            "set yields to logits, if a sigmoid is missing"
        )
    if yields == "logits" and (operator := produced_by(model, name)) in {"Sigmoid", "Softmax"}:
        raise NetworkImportError(
            f"the output {name!r} is the result of {operator}, so that it has probabilities and not logits: set yields "
            "to probabilities"
        )


def _does_not_run(draft: Draft, error: Exception) -> NetworkImportError:
    windows = (f"{entry.frames} frames with {entry.features.n_mels} mel bands" for entry in draft.card.inputs)
    reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return NetworkImportError(f"onnxruntime cannot run the network with windows of {' and '.join(windows)}: {reason}")


def _shown(shape: tuple[int, ...]) -> str:
    return f"[{', '.join(('N', *map(str, shape[1:])))}]"
